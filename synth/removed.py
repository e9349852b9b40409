"""The list of what deduplication removed from a corpus, each document beside the one that was kept for it.

`duplicates/removed.parquet` in the corpus folder. The text of a near duplicate stands in it whole: the refined source
that it came from may be deleted, and a removal that nobody can look at cannot be doubted. That of an exact duplicate
is null, for but for case and white space it is the kept one's, and there can be very many.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from primer.errors import PrimerError
from synth.signatures import Found

REMOVED = "duplicates/removed.parquet"

_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("text", pa.string()),
        pa.field("kept", pa.string(), nullable=False),
        pa.field("kept_corpus", pa.string(), nullable=False),
    ]
)

# A row group ends after so many rows, or characters of long texts.
_GROUP_ROWS = 1024
_GROUP_CHARACTERS = 16_000_000

_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)


class Removed(TypedDict):
    """One removed document.

    `kept` is the identity of the document that stands for it, and `kept_corpus` the corpus that holds that one.
    """

    kind: Literal["exact", "near"]
    similarity: float
    title: str | None
    origin: str | None
    text: str | None
    kept: str
    kept_corpus: str


def removed_row(document: Mapping[str, Any], found: Found, corpus: str, kept: str | None = None) -> Removed:
    """The row of a document that duplicates another one.

    Args:
        document: Its row.
        found: What it duplicates.
        corpus: The corpus that it was meant for.
        kept: Identity of the document that is kept; None: its number in its corpus says it.
    """
    kept_corpus = found.corpus or corpus
    return Removed(
        kind=found.kind,
        similarity=found.similarity,
        title=document["title"],
        origin=document["origin"],
        text=document["text"],
        kept=kept or f"{kept_corpus}-{found.number:06d}",
        kept_corpus=kept_corpus,
    )


class RemovedWriter:
    """Writes the list in constant memory, whole or not at all; a context manager.

    Args:
        corpus: The corpus folder; `duplicates/` in it is created.
    """

    def __init__(self, corpus: Path) -> None:
        self._path = corpus / REMOVED
        self._temporary = self._path.with_name(f".{self._path.name}.tmp")
        self._waiting: list[Removed] = []
        self._characters = 0
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")
        self._writer = pq.ParquetWriter(self._file, _SCHEMA, compression="zstd")
        return self

    def add(self, removed: Removed) -> None:
        """Append one document; the text of an exact duplicate is left away."""
        if removed["kind"] == "exact":
            removed = {**removed, "text": None}
        self._waiting.append(removed)
        self._characters += len(removed["text"] or "")
        if len(self._waiting) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            with self._file:
                if error is None:
                    self._write()
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            if error is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=_SCHEMA))
            self._waiting.clear()
            self._characters = 0


class RemovedReader:
    """The list of a corpus, to look around in. Removed documents are numbered from 1.

    Args:
        corpus: The corpus folder.

    Attributes:
        total: How many there are.

    Raises:
        PrimerError: If the list is missing or damaged.
    """

    def __init__(self, corpus: Path) -> None:
        self._path = corpus / REMOVED
        with self._opened() as file:
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts = [sum(groups[:place]) for place in range(len(groups))]
        self.total = sum(groups)

    def row(self, number: int) -> Removed:
        """A removed document by its number."""
        group = bisect_right(self._starts, number - 1) - 1
        with self._opened() as file:
            rows = file.read_row_group(group).slice(number - 1 - self._starts[group], 1).to_pylist()
        row: Removed = rows[0]
        return row

    def numbers(self, kind: Literal["exact", "near"] | None = None) -> Iterator[int]:
        """The numbers of all of them, or of those of one kind, in order."""
        with self._opened() as file:
            for group, start in enumerate(self._starts):
                kinds = file.read_row_group(group, columns=["kind"])["kind"].to_pylist()
                yield from (start + place for place, each in enumerate(kinds, 1) if kind in (None, each))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self._path) as file:
                yield file
        except _DAMAGE as error:
            corpus = self._path.parent.parent
            raise PrimerError(
                f"{self._path} cannot be read: {error}", f"Delete {corpus} and run the command again: it is made again."
            ) from None
