"""Held-out text: the bits that each variant needs for a byte of it, and every pair's test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eval import statistics
from eval.comparison import HeldOut, Measure
from eval.paired import Randomness, Tested, contrast, pairs, score
from eval.scored_items import SubjectScores
from eval.statistics import Estimate

if TYPE_CHECKING:
    from eval.statistics import Array


@dataclass(frozen=True)
class Texts:
    """Held-out documents by cluster: bytes, shape (clusters,), and each variant's bits, shape (seeds, clusters)."""

    documents: int
    size: Array
    bits: Mapping[str, Array]

    @property
    def units(self) -> float:
        """What an estimate has degrees of freedom of, as `ratio_of_few` counts few clusters; else without end."""
        if len(self.size) >= statistics.FEW_CLUSTERS:
            return math.inf
        return float(self.size.sum() ** 2 / np.sum(self.size**2))

    def estimate(self, name: str, randomness: Randomness, *labels: str) -> Estimate:
        """Bits per byte of a variant."""
        items, _ = self._ratio(self.bits[name].mean(axis=0), randomness.stream(*labels, name), randomness.samples)
        return score(items, self._by_seed(name), self.units).estimate.within(0, math.inf)

    def test(self, place: tuple[Measure, str, str, str], randomness: Randomness) -> Tested:
        """The difference of two variants: bootstrap and sign flips of clusters; Student's t for a few."""
        _, _, a, b = place
        gaps = self.bits[a].mean(axis=0) - self.bits[b].mean(axis=0)
        items, p = self._ratio(gaps, randomness.stream(*place), randomness.samples)
        return contrast(place, items, p, (self._by_seed(a), self._by_seed(b)), self.units)

    def _by_seed(self, name: str) -> list[float]:
        return list(self.bits[name].sum(axis=1) / self.size.sum())

    def _ratio(
        self, numerators: Array, stream: np.random.Generator, samples: int
    ) -> tuple[Estimate, Callable[[], float]]:
        if len(self.size) < statistics.FEW_CLUSTERS:
            few, p = statistics.ratio_of_few(numerators, self.size)
            return few, lambda: p
        return (
            statistics.bootstrap_ratio(numerators, self.size, samples, stream),
            lambda: statistics.sign_flip(numerators, stream),
        )


def held_out_texts(
    subjects: Sequence[SubjectScores], source: str, clusters: Mapping[str, str], only: set[str] | None = None
) -> Texts:
    """The held-out documents of a source, or only some of them.

    Args:
        subjects: The variants.
        source: Name of the source.
        clusters: The group of each document; a document not named is a group of its own.
        only: Ids of the documents wanted; None: all.
    """
    items = [i for i in subjects[0].models[0].held_out[source].values() if only is None or i.item in only]
    index = np.unique([clusters.get(i.item, f"document {i.item}") for i in items], return_inverse=True)[1]
    bits = {
        s.name: np.array([np.bincount(index, [m.held_out[source][i.item].bits for i in items]) for m in s.models])
        for s in subjects
    }
    return Texts(len(items), np.bincount(index, [i.bytes for i in items]).astype(np.float64), bits)


def compare_held_out(source: str, texts: Texts, randomness: Randomness) -> tuple[HeldOut, list[Tested]]:
    """Compare bits per byte."""
    scores = {name: texts.estimate(name, randomness, "bits_per_byte", source) for name in texts.bits}
    tests = [texts.test(("bits_per_byte", source, a, b), randomness) for a, b in pairs(texts.bits)]
    return HeldOut(source, texts.documents, len(texts.size), int(texts.size.sum()), scores), tests
