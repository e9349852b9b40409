"""The parts of a paired comparison: an estimate for each variant, and a test of each pair of them.

Every model answers the same items, so differences are taken item by item. With several training seeds an item's score
is its mean over them, and `eval.seeds` adds their noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eval import statistics
from eval.comparison import LARGEST, Difference, Measure
from eval.seeds import Student, detectable, fewest_disagreements, with_seed_noise
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

    @property
    def known(self) -> bool:
        """Whether anything is known of what it would find: nothing is where no score varied."""
        return self.items is not None or self.difference.estimate.error > 0

    def detectable(self, level: float) -> float:
        """The true difference that the test finds with 80% power at a level; at most the largest one possible."""
        found = detectable(self.difference.estimate.error, self.freedom, level)
        if self.items is not None:
            found = max(found, fewest_disagreements(self.items, level))
        return min(found, LARGEST.get(self.difference.measure, math.inf))


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
    most = LARGEST.get(place[0], math.inf)
    p_value = found.p_value() if found.estimate.error else p()
    return Tested(Difference(*place, found.estimate.within(-most, most), p_value), found.freedom)


def pairs(variants: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every pair of variants, in their order."""
    return itertools.combinations(variants, 2)
