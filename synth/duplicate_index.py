"""The index of a finished corpus: which of its texts, if any, another text duplicates.

A folder of segments (`synth.duplicate_segments`) and `index.json`, which says by what settings they were made and is
written last. The same texts and settings give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from primer.errors import PrimerError
from primer.recipe_corpora import Duplicates
from primer.run import write_json
from synth.duplicate_segments import (
    EQUAL,
    Matches,
    Segment,
    index_segment,
    least_match,
    merge_segments,
    unpack,
    write_segment,
)
from synth.signatures import Found, Signatures, SignatureWriter, band_keys, least_agreeing, remedy, similarity_of

# Texts of a segment: to sort one of its bands takes some 120 MB.
_SEGMENT = 1 << 22

# Of so many segments of a corpus that is being made one is made: a quarter of a million texts each, of 4 million.
_MERGED = 16

_LAYOUT = 2


class IndexWriter:
    """Writes the index of a corpus, text by text; a context manager. The folder is whole once it has an `index.json`.

    Args:
        folder: An existing folder.
        corpus: Name of the corpus: web or code.
        settings: What counts as a duplicate.
        segment: Texts of a segment.
    """

    def __init__(self, folder: Path, corpus: str, settings: Duplicates, segment: int = _SEGMENT) -> None:
        self._folder, self._corpus, self._settings, self._room = folder, corpus, settings, segment
        self._sizes: list[int] = []
        self._writer: SignatureWriter | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, signature: Signatures) -> None:
        """Append the signature of the next text (shape [])."""
        if self._writer is None:
            stem = segment_stem(self._folder, len(self._sizes))
            self._writer = SignatureWriter(stem.with_name(f"{stem.name}-signatures.npy"))
            self._writer.__enter__()
        self._writer.add(signature)
        if self._writer.count == self._room:
            self._finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)
            return
        if self._writer is not None:
            self._finish()
        about = {"layout": _LAYOUT, "corpus": self._corpus, "words": self._settings.words, "rows": self._settings.rows}
        write_json(self._folder / "index.json", about | {"segments": self._sizes})

    def _finish(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)
        index_segment(segment_stem(self._folder, len(self._sizes)), self._settings.rows)
        self._sizes.append(writer.count)


class EarlierTexts:
    """The texts of some corpora, to ask which of them another text duplicates.

    Its files are memory-mapped: a lookup reads a few pages of each band, and what is not in use costs no memory.

    Args:
        folders: Their indexes; among equally good matches the first one's is found.
        settings: What counts as a duplicate.

    Raises:
        PrimerError: If an index is missing, damaged, or made with other settings.
    """

    def __init__(self, folders: Sequence[Path], settings: Duplicates) -> None:
        self._least, self._rows = least_agreeing(settings.threshold), settings.rows
        self._written = self._young = 0  # segments of the corpus that is being made: in all, and not merged
        self._corpora: list[str | None] = []
        self._segments: list[Segment] = []
        for place, folder in enumerate(folders):
            about = _read_about(folder, settings)
            self._corpora.append(about["corpus"])
            first = 0
            for number, size in enumerate(about["segments"]):
                self._segments.append(Segment(segment_stem(folder, number), settings.rows, place, first))
                first += size
        self._corpora.append(None)

    def find(self, signature: Signatures) -> Found | None:
        """The text that this one duplicates, if any: an equal one, or the most alike, the first of equals."""
        return self.found(max((segment.best(signature) for segment in self._segments), default=0))

    def matches(self, block: Signatures) -> Matches:
        """The best match of each signature of a block (shape [n]), see :meth:`found`; faster than one by one."""
        best = np.zeros(len(block), np.int64)
        if not self._segments or not len(block):
            return best
        order = block["text"][:, 0].argsort()
        for segment in self._segments:
            segment.find_equal(best, block, order)
        equal = best >= least_match(EQUAL)
        keys = band_keys(block["minhash"], self._rows)
        for band in range(keys.shape[1]):
            order = keys[:, band].argsort()
            order = order[~equal[order]]
            for segment in self._segments:
                segment.improve(best, block, band, order)
        return best

    def found(self, match: int) -> Found | None:
        """What a match says, if it is good enough."""
        if match == 0:
            return None
        agreeing, place, number = (int(part) for part in unpack(np.asarray(match)))
        if agreeing == EQUAL:
            return Found(number, 1.0, "exact", self._corpora[place])
        if agreeing < self._least:
            return None
        return Found(number, float(similarity_of(agreeing)), "near", self._corpora[place])

    @property
    def own(self) -> int:
        """Place of the corpus that is being made, after the earlier ones."""
        return len(self._corpora) - 1

    def extend(self, folder: Path, signatures: Signatures, first: int) -> None:
        """Take in more texts of the corpus that is being made, as a segment.

        Args:
            folder: Of all its segments, and of no others.
            signatures: Of at least one text.
            first: Number of the first of them.
        """
        stem = segment_stem(folder, self._written)
        write_segment(stem, signatures, self._rows)
        self._segments.append(Segment(stem, self._rows, self.own, first))
        self._written, self._young = self._written + 1, self._young + 1
        if self._young == _MERGED:
            young, stem = self._segments[-_MERGED:], segment_stem(folder, self._written)
            merge_segments(stem, young, self._rows)
            self._segments[-_MERGED:] = [Segment(stem, self._rows, self.own, young[0].first)]
            self._written, self._young = self._written + 1, 0


def segment_stem(folder: Path, number: int) -> Path:
    """Where a segment of an index lies, and how its files' names begin."""
    return folder / f"{number:05d}"


def _read_about(folder: Path, settings: Duplicates) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", remedy(path)) from None
    if not isinstance(about, dict):
        raise PrimerError(f"{path} is damaged: it holds {type(about).__name__}, no object.", remedy(path))
    wanted = {"layout": _LAYOUT, "words": settings.words, "rows": settings.rows}
    if found := {key: about.get(key) for key, value in wanted.items() if about.get(key) != value}:
        raise PrimerError(
            f"{path} was made with {found}, but the recipe's corpus.duplicates need {wanted}.", remedy(path)
        )
    sizes = about.get("segments")
    if not (
        isinstance(about.get("corpus"), str)
        and isinstance(sizes, list)
        and all(type(size) is int and size > 0 for size in sizes)
    ):
        raise PrimerError(f"{path} is damaged: it names no corpus, or no segments.", remedy(path))
    return about
