"""Evaluation items under seal: nobody's crawler reads them as text, so no model learns them from a copy of Primer.

A benchmark in plain text ends in training corpora. These files are compressed and enciphered with a key that stands
right here: that hides nothing from a person, and everything from a program that collects text. Their first line holds
a canary, for those who search corpora for such files.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import zlib
from pathlib import Path

from primer.errors import PrimerError

SUFFIX = ".sealed"
CANARY = "primer-evaluation-items-5b1e7c0a-1d0f-4b9e-9a36-7a4c2f8be0d3"
_HEADER = f"Evaluation items of Primer. Do not train on them. Canary: {CANARY}. To read them: primer items show"
_WIDTH = 120


def seal(text: str) -> str:
    """A text as the content of a sealed file."""
    data = zlib.compress(text.encode(), 9)
    lines = base64.b64encode(_cipher(data)).decode()
    body = "\n".join(lines[start : start + _WIDTH] for start in range(0, len(lines), _WIDTH))
    return f"{_HEADER}\n{body}\n"


def unseal(sealed: str) -> str:
    """The reverse of `seal`.

    Raises:
        ValueError: If it is no sealed text, or a damaged one.
    """
    header, _, body = sealed.partition("\n")
    if header != _HEADER:
        raise ValueError("its first line is not that of sealed items")
    try:
        return zlib.decompress(_cipher(base64.b64decode("".join(body.split()), validate=True))).decode()
    except zlib.error as error:
        raise ValueError(str(error)) from None


def read_items(path: Path) -> str:
    """The text of a file of items, sealed or plain.

    Raises:
        PrimerError: If it cannot be read, or is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return unseal(text) if path.suffix == SUFFIX else text
    except (OSError, ValueError) as error:  # of which a UnicodeDecodeError is one
        remedy = "Get the file again." if path.suffix == SUFFIX else "It must be a file in UTF-8."
        raise PrimerError(f"{path} cannot be read: {error}", remedy) from None


def _cipher(data: bytes) -> bytes:
    """Exclusive or with a key stream of SHA-256 over the canary and a counter: its own inverse."""
    blocks = (hashlib.sha256(f"{CANARY} {number}".encode()).digest() for number in itertools.count())
    stream = b"".join(itertools.islice(blocks, len(data) // 32 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))
