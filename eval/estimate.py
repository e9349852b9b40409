"""How much an evaluation asks: rows and tokens by suite. How long that takes depends on the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from eval.boundaries import prompts
from eval.suites import make_plan
from primer.benchmarks import texts_in
from primer.recipe import Recipe
from primer.sealed import read_items

# As `eval.held_out.LARGEST_BYTES`, which cannot be imported without PyTorch.
_HELD_OUT_BYTES = 400_000

# Importing torch, once a command (docs/evaluation.md).
START_SECONDS = 2.7


@dataclass(frozen=True)
class Asked:
    """One suite, or the held-out text of one source: rows (None where unknown yet) and tokens that a model reads.

    What it writes is not counted.
    """

    name: str
    rows: int | None
    tokens: float


@dataclass(frozen=True)
class Questions:
    """What every model is asked, and the suites that have no data here."""

    asked: list[Asked]
    without_data: list[str]

    @property
    def rows(self) -> int:
        """Rows of the suites."""
        return sum(part.rows or 0 for part in self.asked)

    @property
    def tokens(self) -> float:
        """Tokens of everything."""
        return sum(part.tokens for part in self.asked)


def estimate_questions(recipe: Recipe, source_characters: dict[str, float]) -> Questions:
    """Count what each model of a recipe is asked.

    Args:
        recipe: The experiment.
        source_characters: Characters of each corpus, held-out text included.

    Raises:
        PrimerError: If the recipe names a suite or a folder of benchmark data that cannot be found or read.
    """
    plan, per_token = make_plan(recipe.eval, recipe.seed, fetch=False), recipe.plan.characters_per_token
    asked = []
    for chosen in plan.chosen:
        rows, characters = _count_prompts() if chosen.suite.kind == "open" else _count(chosen.path)
        characters *= 1 + chosen.suite.shots  # examples are about as long as what is asked
        taken = min(rows, recipe.eval.limit or rows)
        asked.append(Asked(chosen.suite.name, taken, characters / per_token * taken / max(1, rows)))
    for source, characters in source_characters.items():
        held_out = min(recipe.corpus.held_out_share * characters, _HELD_OUT_BYTES)
        asked.append(Asked(f"held-out {source}", None, held_out / per_token))
    return Questions(asked, [skipped["suite"] for skipped in plan.skipped])


def _count_prompts() -> tuple[int, float]:
    return len(prompts()), float(sum(len(row["text"]) for row in prompts()))


def _count(path: Path) -> tuple[int, float]:
    """Rows of a file, and characters of all their texts."""
    rows, characters = 0, 0
    for line in read_items(path).split("\n"):
        if not line.strip():
            continue
        rows += 1
        try:
            characters += sum(map(len, texts_in(json.loads(line))))
        except ValueError:  # `primer eval` names the line
            characters += len(line)
    return rows, characters
