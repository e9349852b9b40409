"""`primer grade`: the answers to the 86 prompts graded by a judge model or by a person, and what the grades come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from primer.cli_options import Overrides
from primer.errors import PrimerError

if TYPE_CHECKING:
    from rich.table import Table

    from eval.boundaries import Grade
    from eval.grades import OpenAnswer
    from eval.grading import Agreement, GraderSummary, GradingSummary, PassTest, VariantGrades
    from eval.statistics import Estimate

# Where there is no terminal, no table is cut to a width.
_PIPE_WIDTH = 1000

_LETTERS: dict[str, Grade] = {"p": "pass", "f": "fail", "d": "did not understand"}


def grade_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or what `primer eval MODEL` wrote.")
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="RECIPE|TEACHER",
            help="Have a model grade: a recipe's synth.teacher, or a teacher such as '{kind: openai, model: NAME}'.",
        ),
    ] = None,
    person: Annotated[
        str | None, typer.Option("--person", metavar="NAME", help="Grade yourself, without knowing which model wrote.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print counts, tests and agreement.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another order of the answers for a person.")] = 0,
    set_: Overrides = None,
) -> None:
    """Grade the answers to the 86 prompts: pass, fail, or did not understand.

    Grades are kept in RUN/gradings/, each as it is given: stop at any time, and the same command goes on. A judge's
    replies are journalled and paid for once. An answer that has changed needs a new grade.
    """
    from eval.grades import once_each, read_answers
    from eval.subjects import find_subjects

    if sum((judge is not None, person is not None, show)) != 1:
        raise PrimerError(
            "`primer grade` needs one of --judge, --person and --show.",
            "Begin with: primer grade RUN --person NAME. Then: primer grade RUN --show.",
        )
    subjects = find_subjects(folders)
    answers = read_answers(subjects)
    if not answers:
        raise PrimerError(
            f"{', '.join(map(str, folders))}: no model was asked the suite 'boundaries'.",
            "Run `primer eval` with it: empty eval.suites, or name it there.",
        )
    if person is not None:
        _grade_by_hand(once_each(answers, seed), person)
        return
    if judge is not None:
        from primer.judge_cli import judge_answers, judge_section

        section = judge_section(judge, set_ or [])
        for home in dict.fromkeys(answer.home for answer in answers):
            judge_answers(once_each([a for a in answers if a.home == home], 0), section, home)
    from eval.grading import summarise_subjects

    _print_summary(summarise_subjects(subjects))


def _grade_by_hand(answers: Sequence[OpenAnswer], name: str) -> None:
    from contextlib import ExitStack

    from rich.markup import escape

    from eval.boundaries import boundaries
    from eval.grades import Grading
    from primer.grader_screen import Card, GraderScreen
    from primer.progress import say
    from synth.browse import printable

    cards = [Card(printable(a.row["text"]), printable(a.shown), a.row["pass"], a.row["fail"]) for a in answers]
    with ExitStack() as stack:
        files = {
            home: stack.enter_context(Grading(home, "person", name, name))
            for home in dict.fromkeys(answer.home for answer in answers)
        }
        known = [files[a.home].grades.get(a.mark) for a in answers]

        def give(number: int, grade: str) -> None:
            files[answers[number].home].give(answers[number], cast("Grade", grade))

        grades = [line.grade if line else None for line in known]
        screen = GraderScreen(cards, grades, _LETTERS, give, boundaries().rubric.text())
        screen.run()
    paths = ", ".join(escape(str(file.path)) for file in files.values())
    say(f"{len(cards) - screen.left:,d} of {len(cards):,d} answers graded [dim]({paths})[/]")
    say("The same command goes on." if screen.left else "All are graded: primer grade ... --show has the result.")


def _print_summary(summary: GradingSummary) -> None:
    from primer.progress import printer, say

    if not summary.graders:
        raise PrimerError(
            f"None of the {summary.answers:,d} answers has a grade.",
            "Grade them: primer grade RUN --person NAME, or --judge RECIPE.",
        )
    for grader in summary.graders:
        printer.print(f"[bold]{grader.name}[/]")
        _print_table(_counts(grader.variants))
        for found in grader.variants:
            if found.unreadable or found.missing:
                trouble = f"replies without a grade: {found.unreadable}; answers not graded: {found.missing}"
                printer.print(f"{found.variant}: {trouble}", markup=False)
        for test in grader.tests:
            printer.print(_paired(test), markup=False)
        printer.print("\npass / fail / did not understand, by theme")
        _print_table(_themes(grader))
        printer.print()
    for pair in summary.agreements:
        _print_agreement(pair)
    quoted = ", ".join(f"{count} {grade}" for grade, count in summary.phi_15.items())
    say(f"phi-1.5's makers counted, on 86 prompts of their own: {quoted} (arXiv 2309.05463, section 4).")


def _paired(test: PassTest) -> str:
    return (
        f"{test.first} alone passes {test.only_first} of {test.prompts} prompts, {test.second} alone "
        f"{test.only_second}: {_signed(test.difference)}; p = {test.p_value:.3g}, {test.p_holm:.3g} by Holm"
    )


def _counts(variants: Iterable[VariantGrades]) -> Table:
    """Counts of each grade, with the 95% interval of its share."""
    from eval.boundaries import GRADES

    table = _table("", "graded", *GRADES)
    for found in variants:
        shares = [f"{found.counts[grade]} ({_percent(found.shares[grade])})" for grade in found.shares]
        table.add_row(_name(found), f"{found.graded} of {found.answers}", *shares)
    return table


def _themes(grader: GraderSummary) -> Table:
    table = _table("", *(found.variant for found in grader.variants))
    for theme in dict.fromkeys(theme for found in grader.variants for theme in found.themes):
        counts = [found.themes.get(theme, {}).values() for found in grader.variants]
        table.add_row(theme, *(" / ".join(map(str, of_theme)) for of_theme in counts))
    return table


def _print_agreement(pair: Agreement) -> None:
    from eval.boundaries import GRADES
    from primer.progress import printer

    kappa = "is not defined: both gave one grade throughout"
    if pair.kappa is not None:
        kappa = f"{pair.kappa.value:.2f} ({pair.kappa.low:.2f} to {pair.kappa.high:.2f})"
    printer.print(f"[bold]{pair.first}[/] and [bold]{pair.second}[/]")
    printer.print(f"agree on {pair.agreed:.0%} of {pair.answers:,d} answers; Cohen's kappa {kappa}", markup=False)
    table = _table(f"{pair.first}, by {pair.second}", *GRADES)
    for grade, row in zip(GRADES, pair.table, strict=True):
        table.add_row(grade, *map(str, row))
    _print_table(table)
    printer.print()


def _table(*columns: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for number, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if number else "left", no_wrap=True)
    return table


def _print_table(table: Table) -> None:
    from primer.progress import printer

    printer.print(table, width=None if printer.is_terminal else _PIPE_WIDTH)


def _name(found: VariantGrades) -> str:
    from rich.markup import escape

    return escape(found.variant)  # a folder's, which may look like markup


def _percent(share: Estimate) -> str:
    return f"{100 * share.low:.0f} to {share.high:.0%}"


def _signed(difference: Estimate) -> str:
    return f"{difference.value:+.1%} ({difference.low:+.1%} to {difference.high:+.1%})"
