"""The document: one Arrow schema for every source, its identity, and Parquet input and output.

A corpus folder holds shards of two splits: `train-00000.parquet`, `train-00001.parquet`, ...,
`held_out-00000.parquet`, ...; `datasets.load_dataset(folder)` reads both.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from primer.errors import PrimerError

PROVENANCE = pa.struct(
    [
        ("prompt_index", pa.int64()),
        ("prompt", pa.string()),
        ("topic_id", pa.string()),
        ("topic", pa.string()),
        ("field", pa.string()),
        ("form", pa.string()),
        ("audience", pa.string()),
        ("level", pa.string()),
        ("length", pa.string()),
        ("register", pa.string()),
        ("language", pa.string()),
        ("required_words", pa.list_(pa.string())),
        ("words_used", pa.int64()),
        ("snippet_id", pa.string()),
        ("snippet_copied", pa.float64()),
        ("snippet_longest_run", pa.int64()),
        ("steps", pa.int64()),
        ("teacher", pa.string()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("max_tokens", pa.int64()),
        ("frequency_penalty", pa.float64()),
        ("presence_penalty", pa.float64()),
        ("seed", pa.int64()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("seconds", pa.float64()),
        ("tries", pa.int64()),
        ("continuations", pa.int64()),
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("quality", pa.float64()),
        pa.field("toxicity", pa.float64()),
        pa.field("masked", pa.int64()),
        pa.field("provenance", PROVENANCE),
    ]
)

# Enters the fingerprint of every corpus: one of an earlier layout is made again.
LAYOUT = {"corpus layout": "screened shards"}

SPLITS = ("train", "held_out")

# A row group, what is written and read at a time, ends after so many rows, or characters of long texts.
_GROUP_ROWS = 1024
_GROUP_CHARACTERS = 16_000_000

# A shard ends with the row group that brings it here. The hub advises files of a few hundred megabytes
# (https://huggingface.co/docs/hub/repositories-recommendations, and its splits are read in parallel by file).
_SHARD_BYTES = 256 * 2**20

# What a corpus folder may hold of an earlier build, the one file a split of earlier versions too.
_ANY_SHARD = re.compile(r"(train|held_out)(-\d+)?\.parquet")

_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)


class Document(TypedDict):
    """One row.

    `group` is what must not be divided between training and held-out text: the topic of a synthetic
    document, the article of a web document, the file of a piece of code. `quality` is the probability of being
    educational by the recipe's filter, `toxicity` the screen's score, `masked` the number of places with personal data
    that were masked; each is null where the recipe does not ask for it. `provenance` is null for text
    that no teacher wrote; in it, `tries` is how often a rejected reply was asked for again, and `continuations` how
    many requests went on with a reply that was cut short.
    """

    id: str
    text: str
    source: str
    hash: str
    group: str
    title: NotRequired[str | None]
    origin: NotRequired[str | None]
    licence: NotRequired[str | None]
    quality: NotRequired[float | None]
    toxicity: NotRequired[float | None]
    masked: NotRequired[int | None]
    provenance: NotRequired[dict[str, Any] | None]


def is_held_out(group: str, share: float, seed: int) -> bool:
    """Whether a group belongs to the held-out split: a pure function of the group, at the given share."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class CorpusWriter:
    """Divides documents into the two splits and writes them as shards, in constant memory; a context manager.

    Where it is left without an error, both splits are whole on the disk; else no file of it remains.

    Args:
        folder: An existing folder; shards that an interrupted build left in it are removed.
        held_out_share: Share of the groups that are held out.
        seed: Seed of that choice.

    Attributes:
        counts: Number of documents and of characters by split, so far: `{"train_documents": ..., ...}`.
    """

    def __init__(self, folder: Path, held_out_share: float, seed: int) -> None:
        self.counts = {f"{split}_{what}": 0 for split in SPLITS for what in ("documents", "characters")}
        self._folder, self._share, self._seed = folder, held_out_share, seed
        self._splits = {split: ShardWriter(folder, split) for split in SPLITS}

    def __enter__(self) -> Self:
        self._remove()
        return self

    def add(self, document: Document) -> None:
        """Write one document, or keep it until there are enough to write at once."""
        split = "held_out" if is_held_out(document["group"], self._share, self._seed) else "train"
        self._splits[split].add(document)
        self.counts[f"{split}_documents"] += 1
        self.counts[f"{split}_characters"] += len(document["text"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._check()
                for writer in self._splits.values():
                    writer.finish()
                return
        except BaseException:
            self._abandon()
            raise
        self._abandon()

    def _check(self) -> None:
        for split in SPLITS:
            if not self.counts[f"{split}_documents"]:
                total = sum(self.counts[f"{each}_documents"] for each in SPLITS)
                change = "a larger" if split == "held_out" else "a smaller"
                raise PrimerError(
                    f"{_corpus_name(self._folder)}: the {split} split would be empty ({total} documents in all).",
                    f"Take more text (synth.tokens, web.characters, code.characters), or {change} "
                    f"corpus.held_out_share (now {self._share:g}), or another seed, which holds out other texts.",
                )

    def _abandon(self) -> None:
        for writer in self._splits.values():
            with suppress(*_DAMAGE):  # of a full disk the first error tells
                writer.close()
        self._remove()

    def _remove(self) -> None:
        for path in self._folder.iterdir():
            if _ANY_SHARD.fullmatch(path.name):
                path.unlink()


class ShardWriter:
    """Writes documents as shards of a few hundred megabytes, `<prefix>-00000.parquet` and so on, one open at a time.

    Args:
        folder: An existing folder.
        prefix: What the shards' names begin with.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._waiting: list[Document] = []
        self._characters = self._shards = 0
        self._file: Any = None
        self._writer: Any = None

    def add(self, document: Document) -> None:
        """Write one document, or keep it until there are enough to write at once."""
        self._waiting.append(document)
        self._characters += len(document["text"])
        if len(self._waiting) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._write()

    def finish(self) -> None:
        """Write what waits, and close; without a document there is no shard."""
        if self._waiting:
            self._write()
        self.close()

    def _write(self) -> None:
        if self._file is None:
            self._file = (self._folder / f"{self._prefix}-{self._shards:05d}.parquet").open("wb")
            self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd")
            self._shards += 1
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=SCHEMA))
        self._waiting.clear()
        self._characters = 0
        if self._file.tell() >= _SHARD_BYTES:
            self.close()

    def close(self) -> None:
        """Close the open shard, without what waits."""
        if self._file is None:
            return
        file, writer, self._file, self._writer = self._file, self._writer, None, None
        with file:
            if writer is not None:
                writer.close()
            file.flush()
            os.fsync(file.fileno())


def write_corpus(folder: Path, documents: Iterable[Document], held_out_share: float, seed: int) -> dict[str, int]:
    """Divide a stream of documents into the two splits and write a corpus folder; see :class:`CorpusWriter`.

    Returns:
        Number of documents and of characters by split: `{"train_documents": ..., "train_characters": ..., ...}`.

    Raises:
        PrimerError: If either split would be empty.
    """
    with CorpusWriter(folder, held_out_share, seed) as writer:
        for document in documents:
            writer.add(document)
    return writer.counts


@dataclass(frozen=True, slots=True)
class Block:
    """One row group of a shard: the least that is read at once.

    Attributes:
        path: The shard.
        group: Number of the row group in it.
        first: Place of its first row in the corpus (training text, then held-out text), from 0.
        rows: How many rows it has.
        ids: Smallest and largest identity in it, where the file says so.
    """

    path: Path
    group: int
    first: int
    rows: int
    ids: tuple[str, str] | None

    def read(self, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """Its rows.

        Raises:
            PrimerError: If the file is missing or damaged.
        """
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            found: list[dict[str, Any]] = file.read_row_group(self.group, columns=columns).to_pylist()
            return found


def corpus_blocks(folder: Path) -> list[Block]:
    """The row groups of a corpus folder, in order; only the shards' last bytes are read.

    Raises:
        PrimerError: If a file is missing or no Parquet.
    """
    blocks: list[Block] = []
    first = 0
    for split in SPLITS:
        for path in _shards(folder, split):
            with _reading(path):
                about = pq.read_metadata(path)
            for group in range(about.num_row_groups):
                described = about.row_group(group)
                known = described.column(0).statistics  # `id` is the first column
                ids = (known.min, known.max) if known is not None and known.has_min_max else None
                blocks.append(Block(path, group, first, described.num_rows, ids))
                first += described.num_rows
    return blocks


def read_documents(folder: Path, split: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of one split of a corpus folder, shard by shard.

    Raises:
        PrimerError: If a file is missing or no Parquet.
    """
    yield from read_shards(_shards(folder, split), columns)


def read_shards(paths: Iterable[Path], columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of some shards.

    Raises:
        PrimerError: If a file is missing or no Parquet.
    """
    for path in paths:
        with _reading(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_GROUP_ROWS, columns=columns):
                yield from batch.to_pylist()


def sample_documents(folder: Path, count: int, blocks: int, seed: int, columns: list[str]) -> list[dict[str, Any]]:
    """Random rows of a corpus folder, read from at most so many of its blocks of 1,024; all rows of a small corpus.

    Raises:
        PrimerError: If a file is missing or no Parquet.
    """
    rows: list[dict[str, Any]] = []
    places = corpus_blocks(folder)
    generator = random.Random(seed)
    chosen = sorted(generator.sample(range(len(places)), min(blocks, len(places))))
    for place in chosen:
        found = places[place].read(columns)
        rows.extend(generator.sample(found, min(len(found), -(-count // len(chosen)))))
    return rows


def _shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split in order, of which there must be one, and none may be missing in between."""
    found = {int(path.stem.rpartition("-")[2]): path for path in folder.glob(f"{split}-[0-9]*.parquet")}
    for number in range(max(found, default=0) + 1):
        if number not in found:
            path = folder / f"{split}-{number:05d}.parquet"
            raise PrimerError(f"{path} is missing.", _remedy(folder))
    return [found[number] for number in sorted(found)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file is damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise PrimerError(f"{path} cannot be read: {error}", _remedy(path.parent)) from None


def _corpus_name(folder: Path) -> str:
    """The stage that writes here, as people know it: the folder of an unfinished one is corpus-code-4765f5b8aeef."""
    name = re.sub(r"-[0-9a-f]{12}$", "", folder.name)
    return folder.name if name == folder.name else name.replace("-", "/", 1)


def _remedy(folder: Path) -> str:
    return f"Delete {folder} and run `primer synth`: the corpus is made again."
