"""Forms: Jinja templates that turn a topic into what a teacher is asked for, read from files and checked first.

A form is one file. It begins with a comment in YAML that says what the form is for; the rest is the request. A form
of several steps ("book") has a block for each of them, and a step sees the replies to those before it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NoReturn

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from primer.errors import PrimerError, did_you_mean
from prompts.tables import Strict, check_known, parsed_yaml, read_text, validated
from topics import KINDS, Topic, field_names

FORMS_FOLDER = Path(__file__).parent / "forms"

# What a form may use, and what an example of each is; a form of several steps may use more.
VARIABLES: dict[str, Any] = {
    "title": "Why a metal spoon feels colder than a wooden one",
    "subject": "everyday physics",
    "name": "Amara",
    "other_name": "Leo",
    "function_verb": "count",
    "words": 300,
}
STEP_VARIABLES = ("replies", "number", "times")
EXAMPLE_REPLY = "1. The first line of a reply.\n2. Its second line.\n3. Its third line."

_FRONT_MATTER = re.compile(r"\{#\n(.*?)\n#\}\n", re.DOTALL)

Words = Annotated[int, Field(ge=20, le=2000)]


class StepAbout(Strict):
    """One step of a form: how many words it asks for, how often it comes, and whether its replies are kept."""

    words: Words
    times: Annotated[int, Field(ge=1, le=20)] = 1
    keep: bool = True


StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class FrontMatter(Strict):
    """The comment at the head of a form: what it is for, and which topics it suits."""

    teaches: str
    moves: str
    words: Words | None = None
    steps: dict[StepName, StepAbout] = Field({})
    kinds: list[str] = Field([])
    fields: list[str] = Field([])
    not_fields: list[str] = Field([])
    snippets: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One prompt of a form: the block to render ("" for the whole template), and the how-manieth of its kind it is."""

    block: str
    number: int
    times: int
    words: int
    keep: bool


@dataclass(frozen=True)
class Form:
    """A template, what its front matter says of it, and its steps in order."""

    name: str
    path: Path
    about: FrontMatter
    template: Template
    steps: tuple[Step, ...]

    def suits(self, topic: Topic) -> bool:
        """Whether the form may be used for a topic (by its kind and field alone)."""
        about = self.about
        return (
            (not about.kinds or topic.kind in about.kinds)
            and (not about.fields or topic.field in about.fields)
            and topic.field not in about.not_fields
        )

    def render(self, step: int, values: Mapping[str, Any], replies: Sequence[str]) -> str:
        """The request of one step.

        Args:
            step: Its place in `steps`.
            values: One for each of `VARIABLES`.
            replies: The texts that the steps before it brought, in order.

        Raises:
            PrimerError: If the template fails; the message names its file and line.
        """
        at = self.steps[step]
        try:
            if not at.block:
                return self.template.render(values).strip()
            said: dict[str, list[str]] = {earlier.block: [] for earlier in self.steps}
            for earlier, reply in zip(self.steps, replies, strict=False):
                said[earlier.block].append(reply)
            replied = SimpleNamespace(**said)  # a dictionary's own names (items, keys) would hide steps of these names
            context = self.template.new_context(
                {**values, "replies": replied, "number": at.number, "times": at.times},
            )
            return "".join(self.template.blocks[at.block](context)).strip()
        except Exception as error:  # whatever a template of the user's raises, from a division by zero to a list's end
            _fail(self.path, error)


def load_forms(folders: Sequence[Path] = (FORMS_FOLDER,), fields: Sequence[str] | None = None) -> dict[str, Form]:
    """The forms of some folders by name, in alphabetical order; of two with one name the later folder's counts.

    Args:
        folders: Where to look for *.j2.
        fields: Names of fields that a form may mention; None means those of Primer's own topics.

    Raises:
        PrimerError: If a folder holds none, or one is wrong; the message names the file, the line or key, the value.
    """
    forms: dict[str, Form] = {}
    for folder in folders:
        paths = form_files(folder)
        if not paths:
            missing = "holds no forms (*.j2)" if folder.is_dir() else "is no folder"
            raise PrimerError(
                f"{folder} {missing} (prompts.folders looks in {Path.cwd()}).", "Put a form there, or mend the path."
            )
        forms |= {path.stem: load_form(path, fields) for path in paths}
    return dict(sorted(forms.items()))


def form_files(folder: Path) -> list[Path]:
    """The files of a folder that are forms: not those that begin with an underscore."""
    return sorted(path for path in folder.glob("*.j2") if not path.stem.startswith("_"))


def load_form(path: Path, fields: Sequence[str] | None = None) -> Form:
    """Read one form and try it: what it lacks shows now and not at prompt 40,000.

    Raises:
        PrimerError: If it is wrong; the message names the file, the line or key, and the value.
    """
    source = read_text(path)
    about = _front_matter(source, path, field_names() if fields is None else fields)
    steps = _steps(about, path)
    variables = [*VARIABLES, *(STEP_VARIABLES if about.steps else ())]
    form = Form(path.stem, path, about, compile_template(path, source, variables), steps)
    blocks = [*form.template.blocks]
    if set(blocks) != set(about.steps):
        raise PrimerError(
            f"{path}: its blocks are {', '.join(blocks) or 'none'}, its steps {', '.join(about.steps) or 'none'}.",
            "Write one `{% block NAME %} ... {% endblock %}` for each name under `steps:`, and no other.",
        )
    for words in (20, 300, 4000):
        for step in range(len(steps)):
            if not form.render(step, {**VARIABLES, "words": words}, [EXAMPLE_REPLY] * step):
                raise PrimerError(
                    f"{path}: {steps[step].block or 'it'} renders to nothing.", "Write the request in it."
                )
    return form


def compile_template(path: Path, source: str, variables: Sequence[str]) -> Template:
    """A template in the sandbox: it cannot reach Python, and a value that it prints is never a template.

    Raises:
        PrimerError: If it does not parse, or names a variable that it will not be given.
    """
    try:
        tree = _ENVIRONMENT.parse(source, filename=str(path))
        _check_blocks(tree, path)
        unknown = meta.find_undeclared_variables(tree) - set(variables)
        for node in tree.find_all(nodes.Name):
            if node.name in unknown:
                raise PrimerError(
                    f"{path}, line {node.lineno}: there is no variable {node.name!r}.",
                    f"{did_you_mean(node.name, variables)}A form may use: {', '.join(variables)}.",
                )
        code = _ENVIRONMENT.compile(source, filename=str(path))
        return Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))
    except TemplateSyntaxError as error:
        _fail(path, error)


def _check_blocks(tree: nodes.Template, path: Path) -> None:
    """In a template with blocks nothing else is ever rendered: what stands outside of them is a mistake."""
    if not any(isinstance(node, nodes.Block) for node in tree.body):
        return
    for node in tree.body:
        blank = isinstance(node, nodes.Output) and all(
            isinstance(part, nodes.TemplateData) and not part.data.strip() for part in node.nodes
        )
        if not blank and not isinstance(node, nodes.Block):
            raise PrimerError(
                f"{path}, line {node.lineno}: something stands outside the blocks, where it is never used.",
                "Move it into each block that needs it.",
            )


def _front_matter(source: str, path: Path, fields: Sequence[str]) -> FrontMatter:
    match = _FRONT_MATTER.match(source)
    if match is None:
        raise PrimerError(
            f"{path}: does not begin with a comment that says what the form is for.",
            "Begin it with a line {#, the lines `teaches:`, `moves:` and `words:`, and a line #}.",
        )
    about = validated(FrontMatter, parsed_yaml(match[1], path, first_line=2), path)
    check_known(path, "kinds", about.kinds, KINDS)
    check_known(path, "fields", about.fields, fields)
    check_known(path, "not_fields", about.not_fields, fields)
    return about


def _steps(about: FrontMatter, path: Path) -> tuple[Step, ...]:
    if (about.words is None) != bool(about.steps):
        raise PrimerError(
            f"{path}: has {'both words and steps' if about.steps else 'neither words nor steps'}.",
            "A form of one prompt has `words:`, the length to ask for; one of several has `steps:` in their order.",
        )
    if about.words is not None:
        return (Step("", 1, 1, about.words, True),)
    if not any(step.keep for step in about.steps.values()):
        raise PrimerError(f"{path}: no step is kept.", "Leave out `keep: false` at the steps that make the document.")
    return tuple(
        Step(name, number, step.times, step.words, step.keep)
        for name, step in about.steps.items()
        for number in range(1, step.times + 1)
    )


def _last_words(text: str, count: int) -> str:
    """The end of a text, `count` words long, with its line ends."""
    words = list(re.finditer(r"\S+", text))
    return text[words[-count].start() :] if len(words) > count else text


def _fail(path: Path, error: Exception) -> NoReturn:
    if isinstance(error, TemplateSyntaxError):
        raise PrimerError(
            f"{path}, line {error.lineno}: is not a valid form: {error}",
            "Mend that line: {{ title }} is a value, {% if name %} a statement, {# ... #} a comment.",
        ) from None
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    raise PrimerError(
        f"{where}: is not a valid form: {error or type(error).__name__}",
        f"A form may use the variables {', '.join(VARIABLES)} (those of several steps also "
        f"{', '.join(STEP_VARIABLES)}), Jinja's own filters, and last_words(N).",
    ) from None


def _sandbox() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # prompts are plain text, not HTML
    )
    environment.filters["last_words"] = _last_words
    # A unit is the same whenever it is rendered: nothing random, nothing that hangs on where an object lies.
    for name in ("random", "pprint", "xmlattr"):
        del environment.filters[name]
    environment.globals = {"range": environment.globals["range"]}
    environment.finalize = _plain
    return environment


def _plain(value: Any) -> Any:
    if callable(value) and not isinstance(value, Undefined):
        raise TypeError(f"{getattr(value, '__name__', 'it')!r} is a method: call it with (), or leave it out")
    return value


_ENVIRONMENT = _sandbox()
