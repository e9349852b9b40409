"""Words as texts are compared by: lower case, without accents and punctuation."""

from __future__ import annotations

import re
import unicodedata

# A word of any script; 0.3, -3, C++ and C# are words of their own.
_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?\w+(?:\.\w+)*(?:\+\+|#)?")


def text_words(text: str) -> list[str]:
    """The words of a text in their order."""
    plain = text.lower()
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return _WORD.findall(plain.replace("'", "").replace("\u2019", ""))
