"""Titles of seeds: their form, and what makes two of them the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from primer.words import text_words

# A shorter title says too little to write a page from; a longer one is a page already.
_WORDS = range(3, 17)
_CHARACTERS = 100

# Words that carry no subject, left out when two titles are compared.
_SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of to and or in on at for from with by as is are was be it its that this how why what when where "
        "does do did can could will would should has have had been being were am not no than but so you your he him "
        "his she her they them their we us our i me my one who whose which these those there here into",
    )
)


def subject_words(title: str) -> frozenset[str]:
    """The words of a title that carry its subject: lower case, no accents, no plural s, no small words."""
    words = text_words(title)
    kept = frozenset(word.removesuffix("s") for word in words if word not in _SMALL_WORDS)
    return kept or frozenset(words)


def masked_titles(title: str) -> Iterator[tuple[str, ...]]:
    """A title with each of its subject words in turn replaced by a gap: titles from one template share such a form."""
    words = text_words(title)
    for place, word in enumerate(words):
        if word not in _SMALL_WORDS:
            yield (*words[:place], "...", *words[place + 1 :])


def title_problems(title: str) -> Iterator[str]:
    """What is wrong with the form of a title."""
    words = len(title.split())
    if words not in _WORDS:
        yield f"the title {title!r} has {words} words; expected {_WORDS.start} to {_WORDS.stop - 1}"
    if len(title) > _CHARACTERS:
        yield f"the title {title!r} has {len(title)} characters; expected at most {_CHARACTERS}"
    if title.endswith((".", "?", "!", ":", ";", ",")):
        yield f"the title {title!r} ends in {title[-1]!r}; write it without"
    if title[0].islower():
        yield f"the title {title!r} does not begin with a capital letter"
    long_words = re.findall(r"[^\W\d_]{4,}", title)
    if len(long_words) > 3 and not any(word[0].islower() for word in long_words):
        yield f"the title {title!r} has a capital on every word; write it as a sentence"
