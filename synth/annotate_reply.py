"""What a teacher answers to a rubric: a reason and a score, read with tolerance for the form and none for doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from primer.recipe_synth import Accept
from synth.accept import tidy
from synth.backend import Messages

HIGHEST = 5

# Every reason a reply can be rejected for.
REASONS = ("empty", "content_filter", "truncated", "no_score", "unclear_score", "score_out_of_range")

# "Score: 3", "**Score:** 3/5", "- Final score = 3 out of 5.", "Score (0-5): 3", in a line of its own or in two. What
# follows in the line may be words, but no further number: "3-4", "2.5" and "3/10" are no scores from 0 to 5.
_SCORE = re.compile(
    r"^[^\w\n]*(?:[a-z]+ )?score(?: is|\W{0,3}\b0 ?(?:-|–|to) ?5\b)?[\s:=*_\"'`()\[\]<>]*(?:[-–—] +)?"
    r"(?P<score>[-+]?\d{1,3})(?:\.0+)?(?![\w.,]*\d)(?: ?(?:/|out of|of) ?5(?:\.0+)?\b)?(?P<rest>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SCORE_LINE = re.compile(r"^[^\w\n]*(?:[a-z]+ )?score\b", re.IGNORECASE | re.MULTILINE)
_REASON = re.compile(r"^\W*(?:reason(?:ing)?|explanation|justification|rationale)\b[\s:=*_\"'`]*", re.IGNORECASE)
_OBJECT = re.compile(r"\{[^{}]*\}")

_LONGEST_REASON = 1000  # characters; a sentence has 200


@dataclass(frozen=True)
class Label:
    """A score from 0 to 5, and why, in one line; None where the teacher does not say."""

    score: int
    reason: str | None


class Grader:
    """Judges replies to a rubric, as `synth.accept.Judge` does texts: any that can be read will do.

    Args:
        rules: The recipe's section, for how often a reply that cannot be read is asked for again.
        read: What a reply says, or why it cannot be read, as text.
    """

    def __init__(self, rules: Accept, read: Callable[[str], object]) -> None:
        self.rules, self._read = rules, read

    def check(
        self,
        written: str,
        finish_reason: str,
        messages: Messages,  # noqa: ARG002 - these two are for judges of texts
        language: str = "english",  # noqa: ARG002
    ) -> tuple[str, str | None]:
        """The reply, and why it cannot be read, if it cannot; see `synth.accept.Judge.check`."""
        text = tidy(written)
        if finish_reason == "content_filter":
            return text, "content_filter"
        found = self._read(text)
        if not isinstance(found, str):
            return text, None
        nothing = found == "empty" or found.startswith("no_")
        return text, "truncated" if finish_reason == "length" and nothing else found

    def place(self, text: str, passage: str | None = None, *, joined: bool = False) -> str | None:  # noqa: ARG002
        """Two texts may well bring the same reply."""
        return None


def read_label(reply: str) -> Label | str:
    """The label in a reply, or why there is none (`REASONS`).

    A reply that gives several scores which differ is unclear: one of them may be quoted from the text.
    """
    if not reply.strip():
        return "empty"
    found = _from_json(reply) or _from_lines(reply)
    if isinstance(found, str):
        return found
    score, reason = found
    if not 0 <= score <= HIGHEST:
        return "score_out_of_range"
    return Label(score, " ".join(reason.split())[:_LONGEST_REASON] or None)


def _from_json(reply: str) -> tuple[int, str] | str | None:
    """Score and reason of a JSON object, if the reply is one; text around it, such as a fence, is passed over."""
    objects = []
    for match in _OBJECT.finditer(reply):
        try:
            value = json.loads(match[0])
        except (ValueError, RecursionError):
            continue
        lower = {str(name).lower(): each for name, each in value.items()}
        if "score" in lower:
            objects.append(lower)
    if not objects:
        return None
    scores = [str(each["score"]).strip() for each in objects]
    if len(set(scores)) > 1 or not re.fullmatch(r"[-+]?\d{1,3}(\.0+)?(/5)?", scores[0]):
        return "unclear_score"
    return int(float(scores[0].removesuffix("/5"))), str(objects[0].get("reason") or "")


def _from_lines(reply: str) -> tuple[int, str] | str:
    matches = list(_SCORE.finditer(reply))
    if not matches:
        return "unclear_score" if _SCORE_LINE.search(reply) and re.search(r"\d", reply) else "no_score"
    if len({int(match["score"]) for match in matches}) > 1 or any(re.search(r"\d", m["rest"]) for m in matches):
        return "unclear_score"
    first = matches[0]
    before, after = reply[: first.start()], reply[first.end() :]
    reason = before if before.strip(" \n*#`-") else after
    return int(first["score"]), _REASON.sub("", reason).strip(" \n*`\"'")
