"""Segments of an index of signatures: files that are sorted once and searched memory-mapped.

A segment of n texts is six `.npy` files: `-signatures` (shape [n]); `-keys`, for each band the keys of all texts,
sorted (shape [bands, n]); `-numbers`, the text of each key, in their order where keys are equal (same shape);
`-starts`, where in `-keys` each value of a key's highest bits begins (shape [bands, 2^bits + 1]); and for equal texts
`-hashes`, the first halves of all hashes, sorted (shape [1, n]), and `-equals`, the text of each. With four rows a band
they take 430 to 480 bytes a text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError
from synth.signatures import HASHES, Signatures, SignatureWriter, band_keys, open_array, open_signatures, remedy

# A match as one number that is the larger the better it is: how many bytes agree (or _EQUAL), then the order of the
# corpora, then the order of the texts. 0 is no match.
Matches = npt.NDArray[np.int64]
_PLACE_BITS, _NUMBER_BITS = 48, 40
_LAST_PLACE = (1 << _PLACE_BITS) - 1
EQUAL = HASHES + 1

# Of the texts that share a band with another one so many are compared with it, the first of them; a band that very many
# texts share (a sentence that stands in all of them) tells nothing apart.
_MOST_ALIKE = 128

_PARTS = ("keys", "numbers", "starts", "hashes", "equals")  # the files beside the signatures

_TEXTS_A_BUCKET = 4  # of keys with equal highest bits
_WINDOW = 16  # keys of a bucket that are looked at together
_PAIRS = 1 << 16  # compared at once: 16 MB


def pack(agreeing: npt.ArrayLike, corpus: int, numbers: npt.ArrayLike) -> Matches:
    """Matches as numbers that can be compared.

    Args:
        agreeing: Bytes that agree, or `EQUAL`.
        corpus: Place of the corpus in the order of the corpora.
        numbers: Of the texts in it.
    """
    place = (corpus << _NUMBER_BITS) | np.asarray(numbers, np.int64)
    packed: Matches = (np.asarray(agreeing, np.int64) << _PLACE_BITS) | (_LAST_PLACE - place)
    return packed


def unpack(matches: Matches) -> tuple[Matches, Matches, Matches]:
    """Agreeing bytes, corpora and numbers of matches that are not 0."""
    places = _LAST_PLACE - (matches & _LAST_PLACE)
    return matches >> _PLACE_BITS, places >> _NUMBER_BITS, places & ((1 << _NUMBER_BITS) - 1)


def least_match(agreeing: int) -> int:
    """The least match in which so many bytes agree."""
    return agreeing << _PLACE_BITS


def write_segment(stem: Path, signatures: Signatures, rows: int) -> None:
    """Write a segment of at least one text: `<stem>-signatures.npy` and the rest.

    Args:
        stem: Folder and beginning of the files' names.
        signatures: Of its texts (shape [n]).
        rows: Bytes of a band.
    """
    with SignatureWriter(_file(stem, "signatures")) as writer:
        writer.add(signatures)
    index_segment(stem, rows)


def merge_segments(stem: Path, segments: Sequence[Segment], rows: int) -> None:
    """Write one segment of the texts of several, in their order, and delete those.

    Args:
        stem: Folder and beginning of the new files' names.
        segments: Segments that follow each other.
        rows: Bytes of a band.
    """
    with SignatureWriter(_file(stem, "signatures")) as writer:
        for segment in segments:
            writer.add(segment.signatures)
    index_segment(stem, rows)
    for segment in segments:
        for name in ("signatures", *_PARTS):
            _file(segment.stem, name).unlink()


def index_segment(stem: Path, rows: int) -> None:
    """Write the other files of a segment whose signatures are written; takes some 30 bytes a text of memory."""
    signatures = open_signatures(_file(stem, "signatures"))
    count, bands, bits = len(signatures), HASHES // rows, _bucket_bits(len(signatures), rows)
    shapes = {
        "keys": (bands, count),
        "numbers": (bands, count),
        "starts": (bands, (1 << bits) + 1),
        "hashes": (1, count),
        "equals": (1, count),
    }
    files = {name: _file(stem, name).open("wb") for name in _PARTS}
    try:
        for name, shape in shapes.items():
            described = {"descr": _kind(name, rows), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(files[name], described)
        hashes = np.ascontiguousarray(signatures["text"][:, 0])
        order = hashes.argsort(kind="stable")
        files["hashes"].write(hashes[order].tobytes())
        files["equals"].write(order.astype("<u4").tobytes())
        for band in range(bands):
            keys = np.ascontiguousarray(signatures["minhash"][:, band * rows : (band + 1) * rows])
            row = keys.view(_kind("keys", rows))[:, 0]
            order = row.argsort(kind="stable")
            row = row[order]
            filled = np.bincount((row >> (8 * rows - bits)).astype(np.int64), minlength=1 << bits)
            files["keys"].write(row.tobytes())
            files["numbers"].write(order.astype("<u4").tobytes())
            files["starts"].write(np.concatenate([[0], filled.cumsum()]).astype("<u4").tobytes())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files.values():
            file.close()


class Segment:
    """A segment to search.

    Args:
        stem: Folder and beginning of the files' names.
        rows: Bytes of a band.
        corpus: Place of its corpus in the order of the corpora.
        first: Number of its first text in that corpus.

    Attributes:
        stem: As above.
        first: As above.
        signatures: Of its texts (shape [n]), memory-mapped.

    Raises:
        PrimerError: If a file is missing or damaged.
    """

    def __init__(self, stem: Path, rows: int, corpus: int, first: int) -> None:
        self.stem, self._rows, self._corpus, self.first = stem, rows, corpus, first
        self.signatures = np.asarray(open_signatures(_file(stem, "signatures")))
        self._begins = {name: open_array(_file(stem, name)).offset for name in _PARTS}
        self._bands = np.arange(HASHES // rows)
        self._shift = 8 * rows - _bucket_bits(len(self), rows)

    def __len__(self) -> int:
        return len(self.signatures)

    @cached_property
    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        """The other files; what is mapped holds an open file, and only looking up single texts needs these."""
        return {name: np.asarray(open_array(_file(self.stem, name))) for name in _PARTS}

    def best(self, signature: Signatures) -> int:
        """The best match of one signature: an equal text, else one among those with a common band; 0 for none."""
        best = np.zeros(1, np.int64)
        self._equal(best, np.atleast_1d(signature), np.arange(1), self._mapped["hashes"][0], self._mapped["equals"][0])
        if best[0]:
            return int(best[0])
        numbers = self._sharing(band_keys(signature["minhash"], self._rows))
        if not len(numbers):
            return 0
        return int(self._compared(np.broadcast_to(signature, numbers.shape), numbers).max())

    def find_equal(self, matches: Matches, block: Signatures, order: npt.NDArray[np.int64]) -> None:
        """Put equal texts in the place of a block's matches so far, however many texts are alike.

        Args:
            matches: Those so far (shape [n]).
            block: Signatures (shape [n]).
            order: Places in the block, in the order of the first halves of their hashes.
        """
        self._equal(matches, block, order, self._read("hashes", 0), self._read("equals", 0))

    def improve(self, matches: Matches, block: Signatures, band: int, order: npt.NDArray[np.int64]) -> None:
        """Put better matches in the place of a block's matches so far, where texts share one band with it.

        Args:
            matches: Those so far (shape [n]).
            block: Signatures (shape [n]).
            band: The band.
            order: Places in the block that are sought, in the order of their keys.
        """
        sought = band_keys(block["minhash"], self._rows)[order, band]
        keys, numbers = self._read("keys", band), self._read("numbers", band)
        left = keys.searchsorted(sought)
        hits = np.flatnonzero(keys[np.minimum(left, len(keys) - 1)] == sought)
        left = left[hits]
        counts = np.minimum(keys.searchsorted(sought[hits], side="right") - left, _MOST_ALIKE)
        places = order[hits]
        for part in _parts(counts):
            many = counts[part]
            asking = places[part].repeat(many)
            within = np.arange(many.sum()) - (many.cumsum() - many).repeat(many)
            found = numbers[left[part].repeat(many) + within].astype(np.int64)
            known = matches[asking] & _LAST_PLACE == pack(0, self._corpus, found + self.first)
            asking, found = asking[~known], found[~known]
            np.maximum.at(matches, asking, self._compared(block[asking], found))

    def _read(self, name: str, band: int) -> npt.NDArray[Any]:
        """One band of a file; read, not mapped, for what is mapped stays in memory while there is room."""
        kind, path = np.dtype(_kind(name, self._rows)), _file(self.stem, name)
        try:
            found = np.fromfile(path, kind, len(self), offset=self._begins[name] + band * len(self) * kind.itemsize)
        except OSError as error:
            raise PrimerError(f"{path} cannot be read: {error}", remedy(path, error)) from None
        return found

    def _equal(
        self,
        matches: Matches,
        block: Signatures,
        order: npt.NDArray[np.int64],
        hashes: npt.NDArray[Any],
        equals: npt.NDArray[Any],
    ) -> None:
        sought = block["text"][order, 0]
        left = hashes.searchsorted(sought)
        hits = np.flatnonzero(hashes[np.minimum(left, len(hashes) - 1)] == sought)
        asking, found = order[hits], equals[left[hits]].astype(np.int64)
        same = (self.signatures["text"][found] == block["text"][asking]).all(axis=1)
        asking, found = asking[same], found[same]
        matches[asking] = np.maximum(matches[asking], pack(EQUAL, self._corpus, found + self.first))

    def _sharing(self, keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The texts that share a band with these keys (shape [bands]), each once, in order."""
        buckets = (keys >> keys.dtype.type(self._shift)).astype(np.int64)
        sorted_keys, texts, starts = (self._mapped[name] for name in ("keys", "numbers", "starts"))
        low, high = starts[self._bands, buckets].astype(np.int64), starts[self._bands, buckets + 1]
        places = low[:, None] + np.arange(_WINDOW)
        near = np.minimum(places, len(self) - 1)
        same = (places < high[:, None]) & (sorted_keys[self._bands[:, None], near] == keys[:, None])
        found = [texts[self._bands[:, None], near][same]]
        for band in np.flatnonzero(high - low > _WINDOW):
            row = sorted_keys[band, low[band] : high[band]]
            left, right = row.searchsorted(keys[band]), row.searchsorted(keys[band], side="right")
            start = low[band] + left
            found.append(texts[band, start : start + min(right - left, _MOST_ALIKE)])
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _compared(self, ours: Signatures, numbers: npt.NDArray[np.int64]) -> Matches:
        """Matches of signatures with texts of this segment, pair by pair."""
        agreeing = np.count_nonzero(ours["minhash"] == self.signatures[numbers]["minhash"], axis=1)
        return pack(agreeing, self._corpus, numbers + self.first)


def _parts(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Slices of a list of counts, each of at most `_PAIRS` in all."""
    step = _PAIRS // _MOST_ALIKE
    yield from (slice(start, start + step) for start in range(0, len(counts), step))


def _bucket_bits(count: int, rows: int) -> int:
    return min(max((count // _TEXTS_A_BUCKET).bit_length(), 1), 8 * rows, 24)


def _kind(name: str, rows: int) -> str:
    """Type of the numbers in a file."""
    return f"<u{rows}" if name == "keys" else "<u8" if name == "hashes" else "<u4"


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}-{name}.npy")
