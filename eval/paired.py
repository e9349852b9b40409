"""The parts of a paired comparison: an estimate for each variant, and a test of each pair of them.

Every model answers the same items, so differences are taken item by item. With several training seeds an item's score
is its mean over them, and `eval.seeds` adds their noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from eval import statistics
from eval.comparison import Difference, Measure
from eval.seeds import Student, detectable, with_seed_noise
from eval.statistics import Estimate, generator

if TYPE_CHECKING:
    from eval.statistics import Array


@dataclass(frozen=True)
class Tested:
    """A difference, and what decides how large a one would have been found.

    Attributes:
        freedom: Degrees of freedom of its standard error.
        items: Their number, where the test is the exact one of McNemar.
    """

    difference: Difference
    freedom: float
    items: int | None = None

    def detectable(self, level: float) -> float:
        """The true difference that the test finds with 80% power at a level.

        An exact McNemar test of k items on which the models disagree gives at best p = 2 / 2^k, so fewer than
        log2(2 / level) of them never show anything.
        """
        found = detectable(self.difference.estimate.error, self.freedom, level)
        return found if self.items is None else max(found, math.ceil(math.log2(2 / level)) / self.items)


@dataclass(frozen=True)
class Randomness:
    """The seed of every resampling, and the number of resamples of an interval."""

    seed: int
    samples: int

    def stream(self, *labels: str) -> np.random.Generator:
        """The random numbers of one named quantity."""
        return generator(self.seed, *labels)

    def mean(self, strata: Sequence[Array], *labels: str) -> Estimate:
        """Bootstrap of a mean over strata."""
        return statistics.bootstrap_mean(strata, self.samples, self.stream(*labels))


def score(items: Estimate, seeds: Sequence[float], units: float = math.inf) -> Student:
    """An estimate of one variant, with its seeds' noise where it has several.

    Args:
        items: From item scores that are averaged over seeds.
        seeds: The scores of its seeds.
        units: Number of independent items, where they are few.
    """
    return with_seed_noise(items, [seeds], units) if len(seeds) > 1 else Student(items, max(1, units - 1))


def contrast(
    place: tuple[Measure, str, str, str],
    items: Estimate,
    p: Callable[[], float],
    seeds: tuple[Sequence[float], Sequence[float]],
    units: float = math.inf,
) -> Tested:
    """The test of a difference: by its items alone with one seed, by Student's t of items and seeds with several.

    Args:
        place: Measure, subject, first and second variant.
        items: The difference of item scores.
        p: The p-value by the items alone.
        seeds: Each variant's scores, one a seed.
        units: Number of independent items, where they are few.
    """
    if len(seeds[0]) == len(seeds[1]) == 1:
        return Tested(Difference(*place, items, p()), max(1, units - 1))
    found = with_seed_noise(items, seeds, units)
    return Tested(Difference(*place, found.estimate, found.p_value() if found.estimate.error else p()), found.freedom)


def pairs(variants: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every pair of variants, in their order."""
    return itertools.combinations(variants, 2)


def within_share(found: Student) -> Student:
    """The estimate of a share, whose interval with the noise of few seeds may go beyond what is possible."""
    estimate = replace(found.estimate, low=max(0.0, found.estimate.low), high=min(1.0, found.estimate.high))
    return replace(found, estimate=estimate)
