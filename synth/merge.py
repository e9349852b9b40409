"""A corpus out of its parts: duplicates out, cut to the recipe's size, divided into training and held-out text.

Beside its documents the folder holds `duplicates/removed.parquet`, what was left out and for which document, and
`duplicates/index/`, by which later corpora leave out what stands in this one.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

from primer.documents import CorpusWriter, Document, read_shards
from primer.progress import bar, say
from primer.recipe import Recipe
from primer.run import Built, RunFolder
from synth.duplicate_index import IndexWriter
from synth.duplicates import find_duplicates
from synth.refine import CorpusName, section
from synth.removed import RemovedWriter, removed_row
from synth.signatures import each_signature
from synth.toxicity import TOXIC

INDEX = Path("duplicates") / "index"

Row = dict[str, Any]


@dataclass
class _Taken:
    """What goes into a corpus; `room` is how many characters of the source it still takes."""

    room: int
    documents: int = 0
    characters: int = 0
    alone: int = 0
    groups: set[str] = field(default_factory=set)
    duplicates: Counter[str] = field(default_factory=Counter)
    exhausted: bool = True
    scored: int = 0
    toxic: int = 0
    toxicity: float = 0.0

    def add(self, row: Row, *, of_source: bool) -> bool:
        """Count a document in, if there is room."""
        length = len(row["text"])
        if of_source and length > self.room:
            self.exhausted = False
            return False
        self.room -= length * of_source
        if (score := row["toxicity"]) is not None:
            self.scored += 1
            self.toxic += score > TOXIC
            self.toxicity += score
        self.documents += 1
        self.characters += length
        if row["group"] in (row["hash"], row["origin"]):  # a group of its own, as most of the web: nothing to remember
            self.alone += 1
        else:
            self.groups.add(row["group"])
        return True


def build_corpus(
    recipe: Recipe, name: CorpusName, folder: Path, run: RunFolder, parts: Sequence[str], earlier: Sequence[str]
) -> Built:
    """Fill the folder of a stage `corpus/web` or `corpus/code`.

    Args:
        recipe: The recipe.
        name: Which of the two.
        folder: The stage's folder; what an interrupted build left there is replaced.
        run: The run folder.
        parts: Its stages: the refined source, then what the teacher wrote.
        earlier: Stages of the corpora whose texts it must not repeat.

    Raises:
        PrimerError: If a part is damaged, or nothing is left.
    """
    source, *written = (run.folder(part) for part in parts)
    settings = recipe.corpus.duplicates
    scratch = folder.with_name(f"{folder.name}.tasks")
    # What the teacher wrote comes first: the source is cut where the corpus is full, and nothing may point beyond that.
    files = [path for part in (*written, source) for path in sorted(part.glob("part-*.signatures.npy"))]
    removals = find_duplicates(files, settings, [run.folder(stage) / INDEX for stage in earlier], scratch)
    rows = chain(
        ((row, False) for part in written for row in _documents(part)), ((row, True) for row in _documents(source))
    )
    shutil.rmtree(folder / INDEX.parent, ignore_errors=True)
    (folder / INDEX).mkdir(parents=True)
    taken = _Taken(section(recipe, name).characters)
    with (
        CorpusWriter(folder, recipe.corpus.held_out_share, recipe.seed) as corpus,
        RemovedWriter(folder) as removed,
        IndexWriter(folder / INDEX, name, settings) as index,
        bar(f"corpus/{name}", removals.documents, "documents") as progress,
    ):
        for number, ((row, of_source), signed) in enumerate(zip(rows, each_signature(files), strict=True)):
            if found := removals.kept_by(number):
                taken.duplicates[found.kind] += 1
                removed.add(removed_row(row, found, name))
                continue
            identity = f"{name}-{taken.documents:06d}"
            if not taken.add(row, of_source=of_source):
                break
            corpus.add(cast(Document, row | {"id": identity}))
            index.add(signed)
            progress.update(number, f"{taken.documents:,} kept")
    shutil.rmtree(scratch)
    facts = _facts(run, parts, taken)
    if facts["stopped"] and taken.exhausted:
        _say_short(name, section(recipe, name).characters, taken)
    return Built(_summary(taken, facts["origin"]), corpus.counts | facts)


def _say_short(name: CorpusName, wanted: int, taken: _Taken) -> None:
    got = wanted - taken.room
    say(
        f"  [yellow]corpus/{name} has {got:,} of {wanted:,} characters[/]: duplicates were more than what is read in "
        f"reserve; for more set {name}.characters to {round(wanted * wanted / max(1, got)):,}"
    )


def _documents(part: Path) -> Iterator[Row]:
    return read_shards(sorted(part.glob("part-*.parquet")))


def _facts(run: RunFolder, parts: Sequence[str], taken: _Taken) -> dict[str, Any]:
    """What the manifest says: the refined source's facts, those of what the teacher wrote by name, and our own."""
    source, *written = (run.require(part) for part in parts)
    facts = dict(source.facts)
    for part in written:
        facts |= {part.stage.removeprefix("written/"): part.facts}
        facts |= {"licence": None, "origin": f"{facts['origin']}; {part.facts['origin'].lower()}"}
        for suite, count in part.facts.get("contaminated", {}).items():
            facts["contaminated"] = facts["contaminated"] | {suite: facts["contaminated"].get(suite, 0) + count}
    if taken.scored:
        mean = round(taken.toxicity / taken.scored, 6)
        facts["toxicity"] = {"scored": taken.scored, "toxic": taken.toxic, "mean": mean}
    return facts | {
        "documents": taken.documents,
        "characters": taken.characters,
        "groups": len(taken.groups) + taken.alone,
        "duplicates_removed": taken.duplicates.total(),
        "exact_duplicates": taken.duplicates["exact"],
        "near_duplicates": taken.duplicates["near"],
        # The source may have had more for any of its tasks, too.
        "exhausted": taken.exhausted and not facts["stopped"],
    }


def _summary(taken: _Taken, origin: str) -> str:
    counts = {"duplicates": taken.duplicates["exact"], "near duplicates": taken.duplicates["near"]}
    left_out = [f"{count:,} {what}" for what, count in counts.items() if count]
    ending = f" ({', '.join(left_out)} left out)" if left_out else ""
    return f"{taken.documents:,} documents, {taken.characters:,} characters from {origin}{ending}"
