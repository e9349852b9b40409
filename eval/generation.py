"""Suites with generated answers: asking rows, grading what was written, and adding up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from eval import arithmetic, programs, reading
from eval.language_model import CannotAskError, LanguageModel, Progress, Writing
from eval.suites import Suite
from eval.task import prompt_text
from primer.errors import PrimerError
from primer.recipe import Eval
from primer.sandbox import Sandbox

Row = Mapping[str, Any]
# Says why an answer to a row is wrong; nothing if it is right.
Judge = Callable[[Row, str], str]

# By `grader` of a task's metadata: what judges an answer, or what makes a program of it that passes if it is right.
_JUDGES: dict[str, Judge] = {"reading": reading.judge, "number": arithmetic.judge}
_PROGRAMS: dict[str, programs.Compose] = {
    "number by code": arithmetic.program,
    "function": programs.function_program,
    "asserts": programs.asserts_program,
}
# What `eval.samples` and `eval.temperature` are for. Other answers are one each, the likeliest.
_SAMPLED = ("function", "asserts")

# Nucleus of sampled programs (Chen et al. 2021, arXiv 2107.03374, section 3.2).
_TOP_P = 0.95

_PASS_AT = (1, 10, 100)

# Of the way from asking to grades, what generation takes.
_WRITTEN = 0.95


def ask_generation(
    suite: Suite,
    examples: Sequence[Row],
    rows: Sequence[Row],
    model: LanguageModel,
    settings: Eval,
    seed: int,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Have a model answer rows of a suite, and grade the answers.

    Args:
        suite: The suite.
        examples: Rows that examples in the prompt are taken from, the first first.
        rows: What is asked.
        model: The model.
        settings: Of which samples and temperature are for programs alone.
        seed: Of the draws. An answer depends on it, its prompt and the number of its sample, not on other rows.
        progress: Told the share of work that is done.

    Returns:
        One item a row; `cut` says that its prompt was shortened to fit, by examples first.

    Raises:
        CannotAskError: If programs would have to be run, and cannot be in a sandbox here.
    """
    writing = _writing(suite, model.max_length, settings, seed)
    prompts, shortened = _prompts(suite, examples, rows, model, model.max_length - writing.tokens)
    with _judge(suite, settings) as judge:
        written = model.generate(prompts, writing, (lambda share: progress(_WRITTEN * share)) if progress else None)
        items = []
        for number, (row, cut, answers) in enumerate(zip(rows, shortened, written, strict=True), 1):
            items.append(_item(suite, row, answers, judge, cut=cut))
            if progress is not None:
                progress(_WRITTEN + (1 - _WRITTEN) * number / len(rows))
    return items


def generation_totals(suite: Suite, items: Sequence[Mapping[str, Any]], temperature: float = 0.0) -> dict[str, Any]:
    """For `results.json`: the scores and, in words, how they came about.

    Args:
        suite: The suite.
        items: Of `ask_generation`.
        temperature: Of the recipe, at which programs were drawn.
    """
    rows, samples = len(items), min(item["samples"] for item in items)
    grader, cut = _grader(suite), sum(item["cut"] for item in items)
    drawn = temperature if grader in _SAMPLED else 0.0
    limits = suite.task["generation_kwargs"]
    notes = [
        f"{suite.shots}-shot",
        suite.protocol,
        f"{samples} at temperature {drawn:g}, top-p {_TOP_P:g}" if drawn else "greedy",
        f"at most {limits['max_gen_toks']} tokens or half of the context",
    ]
    if grader in _PROGRAMS:
        notes.append(f"programs may take {programs.SECONDS:g} CPU seconds and {programs.MEMORY_MIB:,} MiB")
    if cut:
        notes.append(f"{cut:,} prompts shortened to fit, by examples first")
    totals = {
        "acc": sum(item["acc"] for item in items) / rows,
        "metric": "pass@1" if grader in _SAMPLED else "exact_match",
        "rows_cut": cut,
        "protocol": "; ".join(notes),
    }
    if grader in _SAMPLED:
        totals["samples"] = samples
        totals["pass_at"] = {
            str(k): sum(programs.pass_at_k(item["samples"], item["correct"], k) for item in items) / rows
            for k in _PASS_AT
            if k <= samples
        }
    return totals


def _grader(suite: Suite) -> str:
    return str(suite.task["metadata"]["grader"])


def _writing(suite: Suite, context: int, settings: Eval, seed: int) -> Writing:
    limits = suite.task["generation_kwargs"]
    sampled = _grader(suite) in _SAMPLED
    return Writing(
        # A short context is shared with the prompt.
        tokens=min(limits["max_gen_toks"], context // 2),
        stops=tuple(limits["until"]),
        samples=settings.samples if sampled else 1,
        temperature=settings.temperature if sampled else 0.0,
        top_p=_TOP_P if sampled and settings.temperature else 1.0,
        seed=seed,
    )


def _prompts(
    suite: Suite, examples: Sequence[Row], rows: Sequence[Row], model: LanguageModel, room: int
) -> tuple[list[str], list[bool]]:
    """Each row's prompt with as many examples as fit, and whether it is still too long or has fewer than it should."""
    prompts = [""] * len(rows)
    waiting, shortened = list(range(len(rows))), [False] * len(rows)
    for shots in range(suite.shots, -1, -1):
        fewer = replace(suite, shots=shots)
        for number in waiting:
            prompts[number] = prompt_text(fewer, rows[number], examples)
        lengths = model.encode_text([prompts[number] for number in waiting])
        # One less: some tokenizers put a token before a text.
        waiting = [number for number, ids in zip(waiting, lengths, strict=True) if len(ids) > room - 1]
        for number in waiting:
            shortened[number] = True
    return prompts, shortened


@contextmanager
def _judge(suite: Suite, settings: Eval) -> Iterator[Judge]:
    """What grades a suite's answers, with the sandbox that it may need.

    Raises:
        CannotAskError: If there can be none here.
    """
    grader = _grader(suite)
    if grader in _JUDGES:
        yield _JUDGES[grader]
        return
    compose = _PROGRAMS[grader]
    verdicts: dict[str, str] = {}  # samples of one prompt are often equal
    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(Sandbox(weak=settings.weak_isolation))
        except PrimerError as error:
            raise CannotAskError(error.problem, error.remedy) from None

        def judge(row: Row, answer: str) -> str:
            text = compose(row, answer)
            if text not in verdicts:
                verdicts[text] = programs.try_program(sandbox, text)
            return verdicts[text]

        yield judge


def _item(suite: Suite, row: Row, answers: Sequence[str], judge: Judge, *, cut: bool) -> dict[str, Any]:
    reasons = [judge(row, answer) for answer in answers]
    correct = reasons.count("")
    return {
        "kind": "generation",
        "suite": suite.name,
        "item": row["id"],
        "acc": correct / len(answers),
        "samples": len(answers),
        "correct": correct,
        "answers": list(answers),
        "reasons": reasons,
        "cut": cut,
    }
