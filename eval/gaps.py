"""Benchmarks against their fresh twins: a sign of contamination.

A twin has items of a benchmark's form that were written for Primer and are in no corpus. They are not equally
difficult, so the gap between the two accuracies of one model says nothing. Contamination would widen the gap of the
variants whose corpora hold the benchmark: the difference of two variants' gaps is what is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eval import statistics
from eval.compare_suites import correctness, share_right
from eval.comparison import Difference, Gap
from eval.paired import Randomness, contrast, pairs, score
from eval.scored_items import SubjectScores
from eval.statistics import Estimate

if TYPE_CHECKING:
    from eval.statistics import Array


def compare_gaps(
    shared: Mapping[str, Sequence[SubjectScores]], randomness: Randomness
) -> tuple[list[Gap], list[Difference]]:
    """Accuracy on each benchmark minus that on its twin, and the differences of these gaps between variants.

    The items of the two are independent, so their errors add as squares. Gaps of two variants are taken over the same
    items and the same seeds. The differences are normally distributed with one seed; their p-values are adjusted over
    all pairs of variants and benchmarks (Holm).

    Args:
        shared: By suite the variants that were asked the same items.
        randomness: Of the bootstrap.
    """
    gaps: list[Gap] = []
    differences: list[Difference] = []
    for twin, subjects in shared.items():
        benchmark = subjects[0].total(twin).twin
        both = [s for s in subjects if s in shared.get(benchmark or "", [])]
        if benchmark and both:
            old, fresh = correctness(both, benchmark), correctness(both, twin)
            scores = {s.name: _gap(old[s.name], fresh[s.name], randomness, s.name, benchmark, twin) for s in both}
            gaps.append(Gap(benchmark, twin, both[0].total(benchmark).title, scores))
            differences += [_difference(old, fresh, randomness, benchmark, a, b) for a, b in pairs(old)]
    adjusted = statistics.holm([d.p for d in differences])
    return gaps, [replace(d, p_adjusted=p) for d, p in zip(differences, adjusted, strict=True)]


def _gap(old: Array, fresh: Array, randomness: Randomness, variant: str, benchmark: str, twin: str) -> Estimate:
    items = statistics.independent_difference(
        share_right(old, randomness, benchmark, variant), share_right(fresh, randomness, twin, variant)
    )
    return score(items, _by_seed(old, fresh)).estimate.within(-1, 1)


def _difference(
    old: Mapping[str, Array], fresh: Mapping[str, Array], randomness: Randomness, benchmark: str, a: str, b: str
) -> Difference:
    of_old, of_fresh = (
        randomness.mean([right[a].mean(axis=0) - right[b].mean(axis=0)], "gap", age, benchmark, a, b)
        for age, right in (("old", old), ("fresh", fresh))
    )
    items = statistics.independent_difference(of_old, of_fresh)
    seeds = _by_seed(old[a], fresh[a]), _by_seed(old[b], fresh[b])
    return contrast(("gap", benchmark, a, b), items, lambda: statistics.normal_p(items), seeds).difference


def _by_seed(old: Array, fresh: Array) -> list[float]:
    return list(old.mean(axis=1) - fresh.mean(axis=1))
