"""The forms, audiences and names behind the prompts: read from their files and checked before the first prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from primer.errors import PrimerError, did_you_mean
from topics import KINDS, LEVELS, Topic, field_names

PROMPTS_FOLDER = Path(__file__).parent

# What a form may use: the stream fills in all of them for every prompt.
VARIABLES = ("title", "subject", "name", "other_name", "passage")

# What `_system.j2` uses: the instructions that all forms share.
SYSTEM_VARIABLES = ("reader", "writing", "words")

_FRONT_MATTER = re.compile(r"\{#\n(.*?)\n#\}\n", re.DOTALL)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=BaseModel)


class FrontMatter(_Strict):
    """The comment at the head of a form: what it is for, and which topics it suits."""

    teaches: str
    moves: str
    words: Annotated[int, Field(ge=100, le=400)]
    kinds: list[str] = []
    fields: list[str] = []
    not_fields: list[str] = []
    snippets: bool = True


class Audience(_Strict):
    """Who reads: the levels it covers, and what that changes for the writer."""

    levels: Annotated[list[str], Field(min_length=1)]
    writing: str


class _AudienceFile(_Strict):
    levels: dict[str, str]
    audiences: Annotated[dict[str, Audience], Field(min_length=1)]


class _NameFile(_Strict):
    names: Annotated[list[str], Field(min_length=2)]


@dataclass(frozen=True)
class Form:
    """A template and what its front matter says of it."""

    name: str
    about: FrontMatter
    template: Template

    def suits(self, topic: Topic) -> bool:
        """Whether the form may be used for a topic (by its kind and field alone)."""
        about = self.about
        return (
            (not about.kinds or topic.kind in about.kinds)
            and (not about.fields or topic.field in about.fields)
            and topic.field not in about.not_fields
        )


@dataclass(frozen=True)
class Tables:
    """Everything about prompts that lies in files, each table in the order of its names."""

    system: Template
    forms: dict[str, Form]
    audiences: dict[str, Audience]
    levels: dict[str, str]
    names: list[str]


def load_tables(folder: Path = PROMPTS_FOLDER) -> Tables:
    """Read and check forms/*.j2, audiences.yaml and names.yaml.

    Raises:
        PrimerError: If a file is missing or wrong; the message names the file, the key and the value.
    """
    path = folder / "audiences.yaml"
    people = _validated(_AudienceFile, _read_yaml(path), path)
    _check_known(path, "levels", list(people.levels), LEVELS)
    if missing := [level for level in LEVELS if level not in people.levels]:
        raise PrimerError(f"{path}: levels lacks {', '.join(missing)}.", "Say for each level who the reader is.")
    for name, audience in people.audiences.items():
        _check_known(path, f"audiences.{name}.levels", audience.levels, LEVELS)
    path = folder / "names.yaml"
    names = _validated(_NameFile, _read_yaml(path), path).names
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise PrimerError(f"{path}: {', '.join(twice)} is there more than once.", "Write each name once.")
    system, forms = _load_forms(folder / "forms")
    return Tables(system, forms, dict(sorted(people.audiences.items())), people.levels, names)


def table_files(folder: Path = PROMPTS_FOLDER) -> list[Path]:
    """Every file that `load_tables` reads."""
    return sorted([*(folder / "forms").glob("*.j2"), folder / "audiences.yaml", folder / "names.yaml"])


def _load_forms(folder: Path) -> tuple[Template, dict[str, Form]]:
    # The sandbox keeps a form somebody shared from reaching Python; web text never becomes a template at all.
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        autoescape=False,  # prompts are plain text, not HTML
    )
    forms: dict[str, Form] = {}
    for path in sorted(folder.glob("*.j2")):
        if not path.stem.startswith("_"):
            forms[path.stem] = Form(path.stem, _front_matter(path), _compiled(path, environment, VARIABLES))
    if not forms:
        raise PrimerError(f"{folder} holds no forms (*.j2).", "Install Primer again, or restore the folder.")
    return _compiled(folder / "_system.j2", environment, SYSTEM_VARIABLES), forms


def _front_matter(path: Path) -> FrontMatter:
    match = _FRONT_MATTER.match(_read_text(path))
    if match is None:
        raise PrimerError(
            f"{path}: does not begin with a comment that says what the form is for.",
            "Begin it with a line {#, the lines `teaches:`, `moves:` and `words:`, and a line #}.",
        )
    about = _validated(FrontMatter, _parsed_yaml(match[1], path), path)
    _check_known(path, "kinds", about.kinds, KINDS)
    known = field_names()
    _check_known(path, "fields", about.fields, known)
    _check_known(path, "not_fields", about.not_fields, known)
    return about


def _compiled(path: Path, environment: ImmutableSandboxedEnvironment, variables: Sequence[str]) -> Template:
    """The template, after a trial with and without a passage: what it lacks shows now and not at prompt 40,000."""
    try:
        template = environment.get_template(path.name)
        for passage in ("", "A passage."):
            text = template.render(dict.fromkeys(variables, "x") | {"passage": passage})
            if not text.strip():
                raise PrimerError(f"{path}: renders to nothing.", "Write the prompt below its comment.")
    except TemplateError as error:
        number = getattr(error, "lineno", None)  # a template that does not parse knows its line
        line = f", line {number}" if number else ""
        raise PrimerError(
            f"{path}{line}: is not a valid form: {error}", f"It may use: {', '.join(variables)}."
        ) from None
    return template


def pick_two(names: list[str], draw: int) -> tuple[str, str]:
    """Two different names by one 64-bit draw."""
    first, rest = draw % len(names), draw // len(names)
    second = (first + 1 + rest % (len(names) - 1)) % len(names)
    return names[first], names[second]


def _validated(model: type[_Model], data: Any, path: Path) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"]) or "the file"
        raise PrimerError(
            f"{path}: {key} is {detail['input']!r:.80}; {detail['msg'][0].lower()}{detail['msg'][1:]}.",
            f"At its top level it may hold: {', '.join(model.model_fields)}.",
        ) from None


def _check_known(path: Path, key: str, values: list[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            hint = did_you_mean(value, known)
            raise PrimerError(f"{path}: {key} names {value!r}.", f"{hint}Expected one of: {', '.join(known)}.")


def _read_yaml(path: Path) -> Any:
    return _parsed_yaml(_read_text(path), path)


def _parsed_yaml(text: str, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PrimerError(f"{path} is not valid YAML: {error}", "Mend the line that the message names.") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "It must be a file in UTF-8.") from None
