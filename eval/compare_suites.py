"""Suites of questions: the accuracy of each variant, on one suite and on the mean of several, and every pair's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from eval import statistics
from eval.comparison import Accuracy, Score
from eval.paired import Randomness, Tested, contrast, pairs, score
from eval.scored_items import ChoiceItem, SubjectScores
from eval.seeds import Student
from eval.statistics import Estimate

if TYPE_CHECKING:
    from eval.statistics import Array


def correctness(subjects: Sequence[SubjectScores], suite: str) -> dict[str, Array]:
    """Whether each variant's models were right, by item; shape (seeds, items)."""
    return {
        s.name: np.array([[i.acc for i in m.questions[suite].values()] for m in s.models], dtype=np.float64)
        for s in subjects
    }


def share_right(right: Array, randomness: Randomness, *labels: str) -> Estimate:
    """Accuracy with the items' noise: Wilson's interval where each is right or wrong, else a bootstrap."""
    pooled = right.mean(axis=0)
    if _is_binary(right):
        return statistics.wilson(int(pooled.sum()), len(pooled))
    return randomness.mean([pooled], "share", *labels)


def compare_suite(
    subjects: Sequence[SubjectScores], suite: str, randomness: Randomness
) -> tuple[Accuracy, list[Tested]]:
    """Compare one suite.

    With one seed and items that are right or wrong: Wilson intervals, exact binomial tests, exact McNemar tests; the
    intervals of differences are bootstrapped. Where several answers to an item are generated: bootstrap, and
    permutation of the items' differences.
    """
    total = subjects[0].total(suite)
    items = list(subjects[0].models[0].questions[suite].values())
    bar = max(total.chance, _commoner_answer([i for i in items if isinstance(i, ChoiceItem)]))
    right = correctness(subjects, suite)
    scores = {}
    for s in subjects:
        matrix, norm = right[s.name], _normalised(s, suite)
        found = _accuracy(matrix, randomness, suite, s.name)
        p = None
        if bar > 0:
            by_items = statistics.above_chance(int(matrix.mean(axis=0).sum()), len(items), bar)
            alone = len(matrix) == 1 or not found.estimate.error
            p = by_items if alone else found.p_value(bar, one_sided=True)
        normalised = _share(_accuracy(norm, randomness, "norm", suite, s.name)) if norm is not None else None
        scores[s.name] = Score(_share(found), normalised, p)
    accuracy = Accuracy(
        name=suite,
        title=total.title,
        origin=total.origin,
        area=total.area,
        metric=total.metric,
        rows=len(items),
        chance=total.chance,
        bar=bar,
        protocol=total.protocol,
        scores=scores,
    )
    return accuracy, [_accuracy_difference(right, suite, a, b, randomness) for a, b in pairs(right)]


def compare_mean(
    subjects: Sequence[SubjectScores], origin: str, title: str, suites: Sequence[Accuracy], randomness: Randomness
) -> tuple[Accuracy, list[Tested]]:
    """Compare the mean over suites, each suite with equal weight: bootstrap and permutation within suites."""
    columns = [correctness(subjects, suite.name) for suite in suites]
    right = {s.name: [column[s.name] for column in columns] for s in subjects}
    bars = [s.bar for s in suites]
    scores = {}
    for s in subjects:
        matrices = right[s.name]
        found = _mean_accuracy(matrices, randomness, "mean_acc", origin, s.name)
        p = None
        if any(bars):
            shares, stream = [float(m.mean()) for m in matrices], randomness.stream("mean_chance", origin, s.name)
            by_items = statistics.mean_above_chance(shares, [m.shape[1] for m in matrices], bars, stream)
            alone = len(matrices[0]) == 1 or not found.estimate.error
            p = by_items if alone else found.p_value(float(np.mean(bars)), one_sided=True)
        norms = [norm for suite in suites if (norm := _normalised(s, suite.name)) is not None]
        normalised = None
        if len(norms) == len(suites):
            normalised = _share(_mean_accuracy(norms, randomness, "mean_acc_norm", origin, s.name))
        scores[s.name] = Score(_share(found), normalised, p)

    def test(a: str, b: str) -> Tested:
        gaps = [x.mean(axis=0) - y.mean(axis=0) for x, y in zip(right[a], right[b], strict=True)]
        weighted = np.concatenate([gap / (len(gap) * len(gaps)) for gap in gaps])
        return contrast(
            ("mean_accuracy", origin, a, b),
            randomness.mean(gaps, "mean_accuracy", origin, a, b),
            lambda: statistics.sign_flip(weighted, randomness.stream("mean_accuracy_p", origin, a, b)),
            (_mean_by_seed(right[a]), _mean_by_seed(right[b])),
        )

    mean = Accuracy(
        name=origin,
        title=title,
        origin=origin,
        area="",
        metric="",
        rows=sum(s.rows for s in suites),
        chance=float(np.mean([s.chance for s in suites])),
        bar=float(np.mean(bars)),
        protocol="",
        scores=scores,
        parts=tuple(s.name for s in suites),
    )
    return mean, [test(a, b) for a, b in pairs(right)]


def _accuracy(right: Array, randomness: Randomness, *labels: str) -> Student:
    return score(share_right(right, randomness, *labels), list(right.mean(axis=1)))


def _mean_accuracy(right: Sequence[Array], randomness: Randomness, *labels: str) -> Student:
    items = randomness.mean([matrix.mean(axis=0) for matrix in right], *labels)
    return score(items, _mean_by_seed(right))


def _share(found: Student) -> Estimate:
    return found.estimate.within(0, 1)


def _mean_by_seed(right: Sequence[Array]) -> list[float]:
    return list(np.mean([matrix.mean(axis=1) for matrix in right], axis=0))


def _accuracy_difference(right: Mapping[str, Array], suite: str, a: str, b: str, randomness: Randomness) -> Tested:
    gap = right[a].mean(axis=0) - right[b].mean(axis=0)
    exact = _is_binary(right[a]) and _is_binary(right[b])

    def p() -> float:
        if exact:
            return statistics.mcnemar(int((gap > 0).sum()), int((gap < 0).sum()))
        return statistics.sign_flip(gap, randomness.stream("accuracy_p", suite, a, b))

    found = contrast(
        ("accuracy", suite, a, b),
        randomness.mean([gap], "accuracy", suite, a, b),
        p,
        (list(right[a].mean(axis=1)), list(right[b].mean(axis=1))),
    )
    difference = found.difference
    effect = statistics.cohens_h(float(right[a].mean()), float(right[b].mean()), difference.estimate)
    return replace(found, difference=replace(difference, effect=effect), items=len(gap) if exact else None)


def _normalised(subject: SubjectScores, suite: str) -> Array | None:
    columns = [
        [i.acc_norm for i in m.questions[suite].values() if isinstance(i, ChoiceItem) and i.acc_norm is not None]
        for m in subject.models
    ]
    complete = all(len(c) == len(m.questions[suite]) for c, m in zip(columns, subject.models, strict=True))
    return np.array(columns, dtype=np.float64) if complete else None


def _is_binary(right: Array) -> bool:
    """Whether there is one seed and every item is right or wrong."""
    return len(right) == 1 and bool(np.isin(right, (0, 1)).all())


def _commoner_answer(items: Sequence[ChoiceItem]) -> float:
    """Share of the commoner answer where every item has two choices (yes or no), else 0.

    A model that always says yes is right that often without reading the question.
    """
    if not items or any(len(i.loglikelihoods) != 2 for i in items):
        return 0.0
    second = sum(i.gold for i in items) / len(items)
    return max(second, 1 - second)
