"""Prompts and choices out of a task file, word for word as lm-evaluation-harness builds them, without importing it.

What is read of a task: `description`, `doc_to_text`, `doc_to_choice`, `doc_to_target`, `target_delimiter`,
`fewshot_delimiter`, `num_fewshot`, and `fewshot_config` where examples are written in another way than rows. A field
is the name of a column, or a template. Where there are choices, a template that comes out as digits is a number; a
text that is a number says that the choices are contexts, and the target is what follows them (WinoGrande).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from eval.language_model import Pair
from eval.suites import Suite
from primer.errors import PrimerError

# As in the harness: a column that is missing is an error, a newline at the end of a template stays.
_ENVIRONMENT = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - prompts, not HTML

Row = Mapping[str, Any]

# The harness's own values where a task names none.
_DEFAULTS = {"description": "", "doc_to_target": "", "target_delimiter": " ", "fewshot_delimiter": "\n\n"}
# Fields that `fewshot_config` may give anew, for the examples.
_OF_EXAMPLES = ("doc_to_text", "doc_to_choice", "doc_to_target", "target_delimiter", "fewshot_delimiter")
# Fields that change a prompt in the harness and are not read here.
_UNREAD = ("gen_prefix", "process_docs", "use_prompt")


@dataclass(frozen=True)
class Question:
    """What a model is asked about one row.

    Attributes:
        pairs: A context and a continuation for each choice.
        gold: The number of the right one.
        lengths: Characters of each continuation without the delimiter before it, by which `acc_norm` divides.
    """

    pairs: list[Pair]
    gold: int
    lengths: list[int]


class ChoiceTask:
    """A multiple-choice suite as questions.

    Args:
        suite: The suite.
        examples: Rows that examples in the prompt are taken from.

    Raises:
        PrimerError: If its task file lacks a field or has one that is not read here.
    """

    def __init__(self, suite: Suite, examples: Sequence[Row] = ()) -> None:
        self._suite, self._examples = suite, examples
        self._fields = _Fields.of_rows(suite, "doc_to_text", "doc_to_choice", "doc_to_target")
        self._shown: dict[Any, str] = {}

    def question(self, row: Row) -> Question:
        """What is asked about a row.

        Raises:
            PrimerError: If the row does not fit the task, or there are too few examples.
        """
        fields, subject = self._fields, row.get("subject")
        if subject not in self._shown:
            self._shown[subject] = _examples_text(self._suite, row, self._examples)
        beginning = fields.description(row) + self._shown[subject]
        text, choices, target = fields.text(row), fields.choices(row), fields.target(row)
        if isinstance(text, int):
            gold: int | str = text
            pairs = [(f"{beginning}{choice}", f"{fields.target_delimiter}{target}") for choice in choices]
        else:
            gold = choices.index(target) if isinstance(target, str) and target in choices else target
            pairs = [(f"{beginning}{text}", f"{fields.target_delimiter}{choice}") for choice in choices]
        if not isinstance(gold, int) or not 0 <= gold < len(choices):
            raise PrimerError(
                f"{self._suite.name}: the right answer of row {row.get('id')!r} is {gold!r}; it has {len(choices)}.",
                "Mend or remove the row.",
            )
        delimiter = len(fields.target_delimiter)
        return Question(pairs, gold, [len(continuation) - delimiter for _, continuation in pairs])


def prompt_text(suite: Suite, row: Row, examples: Sequence[Row] = ()) -> str:
    """The whole prompt of a row of a generation suite: description, examples, and the row's own text.

    Raises:
        PrimerError: If the row does not fit the task, or there are too few examples.
    """
    fields = _Fields.of_rows(suite, "doc_to_text")
    return f"{fields.description(row)}{_examples_text(suite, row, examples)}{fields.text(row)}"


def few_shot(suite: Suite, row: Row, examples: Sequence[Row]) -> list[Row]:
    """The rows that stand as examples before a row: the first ones, of its own subject where there are subjects.

    Raises:
        PrimerError: If there are fewer than the task asks for.
    """
    if suite.shots == 0:
        return []
    subject = row.get("subject")
    fitting = [example for example in examples if example.get("subject") == subject]
    if len(fitting) < suite.shots:
        of = f" of the subject {subject!r}" if subject is not None else ""
        raise PrimerError(
            f"{suite.name}: num_fewshot is {suite.shots}, but there are {len(fitting)} examples{of}.",
            f"Put more rows into {suite.folder}/{suite.examples}.jsonl, or leave the suite out.",
        )
    return fitting[: suite.shots]


def render(template: str, row: Row) -> str:
    """A template, filled in with the columns of a row.

    Raises:
        jinja2.TemplateError: If it is no template, or names a column that the row lacks.
    """
    return _compiled(template).render(row)


@cache
def _compiled(template: str) -> Template:
    """Compiled once: that takes far longer than filling in."""
    return _ENVIRONMENT.from_string(template)


def _examples_text(suite: Suite, row: Row, examples: Sequence[Row]) -> str:
    shown = few_shot(suite, row, examples)
    return "".join(map(_Fields.of_examples(suite).answered, shown)) if shown else ""


@dataclass(frozen=True)
class _Fields:
    """How a task writes rows, or its examples."""

    suite: str
    values: Mapping[str, Any]

    @classmethod
    def of_rows(cls, suite: Suite, *needed: str) -> _Fields:
        for key in needed:
            if suite.task.get(key) is None:
                raise _malformed(suite.name, key, "is missing")
        for key in _UNREAD:
            if suite.task.get(key) is not None:
                raise _malformed(suite.name, key, "is set, and is not supported here")
        return cls(suite.name, {**_DEFAULTS, **suite.task})

    @classmethod
    def of_examples(cls, suite: Suite) -> _Fields:
        own = suite.task.get("fewshot_config") or {}
        return cls(suite.name, {**_DEFAULTS, **suite.task, **{key: own[key] for key in _OF_EXAMPLES if key in own}})

    @property
    def target_delimiter(self) -> str:
        return str(self.values["target_delimiter"])

    def description(self, row: Row) -> str:
        return str(self._read("description", row))

    def text(self, row: Row) -> str | int:
        found: str | int = self._read("doc_to_text", row)
        return found

    def target(self, row: Row) -> str | int:
        found: Any = self._read("doc_to_target", row)
        if isinstance(found, list):  # any of several texts is right; an example shows the first
            found = found[0]
        return found if isinstance(found, int) else str(found)

    def choices(self, row: Row) -> list[str]:
        found: Any = self._read("doc_to_choice", row)
        if isinstance(found, str):
            try:
                found = ast.literal_eval(found)
            except (SyntaxError, ValueError):
                found = None
        if not isinstance(found, list) or not found or not all(isinstance(choice, str) for choice in found):
            raise _malformed(self.suite, "doc_to_choice", f"gives no list of texts for the row {row.get('id')!r}")
        return found

    def answered(self, row: Row) -> str:
        """A row with its right answer, as an example."""
        text, target = self.text(row), self.target(row)
        if self.values.get("doc_to_choice") is not None:
            choices = self.choices(row)
            text = choices[text] if isinstance(text, int) else text
            target = choices[target] if isinstance(target, int) else target
        return f"{text}{self.target_delimiter}{target}{self.values['fewshot_delimiter']}"

    def _read(self, key: str, row: Row) -> Any:
        value = self.values[key]
        if not isinstance(value, str):
            return value
        if value in row:
            return row[value]
        try:
            found = render(value, row)
        except TemplateError as error:
            raise _malformed(self.suite, key, f"cannot be filled in for the row {row.get('id')!r}: {error}") from None
        may_be_number = key in ("doc_to_text", "doc_to_target") and self.values.get("doc_to_choice") is not None
        return int(found) if may_be_number and found.isdigit() else found


def _malformed(suite: str, key: str, problem: str) -> PrimerError:
    return PrimerError(f"eval/tasks/{suite}.yaml: {key} {problem}.", "Mend the task file.")
