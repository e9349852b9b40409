"""A unit under way: its prompts one after another, what was answered, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from primer.errors import PrimerError
from primer.recipe_synth import Accept
from synth.accept import tidy, trim_to_sentence
from synth.backend import Messages
from synth.journal import Failure, Reply
from synth.teachers import merge_system_prompt

# A reply cut short is continued at most so often; what has no end by then is running on.
_MOST_CONTINUATIONS = 3
_GO_ON = (
    "Your text was cut off there. Write what comes next, from the next sentence to the proper end of the text. Repeat "
    "nothing, and say nothing about the interruption."
)

# Seeds of other tries: apart from each other and from those of the stream, and within the 31 bits that servers take.
_NEXT_SEED = 1_000_000_007
_SEEDS = 2**31


class Unit(Protocol):
    """What generation needs of `prompts.unit.Unit`."""

    @property
    def seed(self) -> int: ...
    @property
    def kept(self) -> tuple[bool, ...]: ...
    @property
    def snippet(self) -> Any: ...
    @property
    def language(self) -> str: ...
    def messages(self, replies: Sequence[str] = ()) -> Messages: ...


class Judging(Protocol):
    """What generation needs of `synth.accept.Judge`."""

    @property
    def rules(self) -> Accept: ...
    def check(
        self, written: str, finish_reason: str, messages: Messages, language: str = "english"
    ) -> tuple[str, str | None]: ...
    def place(self, text: str, passage: str | None = None, *, joined: bool = False) -> str | None: ...


class Question(NamedTuple):
    """One request: what to ask, and with which seed."""

    messages: Messages
    seed: int


class Attempt:
    """The answers to the prompts of one unit.

    A reply that cannot be used is asked for again with another seed, as often as the rules say; one that was cut short
    is continued, where they say so. A unit of several steps ends at the first step without a usable reply: the later
    ones would be built on nothing.

    Args:
        unit: What to ask.
        judge: Decides whether a reply is usable.
        merge_system: Whether the system prompt goes before the question.

    Attributes:
        replies: Everything that was answered, in order.
        texts: What was made of it, step by step.
        tokens: Length of the document so far, in the teacher's tokens.
        continuations: How many requests continued a reply cut short.
        seed: Of the latest request.
        failure: Why an answer did not come, if one did not.
        reason: Why the last reply cannot be used, if it cannot (`synth.accept.REASONS`).
    """

    def __init__(self, unit: Unit, judge: Judging, merge_system: bool = False) -> None:
        self.unit: Any = unit  # for whoever knows more of it than `Unit` says
        self._judge, self._merge_system = judge, merge_system
        self.replies: list[Reply] = []
        self.texts: list[str] = []
        self.tokens = self.continuations = 0
        self.failure: Failure | None = None
        self.reason: str | None = None
        self.seed = unit.seed
        self._tries = [0]  # by step, the first ones not counted
        self._asked: Messages = []
        self._parts: list[Reply] = []  # the reply under way, and the continuations of it

    @property
    def tries(self) -> int:
        """How many replies were asked for again with another seed."""
        return sum(self._tries)

    def next_question(self) -> Question | None:
        """What to ask now, or None if the unit has ended.

        Raises:
            PrimerError: If the form of the unit fails at its first step.
        """
        if self.failure is not None or self.reason is not None or len(self.texts) == len(self.unit.kept):
            return None
        self.seed = (self.unit.seed + self._tries[-1] * _NEXT_SEED) % _SEEDS
        if self._parts:
            so_far = [{"role": "assistant", "content": _join(self._parts, cut=True)}]
            return Question([*self._asked, *so_far, {"role": "user", "content": _GO_ON}], self.seed)
        try:
            messages = self.unit.messages(self.texts)
        except PrimerError:
            if not self.texts:
                raise
            self.reason = "form_failed"  # the form cannot do with what the teacher said
            return None
        self._asked = merge_system_prompt(messages) if self._merge_system else messages
        return Question(self._asked, self.seed)

    def take(self, result: Reply | Failure) -> None:
        """Take in what was answered to `next_question`."""
        if isinstance(result, Failure):
            self.failure = result
            return
        self.replies.append(result)
        self._parts.append(result)
        if self._goes_on():
            self.continuations += 1
            return
        parts, self._parts = self._parts, []
        text, reason = self._judge.check(_join(parts), result.finish_reason, self._asked, self.unit.language)
        if reason is not None and self._tries[-1] < self._judge.rules.retries:
            self._tries[-1] += 1
            return
        if self.unit.kept[len(self.texts)]:
            self.tokens += token_count(parts, text)
        self.texts.append(text)
        self.reason = reason
        self._tries.append(0)

    def _goes_on(self) -> bool:
        """Whether the reply under way was cut short, and the rest of it is wanted."""
        if self._judge.rules.truncated != "continue" or self._parts[-1].finish_reason != "length":
            return False
        return len(self._parts) <= _MOST_CONTINUATIONS and bool(trim_to_sentence(tidy(self._parts[-1].text)))

    @property
    def document(self) -> str:
        """The text of the steps that are kept, a blank line between them."""
        return "\n\n".join(text for text, kept in zip(self.texts, self.unit.kept, strict=True) if kept)

    @property
    def joined(self) -> bool:
        """Whether the document was put together from several replies."""
        return bool(sum(self.unit.kept) > 1) or self.continuations > 0


def token_count(parts: Sequence[Reply], text: str) -> int:
    """Length of a kept text in the teacher's tokens: what the endpoint counted, by the share of it that was kept.

    Where it does not say, four characters count as a token, OpenAI's rule of thumb for English.
    """
    counts = [part.completion_tokens for part in parts]
    if None in counts:
        return max(1, len(text) // 4)
    written = sum(len(part.text) for part in parts)
    return round(sum(count or 0 for count in counts) * min(1.0, len(text) / max(1, written)))


def _join(parts: Sequence[Reply], *, cut: bool = False) -> str:
    """A reply and its continuations as one text; each that was cut short up to its last whole sentence.

    Args:
        parts: The reply and what continued it.
        cut: Whether the last of them was cut short, too.
    """
    joined = ""
    for number, part in enumerate(parts):
        if number == len(parts) - 1 and not cut:
            return joined + part.text.lstrip() if joined else part.text
        whole = tidy(part.text)
        kept = trim_to_sentence(whole)
        # What comes next begins a paragraph if the sentence that was lost did.
        joined += kept + ("\n\n" if whole[len(kept) :].lstrip(" ").startswith("\n") else " ")
    return joined.rstrip()
