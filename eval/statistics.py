"""Intervals and tests for paired evaluations: each with its formula, its source and what it assumes.

Everything is deterministic: randomness comes from `generator`, whose stream depends on the recipe's seed and
on the name of the quantity alone, never on the order in which quantities are worked out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CONFIDENCE = 0.95

# Draws of a permutation test. The smallest p-value that they give is 1 / (PERMUTATIONS + 1), too large for Holm's
# correction over a thousand tests; below that Hoeffding's bound takes over (`_monte_carlo`).
PERMUTATIONS = 20_000

# With fewer clusters than this, resampling is too coarse: with 10 a permutation test cannot give a p-value below
# 0.002, whatever the data say, and percentile intervals are too narrow.
FEW_CLUSTERS = 20

# Largest number of random values held at once (32 MB of float64).
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95% interval, and its standard error."""

    value: float
    low: float
    high: float
    error: float

    def negated(self) -> Estimate:
        """The estimate of the negative value."""
        return Estimate(-self.value, -self.high, -self.low, self.error)

    def scaled(self, factor: float) -> Estimate:
        """The estimate of a positive multiple."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high, factor * self.error)

    def within(self, lowest: float, highest: float) -> Estimate:
        """The estimate whose interval ends where values are impossible: few seeds or documents give wide ones."""
        return replace(self, low=max(lowest, self.low), high=min(highest, self.high))


def generator(seed: int, *labels: str) -> np.random.Generator:
    """A random stream that belongs to one named quantity."""
    digest = hashlib.sha256("\0".join((str(seed), *labels)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def wilson(successes: int, trials: int) -> Estimate:
    """Score interval of a proportion.

    With z the normal quantile, p = successes / trials and n = trials, its ends are
    (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n). The standard error is sqrt(p(1 - p)/n).

    Source: Wilson (1927), J. Am. Stat. Assoc. 22; recommended for small n by Brown, Cai and DasGupta (2001),
    Statistical Science 16.

    Raises:
        ValueError: If there are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; expected 0 <= successes <= trials, trials > 0")
    z = normal_quantile((1 + CONFIDENCE) / 2)
    p, spread = successes / trials, z * z / trials
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + spread)
    error = math.sqrt(p * (1 - p) / trials)
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), error)


def above_chance(successes: int, trials: int, chance: float) -> float:
    """One-sided exact binomial p-value: P(X >= successes) for X ~ Binomial(trials, chance).

    Where items have different numbers of choices, `chance` is their mean; the binomial tail then bounds the true
    one from above for any count beyond the mean (Hoeffding 1956, Ann. Math. Stat. 27), so the test is safe.
    """
    from scipy.stats import binom

    return float(binom.sf(successes - 1, trials, chance))


def mean_above_chance(
    shares: Sequence[float], trials: Sequence[int], chances: Sequence[float], rng: np.random.Generator
) -> float:
    """One-sided p-value of a mean of proportions, against guessing in every one of them.

    The null distribution of (1/S) Σ X_s / n_s, X_s ~ Binomial(n_s, chance_s), is drawn PERMUTATIONS times. Its tail
    beyond t is at most exp(-2 t² S² / Σ 1/n_s) (Hoeffding 1963, J. Am. Stat. Assoc. 58, theorem 2).
    """
    rows = np.asarray(trials)
    draws = (rng.binomial(rows, np.asarray(chances), (PERMUTATIONS, len(rows))) / rows).mean(axis=1)
    beyond = max(0.0, float(np.mean(shares)) - float(np.mean(chances)))
    bound = math.exp(-2 * (beyond * len(rows)) ** 2 / float(np.sum(1 / rows)))
    return _monte_carlo(int(np.count_nonzero(draws >= float(np.mean(shares)) - 1e-12)), bound)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value for two models that answered the same items.

    Given the number of items that exactly one of them got right, `only_first` is Binomial(both, 1/2) when the
    models are equally good. Source: McNemar (1947), Psychometrika 12, in its exact conditional form.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def bootstrap_mean(strata: Sequence[Array], samples: int, rng: np.random.Generator) -> Estimate:
    """Percentile bootstrap interval of the mean over strata of each stratum's mean.

    Items are drawn again within their stratum, so a large suite weighs no more than a small one and each keeps its
    size. One stratum gives the ordinary bootstrap of a mean. Source: Efron and Tibshirani (1993), An
    Introduction to the Bootstrap, chapters 8 and 13.
    """
    total = np.zeros(samples)
    for stratum in strata:
        # Equal values are drawn together: a suite's differences are -1, 0 and 1 however many items it has.
        values, counts = np.unique(stratum, return_counts=True)
        for rows in _blocks(samples, len(values)):
            drawn = rng.multinomial(len(stratum), counts / len(stratum), rows.stop - rows.start)
            total[rows] += drawn @ values / len(stratum)
    value = float(np.mean([np.mean(stratum) for stratum in strata]))
    return percentile_interval(value, total / len(strata))


def bootstrap_ratio(numerators: Array, denominators: Array, samples: int, rng: np.random.Generator) -> Estimate:
    """Percentile bootstrap interval of Σ numerators / Σ denominators, the rows drawn again together.

    Bits per byte is such a ratio: a mean over bytes, not over documents. Source: Efron and Tibshirani (1993),
    chapters 8 and 13.
    """
    n = len(numerators)
    ratios = np.empty(samples)
    for rows in _blocks(samples, n):
        drawn = rng.multinomial(n, np.full(n, 1 / n), rows.stop - rows.start)
        ratios[rows] = (drawn @ numerators) / (drawn @ denominators)
    return percentile_interval(float(numerators.sum() / denominators.sum()), ratios)


def ratio_of_few(numerators: Array, denominators: Array) -> tuple[Estimate, float]:
    """Student's t interval of Σ numerators / Σ denominators for a few rows, and the p-value that it is 0.

    With w_k = d_k / Σ d and the ratio R, its variance is Σ w_k² (n_k / d_k - R)² / (1 - 1/m), and m = 1 / Σ w_k² rows
    of equal weight would weigh as much: t has m - 1 degrees of freedom. Sources: Cochran (1977), Sampling Techniques,
    chapter 6; Kish (1965), Survey Sampling, for m. It assumes that the rates are about normally distributed.

    Returns:
        The estimate and the two-sided p-value. Where the rows weigh no more than one and a half, as one long document
        among short ones, there is no telling: the error and the width of the interval are 0, and the p-value is 1.
    """
    from scipy.stats import t as student

    weights = denominators / denominators.sum()
    ratio, effective = float(numerators.sum() / denominators.sum()), float(1 / np.sum(weights**2))
    residuals = numerators / denominators - ratio
    if effective < 1.5 or not np.any(residuals):
        return Estimate(ratio, ratio, ratio, 0.0), 1.0
    error = float(np.sqrt(np.sum((weights * residuals) ** 2) / (1 - 1 / effective)))
    half = float(student.ppf((1 + CONFIDENCE) / 2, effective - 1)) * error
    return Estimate(ratio, ratio - half, ratio + half, error), float(2 * student.sf(abs(ratio) / error, effective - 1))


def sign_flip(contributions: Array, rng: np.random.Generator) -> float:
    """Two-sided p-value of a sum of paired differences, by permutation.

    When two models are alike, each item (or cluster of items) is as likely to favour the one as the other by the same
    amount, so every pattern of signs is equally likely. With at most 2^14 patterns all are counted; otherwise
    PERMUTATIONS of them are drawn. A sum of d_i with random signs is beyond t with a probability of at most
    2 exp(-t² / 2 Σ d_i²) (Hoeffding 1963, J. Am. Stat. Assoc. 58, theorem 2). Source: Fisher (1935), The Design of
    Experiments, section 21.
    """
    observed = abs(float(contributions.sum())) * (1 - 1e-9)  # sums in another order differ in their last bits
    values, counts = np.unique(np.abs(contributions[contributions != 0]), return_counts=True)
    n = int(counts.sum())
    if n == 0:
        return 1.0
    if n <= 14:
        signs = (np.arange(2**n)[:, None] >> np.arange(n) & 1) * 2 - 1
        return float(np.mean(np.abs(signs @ np.repeat(values, counts)) >= observed))
    extreme = 0
    rare = counts <= 16  # most values of a continuous measure, where bits are cheaper than a binomial draw
    single, several, times = np.repeat(values[rare], counts[rare]), values[~rare], counts[~rare]
    for rows in _blocks(PERMUTATIONS, len(single) + len(several)):
        draws = rows.stop - rows.start
        packed = rng.integers(0, 256, (draws, -(-len(single) // 8)), dtype=np.uint8)
        plus = np.unpackbits(packed, axis=1, count=len(single)) @ single
        plus += rng.binomial(times, 0.5, (draws, len(several))) @ several
        total = 2 * plus - single.sum() - times @ several
        extreme += int(np.count_nonzero(np.abs(total) >= observed))
    return _monte_carlo(extreme, 2 * math.exp(-(observed**2) / (2 * float(counts @ values**2))))


def _monte_carlo(extreme: int, bound: float) -> float:
    """p-value of PERMUTATIONS draws under the null, `extreme` of which are at least as extreme as the data.

    It is (1 + extreme) / (1 + draws) (Davison and Hinkley 1997, Bootstrap Methods, section 4.2; Phipson and Smyth 2010,
    Stat. Appl. Genet. Mol. Biol. 9). Where no draw is that extreme, an upper bound of the true p-value may be smaller.
    Taking it there keeps the test's level: what is below 1 / (1 + draws) then is below it by the bound alone.
    """
    drawn = (1 + extreme) / (1 + PERMUTATIONS)
    return drawn if extreme else min(drawn, bound)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    With p sorted ascending, adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). Rejecting where the
    adjusted value is below α keeps the chance of even one false rejection below α, whatever the dependence.
    Source: Holm (1979), Scandinavian Journal of Statistics 6.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two estimates from different items.

    The ends lie sqrt((p1 - l1)² + (u2 - p2)²) below and sqrt((u1 - p1)² + (p2 - l2)²) above the difference; standard
    errors add as squares. With Wilson intervals this is method 10 of Newcombe (1998), Statistics in Medicine 17, pages
    873-890; Zou and Donner (2008), Statistics in Medicine 27, for any other intervals.
    """
    value = first.value - second.value
    return Estimate(
        value,
        value - math.hypot(first.value - first.low, second.high - second.value),
        value + math.hypot(first.high - first.value, second.value - second.low),
        math.hypot(first.error, second.error),
    )


def cohens_h(first: float, second: float, difference: Estimate) -> Estimate:
    """Effect size of a difference of two proportions: h = 2 arcsin sqrt(p1) - 2 arcsin sqrt(p2).

    Unlike the odds ratio of the discordant pairs it is finite with empty cells, and 0.2, 0.5 and 0.8 are called small,
    medium and large at any level of accuracy. Source: Cohen (1988), Statistical Power Analysis, chapter 6.

    The interval is that of the paired difference times h / (p1 - p2), the mean slope of the transformation between the
    two, and so says the same about the sign; where they are equal, the slope is 1 / sqrt(p (1 - p)). It ends at ±π, the
    largest h there is.
    """
    h = 2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second))
    spread = math.sqrt(first * (1 - first))
    slope = h / (first - second) if not math.isclose(first, second) else 1 / spread if spread else 0.0
    return replace(difference.scaled(slope), value=h).within(-math.pi, math.pi)


def normal_p(estimate: Estimate) -> float:
    """Two-sided p-value that a normally distributed estimate is 0; 1 where it has no standard error."""
    return math.erfc(abs(estimate.value) / estimate.error / math.sqrt(2)) if estimate.error else 1.0


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal variable stays with this probability."""
    return NormalDist().inv_cdf(probability)


def percentile_interval(value: float, draws: Array) -> Estimate:
    """The value with the 2.5% and 97.5% quantiles and the standard deviation of its resampled values."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), float(draws.std(ddof=1)))


def _blocks(total: int, width: int) -> list[slice]:
    """Slices of `total` rows of `width` values that keep each block below `_BLOCK` values."""
    step = max(1, _BLOCK // max(1, width))
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]
