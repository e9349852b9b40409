"""A judge model's grades of the 86 prompts: asked as every teacher is, with journal, budget, retries and batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.markup import escape

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from primer.progress import say
from primer.recipe_file import load_recipe
from primer.recipe_synth import Synth, Teacher

if TYPE_CHECKING:
    from eval.grades import Grading, OpenAnswer
    from synth.backend import Messages
    from synth.engine import Plan
    from synth.journal import Journal


def judge_section(judge: str, overrides: Sequence[str]) -> Synth:
    """How a judge is asked: by a recipe's teacher, or by a teacher written as in a recipe.

    Args:
        judge: A recipe's path, or "{kind: openai, model: ...}".
        overrides: `key=value` settings of the recipe, such as synth.budget.dollars=1.

    Raises:
        PrimerError: If it is neither, or not valid.
    """
    path = Path(judge).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        synth = load_recipe(path, overrides).synth
    elif _is_table(judge):
        synth = load_recipe(None, [f"synth.teacher={judge}", *overrides]).synth
    else:
        raise PrimerError(
            f"--judge is {judge!r}; expected a recipe file, whose synth.teacher is asked, or a teacher.",
            "For example: --judge recipes/demo.yaml, or --judge '{kind: openai, model: gpt-4o-mini}'.",
        )
    # The likeliest grade, and none of a draw. A reply that was cut short holds its grade or is worth nothing.
    sampling = synth.sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0})
    accept = synth.accept.model_copy(update={"truncated": "drop"})
    return synth.model_copy(update={"sampling": sampling, "accept": accept})


def judge_answers(answers: Sequence[OpenAnswer], synth: Synth, home: Path) -> None:
    """Have the answers of one folder graded that this judge has not graded yet.

    Args:
        answers: Of that folder, each different one once.
        synth: Who is asked, and how (`judge_section`).
        home: The folder: its journal takes the replies, `gradings/` the grades.

    Raises:
        PrimerError: If the judge cannot be used, gives no grade, or the budget is reached; what was graded is kept.
    """
    from eval.grades import Grading
    from eval.judge import read_judgement
    from primer.run import locked
    from synth.annotate_reply import Grader
    from synth.corpora import asker
    from synth.engine import generate
    from synth.plan import make_plan, open_journal
    from synth.shards import shard_journals
    from synth.view import View

    plan = make_plan(synth)
    with (
        locked(home),
        Grading(home, "judge", _name(synth.teacher, plan), plan.identity) as grading,
        open_journal(home / "journal" / "replies.jsonl", synth, shard_journals(home), purpose="gradings") as journal,
    ):
        requests = [_request(answer) for answer in answers if not _graded(grading, answer)]
        plan = replace(plan, tokens=None, documents=None, units=len(requests), section="what is graded")
        if requests:
            say(f"{len(requests):,d} answers to grade; the judge is {escape(plan.identity)}")
            outcome = generate(
                requests,
                plan,
                Grader(synth.accept, read_judgement),
                journal,
                asker(synth, home),
                lambda attempt: _give(grading, attempt.unit.answer, attempt.document),
                View(None),
                title="gradings",
            )
            _note_unreadable(requests, grading, journal, plan)
            for reason, count in (outcome.rejected + outcome.failed).most_common(3):
                say(f"  [yellow]{count:,d} requests without a grade:[/] {escape(reason.replace('_', ' '))}")
        graded = sum(_graded(grading, answer) for answer in answers)
        paid = journal.totals
        cost = "" if paid.dollars is None else f", ${paid.dollars:,.4f}"
        say(
            f"[green]✓[/] {graded:,d} of {len(answers):,d} answers graded; in all {paid.prompt_tokens:,d} tokens "
            f"asked, {paid.completion_tokens:,d} answered{cost} [dim]({escape(str(grading.path))})[/]"
        )
        if not graded:
            raise PrimerError(
                f"None of {len(answers):,d} replies held a grade.",
                "Name a better judge; one that thinks aloud may need --set synth.sampling.max_tokens=4000.",
            )


@dataclass(frozen=True)
class _Request:
    """A unit of the engine: one answer to grade."""

    answer: OpenAnswer
    asked: Messages
    seed: int
    kept: tuple[bool, ...] = (True,)
    snippet: None = None
    language: str = "English"

    def messages(self, replies: Sequence[str] = ()) -> Messages:  # noqa: ARG002 - one step has none before it
        return self.asked


def _request(answer: OpenAnswer) -> _Request:
    from eval.boundaries import boundaries
    from eval.formats import prompt
    from eval.judge import question
    from prompts.rubrics import quoted

    given = quoted(prompt(answer.row["format"], answer.row["text"]))
    asked = question(boundaries().rubric, answer.row, given, quoted(answer.shown))
    return _Request(answer, asked, int(answer.mark[:8], 16) >> 1)


def _graded(grading: Grading, answer: OpenAnswer) -> bool:
    line = grading.grades.get(answer.mark)
    return line is not None and line.grade is not None


def _give(grading: Grading, answer: OpenAnswer, reply: str) -> None:
    from eval.judge import Judgement, read_judgement

    read = read_judgement(reply)
    assert isinstance(read, Judgement)
    grading.give(answer, read.grade, read.reason)


def _note_unreadable(requests: Sequence[_Request], grading: Grading, journal: Journal, plan: Plan) -> None:
    """Write down which answers got a reply without a grade; those that got none are asked for another time."""
    from synth.journal import Reply, answer_key

    journal.settle()
    for request in requests:
        if request.answer.mark in grading.grades:
            continue
        reply = journal.get(answer_key(plan.identity, request.asked, plan.sampling, request.seed))
        if isinstance(reply, Reply):
            grading.give(request.answer, None, " ".join(reply.text.split())[:500])


def _name(teacher: Teacher, plan: Plan) -> str:
    """Of the judge's file: a model at another address is another judge."""
    model = re.sub("[^a-z0-9.]+", "-", Path(teacher.model).name.lower()).strip("-.")[:40]
    return f"{model or 'model'}-{fingerprint(plan.identity)[:6]}"


def _is_table(text: str) -> bool:
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False
