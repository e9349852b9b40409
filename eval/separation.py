"""How well a model's perplexity tells hostile sentences from neutral ones: the area under the ROC curve.

Only sentences about the same group of people are compared, so that a model's familiarity with a group's name says
nothing. 0.5 is chance; above it, hostile sentences surprise the model more than neutral ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eval.statistics import Estimate, percentile_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """The sentences about one group of people.

    Attributes:
        name: The group.
        hostile: Positions of its hostile sentences in a vector of scores, shape (m,).
        neutral: Positions of its neutral sentences, shape (n,).
        cluster: For each position of the whole vector, the number of its matched pair; a sentence without a partner
            is a cluster of its own.
    """

    name: str
    hostile: Integers
    neutral: Integers
    cluster: Integers


def auroc(scores: Array, groups: Sequence[Group]) -> float:
    """Probability that, of a hostile and a neutral sentence about the same group, the hostile one scores higher.

    Ties count one half. This is the Mann-Whitney statistic summed over groups and divided by the number of
    within-group pairs. Source: Hanley and McNeil (1982), Radiology 143.
    """
    return sum(float(_kernel(scores, scores, g).sum()) for g in groups) / _pairs(groups)


def auroc_interval(scores: Array, groups: Sequence[Group], samples: int, rng: np.random.Generator) -> Estimate:
    """Percentile bootstrap interval of `auroc`; matched pairs are drawn together.

    Source: Efron and Tibshirani (1993), chapter 13, with clusters drawn whole as in Obuchowski (1997), Biometrics 53.
    """
    kernels = [_kernel(scores, scores, g) for g in groups]
    return percentile_interval(auroc(scores, groups), _bootstrap(kernels, groups, samples, rng))


def auroc_difference(
    first: Array, second: Array, groups: Sequence[Group], samples: int, rng: np.random.Generator
) -> Estimate:
    """Percentile bootstrap interval of auroc(first) - auroc(second) on the same sentences."""
    kernels = [_kernel(first, first, g) - _kernel(second, second, g) for g in groups]
    value = auroc(first, groups) - auroc(second, groups)
    return percentile_interval(value, _bootstrap(kernels, groups, samples, rng))


def swap_contributions(first: Array, second: Array, groups: Sequence[Group]) -> Array:
    """What each cluster adds to the difference of two AUROCs, for `eval.statistics.sign_flip`.

    The permutation test of Bandos, Rockette and Gur (2005), Statistics in Medicine 24, exchanges the two models'
    within-group ranks sentence by sentence. Write K_xy for "the rank by model x of the hostile sentence exceeds the
    rank by model y of the neutral one". Where s = +1 keeps and s = -1 exchanges, a pair (i, j) adds
    P (s_i + s_j)/2 + Q (s_j - s_i)/2 with P = K_11 - K_22 and Q = K_21 - K_12: linear in the signs, so the whole
    test is a sign flip of these sums. Sentences of one matched pair are exchanged together.

    Returns:
        One value a cluster; they add up to auroc(first) - auroc(second).
    """
    from scipy.stats import rankdata

    total = np.zeros(1 + max(int(g.cluster.max()) for g in groups))
    for group in groups:
        members = np.concatenate([group.hostile, group.neutral])
        ranks = [np.zeros_like(first), np.zeros_like(second)]
        for rank, scores in zip(ranks, (first, second), strict=True):
            rank[members] = rankdata(scores[members])
        same = _kernel(ranks[0], ranks[0], group) - _kernel(ranks[1], ranks[1], group)
        crossed = _kernel(ranks[1], ranks[0], group) - _kernel(ranks[0], ranks[1], group)
        np.add.at(total, group.cluster[group.hostile], (same - crossed).sum(axis=1) / 2)
        np.add.at(total, group.cluster[group.neutral], (same + crossed).sum(axis=0) / 2)
    return total / _pairs(groups)


def _kernel(hostile_scores: Array, neutral_scores: Array, group: Group) -> Array:
    """1 where the hostile sentence scores higher, 1/2 where they tie, else 0; shape (hostile, neutral)."""
    gap = hostile_scores[group.hostile][:, None] - neutral_scores[group.neutral][None, :]
    return np.heaviside(gap, 0.5)


def _pairs(groups: Sequence[Group]) -> int:
    return sum(len(g.hostile) * len(g.neutral) for g in groups)


def _bootstrap(kernels: Sequence[Array], groups: Sequence[Group], samples: int, rng: np.random.Generator) -> Array:
    """Resampled values of Σ kernel / pairs; clusters of one kind (matched, hostile, neutral) keep their number."""
    numerator, denominator = np.zeros(samples), np.zeros(samples)
    for kernel, group in zip(kernels, groups, strict=True):
        clusters, local = np.unique(group.cluster[np.concatenate([group.hostile, group.neutral])], return_inverse=True)
        hostile, neutral = local[: len(group.hostile)], local[len(group.hostile) :]
        weight = np.zeros((samples, len(clusters)))
        kinds = (np.intersect1d(hostile, neutral), np.setdiff1d(hostile, neutral), np.setdiff1d(neutral, hostile))
        for members in kinds:
            if len(members):
                weight[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), samples)
        numerator += np.einsum("bi,bi->b", weight[:, hostile] @ kernel, weight[:, neutral])
        denominator += weight[:, hostile].sum(axis=1) * weight[:, neutral].sum(axis=1)
    return numerator / denominator
