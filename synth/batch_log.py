"""The batches of a run folder: an append-only log beside the journal, and a file with the requests of each.

One JSON object a line; what is about to be done is written before it is done, so that a process killed at any moment
leaves enough to go on:

    {"batch": "<label>", "event": "intended", "tag": "<12 hex>", "address": ..., "requests": 800, "at": 1763.., ...}
    {"batch": "<label>", "event": "uploaded", "file": "file-..."}
    {"batch": "<label>", "event": "created", "id": "batch_..."}
    {"batch": "<label>", "event": "ended", "how": "collected"}

A batch that was intended and has not ended is under way, or never came to be: the provider's list of batches tells,
which carry their label. The file of requests goes when the batch has ended.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.errors import PrimerError, disk_full
from synth.units import Question


@dataclass
class Batch:
    """A batch that has not ended.

    Attributes:
        label: Its name here, which the provider keeps with it.
        tag: Teacher and sampling settings of its requests (`synth.journal.answer_tag`).
        address: Where it was sent.
        requests: How many there are in it.
        limit: The name that they give the longest reply (`max_tokens` or `max_completion_tokens`).
        at: When it was intended, in seconds since 1970.
        file: The provider's name of the uploaded requests, once there is one.
        id: The provider's name of the batch, once there is one.
    """

    label: str
    tag: str
    address: str
    requests: int
    limit: str
    at: float
    file: str | None = None
    id: str | None = None


class BatchLog:
    """What is known of batches, across runs.

    Args:
        path: The log; created with the first batch. A last line that a crash cut short is removed. The files of
            requests lie in the folder of the same name.

    Attributes:
        pending: Batches that have not ended, by label, in the order of their beginning.
        limits: What the latest batch called the longest reply, by tag.

    Raises:
        PrimerError: If a line is damaged; nothing is changed then.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, path.with_suffix("")
        self.pending: dict[str, Batch] = {}
        self.limits: dict[str, str] = {}
        if path.exists():
            self._read()
        for file in self._folder.glob("*"):
            if file.name.split(".")[0] not in self.pending:  # of a process killed just before or after
                file.unlink()

    def intend(self, lines: Sequence[bytes], tag: str, address: str, limit: str) -> Batch:
        """Keep the requests of a batch that is about to be sent."""
        label = secrets.token_hex(8)
        with _explained(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.requests(label).open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        batch = Batch(label, tag, address, len(lines), limit, time.time())
        known = {name: value for name, value in vars(batch).items() if name not in ("label", "file", "id")}
        self._append({"batch": label, "event": "intended", **known})
        self.pending[label] = batch
        return batch

    def uploaded(self, batch: Batch, file: str) -> None:
        """The requests are with the provider."""
        self._append({"batch": batch.label, "event": "uploaded", "file": file})
        batch.file = file

    def created(self, batch: Batch, identity: str) -> None:
        """The provider works on it."""
        self._append({"batch": batch.label, "event": "created", "id": identity})
        batch.id = identity

    def ended(self, batch: Batch, how: str) -> None:
        """Nothing more will come of it, and what came is in the journal."""
        self._append({"batch": batch.label, "event": "ended", "how": how})
        del self.pending[batch.label]
        for file in (self.requests(batch.label), self.download(batch.label)):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # others are under way
            self._folder.rmdir()

    def requests(self, label: str) -> Path:
        """The file with a batch's requests."""
        return self._folder / f"{label}.jsonl"

    def download(self, label: str) -> Path:
        """Where a batch's answers are kept until they are in the journal."""
        return self._folder / f"{label}.answers.jsonl"

    def questions(self, batch: Batch) -> Iterator[tuple[str, Question]]:
        """What a batch asks, by the key of each answer.

        Raises:
            PrimerError: If the file of its requests is missing or damaged.
        """
        path = self.requests(batch.label)
        try:
            with path.open("rb") as file:
                for line in file:
                    request = json.loads(line)
                    body = request["body"]
                    yield request["custom_id"], Question(body["messages"], body["seed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrimerError(f"{path} cannot be read: {error!r}", f"Restore it, or {self.give_up(batch)}") from None

    def give_up(self, batch: Batch) -> str:
        """How a person makes Primer forget a batch."""
        return (
            f"give the batch up: remove the lines with {batch.label} from {self._path}. "
            "What it asked is asked, and paid, again."
        )

    def _read(self) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise PrimerError(
                    f"{self._path}, line {number}: the record is damaged: {line[:60]!r}. Nothing was changed.",
                    "Restore the file, or remove the line: a batch that it tells of is then forgotten, and what it "
                    "asked is asked, and paid, again.",
                ) from None
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))

    def _take(self, record: dict[str, Any]) -> None:
        label, event = record.pop("batch"), record.pop("event")
        if event == "intended":
            self.pending[label] = Batch(label, **record)
            self.limits[record["tag"]] = record["limit"]
        elif event == "uploaded":
            self.pending[label].file = record["file"]
        elif event == "created":
            self.pending[label].id = record["id"]
        elif event == "ended":
            del self.pending[label]
        else:
            raise ValueError(event)

    def _append(self, record: dict[str, Any]) -> None:
        with _explained(self._path), self._path.open("ab") as file:
            size = file.tell()
            try:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
            except OSError:
                os.truncate(self._path, size)  # half a record would be a damaged line for the next one
                raise
            os.fsync(file.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what a failure to write means."""
    try:
        yield
    except OSError as error:
        full = disk_full(error)
        raise PrimerError(
            f"The disk is full: {path} cannot grow." if full else f"{path} cannot be written: {error}",
            f"{'Free some space' if full else 'Mend the cause'} and run the same command again: batches under way are "
            "collected, nothing is paid twice.",
        ) from None
