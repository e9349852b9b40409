"""The evaluation stage of each variant: suites, held-out loss and toxicity, in `eval/<variant>/`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from eval.suites import Plan, make_plan
from primer.fingerprint import stage_settings
from primer.progress import Bar, bar, say
from primer.recipe import Recipe
from primer.run import Built, RunFolder, Stage, write_json, write_text

if TYPE_CHECKING:
    from eval.model import PrimerLM

Measure = Callable[["PrimerLM", Callable[[float], None]], tuple[dict[str, Any], list[dict[str, Any]]]]


@dataclass(frozen=True)
class Part:
    """One thing to measure.

    Attributes:
        section: Where its totals stand in `results.json`.
        name: Its suite or source.
        rows: Number of rows, for the progress bar.
        measure: Takes the model and a function that is told the share of work done; returns totals and items.
    """

    section: str
    name: str
    rows: int
    measure: Measure


def evaluate_variants(recipe: Recipe, run: RunFolder) -> None:
    """Evaluate every variant's model: stages `eval/<variant>`.

    Raises:
        PrimerError: If a model or corpus is missing, a suite does not exist, or data is damaged.
    """
    plan = make_plan(recipe.eval, recipe.seed)
    if plan.skipped:
        names = ", ".join(skipped["suite"] for skipped in plan.skipped)
        folder = escape(str(plan.data)) if plan.data else "eval.data in the recipe, or PRIMER_EVAL_DATA"
        say(f"Left out, for want of data: {names} (rows belong in <suite>/<split>.jsonl below {folder}).")
    corpora = tuple(f"corpus/{source}" for source in recipe.used_sources())
    for variant in recipe.variants:
        run.complete(
            Stage(
                name=f"eval/{variant.name}",
                settings=stage_settings(recipe, "eval"),
                reads=(f"models/{variant.name}", *corpora),
                material=plan.material,
                build=partial(_build, recipe, run, plan, variant.name),
            )
        )


def _build(recipe: Recipe, run: RunFolder, plan: Plan, variant: str, folder: Path) -> Built:
    started = time.monotonic()
    parts = _parts(recipe, run, plan)
    kept = folder / "parts"  # each part is kept as soon as it is measured, so an interrupted evaluation goes on there
    kept.mkdir(exist_ok=True)
    model: PrimerLM | None = None
    measured: list[tuple[Part, dict[str, Any]]] = []
    done = 0
    with bar(f"eval/{variant}", sum(part.rows for part in parts), "rows") as progress:
        for part in parts:
            path = kept / f"{part.section}-{part.name}.json"
            if not path.exists():
                if model is None:
                    progress.update(done, "loading the model")
                    model = _load_model(recipe, run.folder(f"models/{variant}"))
                write_json(path, _measure(part, model, partial(_advance, progress, part, done)))
            measured.append((part, json.loads(path.read_text(encoding="utf-8"))))
            done += part.rows
            progress.update(done, part.name)
    results, rows = _write(folder, variant, plan, measured)
    shutil.rmtree(kept)
    return Built(_summary(results), {"rows": rows, "seconds": round(time.monotonic() - started, 2)})


def _parts(recipe: Recipe, run: RunFolder, plan: Plan) -> list[Part]:
    """Everything to measure. All rows are read here, so damaged data shows before any work is done."""
    from eval.held_out import choose_documents, measure_held_out
    from eval.suites import answer, load_tasks
    from eval.toxicity import measure_pairs, measure_toxigen

    tasks = load_tasks(plan)
    parts: list[Part] = []
    for suite, path in plan.chosen:
        if suite.kind == "choice":
            task = tasks[suite.name]
            parts.append(Part("suites", suite.name, len(task.eval_docs), partial(answer, suite, path, task)))
        else:
            rows = plan.rows(suite, path)
            measure = partial(measure_pairs if suite.form == "sentence" else measure_toxigen, rows)
            parts.append(Part("toxicity", suite.name, len(rows), measure))
    for source in recipe.used_sources():
        documents = choose_documents(run.folder(f"corpus/{source}"))
        parts.append(Part("held_out", source, len(documents), partial(measure_held_out, source, documents)))
    return parts


def _load_model(recipe: Recipe, folder: Path) -> PrimerLM:
    import torch

    from eval.model import PrimerLM

    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    return PrimerLM(folder, recipe.train.device)


def _measure(part: Part, model: PrimerLM, progress: Callable[[float], None]) -> dict[str, Any]:
    from eval.model import AnswerTooLongError

    try:
        totals, items = part.measure(model, progress)
    except AnswerTooLongError as error:
        say(f"{part.name} is left out: {escape(error.problem)}.")
        return {"skipped": error.problem, "items": []}
    return {"totals": totals, "items": items}


def _advance(progress: Bar, part: Part, done: int, share: float) -> None:
    progress.update(done + share * part.rows, part.name)


def _write(
    folder: Path, variant: str, plan: Plan, measured: Sequence[tuple[Part, dict[str, Any]]]
) -> tuple[dict[str, Any], int]:
    """Write `results.json` and `items.jsonl`; return the results and the number of rows behind them."""
    results: dict[str, Any] = {"variant": variant, "suites": [], "held_out": [], "toxicity": [], "skipped": []}
    results["skipped"] += plan.skipped
    lines: list[str] = []
    for part, found in measured:
        if "skipped" in found:
            results["skipped"].append({"suite": part.name, "reason": found["skipped"]})
        else:
            results[part.section].append(found["totals"])
        lines += [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in found["items"]]
    write_json(folder / "results.json", results)
    write_text(folder / "items.jsonl", "".join(f"{line}\n" for line in lines))
    return results, sum(part.rows for part, found in measured if "totals" in found)


def _summary(results: dict[str, Any]) -> str:
    words: list[str] = []
    for origin, plural in (("built-in", "built-in suites"), ("benchmark", "benchmarks")):
        suites = [suite for suite in results["suites"] if suite["origin"] == origin]
        if suites:
            mean = sum(suite["acc"] for suite in suites) / len(suites)
            rows = sum(suite["rows"] for suite in suites)
            words.append(f"mean accuracy {mean:.3f} over {len(suites)} {plural}, {rows:,} rows")
    bits = ", ".join(f"{found['source']} {found['bits_per_byte']:.2f}" for found in results["held_out"])
    return "; ".join([*words, f"held-out bits per byte: {bits}"])
