"""How well a classifier does on texts it has not seen, and how well the teacher agrees with itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.agreement import weighted_kappa
from synth.quality_classifiers import Array

Booleans = npt.NDArray[np.bool_]

_DRAWS = 1000
_CONFIDENCE = 0.95


def area_under_roc(scores: Array, good: Booleans, weights: Array | None = None) -> float:
    """Probability that a good text scores higher than another one; ties count one half.

    Source: Hanley and McNeil (1982), Radiology 143.

    Args:
        scores: Shape (n,).
        good: Shape (n,), with texts of both kinds.
        weights: How often each text counts, shape (n,); once, if None.
    """
    counts = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    hits, misses = (np.bincount(place, counts * kind) for kind in (good, ~good))
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / (hits.sum() * misses.sum()))


def roc_curve(scores: Array, good: Booleans, points: int = 200) -> list[tuple[float, float]]:
    """The ROC curve from (0, 0) to (1, 1): share of the other texts, and of the good ones, from a score up.

    Of a long curve `points` steps at equal shares of the texts are kept.
    """
    values, place = np.unique(-scores, return_inverse=True)
    hits, misses = (np.cumsum(np.bincount(place, kind, len(values))) / kind.sum() for kind in (good, ~good))
    chosen = np.unique(np.linspace(0, len(values) - 1, min(points, len(values))).astype(np.int64))
    return [(0.0, 0.0), *((float(misses[i]), float(hits[i])) for i in chosen)]


def auc_intervals(
    scores: Sequence[Array], good: Booleans, seed: int
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Percentile bootstrap intervals (95%) of several classifiers' areas, and of the first one less the second.

    The texts are drawn again, good ones and others each in their number, and the same ones for every classifier.
    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 8 and 13.
    """
    rng = np.random.default_rng(seed)
    draws = np.empty((_DRAWS, len(scores)))
    for draw in draws:
        weights = np.zeros(len(good))
        for kind in (good, ~good):
            weights[kind] = rng.multinomial(kind.sum(), np.full(kind.sum(), 1 / kind.sum()))
        draw[:] = [area_under_roc(some, good, weights) for some in scores]
    return [_interval(column) for column in draws.T], _interval(draws[:, 0] - draws[:, 1])


def _interval(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def brier_score(scores: Array, good: Booleans) -> float:
    """Mean square of probability less outcome (Brier 1950, Monthly Weather Review 78): 0 is best.

    Saying the share m of good texts of every text gives m (1 - m).
    """
    return float(((scores - good) ** 2).mean())


def reliability(scores: Array, good: Booleans, bins: int) -> list[tuple[float, float, int]]:
    """Mean probability, share that is good, and texts, for `bins` groups of equal size from the lowest scores up."""
    groups = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    return [(float(scores[group].mean()), float(good[group].mean()), len(group)) for group in groups]


def histogram(scores: Array, bins: int) -> list[int]:
    """Texts in each of `bins` equal parts of [0, 1]."""
    return [int(count) for count in np.histogram(scores, bins, (0, 1))[0]]


def threshold_for(scores: Array, keep: float) -> float:
    """The score from which about a share `keep` of the texts lies: of n texts the k-th highest score, k = keep n."""
    kept = min(max(round(keep * len(scores)), 1), len(scores))
    return float(np.sort(scores)[-kept])


@dataclass(frozen=True)
class Agreement:
    """How a teacher's further labels of a text compare with its first.

    Attributes:
        pairs: Number of further labels.
        exact: Share that are the same score.
        near: Share that are at most one apart.
        kappa: Cohen's kappa with quadratic weights; None where every label is the same.
        same_side: Share of pairs that are both good or both not.
        reading: Area under the ROC curve of a further label, as a score, for the first one being good.
        ceiling: The area of a classifier that knew how likely the teacher is to call each text good, if that
            likelihood is distributed over texts as a beta (`ceiling`); None where it cannot be worked out.
    """

    pairs: int
    exact: float
    near: float
    kappa: float | None
    same_side: float
    reading: float | None
    ceiling: float | None


def agreement(scores: Sequence[int], repeated: Sequence[Sequence[int]], good: int) -> Agreement | None:
    """The teacher's agreement with itself; None if no text was labelled again.

    Args:
        scores: The first label of each text.
        repeated: The further labels of each text.
        good: Score from which a text counts as good.
    """
    pairs = [(first, other) for first, others in zip(scores, repeated, strict=True) for other in others]
    if not pairs:
        return None
    first, second = np.array(pairs, dtype=np.float64).T
    gap, sides = np.abs(first - second), (first >= good, second >= good)
    both_kinds = 0 < sides[0].sum() < len(pairs)
    return Agreement(
        pairs=len(pairs),
        exact=float((gap == 0).mean()),
        near=float((gap <= 1).mean()),
        kappa=weighted_kappa(first, second),
        same_side=float((sides[0] == sides[1]).mean()),
        reading=area_under_roc(second, sides[0]) if both_kinds else None,
        ceiling=_ceiling(sides[0], sides[1]),
    )


def _ceiling(first: Booleans, second: Booleans) -> float | None:
    """The best possible area under the ROC curve for labels that are as unsure as these.

    Suppose that text i is called good with probability p_i, independently in each reading, and p ~ Beta(a, b). Its
    mean m is the share of good labels, and the correlation of two readings is 1 / (a + b + 1). No score orders texts
    better than p itself, whose area is (E max(p, p') - m²) / (2 m (1 - m)) for two texts' p and p', where
    E max(p, p') = m + E|p - p'| / 2 and, for a beta, E|p - p'| = 4 B(a + b, a + b) / ((a + b) B(a, a) B(b, b)).
    """
    m = float(np.concatenate([first, second]).mean())
    if not 0 < m < 1:
        return None
    correlation = (float((first & second).mean()) - m * m) / (m * (1 - m))
    if correlation >= 1:
        return 1.0
    if correlation <= 0:
        return 0.5
    total = 1 / correlation - 1
    a, b = m * total, (1 - m) * total
    gap = 4 / total * math.exp(_log_beta(total, total) - _log_beta(a, a) - _log_beta(b, b))
    return (m + gap / 2 - m * m) / (2 * m * (1 - m))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
