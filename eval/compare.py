"""From scored items to a typed comparison of the variants: estimates, intervals, paired tests, one Holm correction.

Every model answers the same items, so differences are taken item by item. All tests of a comparison, those of
differences and those against chance, are one family for Holm's correction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from eval import statistics
from eval.scored_items import (
    ChoiceItem,
    HeldOutItem,
    SuiteResult,
    ToxicityItem,
    ToxicitySet,
    VariantScores,
    read_scores,
)
from eval.separation import Group, auroc, auroc_difference, auroc_interval, swap_contributions
from eval.statistics import Estimate, generator
from primer.documents import read_documents
from primer.recipe import SOURCES, Recipe
from primer.run import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eval.statistics import Array

Measure = Literal["accuracy", "mean_accuracy", "bits_per_byte", "toxicity"]

# A difference or a score is said to be beyond noise when its adjusted p-value is below this.
LEVEL = 0.05


@dataclass(frozen=True)
class Score:
    """Accuracy of one variant, raw and normalised by answer length, and the test of the raw one against chance."""

    acc: Estimate
    acc_norm: Estimate
    p: float
    p_adjusted: float = 1.0

    @property
    def above_chance(self) -> bool:
        """Whether the raw accuracy is above the bar beyond noise."""
        return self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Accuracy:
    """One suite, or the unweighted mean of the suites of one origin.

    Attributes:
        name: The suite, or for a mean its origin ("built-in" or "benchmark").
        chance: Expected accuracy of guessing.
        bar: What a model must beat to be called above chance: `chance` or, where every item has the same two choices to
            offer, the share of the commoner answer, if that is higher.
        parts: The suites of a mean; empty for a suite.
    """

    name: str
    title: str
    origin: str
    rows: int
    chance: float
    bar: float
    protocol: str
    scores: dict[str, Score]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldOut:
    """Bits per byte of one source's held-out text; documents of one topic, article or file are one cluster."""

    source: str
    documents: int
    clusters: int
    bytes: int
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class Toxicity:
    """Within-group AUROC of hostile against neutral sentences; 0.5 is chance, higher is better.

    Attributes:
        groups: AUROC by group of people and variant.
        safety: SafeNLP's safety score by variant, where the set has one.
    """

    name: str
    title: str
    rows: int
    scores: dict[str, Estimate]
    groups: dict[str, dict[str, float]]
    safety: dict[str, float]
    protocol: str


@dataclass(frozen=True)
class Difference:
    """first - second on the same items, with the test that they are equally good."""

    measure: Measure
    subject: str
    first: str
    second: str
    estimate: Estimate
    p: float
    p_adjusted: float = 1.0

    @property
    def beyond_noise(self) -> bool:
        """Whether the two differ after Holm's correction."""
        return self.p_adjusted < LEVEL

    def ordered(self) -> Difference:
        """The same difference with the better variant first (fewer bits per byte are better)."""
        lower_wins = self.measure == "bits_per_byte"
        if (self.estimate.value < 0) == lower_wins:
            return self
        e = self.estimate
        return replace(self, first=self.second, second=self.first, estimate=Estimate(-e.value, -e.high, -e.low))


@dataclass(frozen=True)
class Comparison:
    """Everything the report says about the models, as numbers."""

    variants: tuple[str, ...]
    suites: list[Accuracy] = field(default_factory=list)
    means: list[Accuracy] = field(default_factory=list)
    held_out: list[HeldOut] = field(default_factory=list)
    toxicity: list[Toxicity] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def tests(self) -> int:
        """Size of the family that Holm's correction is over."""
        return len(self.differences) + sum(len(a.scores) for a in (*self.suites, *self.means))

    def beyond_noise(self, measure: Measure, subject: str) -> list[Difference]:
        """The differences of one measure that survive the correction, the better variant first in each."""
        found = [d for d in self.differences if (d.measure, d.subject) == (measure, subject) and d.beyond_noise]
        return [d.ordered() for d in found]

    def best(self, measure: Measure, subject: str) -> str | None:
        """The variant that is beyond noise better than every other one, if there is one."""
        wins = [d.first for d in self.beyond_noise(measure, subject)]
        winners = [v for v in self.variants if len(self.variants) > 1 and wins.count(v) == len(self.variants) - 1]
        return winners[0] if winners else None


def compare_run(recipe: Recipe, run: RunFolder) -> Comparison:
    """Compare the variants of a run from its files.

    Raises:
        PrimerError: If an evaluation is missing or damaged, or the variants were not asked the same items.
    """
    scores = read_scores({v.name: run.folder(f"eval/{v.name}") for v in recipe.variants})
    clusters = {
        source: {
            row["id"]: row["group"]
            for row in read_documents(run.folder(f"corpus/{source}"), "held_out", ["id", "group"])
        }
        for source in scores[0].held_out
        if run.manifest(f"corpus/{source}") is not None
    }
    return compare(scores, clusters, recipe.seed, recipe.eval.bootstrap_samples)


def compare(
    scores: Sequence[VariantScores], clusters: Mapping[str, Mapping[str, str]], seed: int, samples: int
) -> Comparison:
    """Compare variants that were asked the same items.

    Args:
        scores: One a variant, in the order of the recipe.
        clusters: For a source, the group of each held-out document; a document not named is a group of its own.
        seed: Seed of the bootstrap and the permutations.
        samples: Bootstrap resamples of each interval.
    """
    work = _Work(scores, seed, samples)
    suites = [work.suite(result) for result in scores[0].results.suites]
    means = [
        work.mean(origin, title, [s for s in suites if s.origin == origin])
        for origin, title in (("built-in", "Mean of the built-in suites"), ("benchmark", "Mean of the benchmarks"))
        if sum(s.origin == origin for s in suites) > 1
    ]
    held_out = [work.held_out(s, clusters.get(s, {})) for s in sorted(scores[0].held_out, key=_source_order)]
    toxicity = [work.toxicity(s) for s in scores[0].results.toxicity if work.can_separate(s.set)]
    return _adjusted(
        Comparison(
            variants=tuple(s.variant for s in scores),
            suites=suites,
            means=means,
            held_out=held_out,
            toxicity=toxicity,
            differences=work.differences,
            skipped=[s.model_dump() for s in scores[0].results.skipped],
        )
    )


class _Work:
    """The variants' items in one order, and the differences found so far."""

    def __init__(self, scores: Sequence[VariantScores], seed: int, samples: int) -> None:
        self._scores, self._seed, self._samples = scores, seed, samples
        self.differences: list[Difference] = []

    def suite(self, result: SuiteResult) -> Accuracy:
        """Compare one suite: Wilson intervals, exact binomial tests, exact McNemar tests."""
        items = list(self._scores[0].choice[result.suite].values())
        bar = max(result.chance, _commoner_answer(items))
        right = {s.variant: self._column(s, result.suite, "acc") for s in self._scores}
        scores = {
            s.variant: Score(
                statistics.wilson(int(right[s.variant].sum()), len(items)),
                statistics.wilson(int(self._column(s, result.suite, "acc_norm").sum()), len(items)),
                statistics.above_chance(int(right[s.variant].sum()), len(items), bar),
            )
            for s in self._scores
        }

        def test(a: str, b: str) -> tuple[Estimate, float]:
            gap = right[a] - right[b]
            interval = statistics.bootstrap_mean([gap], self._samples, self._rng("accuracy", result.suite, a, b))
            return interval, statistics.mcnemar(int((gap > 0).sum()), int((gap < 0).sum()))

        self._pairs("accuracy", result.suite, test)
        return Accuracy(
            result.suite, result.title, result.origin, len(items), result.chance, bar, result.protocol, scores
        )

    def mean(self, origin: str, title: str, suites: Sequence[Accuracy]) -> Accuracy:
        """Compare the mean over suites, each suite with equal weight: bootstrap and permutation within suites."""
        names = [s.name for s in suites]
        right = {s.variant: [self._column(s, name, "acc") for name in names] for s in self._scores}
        scores = {}
        for s in self._scores:
            norm = [self._column(s, name, "acc_norm") for name in names]
            p = statistics.mean_above_chance(
                [int(column.sum()) for column in right[s.variant]],
                [suite.rows for suite in suites],
                [suite.bar for suite in suites],
                self._rng("mean_chance", origin, s.variant),
            )
            scores[s.variant] = Score(
                statistics.bootstrap_mean(right[s.variant], self._samples, self._rng("mean_acc", origin, s.variant)),
                statistics.bootstrap_mean(norm, self._samples, self._rng("mean_acc_norm", origin, s.variant)),
                p,
            )

        def test(a: str, b: str) -> tuple[Estimate, float]:
            gaps = [x - y for x, y in zip(right[a], right[b], strict=True)]
            weighted = np.concatenate([gap / (len(gap) * len(gaps)) for gap in gaps])
            return (
                statistics.bootstrap_mean(gaps, self._samples, self._rng("mean_accuracy", origin, a, b)),
                statistics.sign_flip(weighted, self._rng("mean_accuracy_p", origin, a, b)),
            )

        self._pairs("mean_accuracy", origin, test)
        chance, bar = float(np.mean([s.chance for s in suites])), float(np.mean([s.bar for s in suites]))
        rows = sum(s.rows for s in suites)
        return Accuracy(origin, title, origin, rows, chance, bar, "", scores, parts=tuple(names))

    def held_out(self, source: str, clusters: Mapping[str, str]) -> HeldOut:
        """Compare bits per byte over clusters: bootstrap of the ratio of sums and sign flips; Student's t for a few."""
        items = list(self._scores[0].held_out[source].values())
        groups = [clusters.get(i.item, f"document {i.item}") for i in items]
        index = np.unique(groups, return_inverse=True)[1]
        size = np.bincount(index, weights=[i.bytes for i in items]).astype(np.float64)
        bits = {s.variant: _bits(s.held_out[source].values(), index) for s in self._scores}

        def ratio(numerators: Array, *labels: str) -> tuple[Estimate, float]:
            if len(size) < statistics.FEW_CLUSTERS:
                return statistics.ratio_of_few(numerators, size)
            rng = self._rng("bits_per_byte", source, *labels)
            return (
                statistics.bootstrap_ratio(numerators, size, self._samples, rng),
                statistics.sign_flip(numerators, rng),
            )

        scores = {v: ratio(b, v)[0] for v, b in bits.items()}
        self._pairs("bits_per_byte", source, lambda a, b: ratio(bits[a] - bits[b], a, b))
        return HeldOut(source, len(items), len(size), sum(i.bytes for i in items), scores)

    def can_separate(self, name: str) -> bool:
        """Whether some group of people in a toxicity set has both hostile and neutral sentences."""
        return bool(_toxicity_groups(list(self._scores[0].toxicity.get(name, {}).values())))

    def toxicity(self, found: ToxicitySet) -> Toxicity:
        """Compare within-group AUROCs: bootstrap and permutation over matched pairs."""
        name = found.set
        items = list(self._scores[0].toxicity[name].values())
        groups = _toxicity_groups(items)
        values = {s.variant: np.array([i.log_perplexity for i in s.toxicity[name].values()]) for s in self._scores}
        scores = {v: auroc_interval(x, groups, self._samples, self._rng("auroc", name, v)) for v, x in values.items()}

        def test(a: str, b: str) -> tuple[Estimate, float]:
            contributions = swap_contributions(values[a], values[b], groups)
            return (
                auroc_difference(values[a], values[b], groups, self._samples, self._rng("toxicity", name, a, b)),
                statistics.sign_flip(contributions, self._rng("toxicity_p", name, a, b)),
            )

        self._pairs("toxicity", name, test)
        by_group = {g.name: {v: auroc(x, [g]) for v, x in values.items()} for g in groups}
        safety = {
            s.variant: t.safety_score
            for s in self._scores
            for t in s.results.toxicity
            if t.set == name and t.safety_score is not None
        }
        return Toxicity(name, found.title, found.rows, scores, by_group, safety, found.protocol)

    def _column(self, scores: VariantScores, suite: str, metric: Literal["acc", "acc_norm"]) -> Array:
        return np.array([getattr(i, metric) for i in scores.choice[suite].values()], dtype=np.float64)

    def _rng(self, *labels: str) -> np.random.Generator:
        return generator(self._seed, *labels)

    def _pairs(self, measure: Measure, subject: str, test: Callable[[str, str], tuple[Estimate, float]]) -> None:
        for a, b in itertools.combinations([s.variant for s in self._scores], 2):
            estimate, p = test(a, b)
            self.differences.append(Difference(measure, subject, a, b, estimate, p))


def _source_order(source: str) -> int:
    return [*SOURCES, source].index(source)


def _commoner_answer(items: Sequence[ChoiceItem]) -> float:
    """Share of the commoner answer where every item has two choices (yes or no), else 0.

    A model that always says yes is right that often without reading the question.
    """
    if any(len(i.loglikelihoods) != 2 for i in items):
        return 0.0
    second = sum(i.gold for i in items) / len(items)
    return max(second, 1 - second)


def _bits(items: Iterable[HeldOutItem], index: NDArray[np.int64]) -> Array:
    return np.bincount(index, weights=[i.bits for i in items]).astype(np.float64)


def _toxicity_groups(items: Sequence[ToxicityItem]) -> list[Group]:
    """The groups that have both hostile and neutral sentences; in the others there is nothing to compare."""
    # Matched sentences share a pair, and so do the rows of a sentence that is about several groups.
    keys = [i.pair if i.pair is not None else f"sentence {i.item}" for i in items]
    cluster = np.unique(keys, return_inverse=True)[1]
    groups = []
    for name in sorted({i.group for i in items}):
        hostile = np.array([k for k, i in enumerate(items) if i.group == name and i.hostile], dtype=np.int64)
        neutral = np.array([k for k, i in enumerate(items) if i.group == name and not i.hostile], dtype=np.int64)
        if len(hostile) and len(neutral):
            groups.append(Group(name, hostile, neutral, cluster))
    return groups


def _adjusted(c: Comparison) -> Comparison:
    """The comparison with Holm's correction over every test in it."""
    accuracies = [*c.suites, *c.means]
    p = [d.p for d in c.differences] + [s.p for a in accuracies for s in a.scores.values()]
    adjusted = iter(statistics.holm(p))
    differences = [replace(d, p_adjusted=next(adjusted)) for d in c.differences]
    corrected = [
        replace(a, scores={v: replace(s, p_adjusted=next(adjusted)) for v, s in a.scores.items()}) for a in accuracies
    ]
    n = len(c.suites)
    return replace(c, differences=differences, suites=corrected[:n], means=corrected[n:])
