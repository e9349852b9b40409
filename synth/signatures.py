"""Signatures: the 144 bytes that deduplication knows of a text, and files of them.

A signature holds the text's hash and, of each of 128 MinHash values over its shingles (runs of a few words), one byte
(b-bit minwise hashing, arXiv 0910.3349): they estimate a Jaccard similarity to within about 0.04 (one standard
deviation at 0.7). Words are those of `primer.words.text_words`, without case, accents and punctuation: copies of a web
page differ in their quotation marks and apostrophes before they differ in anything else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError
from primer.words import text_hash, text_words, word_runs

HASHES = 128

# `text` is the hash of the whole text, as two numbers that compare fast.
SIGNATURE = np.dtype([("text", "<u8", (2,)), ("minhash", "u1", (HASHES,))])

# Two unrelated bytes agree by chance once in 256.
_CHANCE = 1 / 256

_SPREAD = np.uint32(2_654_435_769)  # 2^32 divided by the golden ratio, odd: the highest byte depends on all bits

_WRITTEN_AT_ONCE = 4096

Signatures = npt.NDArray[np.void]  # of the type SIGNATURE; a single one has the shape ()


@dataclass(frozen=True, slots=True)
class Found:
    """The text that another one duplicates.

    Attributes:
        number: Its number, from 0, among the texts of its corpus.
        similarity: Estimated Jaccard similarity of the two.
        kind: Whether they are equal but for case and white space.
        corpus: Name of the earlier corpus that holds it; None if it is the same one.
    """

    number: int
    similarity: float
    kind: Literal["exact", "near"]
    corpus: str | None = None


def signature(text: str, shingle: int, words: Sequence[str] | None = None) -> Signatures:
    """The signature of a text, with the shape ().

    Args:
        text: The text.
        shingle: Words of a shingle (`Duplicates.words`); a shorter text is one shingle.
        words: Its words (`primer.words.text_words`), where they are known already.
    """
    from rensa import RMinHash

    found = (text_words(text) if words is None else words) or text.split()  # some texts are punctuation alone
    minhash = RMinHash(num_perm=HASHES, seed=0)
    minhash.update(list(word_runs(found, shingle)) or [" ".join(found)])
    result = np.empty((), SIGNATURE)
    result["text"] = np.frombuffer(bytes.fromhex(text_hash(text)), "<u8")
    result["minhash"] = np.array(minhash.digest(), np.uint32) * _SPREAD >> np.uint32(24)
    return result


def similarity_of(agreeing: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity, given how many of the 128 bytes agree: less what agrees by chance."""
    return (np.asarray(agreeing) / HASHES - _CHANCE) / (1 - _CHANCE)


def least_agreeing(threshold: float) -> int:
    """The fewest bytes that have to agree for a similarity above a threshold; 129 if no number does."""
    return int((similarity_of(np.arange(HASHES + 1)) <= threshold).sum())


def band_keys(minhash: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The bands of single bytes (shape [..., 128]) as whole numbers of `rows` bytes (shape [..., 128 / rows])."""
    return minhash.view(f"<u{rows}")


class SignatureWriter:
    """Writes a `.npy` file of signatures in constant memory, whole or not at all; a context manager.

    Args:
        path: The file.

    Attributes:
        count: Signatures so far.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path, self._temporary = path, path.with_name(f".{path.name}.tmp")
        self._waiting: list[Signatures] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._temporary.open("wb")
        _write_header(self._file, 0)
        return self

    def add(self, signatures: Signatures) -> None:
        """Append one signature, or several (shape [n])."""
        self._waiting.append(np.atleast_1d(signatures))
        self.count += len(self._waiting[-1])
        if len(self._waiting) >= _WRITTEN_AT_ONCE or signatures.ndim:
            self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            with self._file:
                if error is None:
                    self._write()
                    self._file.seek(0)
                    _write_header(self._file, self.count)  # numpy leaves room for the number to grow
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if error is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _write(self) -> None:
        assert self._file is not None
        if self._waiting:
            self._file.write(np.concatenate(self._waiting).tobytes())
            self._waiting.clear()


def open_signatures(path: Path) -> Signatures:
    """The signatures of a file, memory-mapped (shape [n]).

    Raises:
        PrimerError: If the file is missing or damaged.
    """
    signatures = open_array(path)
    if signatures.dtype != SIGNATURE or signatures.ndim != 1:
        raise PrimerError(f"{path} holds no signatures, but {signatures.dtype}.", remedy(path))
    return signatures


def open_array(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """A `.npy` file, memory-mapped.

    Raises:
        PrimerError: If the file is missing or damaged.
    """
    try:
        found: np.memmap[Any, np.dtype[Any]] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", remedy(path, error)) from None
    return found


def signature_blocks(files: Iterable[Path], size: int) -> Iterator[Signatures]:
    """The signatures of some files, in their order, copied into memory so many at a time; the last block is shorter.

    Raises:
        PrimerError: If a file is missing or damaged.
    """
    waiting: list[Signatures] = []
    room = size
    for path in files:
        signatures, start = open_signatures(path), 0
        while start < len(signatures):
            waiting.append(np.array(signatures[start : start + room]))
            start += len(waiting[-1])
            room -= len(waiting[-1])
            if not room:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting, room = [], size
    if waiting:
        yield np.concatenate(waiting)


def each_signature(files: Iterable[Path]) -> Iterator[Signatures]:
    """The signatures of some files one by one, in their order, for those who stream the documents beside them."""
    for block in signature_blocks(files, _WRITTEN_AT_ONCE):
        for place in range(len(block)):
            yield block[place, ...]


def _write_header(file: BinaryIO, count: int) -> None:
    described = np.lib.format.dtype_to_descr(SIGNATURE)
    np.lib.format.write_array_header_1_0(file, {"descr": described, "fortran_order": False, "shape": (count,)})


def remedy(path: Path, error: Exception | None = None) -> str:
    """What to do about a damaged file: the stage that holds it is made again once its folder is gone.

    Args:
        path: The file.
        error: What went wrong; a limit of the system is no damage.
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "Raise the limit of open files (ulimit -n 65536) and run the command again."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Make room on the disk of {path} and run the command again."
    stage = next((folder for folder in path.parents if (folder / "manifest.json").exists()), path.parent)
    return f"Delete {stage} and run the command again: the stage is made again."
