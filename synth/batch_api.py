"""The provider's side of batches: files up and down, batches made and looked at, and what their failures mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from primer.errors import PrimerError, disk_full
from synth.backend import RequestError
from synth.endpoint import EndpointBackend

if TYPE_CHECKING:
    from openai.types import Batch as RemoteBatch

T = TypeVar("T")

# What a batch carries at the provider to be known again by.
_MARK = "primer_batch"

# Statuses in which nothing more will come (OpenAI's API reference of batches).
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

# A trouble that only a person can mend.
FINAL = frozenset({"authentication", "quota", "model"})

_NO_SUCH_THING = (404, 405, 501)
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # between two tries of one request to the provider

_DAY = 86_400  # the clocks of two machines differ by less


@dataclass(frozen=True)
class Pace:
    """How patiently batches are watched, in seconds.

    Attributes:
        first: Before the first look at a batch; half as much again before each further one.
        longest: At most.
        settling: After this, a batch that was made is in the provider's list.
    """

    first: float = 10.0
    longest: float = 180.0
    settling: float = 30.0


class TooLargeError(Exception):
    """The provider does not take a file of this size."""


class BatchApi:
    """Asks a provider for batches; what fails in passing is tried again.

    Args:
        backend: The endpoint.
        patience: Seconds of failing after which it is given up.
        pace: See there.
    """

    def __init__(self, backend: EndpointBackend, patience: float, pace: Pace) -> None:
        self._backend, self._api, self._patience, self._pace = backend, backend.api, patience, pace

    async def upload(self, path: Path) -> str:
        """Send a file of requests; returns the provider's name of it.

        Raises:
            TooLargeError: If it is too large for the provider.
            PrimerError: If there is no Batch API, or it refuses.
        """

        async def send() -> str:
            return self._name(await self._api.files.create(file=path, purpose="batch"))

        return await self._call(send, "a file of requests")

    async def create(self, file: str, label: str, since: float) -> str:
        """Have the requests of a file answered, once; returns the provider's name of the batch.

        Raises:
            PrimerError: If the provider refuses.
        """
        unsure = False

        async def make() -> str:
            nonlocal unsure
            if unsure:  # it may have been made all the same
                await asyncio.sleep(self._pace.settling)
                if (found := await self.find(label, since)) is not None:
                    return found
            unsure = True
            try:
                batch = await self._api.batches.create(
                    input_file_id=file,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={_MARK: label, "by": "primer"},
                )
            except Exception as error:
                unsure = self._backend.error_of(error).trouble not in ("rate_limit", "request")
                raise
            return self._name(batch)

        return await self._call(make, "a batch")

    async def find(self, label: str, since: float) -> str | None:
        """The provider's name of the batch with this label, if there is one.

        Args:
            label: It was made with.
            since: When it was made, at the earliest.
        """

        async def search() -> str | None:
            async for batch in self._api.batches.list(limit=100):  # the newest first
                if (batch.metadata or {}).get(_MARK) == label:
                    return batch.id
                if batch.created_at < since - _DAY:
                    break
            return None

        return await self._call(search, "its list of batches")

    async def look(self, identity: str, give_up: str) -> RemoteBatch:
        """How a batch is doing.

        Args:
            identity: The provider's name of it.
            give_up: What to do where it is unknown.
        """

        async def retrieve() -> RemoteBatch:
            batch = await self._api.batches.retrieve(identity)
            self._name(batch)
            return batch

        unknown = PrimerError(
            f"The endpoint {self._backend.name} does not know the batch {identity}, which was made there.",
            f"Use the key that it was made with, or {give_up}",
        )
        return await self._call(retrieve, f"the batch {identity}", unknown)

    async def cancel(self, identity: str) -> None:
        """Let a batch end with what is answered by now, where that is possible."""
        try:
            await self._api.batches.cancel(identity)
        except Exception as error:
            if self._backend.error_of(error).trouble in FINAL - {"model"}:
                raise self._backend.explain(self._backend.error_of(error)) from None

    async def download(self, identity: str, file: str, path: Path, give_up: str) -> None:
        """Fetch a file of answers, without holding it in memory."""

        async def fetch() -> None:
            async with self._api.files.with_streaming_response.content(file) as response:
                with path.open("wb") as target:
                    async for chunk in response.iter_bytes():
                        target.write(chunk)

        missing = PrimerError(
            f"The file {file} with answers of the batch {identity} is not at {self._backend.name} any more.",
            f"If it is lost, {give_up}",
        )
        await self._call(fetch, f"the file {file}", missing)

    def error(self, status: int | None, details: Any) -> RequestError:
        """What the error of one request of a batch, or of a batch, means.

        Args:
            status: HTTP status.
            details: The error object that came with it: code and message.
        """
        import httpx2
        import openai

        details = details if isinstance(details, dict) else {"message": str(details)}
        inner = details.get("error")
        details = inner if isinstance(inner, dict) else details
        code = details.get("code")
        if code in _NO_MONEY:
            details = {**details, "code": "insufficient_quota"}
        message = details.get("message") or code or "no reason given"
        content = json.dumps({"error": {**details, "message": message}}).encode()
        status = status if isinstance(status, int) and 100 <= status < 600 else 500
        response = httpx2.Response(status, content=content, request=httpx2.Request("POST", self._backend.name))
        return self._backend.error_of(openai.APIStatusError(str(message), response=response, body=details))

    async def _call(self, action: Callable[[], Awaitable[T]], about: str, missing: PrimerError | None = None) -> T:
        """Try an action until it succeeds, refuses for good, or patience ends."""
        failing_since, pause = None, _FIRST_PAUSE
        while True:
            try:
                return await action()
            except (PrimerError, TooLargeError):
                raise
            except Exception as raised:
                if disk_full(raised):
                    raise
                error = self._backend.error_of(raised)
                if getattr(raised, "code", None) in _NO_MONEY:
                    error = RequestError("quota", error.failure)
            self._stop_where_final(error, about, missing)
            now = time.monotonic()
            failing_since = failing_since or now
            if now + (error.retry_after or 0.0) - failing_since > self._patience:
                raise self._backend.explain(error)
            await asyncio.sleep(max(pause, error.retry_after or 0.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _stop_where_final(self, error: RequestError, about: str, missing: PrimerError | None) -> None:
        where, status, reason = self._backend.name, error.failure.status, error.failure.reason
        if status in _NO_SUCH_THING:
            raise missing or PrimerError(
                f"The endpoint {where} has no Batch API, or not the whole of it ({about}: {reason}).",
                "Ask it request by request: --set synth.teacher.batch=false",
            )
        if status == 413:
            raise TooLargeError(reason)
        if error.trouble in FINAL or error.trouble == "garbage":
            raise self._backend.explain(error)
        if error.trouble == "request":
            raise PrimerError(
                f"The endpoint {where} refused {about}: {reason}",
                "Mend what it names and run the same command again: nothing is paid twice.",
            )

    def _name(self, thing: Any) -> str:
        name = getattr(thing, "id", None)
        if not isinstance(name, str) or not name:
            raise self._backend.error_of(ValueError(f"no name in {str(thing)[:80]!r}"))
        return name


def read_answers(path: Path, identity: str, file: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a downloaded file.

    Raises:
        PrimerError: If a line is no row of a batch's answers.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                row["custom_id"], row.get("response"), row.get("error")
            except (ValueError, LookupError, TypeError, AttributeError):
                raise PrimerError(
                    f"Line {number} of the file {file}, with answers of the batch {identity}, is damaged: "
                    f"{line[:60]!r}",
                    "The lines before it are kept. Run the same command again: the file is fetched again.",
                ) from None
            yield row
