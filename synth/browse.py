"""Documents of a corpus of any size, one at a time: by number, by identity, at random, or those that match."""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from primer.documents import Block, corpus_blocks

# Whole escape sequences of a terminal (ECMA-48): colours and moves, strings such as titles and links, and the rest.
_STRING = r"[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)"
_SEQUENCE = re.compile(
    rf"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f]){_STRING}|\x1b[ -/]*[0-~]"
)

# What is left of them and other control characters, lone surrogates, and what turns the direction of writing.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")

# Of so many blocks the matching places are remembered.
_REMEMBERED = 256


def printable(text: str) -> str:
    """A text without anything that a terminal would obey: escape sequences, control characters, bidirectional marks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSHOWN.sub("", _SEQUENCE.sub("", text))


@dataclass(frozen=True)
class Wanted:
    """Which documents to look at; None asks for nothing.

    Attributes:
        form: Name of the form.
        field: Name of the topic's field.
        topic: A part of the topic or title, in either case.
        contains: A part of the text, in either case.
    """

    form: str | None = None
    field: str | None = None
    topic: str | None = None
    contains: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that tell; empty if every document is wanted."""
        needed = {
            "provenance.form": self.form,
            "provenance.field": self.field,
            "title": self.topic,
            "text": self.contains,
        }
        return [column for column, value in needed.items() if value is not None]

    def matches(self, row: dict[str, Any]) -> bool:
        """Whether a row with those columns is wanted."""
        made = row.get("provenance") or {}
        return (
            (self.form is None or made.get("form") == self.form)
            and (self.field is None or made.get("field") == self.field)
            and (self.topic is None or self.topic.casefold() in (row["title"] or "").casefold())
            and (self.contains is None or self.contains.casefold() in row["text"].casefold())
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} {value!r}" for name, value in vars(self).items() if value is not None)


class Browser:
    """A corpus folder to look around in. Documents are numbered from 1, training text first.

    A document costs reading its block of 1,024, and its neighbours then nothing; a search reads one block after
    another, and of each only the columns that it asks for.

    Args:
        folder: The corpus folder.
        wanted: What `after`, `before` and `draw` keep to.

    Raises:
        PrimerError: If a file is missing or damaged.
    """

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._blocks = corpus_blocks(folder)
        self._starts = [block.first for block in self._blocks]
        self._wanted = wanted
        self.total = sum(block.rows for block in self._blocks)
        self._matching = lru_cache(maxsize=_REMEMBERED)(self._find_matching)
        self._rows = lru_cache(maxsize=2)(Block.read)

    def document(self, number: int) -> dict[str, Any]:
        """The whole row of a document, by its number."""
        block = self._blocks[self._holding(number)]
        return self._rows(block)[number - 1 - block.first]

    def find(self, identity: str) -> int | None:
        """The number of a document, by its identity."""
        for block in self._blocks:
            if block.ids is None or block.ids[0] <= identity <= block.ids[1]:
                for place, row in enumerate(block.read(["id"])):
                    if row["id"] == identity:
                        return block.first + place + 1
        return None

    def after(self, number: int) -> int | None:
        """The next number that is wanted; None at the end. 0 is before the first."""
        return self._next(number, 1)

    def before(self, number: int) -> int | None:
        """The last number before another that is wanted."""
        return self._next(number, -1)

    def draw(self, seed: int) -> Iterator[int]:
        """Every wanted number once, in an order of chance: one of each block in turn, as nothing else need be read."""
        generator = random.Random(seed)
        left: dict[int, list[int]] = {}
        blocks = list(range(len(self._blocks)))
        while blocks:
            generator.shuffle(blocks)
            remaining = []
            for block in blocks:
                if block not in left:
                    left[block] = list(self._matching(block))
                    generator.shuffle(left[block])
                if left[block]:
                    yield left[block].pop()
                if left[block]:
                    remaining.append(block)
            blocks = remaining

    def _holding(self, number: int) -> int:
        """The place of the block that holds a number."""
        return bisect_right(self._starts, number - 1) - 1

    def _next(self, number: int, step: int) -> int | None:
        place = self._holding(min(max(number + step, 1), self.total))
        while 0 <= place < len(self._blocks):
            for found in self._matching(place)[::step]:
                if (found - number) * step > 0:
                    return found
            place += step
        return None

    def _find_matching(self, place: int) -> range | list[int]:
        """The wanted numbers in a block, in order."""
        block = self._blocks[place]
        numbers = range(block.first + 1, block.first + block.rows + 1)
        if not self._wanted.columns:
            return numbers
        return [
            n for n, row in zip(numbers, block.read(self._wanted.columns), strict=True) if self._wanted.matches(row)
        ]
