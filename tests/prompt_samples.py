"""Recipes, passages and texts that the tests of the prompts share."""

from __future__ import annotations

from primer.recipe import Prompts, Recipe, Topics
from prompts.passages import Snippet
from prompts.unit import Unit

SNIPPETS = [
    Snippet(f"web-{i}#0", f"The harbour master of town {i} counted the boats and wrote it down.") for i in range(9)
]


# A form as a user may write it.
USERS_FORM = """{#
teaches: rhymes that hold a fact
moves: reading
words: 90
kinds: [concept, cause]
#}
Write a rhyme of eight lines about this: {{ title }}.
"""


def recipe(seed: int = 0, fields: list[str] | None = None, **prompts: object) -> Recipe:
    """A recipe that says nothing but how to draw prompts."""
    return Recipe(name="test", seed=seed, topics=Topics(fields=fields or []), prompts=Prompts(**prompts))


def text_of(unit: Unit) -> str:
    """What the teacher reads first."""
    messages = unit.messages()
    assert [message["role"] for message in messages] == ["system", "user"]
    return "\n".join(message["content"] for message in messages)
