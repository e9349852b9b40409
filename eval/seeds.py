"""Noise of training: what another seed would have changed, beside what other items would have.

A variant that was trained with several seeds has one score a seed. Item scores are averaged over the seeds, which gives
an estimate whose standard error holds the items' noise alone. To its square is added, for each variant, the variance of
the seeds' scores divided by their number. Degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2), as
Welch used them (1947, Biometrika 34); the test is Student's t.

Items and seeds are the crossed random factors of multi-reader studies (Dorfman, Berbaum and Metz 1992, Investigative
Radiology 27). There the part of the items' noise that differs from seed to seed, which both terms hold, is taken out
again. Here it stays: taken out, the test claims too much with two seeds; left in, a little too little
(docs/statistics.md has the simulation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.statistics import CONFIDENCE, Estimate, normal_quantile


@dataclass(frozen=True)
class Student:
    """An estimate that follows Student's t; `freedom` is infinite where it is normal."""

    estimate: Estimate
    freedom: float

    def p_value(self, null: float = 0.0, *, one_sided: bool = False) -> float:
        """Two-sided p-value that the true value is `null`, or one-sided that it is at most that."""
        from scipy.stats import t

        distance = self.estimate.value - null
        if not self.estimate.error:
            return 1.0  # nothing varied: there is no scale to judge the distance by
        statistic = distance / self.estimate.error
        tail = t.sf(statistic if one_sided else abs(statistic), self.freedom)
        return float(tail if one_sided else 2 * tail)


def with_seed_noise(items: Estimate, seeds: Sequence[Sequence[float]], units: float) -> Student:
    """An estimate with the noise of training added to that of the items.

    Args:
        items: The estimate from item scores that are averaged over seeds; its error is the items' noise.
        seeds: For each variant in it (one for a score, two for a difference), the scores of its seeds. A variant with
            one seed is taken to vary as the others do; at least one must have two.
        units: Number of independent items (or clusters of them) behind the estimate.
    """
    known = [float(np.var(scores, ddof=1)) for scores in seeds if len(scores) > 1]
    borrowed = sum(known) / len(known)
    fewest = min(len(scores) for scores in seeds if len(scores) > 1)
    parts = [(items.error**2, max(1.0, units - 1))]
    for scores in seeds:
        several = len(scores) > 1
        variance = float(np.var(scores, ddof=1)) if several else borrowed
        parts.append((variance / len(scores), len(scores) - 1 if several else fewest - 1))
    total = sum(variance for variance, _ in parts)
    if not total:
        return Student(Estimate(items.value, items.value, items.value, 0.0), math.inf)
    spread = sum(variance**2 / df for variance, df in parts)
    freedom = total**2 / spread if spread else math.inf
    half = _quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(total)
    return Student(Estimate(items.value, items.value - half, items.value + half, math.sqrt(total)), freedom)


def detectable(error: float, freedom: float, level: float, power: float = 0.8) -> float:
    """The true difference that a two-sided test at `level` finds with the given power.

    With q = t(1 - level/2) and S² = χ²/freedom, a difference of d standard errors is found with probability
    E Φ(d - q S), which is solved for d: the tail of the noncentral t distribution, whose own quantiles scipy cannot
    work out for a few degrees of freedom. For infinite freedom d = z(1 - level/2) + z(power). Source: Cohen (1988),
    Statistical Power Analysis, chapter 2. Bloom's (1995, Evaluation Review 19) t(1 - level/2) + t(power) has a power of
    0.65 to 0.80 where 0.80 is meant.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr
    from scipy.stats import chi2

    q, tail = _quantile(1 - level / 2, freedom), normal_quantile(power)
    if math.isinf(freedom):
        return (q + tail) * error
    bounds = q * np.sqrt(chi2.ppf((np.arange(400) + 0.5) / 400, freedom) / freedom)  # 400 equally likely values of q S
    return float(brentq(lambda d: np.mean(ndtr(d - bounds)) - power, bounds[0], bounds[-1] + 5)) * error


def fewest_disagreements(items: int, level: float, power: float = 0.8) -> float:
    """The least difference that an exact McNemar test can find, if the better model is right wherever the two disagree.

    A test of k items on which they disagree gives at best p = 2 / 2^k, so it takes k = log2(2 / level) of them. A share
    d of disagreements gives k among n items with probability I_d(k, n - k + 1), the distribution of a beta variable.

    Returns:
        That share; 1 where there are not as many items.
    """
    from scipy.stats import beta

    k = math.floor(math.log2(2 / level)) + 1  # p < level, not <=
    return float(beta.ppf(power, k, items - k + 1)) if k <= items else 1.0


def _quantile(probability: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(probability, freedom))
