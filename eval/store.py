"""Answers that are kept: by the model's weights, the task and the item, so that nothing is asked twice.

One folder for each model and task holds Parquet files; a few seconds' answers are written at a time, whole or not at
all. A rerun reads them and asks what is missing. An answer holds for a row as it was asked: a row that has changed
under the same name is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from eval.item_files import ITEM_SCHEMA, write_table
from primer.fingerprint import file_hash, fingerprint
from primer.progress import say

# A row that cannot be asked of a model, such as a sentence of one token, of which there is no perplexity.
_LEFT_OUT = "left out"

_KEYS = ("weights", "task", "row")
_SCHEMA = pa.schema([*(pa.field(key, pa.string(), nullable=False) for key in _KEYS), *ITEM_SCHEMA])

# Enough of a hash for a folder's name; the whole stands in the files.
_SHORT = 16

# What decides a model's answers: weights, shape, and the tokenizer, in its many files.
_MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")
_NOT_THE_MODEL = ("manifest.json", "training.json", "README.md")

Item = dict[str, Any]


def model_hash(folder: Path) -> str:
    """Hash of all files of a model folder that decide its answers."""
    paths = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    return fingerprint({path.name: file_hash(path) for path in paths if path.name not in _NOT_THE_MODEL})


def row_hash(row: Mapping[str, Any]) -> str:
    """Hash of a row as it is asked."""
    return fingerprint(dict(row))


class Answers:
    """The kept answers of one model to one task.

    Args:
        folder: Of all kept answers, such as `runs/NAME/scores`.
        weights: Hash of the model (`model_hash`).
        suite: Name of the suite, for people who look.
        task: Hash of how it is asked.
    """

    def __init__(self, folder: Path, weights: str, suite: str, task: str) -> None:
        self._folder = folder / weights[:_SHORT] / f"{suite}-{task[:_SHORT]}"
        self._weights, self._task = weights, task
        self._kept: dict[str, tuple[str, Item]] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            self._kept.update(self._read(path))
        self._parts = sorted(self._folder.glob("*.parquet"))

    def missing(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The rows that have no answer yet."""
        return [row for row in rows if self._kept.get(row["id"], ("", {}))[0] != row_hash(row)]

    def items(self, rows: Iterable[Mapping[str, Any]]) -> list[Item]:
        """The answers to rows that have one, in the rows' order; a row that could not be asked has none."""
        found = (self._kept[row["id"]][1] for row in rows if row["id"] in self._kept)
        return [item for item in found if item["kind"] != _LEFT_OUT]

    def keep(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Item]) -> None:
        """Write the answers to some rows; a row without an item among them is not asked again either."""
        answered = {item["item"]: item for item in items}
        fresh = {
            row["id"]: (
                row_hash(row),
                answered.get(row["id"], {"kind": _LEFT_OUT, "suite": "", "item": row["id"]}),
            )
            for row in rows
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        number = int(self._parts[-1].stem) + 1 if self._parts else 0
        self._parts.append(self._write(fresh, number))
        self._kept.update(fresh)

    def gather(self) -> None:
        """Put many small files together into one."""
        if len(self._parts) > 1:
            whole = self._write(self._kept, int(self._parts[-1].stem) + 1)
            for path in self._parts:
                path.unlink()
            self._parts = [whole]

    def _write(self, kept: Mapping[str, tuple[str, Item]], number: int) -> Path:
        rows = [{"weights": self._weights, "task": self._task, "row": row, **item} for row, item in kept.values()]
        path = self._folder / f"{number:06d}.parquet"
        write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA))
        return path

    def _read(self, path: Path) -> dict[str, tuple[str, Item]]:
        try:
            table = pq.read_table(path, schema=_SCHEMA, partitioning=None)
        except (OSError, pa.ArrowException, ValueError) as error:
            # The answers in it are asked again: nothing but time is lost.
            say(f"{escape(str(path))} is damaged and set aside: {escape(str(error).splitlines()[0])}")
            path.replace(path.with_suffix(".damaged"))
            return {}
        found: dict[str, tuple[str, Item]] = {}
        for row in table.to_pylist():
            if (row["weights"], row["task"]) == (self._weights, self._task):
                item = {key: value for key, value in row.items() if value is not None and key not in _KEYS}
                found[item["item"]] = (row["row"], item)
        return found
