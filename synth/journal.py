"""The journal: every finished answer of the teacher on disk, once, so that no answer is paid for twice.

One JSON object a line, appended and never changed:

    {"tag": "<12 hex>", "teacher": "openai:...", "prices": [0.15, 0.6]}
    {"key": "<SHA-256>", "tag": "<12 hex>", "reply": {"text", "finish_reason", "prompt_tokens", ...}}
    {"key": "<SHA-256>", "tag": "<12 hex>", "failure": {"status", "reason", "permanent"}}
    {"tag": "<12 hex>", "elapsed": 0.51}

The key is a hash of everything that changes an answer (teacher, messages, sampling settings, seed) and nothing
else, so the journal outlives every change of the recipe. The tag tells which teacher and sampling settings a
line belongs to, for the totals; `teacher` lines say what its next answers cost (US dollars per million tokens, in
and out); `elapsed` lines add up to the seconds spent generating, over all runs.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError, disk_full
from primer.fingerprint import fingerprint
from primer.recipe_synth import Sampling

# Every record is written at once, so that a killed process loses none. Against a power cut it is flushed to the
# disk as well, a group of records at a time: one flush a reply would make the disk the bottleneck of a fast teacher.
_FLUSH_SECONDS = 0.5
_FLUSH_RECORDS = 64

_KEY = re.compile(r"[0-9a-f]{64}")
_FILE_SHIFT = 48  # files of up to 256 TB, and 65,536 of them


@dataclass(frozen=True)
class Reply:
    """One finished answer. Token counts are the teacher's own; None where the endpoint does not say."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An answer that did not come.

    Attributes:
        status: HTTP status, or None where there was no response.
        reason: For people, in one line.
        permanent: Whether asking again would fail again (HTTP 400), so that a later run does not ask.
    """

    status: int | None
    reason: str
    permanent: bool


@dataclass
class Totals:
    """What was paid under one tag, over all runs: answers, tokens, seconds of generating, dollars where prices are."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    dollars: float | None = None
    prices: tuple[float, float] | None = None

    def count(self, reply: Mapping[str, Any]) -> None:
        """Add an answer, at the prices of its time."""
        paid, written = reply["prompt_tokens"] or 0, reply["completion_tokens"] or 0
        self.replies += 1
        self.prompt_tokens += paid
        self.completion_tokens += written
        if self.prices is not None:
            self.dollars = (self.dollars or 0.0) + (paid * self.prices[0] + written * self.prices[1]) / 1e6


@dataclass
class _Index:
    """Where each key's record begins: 16 bytes a record, so that a million answers take 16 MB.

    An offset's upper 16 bits are the number of the file.
    """

    prefixes: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, key: str, file: int, offset: int) -> None:
        self.prefixes.append(int(key[:16], 16))
        self.offsets.append(file << _FILE_SHIFT | offset)

    def sorted(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        prefixes, offsets = np.array(self.prefixes, np.uint64), np.array(self.offsets, np.uint64)
        order = np.argsort(prefixes, kind="stable")  # stable: of one key's records, the newest comes last
        return prefixes[order], offsets[order]


def answer_key(identity: str, messages: list[dict[str, str]], sampling: Sampling, seed: int) -> str:
    """Hex SHA-256 of everything that changes an answer."""
    return fingerprint(
        {"teacher": identity, "messages": messages, "sampling": sampling.model_dump(mode="json"), "seed": seed}
    )


def answer_tag(identity: str, sampling: Sampling) -> str:
    """Short hash of the teacher and the sampling settings."""
    return fingerprint({"teacher": identity, "sampling": sampling.model_dump(mode="json")})[:12]


class Journal:
    """The replies of one run folder.

    Answers that the journal held when it was opened, or last settled, can be looked up; new ones are appended. A thread
    flushes them to the disk, so that the event loop never waits for it.

    Args:
        path: The file; created if absent. A last line that a crash cut short is removed.
        tag: `answer_tag` of the teacher and settings in use: `totals` counts its lines alone.
        teacher: The teacher's identity.
        prices: US dollars per million prompt and completion tokens, if known.
        others: Journals of other machines, which are read and never written.

    Raises:
        PrimerError: If a line is damaged (the file is left as it is) or the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        tag: str,
        teacher: str = "",
        prices: tuple[float, float] | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        self.path, self.tag = path, tag
        self._by_tag: dict[str, Totals] = {tag: Totals()}
        self._prices_told: dict[str, tuple[float, float] | None] = {}  # by this journal's own file
        self._files: list[int] = []
        self._index = _Index()
        try:
            for other in (path, *others):
                self._open(other, os.O_RDONLY if self._files else os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except BaseException:
            for file in self._files:
                os.close(file)
            raise
        self._file = self._files[0]
        self.settle()
        self._wake = threading.Condition()  # holds the file's end, and what follows
        self._unflushed = 0
        self._timing_since: float | None = None
        self._closing = False
        self._error: PrimerError | None = None
        self._flusher = threading.Thread(target=self._flush_groups, name="journal", daemon=True)
        self._flusher.start()
        # Said before the next answer, so that a run that asks nothing writes nothing.
        news = teacher and (tag not in self._prices_told or self._prices_told[tag] != prices)
        self._introduction = {"tag": tag, "teacher": teacher, "prices": prices} if news else None
        for each, totals in self._by_tag.items():  # those that this file's next answers are counted at
            totals.prices = self._prices_told.get(each)
        if teacher:
            self.totals.prices = prices

    @property
    def totals(self) -> Totals:
        """What was paid under this journal's tag."""
        return self._by_tag[self.tag]

    @property
    def answers(self) -> int:
        """How many it holds, under every tag."""
        return sum(totals.replies for totals in self._by_tag.values())

    def spent(self) -> tuple[float, int]:
        """Dollars and tokens (in and out) paid under every tag: whatever the recipe was at the time."""
        every = self._by_tag.values()
        return sum(t.dollars or 0.0 for t in every), sum(t.prompt_tokens + t.completion_tokens for t in every)

    def settle(self) -> None:
        """Make what was appended since the journal was opened findable."""
        self._prefixes, self._offsets = self._index.sorted()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except PrimerError:
            if error is None:  # else the first error is the one to hear about
                raise

    def get(self, key: str) -> Reply | Failure | None:
        """What the journal held under a key when it was settled; a permanent failure counts, a passing one does not."""
        prefix = np.uint64(int(key[:16], 16))
        at = int(np.searchsorted(self._prefixes, prefix, side="right")) - 1
        while at >= 0 and self._prefixes[at] == prefix:
            record = self._read(int(self._offsets[at]))
            if record["key"] == key:
                if "reply" in record:
                    return Reply(**record["reply"])
                failure = Failure(**record["failure"])
                return failure if failure.permanent else None
            at -= 1
        return None

    def introduce(self) -> None:
        """Say now what the next answers cost, where it may be another run that takes them in.

        Raises:
            PrimerError: If that cannot be written.
        """
        with self._wake:
            self._introduce()
            if self._error is not None:
                raise self._error

    def put(self, key: str, outcome: Reply | Failure, tag: str | None = None) -> None:
        """Record an outcome: written now, on the disk for certain within about half a second.

        Args:
            key: `answer_key` of the question.
            outcome: What came of it.
            tag: Under which it counts, where an earlier recipe has asked; null: this journal's.

        Raises:
            PrimerError: If it, or an earlier one, could not be written; the file holds whole records all the same.
        """
        kind = "reply" if isinstance(outcome, Reply) else "failure"
        tag = tag or self.tag
        record = {"key": key, "tag": tag, kind: vars(outcome)}
        with self._wake:
            self._introduce()
            offset = self._size
            if self._error is None:
                self._append(record)
            if self._error is not None:
                raise self._error
            self._unflushed += 1
            if self._unflushed in (1, _FLUSH_RECORDS):
                self._wake.notify()
        self._index.add(key, 0, offset)
        if isinstance(outcome, Reply):
            self._by_tag.setdefault(tag, Totals()).count(vars(outcome))

    def start_clock(self) -> None:
        """Count the seconds from now on as spent generating."""
        self._timing_since = time.monotonic()

    def close(self) -> None:
        """Flush what was written and close the file.

        Raises:
            PrimerError: If that, or an earlier record, failed.
        """
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._flusher.join()
        for file in self._files:
            os.close(file)
        if self._error is not None:
            raise self._error

    def _open(self, path: Path, flags: int) -> None:
        """Open a file and take in what it holds."""
        try:
            if flags & os.O_CREAT:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._files.append(os.open(path, flags, 0o644))
        except OSError as error:
            raise PrimerError(f"{path} cannot be opened: {error}", "Mend its permissions, or choose --run.") from None
        for totals in self._by_tag.values():  # each file tells its own prices
            totals.prices = None
        size = self._scan(path, len(self._files) - 1)
        if flags & os.O_CREAT:
            self._size = size
            os.ftruncate(self._files[-1], size)

    def _scan(self, path: Path, file_number: int) -> int:
        """Check every line of a file and take it in; returns where the last whole line ends."""
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                record = _parse(line)
                if record is None:
                    raise PrimerError(
                        f"{path}, line {number}: the record is damaged: {line[:60]!r}. Nothing was changed.",
                        f"Remove the line (sed -i '{number}d' {path}); its answer alone will be asked for again.",
                    )
                totals = self._by_tag.setdefault(record["tag"], Totals())
                if "key" in record:
                    self._index.add(record["key"], file_number, offset)
                    if "reply" in record:
                        totals.count(record["reply"])
                elif "elapsed" in record:
                    totals.seconds += record["elapsed"]
                else:
                    totals.prices = tuple(record["prices"]) if record["prices"] else None
                    if file_number == 0:
                        self._prices_told[record["tag"]] = totals.prices
                offset += len(line)
        return offset

    def _read(self, place: int) -> dict[str, Any]:
        file, offset = self._files[place >> _FILE_SHIFT], place & ((1 << _FILE_SHIFT) - 1)
        chunks, chunk = bytearray(), b""
        while b"\n" not in chunk:
            chunk = os.pread(file, 16_384, offset + len(chunks))
            chunks += chunk
            if not chunk:
                break
        record: dict[str, Any] = json.loads(bytes(chunks).split(b"\n", 1)[0])
        return record

    def _flush_groups(self) -> None:
        """Flush as soon as there are many records, or half a second after the first."""
        closing = False
        while not closing:
            with self._wake:
                self._wake.wait_for(lambda: self._unflushed or self._closing)
                self._wake.wait_for(lambda: self._unflushed >= _FLUSH_RECORDS or self._closing, _FLUSH_SECONDS)
                self._note_elapsed()
                self._unflushed, closing = 0, self._closing
            try:
                os.fsync(self._file)
            except OSError as error:
                self._error = self._error or self._explain(error)

    def _introduce(self) -> None:
        if self._introduction is not None and self._error is None:
            self._append(self._introduction)
            self._introduction = None

    def _note_elapsed(self) -> None:
        if self._timing_since is None or self._error is not None:
            return
        now = time.monotonic()
        elapsed, self._timing_since = now - self._timing_since, now
        self.totals.seconds += elapsed
        self._append({"tag": self.tag, "elapsed": round(elapsed, 3)})

    def _append(self, record: dict[str, Any]) -> None:
        """Append a whole record or nothing: half a record would be a damaged line for the next run."""
        data = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            os.ftruncate(self._file, self._size)
            self._error = self._explain(error)
        else:
            self._size += len(data)

    def _explain(self, error: OSError) -> PrimerError:
        if disk_full(error):
            return PrimerError(
                f"The disk is full: {self.path} cannot grow. Every answer written so far is kept.",
                "Free some space and run the same command again: it continues where it stopped.",
            )
        return PrimerError(f"{self.path} cannot be written: {error}", "Mend the cause and run the same command again.")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line as a record, or None if it is not one: every value is what it must be, not only there."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record["tag"], str):
            return None
        if "elapsed" in record:
            return record if _is_amount(record["elapsed"]) else None
        if "prices" in record:
            prices = record["prices"]
            known = isinstance(prices, list) and len(prices) == 2 and all(map(_is_amount, prices))
            return record if prices is None or known else None
        if not _KEY.fullmatch(record["key"]):
            return None
        whole = _is_reply(Reply(**record["reply"])) if "reply" in record else _is_failure(Failure(**record["failure"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if whole else None


def _is_reply(reply: Reply) -> bool:
    counts = (reply.prompt_tokens, reply.completion_tokens)
    words = isinstance(reply.text, str) and isinstance(reply.finish_reason, str)
    return words and all(count is None or _is_count(count) for count in counts) and _is_amount(reply.seconds)


def _is_failure(failure: Failure) -> bool:
    status = failure.status is None or _is_count(failure.status)
    return status and isinstance(failure.reason, str) and isinstance(failure.permanent, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12  # false for what is no number, too
