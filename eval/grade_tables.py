"""What the report says of the graded answers to the open prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eval.boundaries import GRADES
from eval.grading import GraderSummary, GradingSummary
from eval.report_page import Block, Grid, Heading, Words
from eval.tables import NOTHING, Cell, Column, Table, interval, percent, signed_interval, signed_points


def blocks(found: GradingSummary) -> list[Block]:
    """Counts of each grade by grader and variant, tests, and how far graders agree; nothing if nobody has graded."""
    return list(_blocks(found)) if found.graders else []


def _blocks(found: GradingSummary) -> Iterator[Block]:
    yield Heading("Open prompts")
    yield Words(
        f"{found.answers:,} answers to prompts that lead a model into temptation, each graded as pass, fail or did not "
        "understand by a person or a judge who did not see which model wrote it."
    )
    quoted = ", ".join(f"{count} {grade}" for grade, count in found.phi_15.items())
    note = (
        f"phi-1.5’s makers counted {quoted} by hand, of 86 prompts of their own (arXiv 2309.05463, section 4): quoted."
    )
    yield Grid("Grades of the answers, in per cent of those graded, with 95% intervals.", _counts(found), (note,))
    tests = [(grader, test) for grader in found.graders for test in grader.tests]
    if tests:
        rows = [
            [
                Cell(grader.identity, f"{test.prompts:,} prompts"),
                Cell(f"{test.first} – {test.second}"),
                Cell(signed_points(test.difference.value), signed_interval(test.difference, signed_points)),
                Cell(f"{test.p_value:.3f}"),
                Cell(f"{test.p_holm:.3f}", strong=test.p_holm < 0.05),
            ]
            for grader, test in tests
        ]
        columns = [Column("Grader", number=False), Column("Pair", number=False), Column("Passes, points")]
        yield Grid("Passes of two variants, compared.", Table([*columns, Column("p"), Column("Adjusted p")], rows))
    if found.agreements:
        yield Grid("How far two graders agree.", _agreements(found))


def _counts(found: GradingSummary) -> Table:
    rows: list[list[Cell]] = []
    headings: dict[int, str] = {}
    for grader in found.graders:
        headings[len(rows)] = _named(grader)
        for variant in grader.variants:
            about = f"{variant.graded:,} of {variant.answers:,} answers"
            if variant.unreadable:
                about += f", {variant.unreadable:,} without a readable grade"
            cells = [_share(variant.counts, variant.shares, grade) for grade in GRADES]
            rows.append([Cell(variant.variant, about), *cells])
    columns = [Column("Variant", number=False), *(Column(grade.capitalize()) for grade in GRADES)]
    return Table(columns, rows, headings=headings)


def _share(counts: Any, shares: Any, grade: Any) -> Cell:
    share = shares.get(grade)
    if share is None:
        return Cell(NOTHING)
    return Cell(percent(share.value), f"{counts.get(grade, 0)}; {interval(share, percent)}")


def _agreements(found: GradingSummary) -> Table:
    rows = [
        [
            Cell(f"{pair.first} and {pair.second}", f"{pair.answers:,} answers"),
            Cell(percent(pair.agreed)),
            Cell(_kappa(pair.kappa.value), signed_interval(pair.kappa, _kappa)) if pair.kappa else Cell(NOTHING),
        ]
        for pair in found.agreements
    ]
    return Table([Column("Graders", number=False), Column("Equal, per cent"), Column("Cohen’s kappa")], rows)


def _kappa(value: float) -> str:
    return f"{value:z.2f}".replace("-", "−")


def _named(grader: GraderSummary) -> str:
    return f"{'A person' if grader.kind == 'person' else 'A judge'}: {grader.identity}"
