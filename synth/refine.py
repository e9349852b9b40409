"""The refined source of a corpus: read, cleaned, filtered, screened, in parallel tasks; not deduplicated yet.

A refined folder holds `part-<task>-<shard>.parquet` with the schema of a corpus, `part-<task>.signatures.npy` with a
signature a document, and `contaminated.jsonl` with the passages for which texts were left out.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from primer.benchmarks import Question, data_folder, read_every_benchmark
from primer.errors import PrimerError
from primer.progress import say
from primer.recipe import Recipe
from primer.recipe_corpora import Code, Web
from primer.run import Built, write_json
from synth.parts import PART_CHARACTERS
from synth.personal_data import mask_personal_data
from synth.sources import OpenedSource, open_source
from synth.text import SourceText

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

    from synth.executors import Execute

CorpusName = Literal["web", "code"]
Questions = dict[str, list[Question]]

# A file with fewer words teaches nothing about code (an empty `__init__.py`, a licence line).
_CODE_WORDS = 10

# Tasks write more than the corpus takes, for deduplication removes some of it.
SPARE = 1.2

# A text longer than this part of its corpus is left out: it would be most of what one sees there.
_LONGEST = 10

_SHOWN_REASONS = 5

# What a source is divided by for samples, whatever is taken of it later: into 32 parts at most, which are open at once.
_SAMPLED = 32 * PART_CHARACTERS

CONTAMINATED = "contaminated.jsonl"


def section(recipe: Recipe, name: CorpusName) -> Web | Code:
    """The recipe's section of a corpus."""
    return recipe.web if name == "web" else recipe.code


def build_refined(recipe: Recipe, name: CorpusName, folder: Path, quality: Path | None, execute: Execute) -> Built:
    """Fill the folder of a stage `refined/<name>`; tasks that an interrupted build completed are not run again.

    Args:
        recipe: The recipe.
        name: The corpus.
        folder: The stage's folder.
        quality: Folder of the trained filter; None if every text is kept.
        execute: Where the tasks run (:mod:`synth.executors`).

    Raises:
        PrimerError: If the source cannot be read, or nothing of it can be used.
    """
    from synth.executors import run_tasks

    settings = section(recipe, name)
    opened = _open(recipe, name, settings.characters)
    folder, quality = folder.resolve(), quality and quality.resolve()  # tasks may run in another folder
    work = folder.with_name(f"{folder.name}.tasks")  # beside it: no result, but what an interrupted build goes on from
    _begin(work, folder, {"origin": opened.origin, "parts": opened.parts} | opened.facts)
    questions = read_every_benchmark(data_folder(recipe.eval.data)) if recipe.corpus.decontaminate else None
    steps = _steps(recipe, name, opened, folder, work, quality, questions)
    started, before = time.monotonic(), _counts(work).get("read", 0)
    run_tasks(execute, steps, opened.parts, work, f"refined/{name}", settings.characters)
    counts = _counts(work)
    read, kept = counts["read"], counts["kept"]
    if not kept:
        raise _nothing_usable(name, opened.origin, counts, settings)
    if read > before:
        seconds = time.monotonic() - started
        say(f"  read {read - before:,} documents in {seconds:,.0f} s ({(read - before) / seconds:,.0f} documents/s)")
    _join_lists(work, folder / CONTAMINATED)
    facts = opened.facts | _facts(counts, questions) | {"origin": opened.origin, "licence": opened.licence}
    return Built(f"{kept:,} of {read:,} documents from {opened.origin}{_left_out(counts)}", facts)


def sample_texts(recipe: Recipe, name: CorpusName) -> Iterator[SourceText]:
    """The texts of a source that the heuristic filters keep, of each part in turn; read as they are asked for.

    Personal data is masked in them, whatever the recipe says: they go to a teacher.

    Raises:
        PrimerError: If the source cannot be read.
    """
    opened = _open(recipe, name, _SAMPLED)
    steps = _reading(recipe, name, opened)
    parts = [_run(steps, part) for part in range(opened.parts)]
    for row in itertools.zip_longest(*parts):
        for text in row:
            if text is not None:
                yield SourceText(text=mask_personal_data(text.text).text, **text.metadata)


def read_contaminated(folder: Path) -> Iterator[dict[str, Any]]:
    """The passages for which texts were left out of a refined source, in order (`primer.contamination.Match`)."""
    path = folder / CONTAMINATED
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _run(steps: list[PipelineStep], part: int) -> Iterator[Any]:
    data: Iterator[Any] = iter(())
    for step in steps:
        data = step.run(data, part, 1)
    return data


def _open(recipe: Recipe, name: CorpusName, characters: int) -> OpenedSource:
    return open_source(section(recipe, name).source, f"{name}.source", recipe.seed, characters)


def _begin(work: Path, folder: Path, source: dict[str, Any]) -> None:
    """Keep of an earlier build what is whole, if it was of the same source."""
    (work / "notes").mkdir(parents=True, exist_ok=True)
    described = work / "source.json"
    if described.exists() and json.loads(described.read_text(encoding="utf-8")) != source:
        say("  the source has changed since the last run: it is read from the beginning")
        shutil.rmtree(work)
        (work / "notes").mkdir(parents=True)
    write_json(described, source)
    for mark in (work / "completions").glob("*"):
        statistics = work / "stats" / f"{mark.name}.json"
        written = folder / f"part-{mark.name}.signatures.npy"
        if not (statistics.is_file() and statistics.stat().st_size and written.is_file()):
            mark.unlink()
            statistics.unlink(missing_ok=True)


def _reading(recipe: Recipe, name: CorpusName, opened: OpenedSource) -> list[PipelineStep]:
    """The steps up to the heuristic filters."""
    from synth.refine_steps import ReadSource, heuristic_filters

    if name == "code":
        return [ReadSource(opened.read, _CODE_WORDS)]
    return [ReadSource(opened.read, recipe.web.min_words), *heuristic_filters(recipe.web.rules)]


def _steps(
    recipe: Recipe,
    name: CorpusName,
    opened: OpenedSource,
    folder: Path,
    work: Path,
    quality: Path | None,
    questions: Questions | None,
) -> list[PipelineStep]:
    from synth.refine_steps import Decontaminate, KeepEducational, Screen, WriteDocuments

    settings = section(recipe, name)
    steps = _reading(recipe, name, opened)
    if quality is not None:
        steps.append(KeepEducational(quality))
    if questions is not None:
        steps.append(Decontaminate(_benchmark_index(questions, work), work))
    if settings.screens.personal_data or settings.screens.toxicity:
        steps.append(Screen(settings.screens))
    characters = int(settings.characters * SPARE) // opened.parts + 1
    longest = settings.characters // _LONGEST
    steps.append(WriteDocuments(folder, work / "notes", name, characters, longest, recipe.corpus.duplicates.words))
    return steps


def _benchmark_index(questions: Questions, work: Path) -> Path:
    """The benchmarks in the form that tasks read; made again at every start, for it takes seconds."""
    from primer.contamination import Contamination

    path = work / "benchmarks"
    Contamination(questions).save(path)
    return path


def _counts(work: Path) -> Counter[str]:
    """What the steps of all complete tasks counted, by "step/what", and the source's and writer's by name alone."""
    counts: Counter[str] = Counter()
    for path in sorted((work / "stats").glob("*.json")):
        for step in json.loads(path.read_text(encoding="utf-8")):
            kind = step["name"].rpartition(": ")[2].strip()
            for what, value in step["stats"].items():
                key = what if kind in ("source", "documents") else f"{kind}/{what}"
                counts[key] += value["total"] if isinstance(value, dict) else value
    return counts


def _facts(counts: Counter[str], questions: Questions | None) -> dict[str, Any]:
    """What the manifest says of the work."""
    dropped = {key: round(n) for key, n in counts.items() if "/dropped_" in key and n}
    by_step = {key.partition("/dropped_")[::2]: n for key, n in dropped.items()}
    own = ("quality", "contamination", "screens")
    facts: dict[str, Any] = {
        "read": counts["read"],
        "kept": counts["kept"],
        # Of those that stood behind the last text that a task wrote, and were read with it.
        "unused": counts["read"] - counts["kept"] - _reasons(counts).total(),
        "too_short": counts["too_short"],
        "too_long": counts["too_long"],
        "stopped": counts["stopped"],
        "rules": {reason: n for (step, reason), n in sorted(by_step.items()) if step not in own},
        "quality_removed": by_step.get(("quality", "quality"), 0),
        "toxic_removed": by_step.get(("screens", "toxic"), 0),
        "personal_data": _under(counts, "screens/masked_"),
    }
    if questions is not None:
        facts["compared_with"] = list(questions)
        facts["contaminated"] = _under(counts, "contamination/dropped_")
    if "toxic" in counts:
        kept = counts["kept"]
        facts["toxicity"] = {"scored": kept, "toxic": counts["toxic"], "mean": round(counts["toxicity"] / kept, 6)}
    return facts


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): round(n) for key, n in sorted(counts.items()) if key.startswith(prefix) and n}


def _join_lists(work: Path, joined: Path) -> None:
    """One list of contaminated passages out of those of the tasks."""
    with joined.open("wb") as whole:
        for path in sorted(work.glob("contaminated-*.jsonl")):
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole)


def _reasons(counts: Counter[str]) -> Counter[str]:
    """How many texts were left out, by reason."""
    reasons = Counter({"too short": round(counts["too_short"]), "too long": round(counts["too_long"])})
    for key, n in counts.items():
        _, dropped, reason = key.partition("/dropped_")
        if dropped:
            reasons[reason.replace("_", " ")] += round(n)
    return +reasons


def _left_out(counts: Counter[str]) -> str:
    most = [f"{n:,} {reason}" for reason, n in _reasons(counts).most_common(_SHOWN_REASONS)]
    return f" (left out: {', '.join(most)})" if most else ""


def _nothing_usable(name: CorpusName, origin: str, counts: Counter[str], settings: Web | Code) -> PrimerError:
    problem = f"{name}.source ({origin}) holds no usable document"
    if not counts["read"]:
        return PrimerError(f"{problem}: it is empty.", "Choose another source.")
    words = ", ".join(f"{n:,} {reason}" for reason, n in _reasons(counts).most_common(_SHOWN_REASONS))
    remedy = "Choose another source."
    if isinstance(settings, Web):
        remedy = "Lower web.min_words, raise web.characters, take rules out of web.rules, or choose another source."
    return PrimerError(f"{problem}: of {counts['read']:,} texts were left out: {words}.", remedy)
