"""A text as a source hands it over, and what every text goes through before it becomes a document."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

# Control characters that carry no text (all but tab and line feed), lone surrogates (JSON can hold them, UTF-8
# cannot), and what nobody sees but which divides words: soft hyphens, zero-width spaces, word joiners, marks of
# direction and of byte order. The zero-width (non-)joiner stays: Persian, Indic scripts and emoji are spelled with it.
# Line and paragraph separators become line feeds.
_REMOVED: dict[int, str | None] = dict.fromkeys(
    [
        *(*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000)),
        *(0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF),
    ]
)
_REMOVED |= {0x85: "\n", 0x2028: "\n", 0x2029: "\n"}


@dataclass(frozen=True)
class SourceText:
    """One text of a source, before cleaning.

    Attributes:
        group: What must not be divided between training and held-out text; empty means the text itself.
        title: A title for people, if there is one.
        origin: Where exactly it comes from: an address, a file, a row.
        licence: Its licence, if known.
    """

    text: str
    group: str = ""
    title: str | None = None
    origin: str | None = None
    licence: str | None = None


def clean(text: str) -> str:
    """Unicode NFC, line feeds as line ends, nothing invisible, no white space at line ends or around the text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_REMOVED)
    text = unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
