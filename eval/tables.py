"""The report's tables: plain text in rows and cells, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.statistics import Estimate

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a second line in small type, whether it stands out, and a mark after it such as a star."""

    text: str
    quiet: str = ""
    strong: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """One column: its heading, whether it holds numbers, and the variant (by position) that it is about."""

    label: str
    number: bool = True
    variant: int | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        emphasis: The rows (by position) that sum up others.
        headings: Headings of groups of rows, by the position of the first row of the group.
    """

    columns: list[Column]
    rows: list[list[Cell]]
    emphasis: frozenset[int] = field(default_factory=frozenset)
    headings: Mapping[int, str] = field(default_factory=dict)


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Labels and values."""
    return Table([Column("", number=False), Column("", number=False)], [[Cell(k), Cell(v)] for k, v in facts])


def variant_columns(variants: Sequence[str]) -> list[Column]:
    """One column a variant, headed by its name and marker."""
    return [Column(name, variant=index) for index, name in enumerate(variants)]


def percent(value: float) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * value:.1f}"


def bits(value: float) -> str:
    """Bits per byte."""
    return f"{value:.3f}"


def area(value: float) -> str:
    """An area under the curve."""
    return f"{value:.3f}"


def number(value: float) -> str:
    """A count, in full."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A count in little room: 200, 5k, 2M, 10B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.999:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def dollars(value: float) -> str:
    """An amount of money."""
    return f"{value:,.2f}"


def signed(value: float) -> str:
    """A difference of bits per byte or of areas."""
    return f"{value:+z.3f}".replace("-", "−")


def signed_points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:+z.1f}".replace("-", "−")


def interval(e: Estimate, form: Any) -> str:
    """The interval of an estimate."""
    return "no interval" if e.low == e.high else f"{form(e.low)}–{form(e.high)}"


def signed_interval(e: Estimate, form: Any) -> str:
    """The interval of a difference: a dash between signed numbers would be read as a minus."""
    return "no interval" if e.low == e.high else f"{form(e.low)} to {form(e.high)}"


def joined(*values: Any) -> str:
    """What is known of some facts, in one line; a table of them as `key value` pairs."""
    parts = []
    for value in values:
        if isinstance(value, dict):
            parts += [f"{k} {v}" for k, v in value.items()]
        elif value:
            parts.append(str(value))
    return ", ".join(parts) or NOTHING
