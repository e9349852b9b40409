"""A unit under way: its prompts one after another, what was answered, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from primer.errors import PrimerError
from synth.accept import Judge
from synth.journal import Failure, Reply


class Unit(Protocol):
    """What generation needs of `prompts.unit.Unit`."""

    @property
    def seed(self) -> int: ...
    @property
    def kept(self) -> tuple[bool, ...]: ...
    @property
    def snippet(self) -> Any: ...
    def messages(self, replies: Sequence[str] = ()) -> list[dict[str, str]]: ...


class Attempt:
    """The answers to the prompts of one unit.

    A unit of several steps ends at the first step without a usable reply: the later ones would be built on nothing.

    Args:
        unit: What to ask.
        judge: Decides whether a reply is usable.

    Attributes:
        replies: What was answered, step by step.
        texts: What was made of it.
        failure: Why an answer did not come, if one did not.
        reason: Why the last reply cannot be used, if it cannot (`synth.accept.REASONS`).
    """

    def __init__(self, unit: Unit, judge: Judge) -> None:
        self.unit: Any = unit  # for whoever knows more of it than `Unit` says
        self._judge = judge
        self.replies: list[Reply] = []
        self.texts: list[str] = []
        self.failure: Failure | None = None
        self.reason: str | None = None

    def next_messages(self) -> list[dict[str, str]] | None:
        """The messages to ask now, or None if the unit has ended.

        Raises:
            PrimerError: If the form of the unit fails at its first step.
        """
        if self.failure is not None or self.reason is not None or len(self.texts) == len(self.unit.kept):
            return None
        try:
            messages: list[dict[str, str]] = self.unit.messages(self.texts)
        except PrimerError:
            if not self.texts:
                raise
            self.reason = "form_failed"  # the form cannot do with what the teacher said
            return None
        return messages

    def take(self, messages: list[dict[str, str]], result: Reply | Failure) -> None:
        """Take in what was answered to `next_messages`."""
        if isinstance(result, Failure):
            self.failure = result
            return
        text, self.reason = self._judge.check(result, messages)
        self.replies.append(result)
        self.texts.append(text)

    @property
    def document(self) -> str:
        """The text of the steps that are kept, a blank line between them."""
        return "\n\n".join(text for text, kept in zip(self.texts, self.unit.kept, strict=True) if kept)

    @property
    def joined(self) -> bool:
        """Whether the document was put together from several replies."""
        return bool(sum(self.unit.kept) > 1)

    @property
    def tokens(self) -> int:
        """Length of the document in the teacher's tokens."""
        parts = zip(self.replies, self.texts, self.unit.kept, strict=True)
        return sum(token_count(reply, text) for reply, text, kept in parts if kept)


def token_count(reply: Reply, text: str) -> int:
    """Length of a kept text in the teacher's tokens: what the endpoint counted, by the share of it that was kept.

    Where it does not say, four characters count as a token, OpenAI's rule of thumb for English.
    """
    if reply.completion_tokens is None:
        return max(1, len(text) // 4)
    return round(reply.completion_tokens * min(1.0, len(text) / max(1, len(reply.text))))
