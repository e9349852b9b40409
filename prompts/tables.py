"""Audiences, styles, names and words behind the prompts: read from their files and checked before the first prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from primer.errors import PrimerError, did_you_mean
from topics import LEVELS

PROMPTS_FOLDER = Path(__file__).parent
_FILES = ("audiences.yaml", "names.yaml", "styles.yaml", "words.yaml")


class Strict(BaseModel):
    """A part of a file of ours: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=BaseModel)
_Words = Annotated[list[str], Field(min_length=2)]
_Factor = Annotated[float, Field(ge=0.1, le=10)]


class Audience(Strict):
    """Who reads: the levels it covers, and what that changes for the writer."""

    levels: Annotated[list[str], Field(min_length=1)]
    writing: str


class _AudienceFile(Strict):
    levels: dict[str, str]
    audiences: Annotated[dict[str, Audience], Field(min_length=1)]


class Openers(Strict):
    """Stock beginnings: those the prompt names, and further ones that are counted."""

    named: Annotated[list[str], Field(min_length=1)]
    counted: list[str]


class Styles(Strict):
    """How a text is written: factors of length, instructions by register, languages, and how not to begin."""

    lengths: Annotated[dict[str, _Factor], Field(min_length=1)]
    registers: Annotated[dict[str, str], Field(min_length=1)]
    languages: Annotated[dict[str, str], Field(min_length=1)]
    openers: Openers


class WordLists(Strict):
    """Words a text may have to contain, and the verbs that names of functions begin with."""

    nouns: _Words
    verbs: _Words
    adjectives: _Words
    function_verbs: _Words


class _NameFile(Strict):
    names: _Words


@dataclass(frozen=True)
class Tables:
    """Everything about prompts that lies in files, beside the forms; each table in the order of its names."""

    audiences: dict[str, Audience]
    levels: dict[str, str]
    styles: Styles
    names: list[str]
    words: WordLists


def load_tables(folder: Path = PROMPTS_FOLDER) -> Tables:
    """Read and check audiences.yaml, styles.yaml, names.yaml and words.yaml.

    Raises:
        PrimerError: If a file is missing or wrong; the message names the file, the key and the value.
    """
    path = folder / "audiences.yaml"
    people = validated(_AudienceFile, _read_yaml(path), path)
    check_known(path, "levels", list(people.levels), LEVELS)
    if missing := [level for level in LEVELS if level not in people.levels]:
        raise PrimerError(f"{path}: levels lacks {', '.join(missing)}.", "Say for each level who the reader is.")
    for name, audience in people.audiences.items():
        check_known(path, f"audiences.{name}.levels", audience.levels, LEVELS)
    path = folder / "names.yaml"
    names = validated(_NameFile, _read_yaml(path), path).names
    _check_once(path, "names", names)
    path = folder / "words.yaml"
    words = validated(WordLists, _read_yaml(path), path)
    for key, listed in words:
        _check_once(path, key, listed)
    path = folder / "styles.yaml"
    styles = validated(Styles, _read_yaml(path), path)
    return Tables(dict(sorted(people.audiences.items())), people.levels, styles, names, words)


def table_files(folder: Path = PROMPTS_FOLDER) -> list[Path]:
    """Every file that prompts are made from, beside the forms."""
    return sorted([*(folder / "forms").glob("_*.j2"), *(folder / name for name in _FILES)])


def pick_two(names: list[str], draw: int) -> tuple[str, str]:
    """Two different names by one 64-bit draw."""
    first, rest = draw % len(names), draw // len(names)
    second = (first + 1 + rest % (len(names) - 1)) % len(names)
    return names[first], names[second]


def validated(model: type[_Model], data: Any, path: Path) -> _Model:
    """Data from a file as a model.

    Raises:
        PrimerError: If it does not fit; the message names the file, the key and the value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"]) or "the file"
        raise PrimerError(
            f"{path}: {key} is {detail['input']!r:.80}; {detail['msg'][0].lower()}{detail['msg'][1:]}.",
            f"At its top level it may hold: {', '.join(model.model_fields)}.",
        ) from None


def check_known(path: Path, key: str, values: list[str], known: Sequence[str]) -> None:
    """Raise a PrimerError that names the file, the key and the first value that is not known."""
    for value in values:
        if value not in known:
            hint = did_you_mean(value, known)
            raise PrimerError(f"{path}: {key} names {value!r}.", f"{hint}Expected one of: {', '.join(known)}.")


def parsed_yaml(text: str, path: Path, first_line: int = 1) -> Any:
    """The value of a YAML text that begins at a line of a file.

    Raises:
        PrimerError: If it is not valid; the message names the file and the line.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + first_line}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise PrimerError(f"{path}{line}: is not valid YAML: {problem}", "Mend that line.") from None


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        PrimerError: If it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise PrimerError(f"{path} {problem}.", "Name a file.") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PrimerError(f"{path}, line {line}: is not UTF-8.", "Save the file in UTF-8.") from None


def _read_yaml(path: Path) -> Any:
    return parsed_yaml(read_text(path), path)


def _check_once(path: Path, key: str, values: list[str]) -> None:
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise PrimerError(f"{path}: {key} holds {', '.join(twice)} more than once.", "Write each once.")
