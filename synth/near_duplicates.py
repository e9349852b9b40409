"""Near duplicates of a growing collection of texts, at about 400 bytes a text.

MinHash over shingles of five words, the size that FineWeb deduplicates by (arXiv 2406.17557, section 3.4): 128 hashes
estimate a Jaccard similarity to within about 0.04 (one standard deviation at 0.7). Of each hash one byte is kept
(b-bit minwise hashing, arXiv 0910.3349), and texts that agree in a whole band of them are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from primer.words import word_runs

SHINGLE_WORDS = 5
_HASHES = 128
_ROWS_PER_BAND = 4  # a pair at 0.7 is compared with probability 0.9998, at 0.5 with 0.87

# Two unrelated bytes agree by chance once in 256.
_CHANCE = 1 / 256

# Odd 32-bit multipliers that spread what is similar (2^32 divided by the golden ratio, and a prime).
_SPREAD, _SPREAD_BANDS = np.uint32(2_654_435_769), np.uint32(2_246_822_519)

# A table is this full at most; each band's row has some slots more, so that a search never wraps around.
_FULLEST = 0.7
_TAIL = 256
_WINDOW = 16  # slots looked at together
_FIRST_SIZE = 1024

Bytes = npt.NDArray[np.uint8]


class NearDuplicates:
    """The texts taken in so far, behind a locality-sensitive index.

    Args:
        threshold: Estimated Jaccard similarity above which two texts are near duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._rows = _ROWS_PER_BAND if threshold >= 0.5 else 2
        self._bands = np.arange(_HASHES // self._rows, dtype=np.uint32)
        self._count = 0
        self._signatures: Bytes = np.empty((0, _HASHES), np.uint8)
        self._size = 0
        self._slots: npt.NDArray[np.uint32] = np.zeros((len(self._bands), 0), np.uint32)

    def __len__(self) -> int:
        return self._count

    def seen(self, words: Sequence[str]) -> bool:
        """Whether a text taken in is this similar; if none is, this one is taken in."""
        signature = _signature(words)
        if self._count >= _FULLEST * self._size:
            self._grow()
        free, candidates = self._probe(signature)
        if free.max() >= self._slots.shape[1] - 1:  # the last slots stay free, so that every search ends
            self._grow()
            free, candidates = self._probe(signature)
        if len(candidates):
            agreeing = (self._signatures[candidates - 1] == signature).mean(axis=1)
            if (agreeing.max() - _CHANCE) / (1 - _CHANCE) > self._threshold:
                return True
        self._signatures[self._count] = signature
        self._count += 1
        self._slots[self._bands, free] = self._count  # texts are numbered from 1; 0 is an empty slot
        return False

    def _places(self, signatures: Bytes) -> npt.NDArray[np.int64]:
        """For each signature (row), where each band's search begins."""
        keys = np.ascontiguousarray(signatures).view(f"<u{self._rows}").astype(np.uint32)
        hashed = (keys ^ (self._bands * _SPREAD_BANDS)) * _SPREAD
        return (hashed.astype(np.uint64) * np.uint64(self._size) >> np.uint64(32)).astype(np.int64)

    def _probe(self, signature: Bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """The first free slot of each band, and the texts met on the way: those that share a band among them."""
        starts = self._places(signature[None])[0]
        width = _WINDOW
        while True:
            at = np.minimum(starts[:, None] + np.arange(width), self._slots.shape[1] - 1)
            window = self._slots[self._bands[:, None], at]
            free = window == 0
            first = free.argmax(axis=1)
            if free[self._bands, first].all():
                return starts + first, window[np.arange(width) < first[:, None]]
            width *= 2

    def _grow(self) -> None:
        """Half as much room again, every text in its place: linear probing done for a whole row at once."""
        self._size = max(_FIRST_SIZE, self._size * 3 // 2)
        signatures = np.empty((int(_FULLEST * self._size) + 1, _HASHES), np.uint8)
        signatures[: self._count] = self._signatures[: self._count]
        self._signatures = signatures
        starts = self._places(signatures[: self._count])
        orders = np.argsort(starts, axis=0, kind="stable")
        running = np.arange(self._count)[:, None]
        places = np.maximum.accumulate(np.take_along_axis(starts, orders, axis=0) - running, axis=0) + running
        # Texts that share a band stand in a row; the row's end has room for the longest of those.
        length = max(self._size, int(places.max(initial=0)) + 1) + _TAIL
        self._slots = np.zeros((len(self._bands), length), np.uint32)
        for row in self._bands:
            self._slots[row, places[:, row]] = orders[:, row] + 1


def _signature(words: Sequence[str]) -> Bytes:
    from rensa import RMinHash

    minhash = RMinHash(num_perm=_HASHES, seed=0)
    minhash.update(list(word_runs(words, SHINGLE_WORDS)) or [" ".join(words)])
    digest = np.array(minhash.digest(), dtype=np.uint32)
    return (digest * _SPREAD >> np.uint32(24)).astype(np.uint8)
