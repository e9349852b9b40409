"""Token shards: one source's documents as a flat array of token ids that numpy memory-maps.

A shard is three files: `<source>.bin`, the token ids of all documents, each followed by `<|endoftext|>`, as
little-endian uint16 (vocabularies of up to 65,536 tokens) or uint32; `<source>.idx`, where each document begins and
the end of the last, as little-endian uint64; and `<source>.json`, the header, written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from primer.errors import PrimerError, disk_full
from primer.fingerprint import file_hash
from primer.progress import Bar
from primer.run import write_json
from train.encoder import Encoded, Encoder, id_type
from train.tokenizer import tokenizer_hash

FORMAT = 2
_INDEX_BLOCK = 2**20

# Files whose checksum this process has found right, as they were then: (inode, size, time of the last change).
_verified: dict[Path, tuple[int, int, int]] = {}


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
        index_sha256: Hex hash of the `.idx` file.
        tokenizer: Hex hash of the tokenizer that wrote it.
    """

    format: int
    dtype: str
    tokens: int
    documents: int
    bytes: int
    sha256: str
    index_sha256: str
    tokenizer: str


def write_shard(
    folder: Path, source: str, texts: Iterable[str], tokenizer: Tokenizer, bar: Bar | None = None
) -> Header:
    """Tokenise documents and write a shard; see :func:`write_encoded`."""
    return write_encoded(folder, source, Encoder(tokenizer).stream(texts), tokenizer, bar)


def write_encoded(
    folder: Path, source: str, parts: Iterable[Encoded], tokenizer: Tokenizer, bar: Bar | None = None
) -> Header:
    """Write documents that have been tokenised as a shard, in constant memory.

    Args:
        folder: Where to; exists.
        source: Name of the shard.
        parts: Documents.
        tokenizer: What turned them into ids.
        bar: Told the number of documents done.

    Raises:
        PrimerError: If there are no documents, or the disk is full.
    """
    (folder / f"{source}.json").unlink(missing_ok=True)  # of an earlier shard: it would vouch for half a new one
    dtype = id_type(tokenizer)
    tokens = documents = size = 0
    try:
        with _Hashed(folder / f"{source}.bin") as array, _Hashed(folder / f"{source}.idx") as index:
            index.write(np.zeros(1, dtype="<u8").tobytes())
            for part in parts:
                array.write(part.ids)
                index.write((tokens + np.cumsum(part.lengths)).astype("<u8").tobytes())
                tokens += len(part.ids) // dtype.itemsize
                documents += len(part.lengths)
                size += part.size
                if bar is not None:
                    bar.update(documents, f"{tokens:,} tokens")
        if not documents:
            raise PrimerError(
                f"The training split of corpus/{source} has no documents.", "Run `primer synth` to make it again."
            )
        header = Header(
            format=FORMAT,
            dtype=dtype.name,
            tokens=tokens,
            documents=documents,
            bytes=size,
            sha256=array.digest.hexdigest(),
            index_sha256=index.digest.hexdigest(),
            tokenizer=tokenizer_hash(tokenizer),
        )
        write_json(folder / f"{source}.json", asdict(header))
    except OSError as error:
        if disk_full(error):
            raise PrimerError(f"The disk of {folder} is full.", "Make room, then run the same command again.") from None
        raise
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
        self.path, self.index_path = folder / f"{source}.bin", folder / f"{source}.idx"
        self.header = read_header(folder / f"{source}.json")
        if self.header.tokenizer != tokenizer:
            raise _bad(
                self.path, f"was written with another tokenizer ({self.header.tokenizer[:12]}, not {tokenizer[:12]})"
            )
        # Plain arrays over the memory maps: slicing those costs more than copying a sequence does.
        self.tokens: npt.NDArray[np.unsignedinteger] = _mapped(
            self.path, np.dtype(self.header.dtype).newbyteorder("<"), self.header.tokens
        )
        self.offsets: npt.NDArray[np.uint64] = _mapped(self.index_path, np.dtype("<u8"), self.header.documents + 1)

    def __len__(self) -> int:
        return self.header.tokens

    def verify(self) -> None:
        """Compare the files with the checksums in the header, and look whether the documents follow one another.

        Reads the shard whole, about a second a gigabyte; a second time in the same process only if a file has changed.

        Raises:
            PrimerError: If something is wrong.
        """
        for path, expected in ((self.path, self.header.sha256), (self.index_path, self.header.index_sha256)):
            state = path.stat()
            seen = (state.st_ino, state.st_size, state.st_mtime_ns)
            if _verified.get(path.absolute()) == seen:
                continue
            if file_hash(path) != expected:
                raise _bad(path, "has changed since it was written (its checksum differs)")
            if path == self.index_path:
                self._check_offsets()
            _verified[path.absolute()] = seen

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """Token ids of stretches of the array: (len(starts), length)."""
        return np.lib.stride_tricks.sliding_window_view(self.tokens, length)[starts].astype(np.int64)

    def document_numbers(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int32]:
        """To which document each token of stretches of the array belongs, from 0 in each stretch: (starts, length)."""
        first = np.searchsorted(self.offsets, starts.astype(np.uint64), side="right")  # where the next document begins
        last = np.searchsorted(self.offsets, (starts + length).astype(np.uint64), side="left")
        counts = last - first
        rows = np.repeat(np.arange(len(starts)), counts)
        which = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        begins = np.zeros((len(starts), length), dtype=np.int32)
        begins[rows, self.offsets[which].astype(np.int64) - starts[rows]] = 1
        return np.cumsum(begins, axis=1, dtype=np.int32)

    def _check_offsets(self) -> None:
        before = -1
        for at in range(0, len(self.offsets), _INDEX_BLOCK):
            block = self.offsets[at : at + _INDEX_BLOCK]
            if int(block[0]) <= before or (block[1:] <= block[:-1]).any():
                raise _bad(self.index_path, "does not increase from document to document")
            before = int(block[-1])
        if self.offsets[0] != 0 or before != len(self):
            raise _bad(self.index_path, f"goes from {self.offsets[0]:,} to {before:,}; expected 0 to {len(self):,}")


def read_header(path: Path) -> Header:
    """Read and check the header of a shard.

    Raises:
        PrimerError: If it is missing, not JSON, or not a header of this format.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _bad(path, "is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(path, f"is not a shard header: {error}") from None
    if isinstance(values, dict) and values.get("format") not in (None, FORMAT):
        raise _bad(path, f"has format {values['format']}; expected {FORMAT}")
    try:
        header = Header(**values)
    except TypeError as error:
        raise _bad(path, f"is not a shard header: {error}") from None
    kinds = {"int": int, "str": str}
    for key, kind in Header.__annotations__.items():
        value = getattr(header, key)
        if type(value) is not kinds[kind]:
            raise _bad(path, f"is not a shard header: {key} is {value!r}")
    if header.dtype not in ("uint16", "uint32"):
        raise _bad(path, f"has dtype {header.dtype!r}; expected uint16 or uint32")
    if not 0 < header.documents <= header.tokens or header.bytes < 0:
        raise _bad(
            path, f"speaks of {header.documents:,} documents, {header.tokens:,} tokens and {header.bytes:,} bytes"
        )
    return header


class _Hashed:
    """A file that is written once, with its hash, and is on the disk when it is left; a context manager."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)

    def __enter__(self) -> _Hashed:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())


def _mapped(path: Path, dtype: np.dtype[Any], length: int) -> npt.NDArray[Any]:
    """A file of so many numbers, memory-mapped.

    Raises:
        PrimerError: If it has another size or cannot be read.
    """
    expected = length * dtype.itemsize
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise _bad(path, f"has {found:,} bytes; its header says {expected:,}")
    try:
        return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    except OSError as error:
        raise _bad(path, f"cannot be read: {error}") from None


def _bad(path: Path, problem: str) -> PrimerError:
    return PrimerError(f"{path} {problem}.", f"Delete {path.parent}; `primer train` will make it again.")
