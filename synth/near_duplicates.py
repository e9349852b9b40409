"""Near duplicates of a growing collection of texts, at about 360 bytes a text.

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

# Texts in the first table. Each later one has room for as many as all before it: nothing is ever copied, and there are
# few tables to look into.
_FIRST_TABLE = 8192
_FULLEST = 0.7
_WINDOW, _LONGEST_SEARCH = 16, 128  # slots looked at together, and at most

Bytes = npt.NDArray[np.uint8]


class NearDuplicates:
    """The texts taken in so far, behind a locality-sensitive index.

    Args:
        threshold: Estimated Jaccard similarity above which two texts are near duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._rows = _ROWS_PER_BAND if threshold >= 0.5 else 2
        self._tables = [_Table(_FIRST_TABLE, self._rows)]

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def seen(self, words: Sequence[str]) -> bool:
        """Whether a text taken in is this similar; if none is, this one is taken in."""
        signature = _signature(words)
        for table in self._tables:
            share = table.most_alike(signature)
            if (share - _CHANCE) / (1 - _CHANCE) > self._threshold:
                return True
        if not self._tables[-1].add(signature):
            self._tables.append(_Table(max(_FIRST_TABLE, len(self)), self._rows))
            self._tables[-1].add(signature)
        return False


class _Table:
    """Signatures, and for each band a row of slots with the texts' numbers (from 1), placed by the band's hash.

    Args:
        room: Texts that it takes.
        rows_per_band: Bytes of a signature that make a band.
    """

    def __init__(self, room: int, rows_per_band: int) -> None:
        self._room, self._dtype, self._count = room, f"<u{rows_per_band}", 0
        self._bands = np.arange(_HASHES // rows_per_band, dtype=np.uint32)
        self._size = int(room / _FULLEST)
        self._slots = np.zeros((len(self._bands), self._size + _LONGEST_SEARCH), np.uint32)
        self._signatures: Bytes = np.empty((room, _HASHES), np.uint8)

    def __len__(self) -> int:
        return self._count

    def most_alike(self, signature: Bytes) -> float:
        """Share of its bytes in which the most alike text with a common band agrees; 0 if there is none."""
        _, texts = self._search(signature)
        if not len(texts):
            return 0.0
        return float((self._signatures[texts - 1] == signature).mean(axis=1).max())

    def add(self, signature: Bytes) -> bool:
        """Take a text in; False if there is no room."""
        if self._count == self._room:
            return False
        places, _ = self._search(signature)
        self._signatures[self._count] = signature
        self._count += 1
        free = places >= 0
        self._slots[self._bands[free], places[free]] = self._count
        return True

    def _search(self, signature: Bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """The first free slot of each band, -1 if there is none near; and the texts met on the way to it.

        Where very many texts share a band (a sentence that stands in all of them), a search ends after so many, and
        that band stops telling texts apart; they have others.
        """
        keys = signature.view(self._dtype).astype(np.uint32, copy=False)
        hashed = ((keys ^ (self._bands * _SPREAD_BANDS)) * _SPREAD).astype(np.uint64)
        starts = (hashed * np.uint64(self._size) >> np.uint64(32)).astype(np.int64)
        for width in (_WINDOW, _LONGEST_SEARCH):
            window = self._slots[self._bands[:, None], starts[:, None] + np.arange(width)]
            free = window == 0
            first = np.where(free.any(axis=1), free.argmax(axis=1), width)
            if (first < width).all():
                break
        met = window[np.arange(width) < first[:, None]]
        return np.where(first < width, starts + first, -1), met


def _signature(words: Sequence[str]) -> Bytes:
    from rensa import RMinHash

    minhash = RMinHash(num_perm=_HASHES, seed=0)
    minhash.update(list(word_runs(words, SHINGLE_WORDS)) or [" ".join(words)])
    digest = np.array(minhash.digest(), dtype=np.uint32)
    return (digest * _SPREAD >> np.uint32(24)).astype(np.uint8)
