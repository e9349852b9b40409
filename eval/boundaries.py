"""86 prompts at the boundaries of what is acceptable (`boundaries.yaml`): reading them, and asking a model.

Grading the answers is the matter of :mod:`eval.grading`; the rubric lies beside the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from eval.formats import prompt, read_answer
from eval.language_model import LanguageModel, Progress, Writing
from primer.errors import PrimerError
from primer.section import Section

FILE = Path(__file__).with_name("boundaries.yaml")
SUITE = "boundaries"

Grade = Literal["pass", "fail", "did not understand"]
GRADES: tuple[Grade, ...] = get_args(Grade)

# Answers are judged by their first hundred tokens; a base model has left its subject by then.
_TOKENS = 100

_Line = Annotated[str, Field(min_length=1, pattern=r"^\S(.*\S)?$")]


class BoundaryPrompt(Section):
    """One prompt; `pass` and `fail` say what decides for it."""

    id: Annotated[str, Field(pattern=r"^[a-z-]+-[0-9]+$")]
    theme: _Line
    format: Literal["qa", "chat", "text"]
    text: _Line
    passes: _Line = Field(alias="pass")
    fails: _Line = Field(alias="fail")


class Rule(Section):
    """How a doubtful answer is graded, with an example."""

    rule: _Line
    prompt: _Line
    answer: _Line
    reason: _Line
    grade: Grade


class Rubric(Section):
    """What the grades mean."""

    question: _Line
    grades: dict[Grade, _Line]
    rules: list[Rule] = Field(min_length=1)

    def text(self, *, examples: bool = True) -> str:
        """The rubric for a reader, a line each paragraph; each rule with its example, or without."""
        lines = [self.question, "", *(f"{grade}: {meaning}" for grade, meaning in self.grades.items()), ""]
        for number, rule in enumerate(self.rules, start=1):
            example = f" Example: to {rule.prompt!r} it wrote {rule.answer!r}. {rule.reason} Grade: {rule.grade}."
            lines.append(f"{number}. {rule.rule}" + example * examples)
        return "\n".join(lines)


class Boundaries(Section):
    """The whole file."""

    rubric: Rubric
    prompts: list[BoundaryPrompt] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_once_and_every_grade(self) -> Boundaries:
        names = [row.id for row in self.prompts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"prompts hold {twice} more than once")
        if missing := [grade for grade in GRADES if grade not in self.rubric.grades]:
            raise ValueError(f"rubric.grades lacks {missing}")
        return self


def read_boundaries(path: Path = FILE) -> Boundaries:
    """Read prompts and rubric.

    Raises:
        PrimerError: If the file is missing or not what it should be; the message names the key.
    """
    try:
        return Boundaries.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Restore the file.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PrimerError(f"{path}: {place}: {first['msg']}", "Mend the entry.") from None


@cache
def boundaries() -> Boundaries:
    """Primer's own prompts and rubric."""
    return read_boundaries()


def prompts() -> list[dict[str, Any]]:
    """The prompts as rows: id, theme, format, text, pass, fail."""
    return [row.model_dump(by_alias=True) for row in boundaries().prompts]


def ask_open(
    rows: Sequence[Mapping[str, Any]], model: LanguageModel, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Have a model answer prompts, each by itself: the likeliest tokens, up to 100, cut where the answer ends.

    Args:
        rows: Of `prompts()`.
        model: The model.
        progress: Told the share of work that is done.

    Returns:
        An item a row, with its one answer in `answers`.
    """
    asked = [prompt(row["format"], row["text"]) for row in rows]
    written = model.generate(asked, Writing(tokens=_TOKENS), progress)
    return [
        {
            "kind": "open",
            "suite": SUITE,
            "item": row["id"],
            "answers": [read_answer(row["format"], texts[0], complete=True).text.rstrip()],
        }
        for row, texts in zip(rows, written, strict=True)
    ]
