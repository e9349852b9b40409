"""Words as texts are compared by: lower case, without accents, punctuation and what markup leaves behind."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence

# A word of any script, or a number; -3, C++ and C# are words of their own.
_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?(?:\d+(?:\.\d+)+|\w+)(?:\+\+|#)?")

_APOSTROPHES = "'\u2018\u2019\u02bc`\u00b4"
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
# Markdown's italics, in front of a word and behind it; "_" alone is the gap of a test's sentence.
_ITALICS = re.compile(r"_(?<!\w.)_*+(?=[^\W_])|_(?<=[^\W_].)_*+(?!\w)")
# What is left of HTML where tags were taken for text. Named, for <T> in a program is a type; and without attributes.
_ENTITY = re.compile(r"&#?\w{2,31};")
_TAG = re.compile(r"(?i)</?(?:p|[bh]r|b|i|u|em|strong|su[bp]|span|div|li|[uod]l|t[drh]|h[1-6]|blockquote)/?>")


def text_words(text: str) -> list[str]:
    """The words of a text in their order."""
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if not text.isascii():
        # Marks go before, too: to normalise a long run of them takes time that grows with its square.
        text = _without_marks(unicodedata.normalize("NFKD", _without_marks(text)))
    if "_" in text:
        text = _ITALICS.sub("", text)
    for mark in _APOSTROPHES:
        text = text.replace(mark, "")
    return _WORD.findall(_THOUSANDS.sub("", text.lower()))


def _without_marks(text: str) -> str:
    """Without combining marks and characters that nobody sees, such as soft hyphens and zero-width spaces."""
    for character in set(text):
        if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
            text = text.replace(character, "")
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
