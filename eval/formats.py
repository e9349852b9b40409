"""The formats in which a base model is asked (arXiv 2309.05463, section 4): question and answer, chat, Python, text.

A base model has no end of turn: it goes on with a question of its own, or with what the other speaker says. What of its
text is the answer is therefore decided by the text, here, and a reader of the text as it comes sees no more of it than
what is certain to be the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

FormatName = Literal["qa", "chat", "code", "text"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)

# The speakers of phi-1.5's model card.
ASKING, ANSWERING = "Alice", "Bob"


@dataclass(frozen=True)
class Turn:
    """A question of a chat and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Answer:
    """What is known of an answer.

    Attributes:
        text: It, as far as it is certain.
        ended: Whether the format's end was found; what the model writes after it is not read.
    """

    text: str
    ended: bool


def prompt(form: FormatName, text: str, earlier: Sequence[Turn] = ()) -> str:
    """What a model is given to continue.

    Args:
        form: The format.
        text: A question, the beginning of a function or of a text.
        earlier: Of a chat, oldest first.
    """
    if form == "qa":
        return f"{text.strip()}\n\nAnswer:"
    if form == "chat":
        turns = [f"{ASKING}: {turn.question}\n\n{ANSWERING}: {turn.answer}\n\n" for turn in earlier]
        return f"{''.join(turns)}{ASKING}: {text.strip()}\n\n{ANSWERING}:"
    if form == "code":
        return f"{text.rstrip()}\n"
    return text


def read_answer(form: FormatName, written: str, *, complete: bool, asked: str = "") -> Answer:
    """What of a model's text is the answer.

    Each answer read while a text grows begins with the ones read before.

    Args:
        form: The format.
        written: All that the model wrote so far after the prompt.
        complete: Whether it will write no more; until then, what may belong to the end is left out.
        asked: The prompt: a function's may leave a docstring open.
    """
    if form == "text":
        return Answer(written, ended=False)
    written = written.lstrip("\n") if form == "code" else written.lstrip()
    start = 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", written):
        before = written[:start]
        if line.strip() and _ends(form, asked, before, line):
            return Answer(before.rstrip(), ended=True)
        if not complete and not line.endswith("\n") and _may_end(form, before, line):
            return Answer(before.rstrip(), ended=False)
        start += len(line)
    return Answer(written.rstrip(), ended=False)


# Another exercise's heading, with or without marks of emphasis: "Exercise 2:", "**Question:**", "## Exercises".
_HEADING = re.compile(
    r"[#*_ ]{0,5}(?:(?i:exercise|question|problem|answer)s?|Q)[ _*]{0,3}\d{0,3}[ _*]{0,3}(?:[:.)]|\n)"
)
_LONGEST_HEADING = 24  # characters that the expression matches at most


def _ends(form: FormatName, asked: str, before: str, line: str) -> bool:
    """Whether an answer ends before a line, finished or not.

    Question and answer: at a heading after a blank line. Chat: at a line of the one who asks. Python: at a line that is
    not indented, after one that is, unless it goes on with a string or closes a bracket.
    """
    if form == "qa":
        return _after_blank_line(before) and _HEADING.match(line) is not None
    if form == "chat":
        return line.lstrip().startswith(f"{ASKING}:")
    if line[0] in " \t)]}" or not re.search(r"^[ \t]+\S", before, re.MULTILINE):
        return False
    return not any((asked + before).count(quotes) % 2 for quotes in ('"""', "'''"))


def _may_end(form: FormatName, before: str, line: str) -> bool:
    """Whether an answer may turn out to end before an unfinished line when there is more of the line."""
    if form == "qa":
        return _after_blank_line(before) and len(line) < _LONGEST_HEADING
    return form == "chat" and f"{ASKING}:".startswith(line.lstrip())


def _after_blank_line(before: str) -> bool:
    return before != "" and not before.rsplit("\n", 2)[-2].strip()
