"""The journal: every finished answer of the teacher on disk, once, so that no answer is paid for twice.

One JSON object a line, appended and never changed:

    {"key": "<SHA-256>", "tag": "<12 hex>", "reply": {"text", "finish_reason", "prompt_tokens", ...}}
    {"key": "<SHA-256>", "tag": "<12 hex>", "failure": {"status", "reason", "permanent"}}
    {"tag": "<12 hex>", "elapsed": 0.51}

The key is a hash of everything that changes an answer (teacher, messages, sampling settings, seed) and nothing
else, so the journal outlives every change of the recipe. The tag tells which teacher and sampling settings a
line belongs to, for the totals; `elapsed` lines add up to the seconds spent generating, over all runs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError, disk_full
from primer.fingerprint import fingerprint
from primer.recipe import Sampling

# Every record is written at once, so that a killed process loses none. Against a power cut it is flushed to the
# disk as well, a group of records at a time: one flush a reply would make the disk the bottleneck of a fast teacher.
_FLUSH_SECONDS = 0.5
_FLUSH_RECORDS = 64


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
    """What was paid under one tag, over all runs: answers, tokens, and seconds of generating."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass
class _Index:
    """Where each key's record begins: 16 bytes a record, so that a million answers take 16 MB."""

    prefixes: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))

    def sorted(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        prefixes = np.frombuffer(self.prefixes, dtype=np.uint64) if self.prefixes else np.empty(0, np.uint64)
        offsets = np.frombuffer(self.offsets, dtype=np.uint64) if self.offsets else np.empty(0, np.uint64)
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

    Answers that the journal held when it was opened can be looked up; new ones are appended. A thread flushes them
    to the disk, so that the event loop never waits for it.

    Args:
        path: The file; created if absent. A last line that a crash cut short is removed.
        tag: `answer_tag` of the teacher and settings in use: `totals` counts its lines alone.

    Raises:
        PrimerError: If a line is damaged (the file is left as it is) or the file cannot be opened.
    """

    def __init__(self, path: Path, tag: str) -> None:
        self.path, self.tag, self.totals = path, tag, Totals()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise PrimerError(f"{path} cannot be opened: {error}", "Mend its permissions, or choose --run.") from None
        try:
            index, self._size = self._scan()
            os.ftruncate(self._file, self._size)
        except BaseException:
            os.close(self._file)
            raise
        self._prefixes, self._offsets = index.sorted()
        self._wake = threading.Condition()  # holds the file's end, and what follows
        self._unflushed = 0
        self._timing_since: float | None = None
        self._closing = False
        self._error: PrimerError | None = None
        self._flusher = threading.Thread(target=self._flush_groups, name="journal", daemon=True)
        self._flusher.start()

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
        """What the journal held under a key when it was opened; a permanent failure counts, a passing one does not."""
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

    def put(self, key: str, outcome: Reply | Failure) -> None:
        """Record an outcome: written now, on the disk for certain within about half a second.

        Raises:
            PrimerError: If it, or an earlier one, could not be written; the file holds whole records all the same.
        """
        kind = "reply" if isinstance(outcome, Reply) else "failure"
        if isinstance(outcome, Reply):
            self._count(asdict(outcome))
        with self._wake:
            if self._error is None:
                self._append({"key": key, "tag": self.tag, kind: asdict(outcome)})
            if self._error is not None:
                raise self._error
            self._unflushed += 1
            if self._unflushed in (1, _FLUSH_RECORDS):
                self._wake.notify()

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
        os.close(self._file)
        if self._error is not None:
            raise self._error

    def _scan(self) -> tuple[_Index, int]:
        """Check every line; where the records begin, and where the last whole line ends."""
        index, offset = _Index(), 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                record = _parse(line)
                if record is None:
                    raise PrimerError(
                        f"{self.path}, line {number}: the record is damaged: {line[:60]!r}. Nothing was changed.",
                        f"Remove the line (sed -i '{number}d' {self.path}); its answer alone will be asked for again.",
                    )
                if "key" in record:
                    index.prefixes.append(int(record["key"][:16], 16))
                    index.offsets.append(offset)
                if record["tag"] == self.tag:
                    self.totals.seconds += record.get("elapsed", 0.0)
                    if "reply" in record:
                        self._count(record["reply"])
                offset += len(line)
        return index, offset

    def _count(self, reply: dict[str, Any]) -> None:
        self.totals.replies += 1
        self.totals.prompt_tokens += reply["prompt_tokens"] or 0
        self.totals.completion_tokens += reply["completion_tokens"] or 0

    def _read(self, offset: int) -> dict[str, Any]:
        chunks, chunk = bytearray(), b""
        while b"\n" not in chunk:
            chunk = os.pread(self._file, 16_384, offset + len(chunks))
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
    """A line as a record, or None if it is not one."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record["tag"], str):
            return None
        if "elapsed" in record:
            return record if isinstance(record["elapsed"], float | int) else None
        int(record["key"][:16], 16)
        (Reply(**record["reply"]) if "reply" in record else Failure(**record["failure"]))
    except (ValueError, TypeError, KeyError):
        return None
    return record if len(record["key"]) == 64 else None
