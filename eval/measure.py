"""Measuring a model: rows are asked a few seconds' worth at a time, and every answer is kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from eval.item_files import ITEMS, write_items
from eval.language_model import CannotAskError, LanguageModel
from eval.parts import Item, Part, Row
from eval.store import Answers, model_hash
from eval.subjects import RESULTS
from primer.progress import Bar, bar, say
from primer.run import write_json

# Work that an interruption may lose, in seconds, and the rows that are asked together: enough for full batches.
_SECONDS = 5.0
_FIRST, _FEWEST, _MOST = 64, 16, 1024


@dataclass
class Measured:
    """What was found of a model.

    Attributes:
        results: For `results.json`.
        items: Every answer.
        asked: Rows that were asked now; the others' answers were kept.
        seconds: What that took, loading the model included.
    """

    results: dict[str, Any]
    items: list[Item]
    asked: int
    seconds: float


def measure(
    name: str,
    parts: Sequence[Part],
    folder: Path,
    load: Callable[[], LanguageModel],
    kept: Path,
    skipped: Sequence[dict[str, str]] = (),
) -> Measured:
    """Ask a model everything that was not asked of it before.

    Args:
        name: Of the model.
        parts: What to measure.
        folder: The model's.
        load: Loads it; called if something is missing.
        kept: Folder of kept answers (`eval.store`).
        skipped: Suites that have no data, and why.

    Raises:
        PrimerError: If the model cannot be loaded or its log-likelihoods are not numbers.
    """
    started = time.monotonic()
    weights = model_hash(folder)
    results: dict[str, Any] = {"variant": name, "weights": weights, "suites": [], "held_out": [], "toxicity": []}
    results |= {"open": [], "skipped": list(skipped)}
    items: list[Item] = []
    asked = 0
    model: LanguageModel | None = None
    with bar(f"eval/{name}", sum(len(part.rows) for part in parts), "rows") as progress:
        done = 0
        for part in parts:
            answers = Answers(kept, weights, part.name, part.task)
            missing = answers.missing(part.rows)
            if missing and model is None:
                progress.update(done, "loading the model")
                model = load()
            try:
                if missing and model is not None:
                    _ask(part, answers, missing, model, progress, done)
            except CannotAskError as error:
                say(f"Left out of eval/{escape(name)}: {part.name}: {escape(error.problem)}")
                results["skipped"].append({"suite": part.name, "reason": error.problem})
            else:
                asked += len(missing)
                found = answers.items(part.rows)
                items += found
                if found:
                    results[part.section].append(part.totals(found))
            done += len(part.rows)
            progress.update(done, part.name)
    return Measured(results, items, asked, time.monotonic() - started)


def write_measured(folder: Path, measured: Measured) -> None:
    """Write `items.parquet` and, last, `results.json`."""
    write_items(folder / ITEMS, measured.items)
    write_json(folder / RESULTS, measured.results)


def summary(results: dict[str, Any]) -> str:
    """The scores in a line."""
    words: list[str] = []
    for origin, kind in (("built-in", "built-in suite"), ("benchmark", "benchmark")):
        suites = [suite for suite in results["suites"] if suite["origin"] == origin]
        if suites:
            mean = sum(suite["acc"] for suite in suites) / len(suites)
            rows = sum(suite["rows"] for suite in suites)
            words.append(f"mean accuracy {mean:.3f} over {_counted(len(suites), kind)}, {_counted(rows, 'row')}")
    if results["held_out"]:
        bits = ", ".join(f"{found['source']} {found['bits_per_byte']:.2f}" for found in results["held_out"])
        words.append(f"held-out bits per byte: {bits}")
    if results["toxicity"]:
        words.append(
            ", ".join(f"{_counted(found['rows'], 'sentence')} of {found['set']}" for found in results["toxicity"])
        )
    words += [f"{_counted(found['rows'], 'answer')} to {found['set']}" for found in results["open"]]
    return "; ".join(words) or "nothing was asked"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _ask(part: Part, answers: Answers, missing: Sequence[Row], model: LanguageModel, progress: Bar, done: int) -> None:
    count, start = _FIRST, 0
    before = done + len(part.rows) - len(missing)
    while start < len(missing):
        some = missing[start : start + count]
        clock = time.monotonic()

        def advance(share: float, rows: int = len(some), first: int = start) -> None:
            progress.update(before + first + share * rows, part.name)

        answers.keep(some, part.ask(some, model, advance))
        start += len(some)
        pace = len(some) / max(time.monotonic() - clock, 1e-3)
        count = min(_MOST, max(_FEWEST, round(pace * _SECONDS)))
    answers.gather()
