"""Words as texts are compared by: lower case, without accents and punctuation."""

from __future__ import annotations

import re
import unicodedata

# A word of any script, or a number; -3, C++ and C# are words of their own.
_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?(?:\d+(?:\.\d+)+|\w+)(?:\+\+|#)?")

_APOSTROPHES = str.maketrans("", "", "'\u2018\u2019\u02bc`\u00b4")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def text_words(text: str) -> list[str]:
    """The words of a text in their order."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(_THOUSANDS.sub("", text.lower().translate(_APOSTROPHES)))
