"""Words as texts are compared by: lower case, without accents and punctuation."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

# A word of any script, or a number; -3, C++ and C# are words of their own.
_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?(?:\d+(?:\.\d+)+|\w+)(?:\+\+|#)?")

_APOSTROPHES = "'\u2018\u2019\u02bc`\u00b4"
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")


def text_words(text: str) -> list[str]:
    """The words of a text in their order."""
    if not text.isascii():
        # Marks go before, too: to normalise a long run of them takes time that grows with its square.
        text = _without_marks(unicodedata.normalize("NFKD", _without_marks(text)))
    for mark in _APOSTROPHES:
        text = text.replace(mark, "")
    return _WORD.findall(_THOUSANDS.sub("", text.lower()))


def _without_marks(text: str) -> str:
    for mark in filter(unicodedata.combining, set(text)):
        text = text.replace(mark, "")
    return text


def word_runs(words: Sequence[str], length: int) -> Iterator[str]:
    """Every run of so many words, joined by spaces, in their order; none if there are fewer words."""
    return map(" ".join, word_tuples(words, length))


def word_tuples(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every run of so many words, in their order; none if there are fewer words."""
    return zip(*(words[start:] for start in range(length)), strict=False)


def text_hash(text: str) -> str:
    """Identity of a text for exact deduplication: Unicode NFKC, lower case, white space folded; 128 bits, hex."""
    folded = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return hashlib.sha256(folded.encode()).hexdigest()[:32]
