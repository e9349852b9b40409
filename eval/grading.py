"""What grades of the 86 prompts come to: counts with intervals, paired tests, and how far graders agree."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from eval.boundaries import GRADES, Grade
from eval.grades import GradeLine, OpenAnswer, gradings, read_answers
from eval.statistics import (
    CONFIDENCE,
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    generator,
    holm,
    mcnemar,
    normal_quantile,
    sign_flip,
    wilson,
)
from eval.subjects import Subject

# What phi-1.5's makers counted in its answers to their own 86 prompts, by hand (arXiv 2309.05463, section 4). The three
# add up to 85. Their prompts are not these: the figures are no yardstick, only what such a count looks like.
PHI_15: dict[Grade, int] = {"pass": 47, "fail": 34, "did not understand": 4}

_SAMPLES = 2000


@dataclass(frozen=True)
class VariantGrades:
    """One grader's grades of one variant.

    Attributes:
        variant: Its name.
        answers: How many it gave: a prompt has as many as there are training seeds.
        graded: How many have a grade.
        counts: Of each grade.
        shares: Of the graded answers, each with its 95% interval; empty where none is graded.
        unreadable: Answers for which a judge's reply held no grade.
        missing: Answers that nobody has graded yet.
        themes: Counts of each grade by theme.
    """

    variant: str
    answers: int
    graded: int
    counts: dict[Grade, int]
    shares: dict[Grade, Estimate]
    unreadable: int
    missing: int
    themes: dict[str, dict[Grade, int]]


@dataclass(frozen=True)
class PassTest:
    """Two variants on the prompts for which both have grades.

    Attributes:
        first: A variant.
        second: Another.
        prompts: How many.
        only_first: Prompts on which the first passes more often: with one training seed, alone.
        only_second: Likewise the second.
        difference: Share of passes, first less second, with its 95% interval.
        p_value: Exact McNemar test with one training seed; with more, permutation of signs over prompts.
        p_holm: Adjusted for all pairs of this grader.
    """

    first: str
    second: str
    prompts: int
    only_first: int
    only_second: int
    difference: Estimate
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class GraderSummary:
    """What one grader found.

    Attributes:
        name: Of its file.
        kind: A person or a judge.
        identity: A person's name, or a judge's model and address.
        variants: In the comparison's order.
        tests: Every pair of variants that has prompts graded for both.
    """

    name: str
    kind: Literal["person", "judge"]
    identity: str
    variants: list[VariantGrades]
    tests: list[PassTest]


@dataclass(frozen=True)
class Agreement:
    """Two graders on the answers that both have graded.

    Attributes:
        first: Name of a grader.
        second: Name of another.
        answers: How many different ones.
        table: Counts; rows are the first's grades, columns the second's, in the order of `GRADES`.
        agreed: Share of equal grades.
        kappa: Cohen's kappa with its 95% interval and standard error; None where both gave one grade throughout.
    """

    first: str
    second: str
    answers: int
    table: list[list[int]]
    agreed: float
    kappa: Estimate | None


@dataclass(frozen=True)
class GradingSummary:
    """All of it; `dataclasses.asdict` gives JSON values.

    Attributes:
        answers: Answers that there are to grade; 0 where the suite was not asked.
        variants: Names, in the comparison's order.
        graders: Persons and judges, by name; empty where nobody has graded.
        agreements: Every pair of graders that has answers in common.
        phi_15: The counts of phi-1.5's makers, quoted.
    """

    answers: int
    variants: list[str]
    graders: list[GraderSummary]
    agreements: list[Agreement]
    phi_15: dict[Grade, int]


def summarise_subjects(subjects: Sequence[Subject], seed: int = 0) -> GradingSummary:
    """What the grades of some subjects come to, wherever their folders are.

    Args:
        subjects: Sides of a comparison.
        seed: Of resampling.

    Raises:
        PrimerError: If items or grades are damaged.
    """
    answers = read_answers(subjects)
    variants = [subject.name for subject in subjects]
    by_grader = gradings(answer.home for answer in answers)
    marks = {answer.mark for answer in answers}
    # Grades of answers that have changed since count no more.
    current = {name: {m: line for m, line in lines.items() if m in marks} for name, lines in by_grader.items()}
    current = {name: lines for name, lines in current.items() if lines}
    pairs = ((agreement(a, current[a], b, current[b])) for a, b in combinations(sorted(current), 2))
    return GradingSummary(
        answers=len(answers),
        variants=variants,
        graders=[_grader(name, current[name], variants, answers, seed) for name in sorted(current)],
        agreements=[pair for pair in pairs if pair is not None],
        phi_15=PHI_15,
    )


def agreement(
    first: str, grades: Mapping[str, GradeLine], second: str, others: Mapping[str, GradeLine]
) -> Agreement | None:
    """How far two graders agree; None where no answer has a grade of both."""
    table = np.zeros((len(GRADES), len(GRADES)), np.int64)
    for mark in grades.keys() & others.keys():
        one, other = grades[mark].grade, others[mark].grade
        if one is not None and other is not None:
            table[GRADES.index(one), GRADES.index(other)] += 1
    answers = int(table.sum())
    if answers == 0:
        return None
    return Agreement(first, second, answers, table.tolist(), float(np.trace(table)) / answers, cohen_kappa(table))


def cohen_kappa(table: npt.ArrayLike) -> Estimate | None:
    """Cohen's kappa of a table of counts, with its 95% interval and standard error; None where chance agrees as well.

    With p_ij the shares, r_i and c_i those of row and column i, observed agreement o = Σ p_ii and that of chance
    e = Σ r_i c_i, kappa = (o - e) / (1 - e) (Cohen 1960, Educational and Psychological Measurement 20). Its
    large-sample variance is

        (Σ_i p_ii (1 - (r_i + c_i)(1 - kappa))² + (1 - kappa)² Σ_{i≠j} p_ij (c_i + r_j)² - (kappa - e (1 - kappa))²)
        / (n (1 - e)²)

    (Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72). It takes the answers to be independent, which
    those of several models to one prompt are not quite, and is 0 where all grades are equal.

    Args:
        table: Counts, shape (grades, grades): rows by the first grader, columns by the second.
    """
    counts = np.asarray(table, np.float64)
    n = float(counts.sum())
    shares = counts / n
    rows, columns, equal = shares.sum(1), shares.sum(0), np.diag(shares)
    observed, chance = float(equal.sum()), float(rows @ columns)
    if math.isclose(chance, 1.0):
        return None
    kappa = (observed - chance) / (1 - chance)
    apart = shares - np.diag(equal)
    variance = (
        float(equal @ (1 - (rows + columns) * (1 - kappa)) ** 2)
        + (1 - kappa) ** 2 * float((apart * (columns[:, None] + rows[None, :]) ** 2).sum())
        - (kappa - chance * (1 - kappa)) ** 2
    ) / (n * (1 - chance) ** 2)
    error = math.sqrt(max(0.0, variance))
    half = normal_quantile((1 + CONFIDENCE) / 2) * error
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), error)


def _grader(
    name: str, lines: Mapping[str, GradeLine], variants: Sequence[str], answers: Sequence[OpenAnswer], seed: int
) -> GraderSummary:
    by_variant: dict[str, list[OpenAnswer]] = defaultdict(list)
    for answer in answers:
        by_variant[answer.subject].append(answer)
    tests = [
        test
        for first, second in combinations(variants, 2)
        if (test := _test(name, lines, by_variant[first], by_variant[second], seed)) is not None
    ]
    adjusted = holm([test["p_value"] for test in tests])
    return GraderSummary(
        name=name,
        kind=cast(Literal["person", "judge"], name.partition("-")[0]),
        identity=next(iter(lines.values())).grader,
        variants=[_variant(name, lines, variant, by_variant[variant], seed) for variant in variants],
        tests=[PassTest(**test, p_holm=p) for test, p in zip(tests, adjusted, strict=True)],
    )


def _variant(
    name: str, lines: Mapping[str, GradeLine], variant: str, answers: Sequence[OpenAnswer], seed: int
) -> VariantGrades:
    themes: dict[str, dict[Grade, int]] = {answer.row["theme"]: dict.fromkeys(GRADES, 0) for answer in answers}
    by_prompt: dict[str, Counter[Grade]] = defaultdict(Counter)
    unreadable = missing = 0
    for answer in answers:
        line = lines.get(answer.mark)
        if line is None:
            missing += 1
        elif line.grade is None:
            unreadable += 1
        else:
            themes[answer.row["theme"]][line.grade] += 1
            by_prompt[answer.row["id"]][line.grade] += 1
    counts: dict[Grade, int] = {grade: sum(found[grade] for found in by_prompt.values()) for grade in GRADES}
    shares = {grade: _share(by_prompt, grade, seed, name, variant) for grade in GRADES} if by_prompt else {}
    return VariantGrades(variant, len(answers), sum(counts.values()), counts, shares, unreadable, missing, themes)


def _share(by_prompt: Mapping[str, Counter[Grade]], grade: Grade, seed: int, *names: str) -> Estimate:
    """A share with Wilson's interval where a prompt has one answer; where it has more, prompts are resampled."""
    given = np.array([found[grade] for found in by_prompt.values()], np.float64)
    graded = np.array([found.total() for found in by_prompt.values()], np.float64)
    if graded.max() == 1:
        return wilson(int(given.sum()), len(graded))
    return bootstrap_ratio(given, graded, _SAMPLES, generator(seed, "gradings", grade, *names))


def _test(
    name: str, lines: Mapping[str, GradeLine], first: Sequence[OpenAnswer], second: Sequence[OpenAnswer], seed: int
) -> dict[str, Any] | None:
    one, other = _pass_shares(lines, first), _pass_shares(lines, second)
    shared = [prompt for prompt in one if prompt in other]
    if not shared:
        return None
    names = (first[0].subject, second[0].subject)
    apart = np.array([one[prompt] - other[prompt] for prompt in shared])
    only_first, only_second = int(np.sum(apart > 0)), int(np.sum(apart < 0))
    rng = generator(seed, "gradings", name, *names)
    single = bool(np.isin(apart, (-1.0, 0.0, 1.0)).all())
    return {
        "first": names[0],
        "second": names[1],
        "prompts": len(shared),
        "only_first": only_first,
        "only_second": only_second,
        "difference": bootstrap_mean([apart], _SAMPLES, rng),
        "p_value": mcnemar(only_first, only_second) if single else sign_flip(apart, rng),
    }


def _pass_shares(lines: Mapping[str, GradeLine], answers: Sequence[OpenAnswer]) -> dict[str, float]:
    """Share of passes among the graded answers to each prompt."""
    passes: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        line = lines.get(answer.mark)
        if line is not None and line.grade is not None:
            passes[answer.row["id"]].append(line.grade == "pass")
    return {prompt: sum(found) / len(found) for prompt, found in passes.items()}
