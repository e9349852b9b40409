"""Logs of a training: JSON Lines, appended as it goes, cut back to the checkpoint when it goes on from one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from primer.errors import PrimerError, disk_full
from primer.progress import say
from primer.run import write_text

TRAINING = "training.jsonl"  # a row a step
VALIDATION = "validation.jsonl"  # a row each time the held-out loss is measured
COMPLETIONS = "completions.jsonl"  # a row a prompt, each time


class TrainingLog:
    """One log, open for appending; every row has its `step`.

    Args:
        folder: Where it lies.
        step: Steps that count; rows after them, which an interrupted run left, are dropped.
        name: Which log.

    Raises:
        PrimerError: If it cannot be written, then and later.
    """

    def __init__(self, folder: Path, step: int, name: str = TRAINING) -> None:
        self._path = folder / name
        lines = self._path.read_bytes().splitlines() if self._path.is_file() else []
        rows = {number: row for number, line in enumerate(lines, 1) if (row := _parsed(line)) is not None}
        kept = {number: row for number, row in rows.items() if row["step"] <= step}
        # Lines torn by a kill come after those that count; others are a fault of the disk or of an editor.
        lost = [number for number in range(1, max(kept, default=0)) if number not in rows]
        if lost:
            said = (
                f"{self._path}: {len(lost)} lines cannot be read, the first of them line {lost[0]}; they are dropped."
            )
            say(f"[yellow]{escape(said)}[/]")
        with self._writing():
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept.values()))
            self._file = self._path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        with self._writing():
            self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Bring all rows to disk; before a checkpoint that counts on them."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()
        finally:
            with self._writing():
                self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = "the disk is full" if disk_full(error) else error.strerror
            raise PrimerError(
                f"{self._path} cannot be written: {why}.",
                "Put that right, then run the same command again: training goes on from its last checkpoint.",
            ) from None


def read_log(folder: Path, name: str = TRAINING) -> list[dict[str, Any]]:
    """The rows of a folder's log; a line that an interruption cut off is left out."""
    path = folder / name
    if not path.is_file():
        return []
    return [row for line in path.read_bytes().splitlines() if (row := _parsed(line)) is not None]


def final_loss(folder: Path) -> float | None:
    """Mean loss of the last tenth of the steps, in nats a token; None if none of them had a finite loss."""
    rows = read_log(folder)
    last = [row["loss"] for row in rows[-max(1, len(rows) // 10) :] if row["loss"] is not None]
    return round(sum(last) / len(last), 4) if last else None


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's row; None if the line is not one."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
