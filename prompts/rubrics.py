"""Rubrics: what a teacher is told when it grades a text for educational value, from 0 to 5.

A rubric is a Jinja template in `rubrics/`, with examples of texts and their grades beside it. A text to grade is quoted
line by line, so that nothing in it can end the quotation, whoever wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from jinja2 import Template
from pydantic import Field

from primer.fingerprint import fingerprint
from primer.recipe_corpora import Quality
from prompts.forms import compile_template
from prompts.tables import Strict, parsed_yaml, read_text, validated

RUBRICS_FOLDER = Path(__file__).parent / "rubrics"

_VARIABLES = ("text", "cut")
_WORD = re.compile(r"\S+")

# Words without spaces between them (Chinese, minified code) must not fill the teacher's context: no text is quoted with
# more characters than so many times its words. English prose has 6 a word, Python with its indentation 11.
_CHARACTERS_PER_WORD = 12

# Servers read these in a message as the end of a turn, not as text: the tokens of the chat formats ChatML, Llama,
# Mistral, Gemma, Phi and DeepSeek. A space inside makes them text again.
_CHAT_TOKEN = re.compile(r"(<)(?=[|｜]|/?s>|(?:bos|eos|start_of_turn|end_of_turn)>|</?SYS>>)|(\[)(?=/?INST\])")

# Enters the fingerprint of labels beside the files: another way to quote asks something else.
_QUOTING = "lines behind a bar, chat tokens broken, 12 characters a word"


class Example(Strict):
    """A text, and how it is graded."""

    text: str
    reason: str
    score: Annotated[int, Field(ge=0, le=5)]


class _ExampleFile(Strict):
    education: Annotated[list[Example], Field(min_length=1)]
    code: Annotated[list[Example], Field(min_length=1)]


@dataclass(frozen=True)
class Rubric:
    """A rubric.

    Attributes:
        name: Of its file.
        mark: Hash of everything that its messages depend on beside the text.
    """

    name: str
    mark: str
    template: Template
    examples: list[Example]

    def messages(self, text: str, words: int) -> list[dict[str, str]]:
        """The chat messages that ask for a grade, after examples that small models learn the form of an answer from.

        Args:
            text: What to grade.
            words: How many of its first words to show.
        """
        messages: list[dict[str, str]] = []
        for example in self.examples:
            messages += [
                {"role": "user", "content": self._question(example.text, cut=False, first=not messages)},
                {"role": "assistant", "content": f"Reason: {example.reason}\nScore: {example.score}"},
            ]
        shown = excerpt(text, words)
        return [*messages, {"role": "user", "content": self._question(shown, cut=len(shown) < len(text.rstrip()))}]

    def _question(self, text: str, *, cut: bool, first: bool = False) -> str:
        context = self.template.new_context({"text": quoted(text), "cut": cut})
        return "".join(self.template.blocks["first" if first else "next"](context)).strip()


def load_rubric(name: Literal["education", "code"]) -> Rubric:
    """Read a rubric.

    Raises:
        PrimerError: If a file is missing or not what it should be.
    """
    path, path_of_examples = RUBRICS_FOLDER / f"{name}.j2", RUBRICS_FOLDER / "examples.yaml"
    source = read_text(path)
    file = validated(_ExampleFile, parsed_yaml(read_text(path_of_examples), path_of_examples), path_of_examples)
    examples = file.education if name == "education" else file.code
    mark = fingerprint([source, [example.model_dump() for example in examples], _QUOTING])[:16]
    return Rubric(name, mark, compile_template(path, source, _VARIABLES), examples)


def rubric_of(quality: Quality, corpus: Literal["web", "code"]) -> Rubric:
    """The rubric that the texts of a corpus are graded by."""
    return load_rubric(quality.rubric or ("education" if corpus == "web" else "code"))


def rubric_material(quality: Quality, corpus: Literal["web", "code"]) -> dict[str, str]:
    """Mark of that rubric, for `Stage.material`."""
    rubric = rubric_of(quality, corpus)
    return {f"rubric {rubric.name}": rubric.mark}


def excerpt(text: str, words: int) -> str:
    """The beginning of a text, with its line ends: so many words, or 12 times as many characters if they are fewer."""
    ends = [match.end() for match in islice(_WORD.finditer(text), words)]
    return text[: min(ends[-1] if ends else 0, words * _CHARACTERS_PER_WORD)]


def quoted(text: str) -> str:
    """A text as a quotation that it cannot end: a bar before every line, the tokens of chat formats broken."""
    return "\n".join(f"| {line}".rstrip() for line in _CHAT_TOKEN.sub(r"\1\2 ", text).splitlines())
