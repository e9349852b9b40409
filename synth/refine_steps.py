"""From a source's texts to documents: the steps of a datatrove pipeline, beside its own heuristic filters.

Each task of the pipeline reads one part of the source. A step keeps no state between documents but counts, so that
the result is that of the recipe alone, however many processes share the work.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from datatrove.data import Document as Text
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.word_tokenizers import WordTokenizer

from primer.contamination import Contamination
from primer.documents import Document, ShardWriter
from primer.errors import PrimerError
from primer.recipe_corpora import Rule, Screens
from primer.run import write_json
from primer.words import text_hash
from synth.personal_data import mask_personal_data
from synth.quality_filter import QualityFilter
from synth.signatures import SignatureWriter, signature
from synth.text import SourceText, clean
from synth.toxicity import TOXIC, toxicity

Texts = Iterator[Text]

# Texts that are embedded together.
_BATCH = 64

# Seconds between two lines about how far a task is.
_TICK = 1.0

_SENTENCE = re.compile(r"[^.!?…]+[.!?…]*[\"'”’)\]]*\s*")


class Words(WordTokenizer):  # type: ignore[misc]
    """Words between spaces, as Gopher's rules count them, and sentences by their last sign."""

    def word_tokenize(self, text: str) -> list[str]:
        """Words with the punctuation at their ends."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences, each with its end."""
        return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence begins and ends."""
        return [found.span() for found in _SENTENCE.finditer(text)]


def heuristic_filters(rules: list[Rule]) -> list[BaseFilter]:
    """datatrove's filters by the names that recipes have for them, as FineWeb used them (arXiv 2406.17557, section 3).

    FineWeb kept lines without a full stop at their end: headings and lists are text.
    """
    makers: dict[Rule, Callable[..., BaseFilter]] = {
        "gopher_repetition": GopherRepetitionFilter,
        "gopher_quality": GopherQualityFilter,
        "c4": partial(C4QualityFilter, filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter,
    }
    return [makers[rule](language=Words()) for rule in rules]


class ReadSource(PipelineStep):  # type: ignore[misc]
    """Reads one part of a source, and cleans it.

    Args:
        read: `synth.sources.OpenedSource.read`.
        min_words: Shorter texts are left out.
    """

    name = "source"
    type = "READ"

    def __init__(self, read: Callable[[int], Iterator[SourceText]], min_words: int) -> None:
        super().__init__()
        self._read, self._min_words = read, min_words

    def run(self, _data: Texts | None, rank: int = 0, _world_size: int = 1) -> Texts:
        """The texts of part `rank`."""
        for number, found in enumerate(self._read(rank)):
            self.stat_update("read")
            text = clean(found.text)
            if len(text.split()) < self._min_words:
                self.stat_update("too_short")
                continue
            about = {"group": found.group, "title": found.title, "origin": found.origin, "licence": found.licence}
            yield Text(text=text, id=f"{rank:05d}-{number:08d}", metadata=about)


class KeepEducational(BaseFilter):  # type: ignore[misc]
    """Keeps the texts that a trained filter scores at its threshold or higher."""

    name = "quality"

    def __init__(self, folder: Path) -> None:
        super().__init__(batch_size=_BATCH)
        self._folder = folder

    def filter(self, document: Text) -> bool | tuple[bool, str]:
        """One text alone."""
        return self.filter_batch([document])[0]

    def filter_batch(self, documents: list[Text]) -> list[bool | tuple[bool, str]]:
        """Some texts."""
        quality = _quality_filter(self._folder)
        scores = quality.scores([document.text for document in documents])
        for document, score in zip(documents, scores, strict=True):
            document.metadata["quality"] = float(score)
        return [bool(score >= quality.threshold) or (False, "quality") for score in scores]


class Decontaminate(PipelineStep):  # type: ignore[misc]
    """Leaves out texts that hold items of benchmarks, and lists the passages.

    Args:
        index: File of the index (`Contamination.save`).
        folder: Where the list goes, one file a task.
    """

    name = "contamination"
    type = "FILTER"

    def __init__(self, index: Path, folder: Path) -> None:
        super().__init__()
        self._index, self._folder = index, folder

    def run(self, data: Texts, rank: int = 0, _world_size: int = 1) -> Texts:
        """The texts that hold none."""
        benchmarks = _contamination(self._index)
        with (self._folder / f"contaminated-{rank:05d}.jsonl").open("w", encoding="utf-8") as file:
            for document in data:
                found = benchmarks.find(document.text)
                if found is None:
                    yield document
                    continue
                self.stat_update(f"dropped_{found.suite}")
                about = {key: document.metadata[key] for key in ("title", "origin")}
                file.write(json.dumps(about | asdict(found)) + "\n")


class Screen(BaseFilter):  # type: ignore[misc]
    """Masks personal data, and scores hostile language."""

    name = "screens"

    def __init__(self, screens: Screens) -> None:
        super().__init__()
        self._screens = screens

    def filter(self, document: Text) -> bool | tuple[bool, str]:
        """Whether the text is mild enough; its personal data is masked in place."""
        if self._screens.toxicity:
            score = toxicity(document.text)
            document.metadata["toxicity"] = score
            if self._screens.max_toxicity is not None and score > self._screens.max_toxicity:
                return False, "toxic"
        if self._screens.personal_data:
            masked = mask_personal_data(document.text)
            document.text = masked.text
            document.metadata["masked"] = sum(masked.counts.values())
            for key in ("title", "origin"):
                if document.metadata[key]:
                    document.metadata[key] = mask_personal_data(document.metadata[key]).text
            for kind, count in masked.counts.items():
                self.stat_update(f"masked_{kind}", value=count)
        return True


class WriteDocuments(PipelineStep):  # type: ignore[misc]
    """Writes a task's documents, the signatures that duplicates are found by, and how far it is.

    Args:
        folder: Where `part-<task>-<shard>.parquet` and `part-<task>.signatures.npy` go.
        notes: Where a task says how far it is, and why it failed.
        source: The corpus: web or code.
        characters: A task ends once it has written so many; it is more than its share of the corpus.
        longest: Texts of more characters are left out.
        shingle: Words of a shingle.
    """

    name = "documents"
    type = "WRITE"

    def __init__(self, folder: Path, notes: Path, source: str, characters: int, longest: int, shingle: int) -> None:
        super().__init__()
        self._folder, self._notes, self._source = folder, notes, source
        self._characters, self._longest, self._shingle = characters, longest, shingle

    def run(self, data: Texts, rank: int = 0, _world_size: int = 1) -> None:
        """Write them all."""
        failure = self._notes / f"failure-{rank:05d}.json"
        try:
            failure.unlink(missing_ok=True)
            self._write(data, rank)
        except PrimerError as error:  # the process that waits for this one may be on another machine
            write_json(failure, {"problem": error.problem, "remedy": error.remedy})
            raise

    def _write(self, data: Texts, rank: int) -> None:
        writer = ShardWriter(self._folder, f"part-{rank:05d}")
        written = documents = 0
        last = 0.0
        with SignatureWriter(self._folder / f"part-{rank:05d}.signatures.npy") as signatures:
            for text in data:
                if len(text.text) > self._longest:
                    self.stat_update("too_long")
                    continue
                if written + len(text.text) > self._characters and documents:
                    self.stat_update("stopped")
                    break
                document = self._document(text)
                writer.add(document)
                signatures.add(signature(text.text, self._shingle))
                self._count(document)
                documents += 1
                written += len(text.text)
                if time.monotonic() - last > _TICK:
                    last = time.monotonic()
                    write_json(self._notes / f"progress-{rank:05d}.json", [written, documents])
            writer.finish()
        write_json(self._notes / f"progress-{rank:05d}.json", [written, documents])

    def _document(self, text: Text) -> Document:
        about: dict[str, Any] = text.metadata
        digest = text_hash(text.text)
        return Document(
            id=f"{self._source}-{text.id}",
            text=text.text,
            source=self._source,
            hash=digest,
            group=clean(about["group"]) or digest,
            title=_plain(about["title"]),
            origin=_plain(about["origin"]),
            licence=about["licence"],
            quality=about.get("quality"),
            toxicity=about.get("toxicity"),
            masked=about.get("masked"),
            provenance=None,
        )

    def _count(self, document: Document) -> None:
        self.stat_update("kept")
        score = document.get("toxicity")
        if score is not None:
            self.stat_update("toxic", value=int(score > TOXIC))
            self.stat_update("toxicity", value=score)


def _plain(value: str | None) -> str | None:
    """A title or address on one line, without what Parquet or a terminal cannot take."""
    return None if value is None else " ".join(clean(value).split())[:500]


@cache
def _quality_filter(folder: Path) -> QualityFilter:
    return QualityFilter.load(folder)


@cache
def _contamination(path: Path) -> Contamination:
    return Contamination.load(path)
