"""Where a synthetic document comes from: everything that its row tells, from topic to token counts."""

from __future__ import annotations

from collections.abc import Iterable

from primer.documents import Document
from primer.recipe_synth import Sampling
from primer.words import text_hash, text_words
from prompts.unit import Unit
from synth.accept import copied
from synth.units import Attempt


def document(attempt: Attempt, identity: str, sampling: Sampling) -> Document:
    """An accepted unit as a row of the corpus.

    Args:
        attempt: The unit, ended and accepted.
        identity: The teacher's.
        sampling: How it was asked.
    """
    unit: Unit = attempt.unit
    text = attempt.document
    asked = [unit.messages(attempt.texts[:step]) for step in range(unit.steps)]
    echo = copied(unit.snippet.text, text) if unit.snippet else None
    words = set(text_words(text))
    reasons = [reply.finish_reason for reply in attempt.replies]
    return Document(
        id=f"synthetic-{unit.index:07d}",
        text=text,
        source="synthetic",
        hash=text_hash(text),
        group=unit.topic.id,
        title=unit.topic.title,
        origin=identity,
        licence=None,
        provenance={
            "prompt_index": unit.index,
            "prompt": "\n\n".join(f"[{said['role']}]\n{said['content']}" for messages in asked for said in messages),
            "topic_id": unit.topic.id,
            "topic": unit.topic.title,
            "field": unit.topic.field,
            "form": unit.form,
            "audience": unit.audience,
            "level": unit.level,
            "length": unit.length,
            "register": unit.register,
            "language": unit.language,
            "required_words": list(unit.required_words),
            # Other languages say them in words of their own.
            "words_used": sum(word in words for word in unit.required_words) if unit.language == "english" else None,
            "snippet_id": unit.snippet.id if unit.snippet else None,
            "snippet_copied": round(echo.share, 4) if echo else None,
            "snippet_longest_run": echo.longest if echo else None,
            "steps": unit.steps,
            "teacher": identity,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "seed": attempt.seed,
            "finish_reason": reasons[-1],
            "prompt_tokens": _sum(reply.prompt_tokens for reply in attempt.replies),
            "completion_tokens": _sum(reply.completion_tokens for reply in attempt.replies),
            "tries": attempt.tries,
            "continuations": attempt.continuations,
            "seconds": sum(reply.seconds for reply in attempt.replies),
        },
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of some counts; None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)
