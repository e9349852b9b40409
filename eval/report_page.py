"""What a report consists of, before it is HTML or Markdown: sections of paragraphs, tables, charts and documents.

All of it is plain text. Charts alone are markup (SVG, made by `eval.charts`); Markdown has the numbers behind
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from eval.run_facts import Sample
from eval.tables import Table
from eval.verdict import Verdict


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes:
        text: Its words.
        kind: "note": small print; "warning": small print that must be seen.
        address: Where the page says it is from.
    """

    text: str
    kind: Literal["", "note", "warning"] = ""
    address: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading below that of the section."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table with its caption and the small print below it.

    Attributes:
        kind: "": numbers; "words": a column of text for each variant; "pairs": labels and values; "counts": narrow.
    """

    caption: str
    table: Table
    notes: tuple[str, ...] = ()
    kind: Literal["", "words", "pairs", "counts"] = ""


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        svg: Its markup.
        legend: Whether the variants' markers are explained above it.
        reference: What a dashed line stands for, if there is one.
        numbers: What Markdown shows in its place, if no table beside it does.
    """

    caption: str
    svg: str
    legend: bool = True
    reference: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Listing:
    """Text that is to be copied: commands, settings."""

    text: str


@dataclass(frozen=True)
class Terms:
    """Terms, each with its explanation."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Documents:
    """Documents to read and to search, by source."""

    samples: Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away under a summary."""

    summary: str
    blocks: Sequence[Block]


Block = Words | Heading | Grid | Figure | Listing | Terms | Points | Documents | Details


@dataclass(frozen=True)
class Section:
    """A section: its anchor, its heading, its name among the links, and what stands in it."""

    anchor: str
    title: str
    link: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        variants: Names of what is compared, in the order of their markers.
        verdict: The answer, which stands first.
    """

    title: str
    about: str
    date: str
    variants: Sequence[str]
    verdict: Verdict
    sections: Sequence[Section] = field(default_factory=list)


def section(anchor: str, title: str, link: str, blocks: Sequence[Block | None]) -> Section | None:
    """A section of those blocks that are there; None if there is none."""
    present = [block for block in blocks if block is not None]
    return Section(anchor, title, link, present) if present else None
