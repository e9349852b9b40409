"""`training.jsonl`: one line a step, appended as training goes, cut back to the checkpoint when it goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "training.jsonl"


class TrainingLog:
    """The log of one training, open for appending.

    Args:
        folder: Where it lies.
        step: Steps that count; what an interrupted run logged after them is dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / NAME
        kept = [json.dumps(row) + "\n" for row in read_log(folder) if row["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Bring all lines to disk; before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a folder's log; a last line cut off by an interruption is left out."""
    path = folder / NAME
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def final_loss(folder: Path) -> float | None:
    """Mean loss of the last tenth of the steps, in nats a token; None if none of them had a finite loss."""
    rows = read_log(folder)
    last = [row["loss"] for row in rows[-max(1, len(rows) // 10) :] if row["loss"] is not None]
    return round(sum(last) / len(last), 4) if last else None
