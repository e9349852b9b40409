"""What is measured of a model, part by part: each suite, and the held-out text of each source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from eval.language_model import LanguageModel, Progress
from eval.suites import PROTOCOL, Chosen, Plan, Suite, read_examples
from primer.fingerprint import fingerprint
from primer.recipe import Recipe
from primer.run import RunFolder

Row = Mapping[str, Any]
Item = dict[str, Any]
Ask = Callable[[Sequence[Row], LanguageModel, Progress], list[Item]]
Section = Literal["suites", "held_out", "toxicity", "open"]


@dataclass(frozen=True)
class Part:
    """One thing to measure.

    Attributes:
        section: Where its totals stand in `results.json`.
        name: Its suite or source.
        task: Hash of how it is asked; with a row and a model it decides the answer.
        rows: What is asked.
        ask: Any of the rows, of a model.
        totals: Of all items, for `results.json`.
    """

    section: Section
    name: str
    task: str
    rows: Sequence[Row]
    ask: Ask
    totals: Callable[[Sequence[Item]], dict[str, Any]]


def suite_parts(plan: Plan) -> list[Part]:
    """The suites of a plan. All rows are read here, so that damaged data shows before any work is done.

    Raises:
        PrimerError: If a row is damaged.
    """
    return [_suite(plan, chosen) for chosen in plan.chosen]


def held_out_parts(recipe: Recipe, run: RunFolder) -> list[Part]:
    """The held-out text of every source that a variant trains on.

    Raises:
        PrimerError: If a corpus cannot be read.
    """
    from eval.held_out import ask_held_out, choose_documents, held_out_totals

    mark = fingerprint({"protocol": PROTOCOL, "kind": "held_out"})
    return [
        Part(
            section="held_out",
            name=source,
            task=mark,
            rows=choose_documents(run.folder(f"corpus/{source}")),
            ask=partial(ask_held_out, source),
            totals=partial(held_out_totals, source),
        )
        for source in recipe.used_sources()
    ]


def _suite(plan: Plan, chosen: Chosen) -> Part:
    suite, rows = chosen.suite, plan.rows(chosen)
    if suite.kind == "choice":
        return _choice(suite, chosen, rows)
    if suite.kind == "generation":
        return _generation(plan, suite, chosen, rows)
    if suite.kind == "open":
        from eval.boundaries import ask_open

        return Part(
            "open", suite.name, suite.mark(), rows, ask_open, lambda items: {"set": suite.name, "rows": len(items)}
        )
    from eval.toxicity import ask_pairs, ask_toxigen, toxicity_totals

    ask = ask_pairs if suite.form == "sentence" else ask_toxigen
    return Part("toxicity", suite.name, suite.mark(), rows, ask, partial(toxicity_totals, suite.name))


def _choice(suite: Suite, chosen: Chosen, rows: Sequence[Row]) -> Part:
    from eval.choice import ask_choice, choice_totals

    examples = read_examples(chosen)
    mark = fingerprint({"task": suite.mark(), "examples": examples})
    ask = partial(ask_choice, suite, examples)
    return Part("suites", suite.name, mark, rows, ask, partial(_about, suite, chosen, choice_totals))


def _generation(plan: Plan, suite: Suite, chosen: Chosen, rows: Sequence[Row]) -> Part:
    from eval.generation import ask_generation, generation_totals

    examples, settings = read_examples(chosen), plan.settings
    drawn = {"samples": settings.samples, "temperature": settings.temperature, "seed": plan.seed}
    mark = fingerprint({"task": suite.mark(), "examples": examples} | (drawn if settings.temperature else {}))

    def ask(some: Sequence[Row], model: LanguageModel, progress: Progress) -> list[Item]:
        return ask_generation(suite, examples, some, model, settings, plan.seed, progress)

    def totals(suite: Suite, items: Sequence[Item]) -> dict[str, Any]:
        return {"chance": 0.0, "acc_norm": None, **generation_totals(suite, items, settings.temperature)}

    return Part("suites", suite.name, mark, rows, ask, partial(_about, suite, chosen, totals))


def _about(
    suite: Suite,
    chosen: Chosen,
    totals: Callable[[Suite, Sequence[Item]], dict[str, Any]],
    items: Sequence[Item],
) -> dict[str, Any]:
    name = {"val": "validation"}.get(chosen.path.stem, chosen.path.stem)
    split = "built-in items" if suite.origin == "built-in" else f"{name} split"
    found = totals(suite, items)
    return {
        "suite": suite.name,
        "title": suite.title,
        "origin": suite.origin,
        "area": suite.area,
        "kind": suite.kind,
        "twin": suite.twin,
        "rows": len(items),
        "shots": suite.shots,
        "split": split,
        **found,
        "protocol": f"{found['protocol']}; {split}; {len(items):,} rows",
    }
