"""The questions and answers of benchmarks, whatever their columns: what training text must never hold.

The rooms that write text compare with these; the room that scores answers has its own strict rows (`eval.rows`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.sealed import SUFFIX, read_items

# Primer's own items; models are asked them like any benchmark, so no training text may hold them either.
BUILT_IN_ITEMS = Path(__file__).parent.parent / "eval" / "items"
OWN_ITEMS = "built-in "

# Columns that hold what is asked, best first, over the data sets of the Hugging Face hub that Primer knows.
_ASKED = (
    *("question", "question_stem", "goal", "sentence", "ctx", "query", "prompt", "text"),
    *("problem", "premise", "input"),
)
# Columns that say what the row is, with no text that is asked or answered.
_ABOUT = frozenset(
    {
        *("id", "ind", "label", "subject", "title", "activity_label", "task_id", "source_file", "source_id"),
        *("entry_point", "pair", "group", "target_groups", "split", "split_type"),
    }
)
# What GSM8K's answers have a calculator do, which stands in no copy that is made to be read.
_CALCULATION = re.compile(r"<<[^<>]*>>")

# A longer context is a passage to read (SQuAD, BoolQ); a shorter one is a part of the question (Social IQa).
_LONGEST_CONTEXT = 400


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a benchmark.

    Attributes:
        where: File and line.
        text: What is asked.
        texts: Every text of the row: question, answers, passages; a sentence with a gap also filled in, an answer
            with calculations also without.
    """

    where: str
    text: str
    texts: tuple[str, ...]


def data_folder(named: str | None) -> Path | None:
    """The folder of benchmark data that a recipe names, or the environment does; None if neither.

    Args:
        named: The recipe's `eval.data`.

    Raises:
        PrimerError: If there is no such folder.
    """
    found = named or os.environ.get("PRIMER_EVAL_DATA")
    if not found:
        return None
    folder = Path(found).expanduser()
    if not folder.is_dir():
        where = "eval.data" if named else "PRIMER_EVAL_DATA"
        raise PrimerError(f"{where} names {found!r}, which is no folder.", f"Mend {where}, or leave it empty.")
    return folder


def read_every_benchmark(folder: Path | None) -> dict[str, list[Question]]:
    """The rows of Primer's own items, each suite as "built-in NAME", and those of a folder, if there is one.

    Raises:
        PrimerError: See `read_benchmarks`.
    """
    own = {OWN_ITEMS + suite: rows for suite, rows in read_benchmarks(BUILT_IN_ITEMS).items()}
    return own | (read_benchmarks(folder) if folder else {})


def benchmark_material(folder: Path | None) -> dict[str, str]:
    """Hashes of every file that `read_every_benchmark` reads, for `primer.run.Stage.material`."""
    paths = {f"{OWN_ITEMS}{path.stem}": path for path in _files(BUILT_IN_ITEMS)}
    if folder:
        paths |= {str(path.relative_to(folder)): path for path in _files(folder)}
    return {f"benchmark {name}": file_hash(path) for name, path in paths.items()}


def read_benchmarks(folder: Path) -> dict[str, list[Question]]:
    """Every row of a folder of benchmark data: `<suite>/**/<split>.jsonl`, or `<suite>.jsonl`; sealed files too.

    Returns:
        The questions by suite. Rows that ask the same are one question with the texts of all of them.

    Raises:
        PrimerError: If there is no such folder, no file in it, a file cannot be read or has no rows, or a line is no
            JSON object with a question.
    """
    paths = _files(folder)
    if not paths:
        raise PrimerError(
            f"{folder} holds no benchmark data.", "Name a folder with one folder a suite, and .jsonl files in those."
        )
    suites: dict[str, dict[str, Question]] = {}
    for path in paths:
        suite = path.stem if path.parent == folder else path.relative_to(folder).parts[0]
        questions = suites.setdefault(suite, {})
        for row in _read(path):
            known = questions.setdefault(row.text, row)
            if known is not row:
                texts = tuple(dict.fromkeys([*known.texts, *row.texts]))
                questions[row.text] = replace(known, texts=texts)
    return {suite: list(questions.values()) for suite, questions in suites.items()}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jsonl", SUFFIX))


def _read(path: Path) -> Iterator[Question]:
    lines = read_items(path).split("\n")
    if not any(map(str.strip, lines)):
        raise PrimerError(f"{path} has no rows.", "Mend the file, or leave it out.")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            asked = next(row[column] for column in _ASKED if isinstance(row.get(column), str))
        except (ValueError, AttributeError, StopIteration, RecursionError):
            raise PrimerError(
                f"{where}: is no JSON object with a text in one of: {', '.join(_ASKED)}.",
                "Mend the file, or leave the folder out.",
            ) from None
        context = row.get("context")
        if isinstance(context, str) and len(context) <= _LONGEST_CONTEXT:
            asked = f"{context} {asked}"
        texts = list(texts_in({column: value for column, value in row.items() if column not in _ABOUT}))
        plain = [_CALCULATION.sub("", text) for text in texts if _CALCULATION.search(text)]
        yield Question(where, asked, tuple(dict.fromkeys([asked, *texts, *plain, *_filled(row, asked)])))


def _filled(row: dict[str, Any], asked: str) -> Iterator[str]:
    """A sentence with a gap, as WinoGrande has, with each option in it: so it stands in a text."""
    if "_" in asked:
        for column, option in row.items():
            if column.startswith("option") and isinstance(option, str):
                yield asked.replace("_", option)


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
