"""Duplicates of a growing collection of texts, found as each text comes, at about 333 bytes a text.

MinHash with locality-sensitive hashing: texts that agree in a whole band of their signatures are compared. Equal texts
are looked up by their hashes, however many texts are alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from primer.recipe_corpora import Duplicates
from synth.signatures import HASHES, SIGNATURE, Found, Signatures, band_keys, least_agreeing, similarity_of

# Odd 64-bit multipliers that spread what is similar (2^64 divided by the golden ratio, and a prime).
_SPREAD, _SPREAD_BANDS = np.uint64(0x9E3779B97F4A7C15), np.uint64(2_246_822_519)

# Texts in the first table. Each later one has room for as many as all before it: nothing is ever copied, and there are
# few tables to look into.
_FIRST_TABLE = 8192
_FULLEST = 0.7
_WINDOW, _LONGEST_SEARCH = 16, 128  # slots looked at together, and at most


class NearDuplicates:
    """The texts taken in so far, numbered from 0 in their order, behind a locality-sensitive index.

    Args:
        settings: What counts as a duplicate.
    """

    def __init__(self, settings: Duplicates) -> None:
        self._least, self._rows = least_agreeing(settings.threshold), settings.rows
        self._tables = [_Table(_FIRST_TABLE, self._rows)]

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def find(self, signature: Signatures) -> Found | None:
        """The text taken in that this one duplicates, if any: an equal one, or the most alike, the first of equals."""
        first = 0
        for table in self._tables:
            if (place := table.equal(signature)) is not None:
                return Found(first + place, 1.0, "exact")
            first += len(table)
        best, number, first = 0, -1, 0
        for table in self._tables:
            agreeing, place = table.most_alike(signature)
            if agreeing > best:
                best, number = agreeing, first + place
            first += len(table)
        return Found(number, float(similarity_of(best)), "near") if best >= self._least else None

    def add(self, signature: Signatures) -> None:
        """Take a text in."""
        if not self._tables[-1].add(signature):
            self._tables.append(_Table(max(_FIRST_TABLE, len(self)), self._rows))
            self._tables[-1].add(signature)


class _Table:
    """Signatures, and for each band a row of slots with the texts' numbers (from 1), placed by the band's hash.

    One more row is placed by the hashes of the texts; of equal texts the first one is in it.

    Args:
        room: Texts that it takes.
        rows: Bytes of a signature that make a band.
    """

    def __init__(self, room: int, rows: int) -> None:
        self._room, self._rows, self._count = room, rows, 0
        self._bands = np.arange(HASHES // rows)
        self._agreed = band_keys(np.ones(rows, bool), rows)  # of a band whose bytes are all the same
        self._salts = self._bands.astype(np.uint64) * _SPREAD_BANDS
        self._size = int(room / _FULLEST)
        self._slots = np.zeros((len(self._bands), self._size + _LONGEST_SEARCH), np.uint32)
        self._texts = np.zeros(self._size, np.uint32)
        self._signatures: Signatures = np.empty(room, SIGNATURE)

    def __len__(self) -> int:
        return self._count

    def equal(self, signature: Signatures) -> int | None:
        """Place of the first text that is equal."""
        number = int(self._texts[self._text_slot(signature)])
        return number - 1 if number else None

    def most_alike(self, signature: Signatures) -> tuple[int, int]:
        """Of the texts with a common band: the bytes that agree in the most alike, and its place."""
        _, texts = self._search(signature)
        if not len(texts):
            return 0, -1
        places = np.unique(texts) - 1
        found = self._signatures[places]
        same = found["minhash"] == signature["minhash"]
        banded = (band_keys(same, self._rows) == self._agreed).any(axis=1)  # a slot may be another key's
        agreeing = same.sum(axis=1) * banded
        best = int(agreeing.argmax())
        return int(agreeing[best]), int(places[best])

    def add(self, signature: Signatures) -> bool:
        """Take a text in; False if there is no room."""
        if self._count == self._room:
            return False
        places, _ = self._search(signature)
        slot = self._text_slot(signature)
        self._signatures[self._count] = signature
        self._count += 1
        free = places >= 0
        self._slots[self._bands[free], places[free]] = self._count
        self._texts[slot] = self._texts[slot] or self._count
        return True

    def _text_slot(self, signature: Signatures) -> int:
        """The slot of an equal text, else the free one where this text belongs; three in ten are free."""
        ours = signature["text"]
        slot = int(ours[0]) % self._size
        while (number := self._texts[slot]) and (self._signatures["text"][number - 1] != ours).any():
            slot = (slot + 1) % self._size
        return slot

    def _search(self, signature: Signatures) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """The first free slot of each band, -1 if there is none near; and the texts met on the way to it.

        Where very many texts share a band (a sentence that stands in all of them), a search ends after so many, and
        that band stops telling texts apart; they have others.
        """
        keys = band_keys(signature["minhash"], self._rows).astype(np.uint64, copy=False)
        hashed = (keys ^ self._salts) * _SPREAD >> np.uint64(32)
        starts = (hashed * np.uint64(self._size) >> np.uint64(32)).astype(np.int64)
        for width in (_WINDOW, _LONGEST_SEARCH):
            window = self._slots[self._bands[:, None], starts[:, None] + np.arange(width)]
            free = window == 0
            first = np.where(free.any(axis=1), free.argmax(axis=1), width)
            if (first < width).all():
                break
        met = window[np.arange(width) < first[:, None]]
        return np.where(first < width, starts + first, -1), met
