"""Rows of the built-in items and the benchmarks: their forms, and reading them with errors that name file and line.

A benchmark's file may hold the columns of its data set on the Hugging Face hub, or the shorter ones below; both end
in the same row.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from primer.errors import PrimerError
from primer.sealed import read_items


def _python(text: str) -> str:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"is no Python: {error}") from None
    return text


Text = Annotated[str, Field(min_length=1)]
# Some copies of a benchmark store a label as text ("3"), others as a number (3).
Number = Annotated[int, BeforeValidator(lambda v: int(v) if isinstance(v, str) and v.strip().isdigit() else v)]
Digit = Annotated[Text, BeforeValidator(lambda v: str(v) if type(v) is int else v)]


class Row(BaseModel):
    """One row; `id` is its name among the scored items (the suite and the line number where the file gives none)."""

    model_config = ConfigDict(extra="ignore", strict=True)
    id: Digit


class Winogrande(Row):
    """A sentence with a blank `_`, and two names that may stand there."""

    sentence: Annotated[str, Field(pattern="_")]
    option1: Text
    option2: Text
    answer: Annotated[Literal["1", "2"], BeforeValidator(str)]


class Piqa(Row):
    """A goal and two ways to it."""

    goal: Text
    sol1: Text
    sol2: Text
    label: Annotated[Number, Field(ge=0, le=1)]


class Arc(Row):
    """A question of school science with three to five answers."""

    question: Text
    choices: Annotated[list[Text], Field(min_length=2)]
    label: Annotated[Number, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _hub_columns(cls, row: Any) -> Any:
        if isinstance(row, dict) and isinstance(row.get("choices"), dict) and "answerKey" in row:
            choices = row["choices"]
            letters = choices.get("label", [])
            if (letter := str(row["answerKey"]).strip()) not in letters:
                raise ValueError(f"answerKey is {row['answerKey']!r}; expected one of {letters}")
            return {**row, "choices": choices.get("text"), "label": letters.index(letter)}
        return row

    @model_validator(mode="after")
    def _label_is_a_choice(self) -> Arc:
        if self.label >= len(self.choices):
            raise ValueError(f"label is {self.label}, but there are {len(self.choices)} choices (counted from 0)")
        return self


class Boolq(Row):
    """A passage and a question that it answers with no (0) or yes (1)."""

    passage: Text
    question: Text
    label: Annotated[Number, Field(ge=0, le=1)]

    @model_validator(mode="before")
    @classmethod
    def _hub_columns(cls, row: Any) -> Any:
        if isinstance(row, dict) and isinstance(row.get("answer"), bool) and "label" not in row:
            return {**row, "label": int(row["answer"])}
        return row


class Siqa(Row):
    """A situation, a question about the people in it, and three answers; the label counts from 1."""

    context: Text
    question: Text
    answerA: Text  # noqa: N815 - the benchmark's own column
    answerB: Text  # noqa: N815
    answerC: Text  # noqa: N815
    label: Annotated[Literal["1", "2", "3"], BeforeValidator(str)]


class Hellaswag(Row):
    """The beginning of a description and four endings.

    From the hub's columns (`activity_label`, `ctx_a`, `ctx_b`, `endings`) the query is put together as
    lm-evaluation-harness does; a file that has `query` already is taken at its word.
    """

    query: Text
    endings: Annotated[list[Text], Field(min_length=4, max_length=4)]
    label: Annotated[Number, Field(ge=0, le=3)]

    @model_validator(mode="before")
    @classmethod
    def _hub_columns(cls, row: Any) -> Any:
        hub = ("activity_label", "ctx_a", "ctx_b", "endings")
        if isinstance(row, dict) and all(key in row for key in hub) and isinstance(row["endings"], list):
            query = f"{row['activity_label']}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}"
            endings = [_without_wikihow_marks(str(ending)) for ending in row["endings"]]
            return {**row, "query": _without_wikihow_marks(query), "endings": endings}
        return row


class Mmlu(Row):
    """A question of one of 57 subjects with four answers; the answer counts from 0."""

    subject: Text
    question: Text
    choices: Annotated[list[Text], Field(min_length=4, max_length=4)]
    answer: Annotated[Number, Field(ge=0, le=3)]


class Openbookqa(Arc):
    """A question of elementary science, which a fact that everybody knows helps with, and four answers."""

    @model_validator(mode="before")
    @classmethod
    def _hub_stem(cls, row: Any) -> Any:
        if isinstance(row, dict) and "question_stem" in row:
            return {**row, "question": row["question_stem"]}
        return row


class Squad(Row):
    """A passage, a question, and the answers that people marked in the passage."""

    context: Text
    question: Text
    answers: Annotated[list[Text], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _hub_columns(cls, row: Any) -> Any:
        if isinstance(row, dict) and isinstance(row.get("answers"), dict):
            return {**row, "answers": row["answers"].get("text")}
        return row


class Gsm8k(Row):
    """A word problem, and its solution in steps, with `#### ` and a number at its end."""

    question: Text
    answer: Annotated[str, Field(pattern=r"#### *-?\$?[0-9][0-9,]*(\.[0-9]+)?\s*$")]


class HumanEval(Row):
    """The beginning of a Python function with its docstring, and a function `check` that tests it."""

    prompt: Text
    canonical_solution: Text
    test: Annotated[str, Field(pattern=r"def check\("), AfterValidator(_python)]
    entry_point: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]

    @model_validator(mode="after")
    def _prompt_begins_the_function(self) -> HumanEval:
        if f"def {self.entry_point}(" not in self.prompt:
            raise ValueError(f"prompt defines no {self.entry_point}, which entry_point names")
        return self


class Mbpp(Row):
    """What a Python program should do, one that does it, and asserts. The sanitized data names columns otherwise."""

    text: Text
    code: Text
    test_list: Annotated[list[Annotated[Text, AfterValidator(_python)]], Field(min_length=1)]
    test_setup_code: Annotated[str, AfterValidator(_python)] = ""

    @model_validator(mode="before")
    @classmethod
    def _sanitized_columns(cls, row: Any) -> Any:
        if isinstance(row, dict) and "prompt" in row and "text" not in row:
            row = {**row, "text": row["prompt"]}
        if isinstance(row, dict) and isinstance(row.get("test_imports"), list):
            row = {**row, "test_setup_code": "\n".join(map(str, row["test_imports"]))}
        return row


class Sentence(Row):
    """A built-in sentence about a group of people; a pair is one hostile and one neutral sentence."""

    pair: Text
    group: Text
    text: Text
    label: Literal["hostile", "neutral"]


class ToxigenSentence(Row):
    """A sentence of the human-annotated ToxiGen subset of SafeNLP, with its toxicity from 1 to 5."""

    text: Text
    toxicity_score: Annotated[float, Field(ge=1, le=5, strict=False)]
    label: Literal["hate", "neutral"]
    target_groups: Annotated[list[Text], Field(min_length=1)]


FORMS: dict[str, type[Row]] = {
    "winogrande": Winogrande,
    "piqa": Piqa,
    "arc": Arc,
    "boolq": Boolq,
    "siqa": Siqa,
    "hellaswag": Hellaswag,
    "mmlu": Mmlu,
    "openbookqa": Openbookqa,
    "squad": Squad,
    "gsm8k": Gsm8k,
    "humaneval": HumanEval,
    "mbpp": Mbpp,
    "sentence": Sentence,
    "toxigen": ToxigenSentence,
}


def read_rows(path: Path, form: str, suite: str) -> list[dict[str, Any]]:
    """All rows of a JSON Lines file, in its order, each as a plain table with an `id`.

    Raises:
        PrimerError: If a line is no JSON, or no row of that form; the message names file, line and key.
    """
    rows = [row.model_dump() for row in _parse(path, FORMS[form], suite)]
    if not rows:
        raise PrimerError(f"{path} holds no rows.", "Put the rows of the suite there, or leave the suite out.")
    return rows


def sample_rows(rows: list[dict[str, Any]], limit: int | None, seed: int, unit: str = "id") -> list[dict[str, Any]]:
    """The first `limit` rows of a seeded shuffle, in file order: the same whatever model is asked.

    Rows that agree in `unit` (the sentences of a pair) are taken together or not at all.
    """
    if limit is None or limit >= len(rows):
        return rows
    units = list(dict.fromkeys(row[unit] for row in rows))
    random.Random(f"eval rows {seed}").shuffle(units)
    taken: set[str] = set()
    left = limit
    for name in units:
        size = sum(row[unit] == name for row in rows) if unit != "id" else 1
        if taken and size > left:
            break
        taken.add(name)
        left -= size
    return [row for row in rows if row[unit] in taken]


def _parse(path: Path, form: type[Row], suite: str) -> Iterator[Row]:
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PrimerError(f"{path}, line {number}: not JSON: {error}", "Mend or remove the line.") from None
        if not isinstance(data, Mapping):
            raise PrimerError(f"{path}, line {number}: holds no table of keys.", "Write one JSON object a line.")
        try:
            # HumanEval and MBPP call the name of a row task_id.
            name = data.get("id", data.get("task_id", f"{suite}-{number:05d}"))
            row = form.model_validate({**data, "id": name})
        except ValidationError as error:
            raise PrimerError(f"{path}, line {number}: {_explain(error)}", "Mend or remove the line.") from None
        if row.id in seen:
            raise PrimerError(
                f"{path}, line {number}: the id {row.id!r} stands on line {seen[row.id]} already.",
                "Give each row its own.",
            )
        seen[row.id] = number
        yield row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Not splitlines(): JSON may hold U+2028 and its like unescaped.
    return ((number, line) for number, line in enumerate(read_items(path).split("\n"), 1) if line.strip())


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{key} is missing."
    if detail["type"] == "value_error":
        return f"{key} {detail['ctx']['error']}.".lstrip()
    shown = json.dumps(detail["input"], default=str, ensure_ascii=False)
    return (
        f"{key} is {shown if len(shown) <= 60 else shown[:57] + '...'}; {detail['msg'][0].lower()}{detail['msg'][1:]}."
    )


def _without_wikihow_marks(text: str) -> str:
    """HellaSwag's WikiHow texts carry marks such as [header]; lm-evaluation-harness removes them like this."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")
