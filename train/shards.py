"""Token shards: one source's documents as a flat array of token ids that numpy memory-maps.

A shard is three files: `<source>.bin`, the token ids of all documents, each followed by `<|endoftext|>`, as
little-endian uint16 (vocabularies of up to 65,536 tokens) or uint32; `<source>.idx`, where each document begins and
the end of the last, as little-endian uint64; and `<source>.json`, the header, written last.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from primer.errors import PrimerError, disk_full
from primer.fingerprint import file_hash
from primer.progress import Bar
from primer.run import write_json
from train.tokenizer import encode_documents, end_of_text, tokenizer_hash

FORMAT = 1
_BATCH_DOCUMENTS = 512


@dataclass(frozen=True)
class Header:
    """What a shard says of itself.

    Attributes:
        format: Version of this layout.
        dtype: Type of a token id: `uint16` or `uint32`, little-endian.
        tokens: Length of the array, ends of documents included.
        documents: Number of documents.
        bytes: UTF-8 bytes of text that went in.
        sha256: Hex hash of the `.bin` file.
        tokenizer: Hex hash of the tokenizer that wrote it.
    """

    format: int
    dtype: str
    tokens: int
    documents: int
    bytes: int
    sha256: str
    tokenizer: str


def write_shard(
    folder: Path, source: str, texts: Iterable[str], tokenizer: Tokenizer, bar: Bar | None = None
) -> Header:
    """Tokenise documents and write a shard.

    Args:
        folder: Where to; exists.
        source: Name of the shard.
        texts: Documents.
        tokenizer: What turns them into ids.
        bar: Told the number of documents done.

    Raises:
        PrimerError: If there are no documents, or the disk is full.
    """
    dtype = "uint16" if tokenizer.get_vocab_size() <= 2**16 else "uint32"
    end = end_of_text(tokenizer)
    digest, size, offsets = hashlib.sha256(), 0, [0]
    try:
        with (folder / f"{source}.bin").open("wb") as file:
            for batch in _batches(texts):
                size += sum(len(text.encode()) for text in batch)
                ids = [[*document, end] for document in encode_documents(tokenizer, batch)]
                offsets.extend(itertools.accumulate(map(len, ids[1:]), initial=offsets[-1] + len(ids[0])))
                block = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.dtype(dtype).newbyteorder("<"))
                digest.update(block.data)
                file.write(block.data)
                if bar is not None:
                    bar.update(len(offsets) - 1, f"{source}: {offsets[-1]:,} tokens")
        np.asarray(offsets, dtype="<u8").tofile(folder / f"{source}.idx")
    except OSError as error:
        if disk_full(error):
            raise PrimerError(f"The disk of {folder} is full.", "Make room, then run the same command again.") from None
        raise
    if len(offsets) == 1:
        raise PrimerError(
            f"The training split of corpus/{source} has no documents.", "Run `primer synth` to make it again."
        )
    header = Header(
        format=FORMAT,
        dtype=dtype,
        tokens=offsets[-1],
        documents=len(offsets) - 1,
        bytes=size,
        sha256=digest.hexdigest(),
        tokenizer=tokenizer_hash(tokenizer),
    )
    write_json(folder / f"{source}.json", asdict(header))
    return header


class Shard:
    """A shard opened for reading.

    Args:
        folder: Where it lies.
        source: Its name.
        tokenizer: Hash of the tokenizer in use.

    Raises:
        PrimerError: If the shard is missing, truncated, damaged, or was written with another tokenizer.
    """

    def __init__(self, folder: Path, source: str, tokenizer: str) -> None:
        self.source = source
        self.path = folder / f"{source}.bin"
        self.header = read_header(folder / f"{source}.json")
        if self.header.tokenizer != tokenizer:
            raise _bad(
                self.path, f"was written with another tokenizer ({self.header.tokenizer[:12]}, not {tokenizer[:12]})"
            )
        expected = self.header.tokens * np.dtype(self.header.dtype).itemsize
        found = self.path.stat().st_size if self.path.is_file() else 0
        if found != expected:
            raise _bad(self.path, f"has {found:,} bytes; its header says {expected:,}")
        self.tokens: npt.NDArray[np.unsignedinteger] = np.memmap(
            self.path, dtype=np.dtype(self.header.dtype).newbyteorder("<"), mode="r"
        )

    def __len__(self) -> int:
        return self.header.tokens

    def verify(self) -> None:
        """Compare the file with the checksum in its header (reads it whole: about a second a gigabyte).

        Raises:
            PrimerError: If they differ.
        """
        if file_hash(self.path) != self.header.sha256:
            raise _bad(self.path, "has changed since it was written (its checksum differs)")

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """Token ids of stretches of the array: (len(starts), length)."""
        rows = [self.tokens[start : start + length] for start in starts.tolist()]
        return np.stack(rows).astype(np.int64)


def read_header(path: Path) -> Header:
    """Read and check the header of a shard.

    Raises:
        PrimerError: If it is missing, not JSON, or not a header of this format.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        header = Header(**values)
    except FileNotFoundError:
        raise _bad(path, "is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise _bad(path, f"is not a shard header: {error}") from None
    if header.format != FORMAT or header.dtype not in ("uint16", "uint32"):
        raise _bad(path, f"has format {header.format} and dtype {header.dtype}; expected {FORMAT} and uint16 or uint32")
    return header


def _bad(path: Path, problem: str) -> PrimerError:
    return PrimerError(f"{path} {problem}.", f"Delete {path.parent}; `primer train` will make it again.")


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, _BATCH_DOCUMENTS)):
        yield batch
