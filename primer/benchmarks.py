"""The questions and answers of benchmarks, whatever their columns: what training text must never hold.

The rooms that write text compare with these; the room that scores answers has its own strict rows (`eval.rows`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.errors import PrimerError

# Columns that hold what is asked, best first, over the data sets of the Hugging Face hub that Primer knows.
_ASKED = ("question", "goal", "sentence", "ctx", "query", "prompt", "text")
# A longer context is a passage to read (SQuAD, BoolQ); a shorter one is a part of the question (Social IQa).
_LONGEST_CONTEXT = 400


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a benchmark.

    Attributes:
        where: File and line.
        text: What is asked.
        texts: Every text of the row: question, answers, passages.
    """

    where: str
    text: str
    texts: tuple[str, ...]


def read_benchmarks(folder: Path) -> dict[str, list[Question]]:
    """Every row of a folder of benchmark data: `<suite>/<split>.jsonl`, or `<suite>.jsonl`.

    Returns:
        The questions by suite, each question once.

    Raises:
        PrimerError: If there is no such folder, no file in it, or a line is no JSON object with a question.
    """
    paths = sorted([*folder.glob("*/*.jsonl"), *folder.glob("*.jsonl")])
    if not paths:
        raise PrimerError(
            f"{folder} holds no benchmark data.", "Name a folder with one folder a suite, and .jsonl files in those."
        )
    suites: dict[str, dict[str, Question]] = {}
    for path in paths:
        suite = path.stem if path.parent == folder else path.parent.name
        for question in _read(path):
            suites.setdefault(suite, {}).setdefault(question.text, question)
    return {suite: list(questions.values()) for suite, questions in suites.items()}


def _read(path: Path) -> Iterator[Question]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
                asked = next(row[column] for column in _ASKED if isinstance(row.get(column), str))
            except (ValueError, AttributeError, StopIteration):
                raise PrimerError(
                    f"{where}: is no JSON object with a text in one of: {', '.join(_ASKED)}.",
                    "Mend the file, or leave the folder out.",
                ) from None
            context = row.get("context")
            if isinstance(context, str) and len(context) <= _LONGEST_CONTEXT:
                asked = f"{context} {asked}"
            yield Question(where, asked, tuple(dict.fromkeys([asked, *_texts(row)])))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
