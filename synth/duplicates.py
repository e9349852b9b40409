"""Deduplication of one corpus, out of core: which documents go, and for which one that stays.

Greedy in the order of the documents: one is removed if an earlier one that was kept, or one of an earlier corpus, is
equal to it (`primer.words.text_hash`), or shares a whole band of its signature and has an estimated Jaccard similarity
above the threshold. It points to the equal one, else to the most alike: a removed document resembles the very one that
stands for it, where clusters of linked pairs would join what only resembles a third.

Documents are taken in blocks. A block is looked up, hash by hash and band by band, in the sorted segments of the
earlier corpora and of what this corpus has kept so far; within the block, those that share a band with another one go
through the index that generation uses. What is kept becomes a segment in the scratch folder, and 16 segments become
one. So memory is that of one block, 500 MB with what is mapped of a million documents, and 16 bytes for each one that
is removed. The result does not depend on the size of the blocks, but for near duplicates that only share bands which
more than 128 texts share: then it may depend on it which 128 are compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError
from primer.recipe_corpora import Duplicates
from synth.duplicate_index import EarlierTexts
from synth.duplicate_segments import EQUAL, Matches, least_match, pack, unpack
from synth.near_duplicates import NearDuplicates
from synth.signatures import HASHES, Found, Signatures, band_keys, least_agreeing, open_array, remedy, signature_blocks

_BLOCK = 1 << 18

# A removed document's number and its match; those of this corpus are numbered among the kept.
_REMOVED = np.dtype([("number", "<i8"), ("match", "<i8")])


class Removals:
    """What deduplication removes, in the order of the documents; memory-mapped.

    Attributes:
        documents: How many documents there were.
        counts: How many of them are removed, by kind: `{"exact": ..., "near": ...}`.
    """

    def __init__(self, path: Path, documents: int, earlier: EarlierTexts) -> None:
        self._removed = np.asarray(open_array(path))
        self._earlier, self._next = earlier, 0
        self.documents = documents
        exact = int((self._removed["match"] >= least_match(EQUAL)).sum())
        self.counts = {"exact": exact, "near": len(self._removed) - exact}

    def __len__(self) -> int:
        return len(self._removed)

    def kept_by(self, number: int) -> Found | None:
        """The document that stands for one of the documents, from 0; None if this one stays.

        A document of the same corpus is numbered as it is in the result: among those that are kept. Asking in order
        costs nothing.
        """
        numbers = self._removed["number"]
        if not (self._next < len(self) and numbers[self._next - 1] < number <= numbers[self._next]):
            self._next = int(numbers.searchsorted(number))
        if self._next == len(self) or numbers[self._next] != number:
            return None
        return self._earlier.found(int(self._removed["match"][self._next]))


def find_duplicates(
    files: Sequence[Path], settings: Duplicates, earlier: Sequence[Path], scratch: Path, block: int = _BLOCK
) -> Removals:
    """Decide which documents of a corpus are duplicates.

    A million documents take about a minute: an interrupted call is begun again.

    Args:
        files: Their signatures, file by file in the order of the documents, which are numbered through.
        settings: What counts as a duplicate.
        earlier: Indexes of the corpora whose texts it must not repeat (`synth.duplicate_index`).
        scratch: A folder for the segments and the result, some 450 bytes a document and as
            much again for those of 16 blocks; what lies in it is removed.
        block: Documents of a block.

    Raises:
        PrimerError: If a file is missing or damaged, an index was made with other settings, or the system allows too
            few open files or too little room.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    index = EarlierTexts(earlier, settings)
    try:
        documents = _write_removed(files, settings, index, scratch, block)
    except OSError as error:
        raise PrimerError(f"{scratch} cannot be written: {error}", remedy(scratch, error)) from None
    return Removals(scratch / "removed.npy", documents, index)


def _write_removed(files: Sequence[Path], settings: Duplicates, index: EarlierTexts, scratch: Path, block: int) -> int:
    """Write the numbers and matches of what goes; the number of all documents."""
    documents = kept = 0
    removed = [np.empty(0, _REMOVED)]
    for signatures in signature_blocks(files, block):
        matches = _settle(signatures, index, settings, kept)
        gone = np.flatnonzero(matches)
        removed.append(np.empty(len(gone), _REMOVED))
        removed[-1]["number"], removed[-1]["match"] = gone + documents, matches[gone]
        if len(stays := signatures[matches == 0]):
            index.extend(scratch, stays, kept)
        documents, kept = documents + len(signatures), kept + len(stays)
    np.save(scratch / "removed.npy", np.concatenate(removed))
    return documents


def _settle(block: Signatures, index: EarlierTexts, settings: Duplicates, kept: int) -> Matches:
    """The match of each document of a block that is removed; 0 for those that stay."""
    matches = index.matches(block)
    matches[matches < least_match(least_agreeing(settings.threshold))] = 0
    first = _first_equals(block)
    again = first != np.arange(len(block))
    near = NearDuplicates(settings)
    places: list[int] = []  # of the documents in it
    for place in np.flatnonzero(again | _sharing(block, ~again, settings.rows)).tolist():
        if matches[place] >= least_match(EQUAL):
            continue
        here = 0
        if again[place] and not matches[first[place]]:
            here = int(pack(EQUAL, index.own, kept + first[place]))
        elif found := near.find(block[place, ...]):
            agreeing = EQUAL if found.kind == "exact" else _agreeing(block, place, places[found.number])
            here = int(pack(agreeing, index.own, kept + places[found.number]))
        matches[place] = max(matches[place], here)
        if not matches[place]:
            near.add(block[place, ...])
            places.append(place)
    return _numbered_by_kept(matches, index.own, kept)


def _agreeing(block: Signatures, one: int, other: int) -> int:
    return int((block["minhash"][one] == block["minhash"][other]).sum())


def _first_equals(block: Signatures) -> npt.NDArray[np.int64]:
    """For each document of a block the place of the first one that is equal."""
    order = np.lexsort(block["text"].T)
    sorted_texts = block["text"][order]
    begins = np.append(True, (sorted_texts[1:] != sorted_texts[:-1]).any(axis=1))
    first = np.empty(len(block), np.int64)
    first[order] = order[begins][begins.cumsum() - 1]
    return first


def _sharing(block: Signatures, which: npt.NDArray[np.bool_], rows: int) -> npt.NDArray[np.bool_]:
    """Which of some documents of a block share a band with another one of them."""
    sharing = np.zeros(len(block), bool)
    places = np.flatnonzero(which)
    keys = band_keys(block["minhash"], rows)
    for band in range(HASHES // rows):
        row = keys[places, band]
        order = row.argsort()
        same = np.flatnonzero(row[order[1:]] == row[order[:-1]])
        sharing[places[order[same]]] = sharing[places[order[same + 1]]] = True
    return sharing


def _numbered_by_kept(matches: Matches, own: int, kept: int) -> Matches:
    """Matches within the block numbered among all that is kept, where they were numbered by places in the block."""
    agreeing, corpus, numbers = unpack(matches)
    within = (matches != 0) & (corpus == own) & (numbers >= kept)
    ranks = np.cumsum(matches == 0) - 1
    numbered: Matches = matches.copy()
    numbered[within] = pack(agreeing[within], own, kept + ranks[numbers[within] - kept])
    return numbered
