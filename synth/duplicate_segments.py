"""Segments of an index of signatures: files that are sorted once and searched memory-mapped.

A segment of n texts is four `.npy` files: `-signatures` (shape [n]); `-keys`, for each band the keys of all texts,
sorted (shape [bands, n]); `-numbers`, the text of each key, in their order where keys are equal (same shape); and
`-starts`, where in `-keys` each value of a key's highest bits begins (shape [bands, 2^bits + 1]). With four rows a band
they take 420 to 470 bytes a text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.signatures import HASHES, Signatures, SignatureWriter, band_keys, open_array, open_signatures

# A match as one number that is the larger the better it is: how many bytes agree (or _EQUAL), then the order of the
# corpora, then the order of the texts. 0 is no match.
Matches = npt.NDArray[np.int64]
_PLACE_BITS, _NUMBER_BITS = 48, 40
_LAST_PLACE = (1 << _PLACE_BITS) - 1
EQUAL = HASHES + 1

# Of the texts that share a band with another one so many are compared with it, the first of them; a band that very many
# texts share (a sentence that stands in all of them) tells nothing apart.
_MOST_ALIKE = 128

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


def index_segment(stem: Path, rows: int) -> None:
    """Write the other files of a segment whose signatures are written; takes some 30 bytes a text of memory."""
    signatures = open_signatures(_file(stem, "signatures"))
    count, bands, bits = len(signatures), HASHES // rows, _bucket_bits(len(signatures), rows)
    parts = {
        "keys": (np.dtype(f"<u{rows}"), count),
        "numbers": (np.dtype("<u4"), count),
        "starts": (np.dtype("<u4"), (1 << bits) + 1),
    }
    files = {name: _file(stem, name).open("wb") for name in parts}
    try:
        for name, (kind, width) in parts.items():
            described = {"descr": kind.str, "fortran_order": False, "shape": (bands, width)}
            np.lib.format.write_array_header_1_0(files[name], described)
        for band in range(bands):
            keys = np.ascontiguousarray(signatures["minhash"][:, band * rows : (band + 1) * rows])
            row = keys.view(parts["keys"][0])[:, 0]
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

    Raises:
        PrimerError: If a file is missing or damaged.
    """

    def __init__(self, stem: Path, rows: int, corpus: int, first: int) -> None:
        self._rows, self._corpus, self._first = rows, corpus, first
        self._signatures = np.asarray(open_signatures(_file(stem, "signatures")))
        self._stem, mapped = stem, {name: open_array(_file(stem, name)) for name in ("keys", "numbers", "starts")}
        self._begins = {name: array.offset for name, array in mapped.items()}
        self._keys, self._numbers, self._starts = map(np.asarray, mapped.values())
        self._bands = np.arange(HASHES // rows)
        self._shift = 8 * rows - _bucket_bits(len(self), rows)

    def __len__(self) -> int:
        return len(self._signatures)

    def best(self, signature: Signatures) -> int:
        """The best match of one signature, among those with a common band; 0 if there is none."""
        numbers = self._sharing(band_keys(signature["minhash"], self._rows))
        if not len(numbers):
            return 0
        return int(self._compared(np.broadcast_to(signature, numbers.shape), numbers).max())

    def improve(self, matches: Matches, block: Signatures, band: int, order: npt.NDArray[np.int64]) -> None:
        """Put better matches in the place of a block's matches so far, where texts share one band with it.

        Args:
            matches: Those so far (shape [n]).
            block: Signatures (shape [n]).
            band: The band.
            order: Places in the block, in the order of their keys.
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
            known = matches[asking] & _LAST_PLACE == pack(0, self._corpus, found + self._first)
            asking, found = asking[~known], found[~known]
            np.maximum.at(matches, asking, self._compared(block[asking], found))

    def _read(self, name: str, band: int) -> npt.NDArray[Any]:
        """One band of a file; read, not mapped, for what is mapped stays in memory while there is room."""
        kind = f"<u{self._rows}" if name == "keys" else "<u4"
        start = self._begins[name] + band * len(self) * np.dtype(kind).itemsize
        return np.fromfile(_file(self._stem, name), kind, len(self), offset=start)

    def _sharing(self, keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The texts that share a band with these keys (shape [bands]), each once, in order."""
        buckets = (keys >> keys.dtype.type(self._shift)).astype(np.int64)
        low, high = self._starts[self._bands, buckets].astype(np.int64), self._starts[self._bands, buckets + 1]
        places = low[:, None] + np.arange(_WINDOW)
        near = np.minimum(places, len(self) - 1)
        same = (places < high[:, None]) & (self._keys[self._bands[:, None], near] == keys[:, None])
        found = [self._numbers[self._bands[:, None], near][same]]
        for band in np.flatnonzero(high - low > _WINDOW):
            row = self._keys[band, low[band] : high[band]]
            left, right = row.searchsorted(keys[band]), row.searchsorted(keys[band], side="right")
            start = low[band] + left
            found.append(self._numbers[band, start : start + min(right - left, _MOST_ALIKE)])
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _compared(self, ours: Signatures, numbers: npt.NDArray[np.int64]) -> Matches:
        """Matches of signatures with texts of this segment, pair by pair."""
        theirs = self._signatures[numbers]
        agreeing = np.count_nonzero(ours["minhash"] == theirs["minhash"], axis=1)
        agreeing[(ours["text"] == theirs["text"]).all(axis=1)] = EQUAL
        return pack(agreeing, self._corpus, numbers + self._first)


def _parts(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Slices of a list of counts, each of at most `_PAIRS` in all."""
    step = _PAIRS // _MOST_ALIKE
    yield from (slice(start, start + step) for start in range(0, len(counts), step))


def _bucket_bits(count: int, rows: int) -> int:
    return min(max((count // _TEXTS_A_BUCKET).bit_length(), 1), 8 * rows, 24)


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}-{name}.npy")
