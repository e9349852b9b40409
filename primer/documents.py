"""The document: one Arrow schema for every source, its identity, and Parquet input and output.

A corpus folder holds `train.parquet` and `held_out.parquet`; `datasets.load_dataset("parquet", ...)` reads both.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NotRequired, TypedDict

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
        ("seed", pa.int64()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("seconds", pa.float64()),
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
        pa.field("provenance", PROVENANCE),
    ]
)

SPLITS = ("train", "held_out")

# Rows written and read at a time.
_ROW_GROUP = 1024


class Document(TypedDict):
    """One row.

    `group` is what must not be divided between training and held-out text: the topic of a synthetic
    document, the article of a web document, the file of a piece of code. `provenance` is null for text
    that no teacher wrote.
    """

    id: str
    text: str
    source: str
    hash: str
    group: str
    title: NotRequired[str | None]
    origin: NotRequired[str | None]
    licence: NotRequired[str | None]
    provenance: NotRequired[dict[str, Any] | None]


def text_hash(text: str) -> str:
    """Identity of a text for exact deduplication: Unicode NFKC, lower case, white space folded; 128 bits, hex."""
    folded = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return hashlib.sha256(folded.encode()).hexdigest()[:32]


def is_held_out(group: str, share: float, seed: int) -> bool:
    """Whether a group belongs to the held-out split: a pure function of the group, at the given share."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def write_corpus(folder: Path, documents: Iterable[Document], held_out_share: float, seed: int) -> dict[str, int]:
    """Divide a stream of documents into the two splits and write a corpus folder, in constant memory.

    Returns:
        Number of documents and of characters by split: `{"train_documents": ..., "train_characters": ..., ...}`.

    Raises:
        PrimerError: If either split would be empty.
    """
    paths = {split: folder / f"{split}.parquet" for split in SPLITS}
    try:
        counts = _write_splits(paths, documents, held_out_share, seed)
        for split in SPLITS:
            if not counts[f"{split}_documents"]:
                total = counts["train_documents"] + counts["held_out_documents"]
                raise PrimerError(
                    f"{folder.name}: the {split} split would be empty ({total} documents in all).",
                    "Take more text (synth.tokens, web.characters, code.characters) or change corpus.held_out_share.",
                )
    except BaseException:
        for path in paths.values():
            path.unlink(missing_ok=True)
        raise
    return counts


def _write_splits(
    paths: dict[str, Path], documents: Iterable[Document], held_out_share: float, seed: int
) -> dict[str, int]:
    counts = {f"{split}_{what}": 0 for split in SPLITS for what in ("documents", "characters")}
    waiting: dict[str, list[Document]] = {split: [] for split in SPLITS}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(pq.ParquetWriter(path, SCHEMA, compression="zstd"))
            for split, path in paths.items()
        }

        def flush(split: str) -> None:
            writers[split].write_table(pa.Table.from_pylist(waiting[split], schema=SCHEMA))
            waiting[split].clear()

        for document in documents:
            split = "held_out" if is_held_out(document["group"], held_out_share, seed) else "train"
            waiting[split].append(document)
            counts[f"{split}_documents"] += 1
            counts[f"{split}_characters"] += len(document["text"])
            if len(waiting[split]) >= _ROW_GROUP:
                flush(split)
        for split in SPLITS:
            flush(split)
    return counts


def read_documents(folder: Path, split: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of one split of a corpus folder.

    Raises:
        PrimerError: If the file is missing or no Parquet.
    """
    path = folder / f"{split}.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROW_GROUP, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Run `primer synth` to make it again.") from None


def sample_documents(folder: Path, count: int, blocks: int, seed: int, columns: list[str]) -> list[dict[str, Any]]:
    """Random rows of a corpus folder, read from at most so many of its blocks of 1,024; all rows of a small corpus.

    Raises:
        PrimerError: If a file is missing or no Parquet.
    """
    rows: list[dict[str, Any]] = []
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(pq.ParquetFile(folder / f"{split}.parquet")) for split in SPLITS]
            places = [(file, block) for file in files for block in range(file.num_row_groups)]
            generator = random.Random(seed)
            chosen = sorted(generator.sample(range(len(places)), min(blocks, len(places))))
            for place in chosen:
                file, block = places[place]
                found = file.read_row_group(block, columns=columns).to_pylist()
                rows.extend(generator.sample(found, min(len(found), -(-count // len(chosen)))))
    except (OSError, pa.ArrowInvalid) as error:
        raise PrimerError(f"{folder} cannot be read: {error}", "Run `primer synth` to make it again.") from None
    return rows


def corpus_hashes(folders: Iterable[Path]) -> set[str]:
    """Hashes of every document in some corpora, for exact deduplication across sources."""
    return {row["hash"] for folder in folders for split in SPLITS for row in read_documents(folder, split, ["hash"])}
