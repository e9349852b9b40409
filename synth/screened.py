"""The screens of what a teacher writes, as it is written: duplicates, benchmarks' items, hostile language.

Kept as for other corpora: `duplicates/removed.parquet` beside the document that was kept, and `contaminated.jsonl`
beside the benchmark's item.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from primer.benchmarks import data_folder, read_every_benchmark
from primer.contamination import Contamination, Match
from primer.documents import Document
from primer.recipe import Recipe
from synth.accept import Judge
from synth.duplicate_index import EarlierTexts
from synth.refine import CONTAMINATED
from synth.removed import RemovedWriter, removed_row
from synth.signatures import Found
from synth.toxicity import TOXIC, toxicity

_LONGEST_TITLE = 80


class Screened:
    """Takes note of what a judge leaves out, and scores what it keeps.

    Args:
        corpus: Name of the corpus, with which the identities of its documents begin.
        removed: Where duplicates are listed.
        contaminated: Where passages of benchmarks are listed, a line each.
        compared_with: The benchmarks; None: no text is compared with any.
    """

    def __init__(
        self, corpus: str, removed: RemovedWriter, contaminated: TextIO, compared_with: Sequence[str] | None
    ) -> None:
        self._corpus, self._removed, self._contaminated = corpus, removed, contaminated
        self._compared_with = compared_with
        self._accepted = array("q")
        self._duplicates: Counter[str] = Counter()
        self._suites: Counter[str] = Counter()
        self._toxic, self._toxicity = 0, 0.0

    def accepted(self, index: int, document: Document) -> Document:
        """Unit `index` became the next document; the document with its score."""
        self._accepted.append(index)
        score = toxicity(document["text"])
        self._toxic += score > TOXIC
        self._toxicity += score
        return {**document, "id": identity(self._corpus, index), "toxicity": score}

    def note(self, text: str, why: Found | Match) -> None:
        """A text is left out."""
        title = text.lstrip("#* \n").split("\n", 1)[0][:_LONGEST_TITLE]
        if isinstance(why, Match):
            self._suites[why.suite] += 1
            self._contaminated.write(json.dumps({"title": title, "origin": None} | asdict(why)) + "\n")
            return
        self._duplicates[why.kind] += 1
        kept = identity(self._corpus, self._accepted[why.number]) if why.corpus is None else None
        self._removed.add(removed_row({"title": title, "origin": None, "text": text}, why, self._corpus, kept))

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        facts: dict[str, Any] = {
            "exact_duplicates": self._duplicates["exact"],
            "near_duplicates": self._duplicates["near"],
            "toxicity": {
                "scored": len(self._accepted),
                "toxic": self._toxic,
                "mean": round(self._toxicity / max(1, len(self._accepted)), 6),
            },
        }
        if self._compared_with is not None:
            facts |= {"compared_with": list(self._compared_with), "contaminated": dict(sorted(self._suites.items()))}
        return facts


def identity(corpus: str, index: int) -> str:
    """Of the document that unit `index` became."""
    return f"{corpus}-{index:07d}"


@contextmanager
def judging(
    recipe: Recipe, folder: Path, corpus: str, earlier: Sequence[Path] = ()
) -> Iterator[tuple[Judge, Screened]]:
    """A judge of what is written for a corpus, and what takes note of its verdicts.

    Args:
        recipe: The experiment.
        folder: The folder of the corpus.
        corpus: Its name.
        earlier: Indexes of the corpora whose texts it must not repeat.

    Raises:
        PrimerError: If an index or a benchmark cannot be read.
    """
    settings = recipe.corpus.duplicates
    questions = read_every_benchmark(data_folder(recipe.eval.data)) if recipe.corpus.decontaminate else None
    benchmarks = None if questions is None else Contamination(questions)
    with ExitStack() as stack:
        removed = stack.enter_context(RemovedWriter(folder))
        contaminated = stack.enter_context((folder / CONTAMINATED).open("w", encoding="utf-8"))
        notes = Screened(corpus, removed, contaminated, None if questions is None else list(questions))
        known = EarlierTexts(earlier, settings) if earlier else None
        yield Judge(recipe.synth.accept, settings, known, benchmarks, notes.note), notes
