"""Made-up models with the scores that a test wants, without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eval.compare import Documents, compare
from eval.comparison import Comparison
from eval.scored_items import (
    ChoiceItem,
    GenerationItem,
    HeldOutItem,
    ModelScores,
    Results,
    SubjectScores,
    SuiteResult,
)


def model(
    right: Mapping[str, Any],
    choices: int = 4,
    bits: Any = (),
    twins: Mapping[str, str] | None = None,
    shots: int = 0,
) -> ModelScores:
    """A model that answers suites as the vectors say (`choices` 0: it writes) and needs the bits for 1,000 bytes each.

    A suite that has a twin is a benchmark.
    """
    questions: dict[str, dict[str, Any]] = {}
    suites = []
    for suite, answers in right.items():
        questions[suite] = {}
        for n, a in enumerate(map(float, answers)):
            about: dict[str, Any] = {"suite": suite, "item": f"{suite}-{n:05d}", "acc": a}
            chosen = {"gold": n % choices, "acc_norm": a, "loglikelihoods": [-1.0] * choices} if choices else {}
            questions[suite][about["item"]] = (
                ChoiceItem(kind="choice", **about, **chosen) if choices else GenerationItem(kind="generation", **about)
            )
        mean = float(np.mean(answers))
        suites.append(
            SuiteResult(
                suite=suite,
                title=f"Suite {suite}",
                origin="benchmark" if suite in (twins or {}).values() else "built-in",
                kind="choice" if choices else "generation",
                twin=(twins or {}).get(suite),
                rows=len(answers),
                chance=1 / choices if choices else 0.0,
                acc=mean,
                acc_norm=mean if choices else None,
                metric="acc" if choices else "exact_match",
                shots=shots,
            )
        )
    documents = {
        f"d{n:03d}": HeldOutItem(kind="held_out", suite="synthetic", item=f"d{n:03d}", bits=float(b), bytes=1000)
        for n, b in enumerate(bits)
    }
    return ModelScores(Results(variant="any", suites=suites), questions, {"synthetic": documents} if documents else {})


def scores(variant: str, right: Mapping[str, Any], **more: Any) -> SubjectScores:
    """A variant with one training seed."""
    return SubjectScores(variant, (model(right, **more),))


def judged(*variants: SubjectScores, documents: Documents | None = None) -> Comparison:
    return compare(variants, documents or Documents(), seed=0, samples=300)


def guesses(rng: np.random.Generator, skill: float = 0.0, rows: int = 60) -> dict[str, Any]:
    return {s: rng.random(rows) < 0.25 + 0.75 * skill for s in ("a", "b", "c", "d", "e")}
