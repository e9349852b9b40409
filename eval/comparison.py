"""What a comparison holds: estimates, intervals and tests, as plain numbers that a report sets and JSON keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from eval.statistics import Estimate

Measure = Literal["accuracy", "mean_accuracy", "bits_per_byte", "toxicity", "gap", "field"]

# A difference or a score is said to be beyond noise when its adjusted p-value is below this.
LEVEL = 0.05

# The largest differences that are possible; bits per byte have none.
LARGEST: dict[Measure, float] = {"accuracy": 1.0, "mean_accuracy": 1.0, "toxicity": 1.0, "gap": 2.0}


@dataclass(frozen=True)
class Score:
    """Accuracy of one variant, raw and normalised by answer length, and the test of the raw one against chance.

    Attributes:
        acc: Share of right answers; of generated ones, pass@1.
        acc_norm: None where answers are not chosen, or have no length.
        p: One-sided p-value of answering no better than the bar; None where nothing can be guessed.
    """

    acc: Estimate
    acc_norm: Estimate | None
    p: float | None
    p_adjusted: float | None = None

    @property
    def above_chance(self) -> bool:
        """Whether the raw accuracy is above the bar beyond noise; where nothing can be guessed, above 0."""
        return self.acc.value > 0 if self.p is None else self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Accuracy:
    """One suite, or the unweighted mean of the suites of one origin.

    Attributes:
        name: The suite, or for a mean its origin ("built-in" or "benchmark").
        area: Its group of suites; empty for a mean.
        metric: "acc", "exact_match" or "pass@1"; empty for a mean.
        chance: Expected accuracy of guessing.
        bar: What a model must beat to be called above chance: `chance` or, where every item has the same two choices to
            offer, the share of the commoner answer, if that is higher.
        scores: By variant; models from elsewhere that were asked other items have none.
        parts: The suites of a mean; empty for a suite.
    """

    name: str
    title: str
    origin: str
    area: str
    metric: str
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
class Safety:
    """SafeNLP's safety score of one set, which `eval.toxicity.SAFETY_MEANING` explains.

    Attributes:
        scores: By variant, the mean over groups, with a bootstrap interval over sentences.
        by_rule: The mean over the groups that SafeNLP's rule keeps; None where it keeps none.
        left_out: By variant, the groups that its rule leaves out (with several seeds, of any of them).
        groups: The score by group and variant.
    """

    scores: dict[str, Estimate]
    by_rule: dict[str, float | None]
    left_out: dict[str, tuple[str, ...]]
    groups: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Toxicity:
    """Within-group AUROC of hostile against neutral sentences; 0.5 is chance, higher is better.

    Attributes:
        scores: By variant.
        groups: AUROC by group of people and variant.
        sizes: Hostile and neutral sentences by group.
        safety: None where the sentences have no toxicity.
    """

    name: str
    title: str
    rows: int
    scores: dict[str, Estimate]
    groups: dict[str, dict[str, float]]
    sizes: dict[str, tuple[int, int]]
    safety: Safety | None
    protocol: str


@dataclass(frozen=True)
class Difference:
    """first - second on the same items, with the test that they are equally good.

    Attributes:
        effect: Cohen's h, for the accuracy of a suite.
    """

    measure: Measure
    subject: str
    first: str
    second: str
    estimate: Estimate
    p: float
    p_adjusted: float = 1.0
    effect: Estimate | None = None

    @property
    def beyond_noise(self) -> bool:
        """Whether the two differ after Holm's correction."""
        return self.p_adjusted < LEVEL

    def ordered(self) -> Difference:
        """The same difference with the better variant first (fewer bits per byte are better)."""
        lower_wins = self.measure in ("bits_per_byte", "field")
        if (self.estimate.value < 0) == lower_wins:
            return self
        effect = self.effect.negated() if self.effect else None
        return replace(self, first=self.second, second=self.first, estimate=self.estimate.negated(), effect=effect)


@dataclass(frozen=True)
class Detectable:
    """The true difference between two variants that this design finds with 80% power (`eval.seeds.detectable`).

    Accuracies and areas differ by 1 at most: where it is 1, no possible difference would be sure to be found.

    Attributes:
        corrected: At the level that is left to each test if all are to be wrong in 5 of 100 reports (Bonferroni); the
            honest worst case of Holm's correction.
        alone: At 5%, if this were the only test.
    """

    measure: Measure
    subject: str
    corrected: float
    alone: float


@dataclass(frozen=True)
class Gap:
    """Accuracy on a benchmark minus that on its fresh twin, by variant.

    The items differ in difficulty, so a gap alone says nothing. A gap that is larger for one variant than for another
    says that the one does better on the old items than its skill on fresh ones would have it: its corpus may hold them.
    Or it is better at what only the harder of the two asks. A twin has few items, so only large leaks show.
    """

    benchmark: str
    twin: str
    title: str
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class Field:
    """Bits per byte of the held-out synthetic documents of one field of topics."""

    name: str
    documents: int
    clusters: int
    bytes: int
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class Fields:
    """What each variant gains over a baseline, by field of topics (measure "field", in bits per byte).

    Attributes:
        baseline: The variant called `web`, else the first.
        rows: Fields by name; those with few topics are one row at the end.
        merged: The names of those.
        differences: Variant minus baseline; negative is a gain. Holm's correction is over these.
    """

    baseline: str
    rows: list[Field]
    merged: tuple[str, ...]
    differences: list[Difference]


@dataclass(frozen=True)
class Comparison:
    """Everything the report says about the models, as numbers.

    Attributes:
        seeds: Number of training seeds by variant.
        differences: Every paired test of the main family, which the tests against chance belong to as well.
        detectable: For each measure, the largest over pairs of variants; none where no pair differs in anything.
        gaps: Benchmarks and their twins.
        gap_differences: Tests that the gaps of two variants are equal (measure "gap", subject: the benchmark): a family
            of their own.
        fields: None without held-out synthetic documents, or with one variant.
        not_shared: A line for each suite that only some were asked.
    """

    variants: tuple[str, ...]
    seeds: dict[str, int] = field(default_factory=dict)
    suites: list[Accuracy] = field(default_factory=list)
    means: list[Accuracy] = field(default_factory=list)
    held_out: list[HeldOut] = field(default_factory=list)
    toxicity: list[Toxicity] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    detectable: list[Detectable] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    gap_differences: list[Difference] = field(default_factory=list)
    fields: Fields | None = None
    skipped: list[dict[str, str]] = field(default_factory=list)
    not_shared: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        """Size of the family that Holm's correction is over."""
        scores = [score for a in (*self.suites, *self.means) for score in a.scores.values()]
        return len(self.differences) + sum(score.p is not None for score in scores)

    def beyond_noise(self, measure: Measure, subject: str) -> list[Difference]:
        """The differences of one measure that survive the correction, the better variant first in each."""
        found = [d for d in self.differences if (d.measure, d.subject) == (measure, subject) and d.beyond_noise]
        return [d.ordered() for d in found]

    def best(self, measure: Measure, subject: str) -> str | None:
        """The variant that is beyond noise better than every other one, if there is one."""
        wins = [d.first for d in self.beyond_noise(measure, subject)]
        winners = [v for v in self.variants if len(self.variants) > 1 and wins.count(v) == len(self.variants) - 1]
        return winners[0] if winners else None
