"""Multiple choice: asking rows of a suite, and adding them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.language_model import LanguageModel, Progress
from eval.suites import Suite
from eval.task import ChoiceTask


def ask_choice(
    suite: Suite,
    examples: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    model: LanguageModel,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Ask a model rows of a suite; the answer of highest log-likelihood is the model's.

    Returns:
        One item a row: with `acc`, and with `acc_norm` where log-likelihoods are divided by the answers' characters.

    Raises:
        AnswerTooLongError: If an answer does not fit into the model's context.
        PrimerError: If a row does not fit the task, or the model's log-likelihoods are not numbers.
    """
    task = ChoiceTask(suite, examples)
    questions = [task.question(row) for row in rows]
    items = []
    for row, question, found in zip(rows, questions, model.ask([q.pairs for q in questions], progress), strict=True):
        loglikelihoods = [loglikelihood for loglikelihood, _ in found.scores]
        choice = _best(loglikelihoods)
        choice_norm = _best([value / n for value, n in zip(loglikelihoods, question.lengths, strict=True)])
        items.append(
            {
                "kind": "choice",
                "suite": suite.name,
                "item": row["id"],
                "gold": question.gold,
                "choice": choice,
                "choice_norm": choice_norm,
                "acc": int(choice == question.gold),
                "acc_norm": int(choice_norm == question.gold),
                "loglikelihoods": loglikelihoods,
                "cut": found.cut,
            }
        )
    return items


def choice_totals(suite: Suite, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For `results.json`: the scores of `ask_choice`'s items and, in words, how they came about."""
    rows, cut = len(items), sum(item["cut"] for item in items)
    notes = [f"{suite.shots}-shot", suite.protocol, "acc raw, acc_norm per character"]
    if cut:
        notes.append(f"{cut:,} rows cut from the left to the model's context")
    return {
        "chance": sum(1 / len(item["loglikelihoods"]) for item in items) / rows,
        "acc": sum(item["acc"] for item in items) / rows,
        "acc_norm": sum(item["acc_norm"] for item in items) / rows,
        "metric": "acc",
        "rows_cut": cut,
        "protocol": "; ".join(notes),
    }


def _best(scores: Sequence[float]) -> int:
    """Position of the largest value, the first of equals, as numpy's argmax in the harness."""
    return max(range(len(scores)), key=scores.__getitem__)
