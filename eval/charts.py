"""Charts as inline SVG, drawn twice: for a wide page and, with labels above the rows, for a narrow one.

Colours come from the page's style sheet (classes v0 to v7), so a chart follows the light and dark scheme; every
variant also has its own marker shape. Every value is a `point` with its words as label, which the page's script shows
under the pointer and lets the arrow keys walk through. All text that enters is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from eval.statistics import Estimate

# Widths in px at which the two drawings are shown at their natural size.
WIDE, NARROW = 720, 350
STYLES = 8

# Values of a curve that can be read off.
_POINTS = 12

Format = Callable[[float], str]


@dataclass(frozen=True)
class Row:
    """One row of a dot chart: a label, a quiet note, an optional reference value, and an estimate for each style.

    A style without an estimate (None) keeps its place.
    """

    label: str
    note: str
    reference: float | None
    estimates: Sequence[Estimate | None]


@dataclass(frozen=True)
class Line:
    """One curve: its name, its style (a variant's position), and its points; lines of one style share name and mark."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical scale; values are clipped to `limits`, where they are given."""

    label: str
    format: Format
    limits: tuple[float, float] | None = None


def marker(style: int, x: float, y: float, size: float = 4.6) -> str:
    """The marker of a variant, centred on (x, y): filled for the first eight, hollow for the next."""
    kind = f'class="mark v{style % STYLES}{" hollow" if (style // STYLES) % 2 else ""}"'
    if style % STYLES == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    corners = [(x + size * dx, y + size * dy) for dx, dy in _SHAPES[style % STYLES]]
    return f'<polygon {kind} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'


def key(style: int) -> str:
    """A variant's marker by itself, for legends and table headings."""
    return (
        f'<svg class="key" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{marker(style, 7, 7, 5)}</svg>'
    )


def dot_chart(name: str, title: str, rows: Sequence[Row], variants: Sequence[str], axis: Axis) -> str:
    """Dots with intervals: rows below each other, the variants of a row in the recipe's order.

    Args:
        name: Identifier, unique on the page.
        title: What the chart shows, for readers who hear the page.
        rows: At least one row; each has one estimate a variant.
        variants: Their names, in the order of the estimates.
        axis: The horizontal scale.
    """
    values = [v for r in rows for e in r.estimates if e is not None for v in (e.low, e.high)] + [
        r.reference for r in rows if r.reference is not None
    ]
    described = "; ".join(f"{r.label}: {_spoken(r.estimates, variants, axis.format)}" for r in rows)
    ticks = nice_ticks(min(values), max(values), 6, axis.limits)
    return _twice(name, title, described, lambda wide: _dots(rows, variants, axis, ticks, wide))


def line_chart(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    tall: bool = True,
) -> str:
    """Lines over a logarithmic horizontal scale, each with its marker at its end; the first of a style has its name.

    Args:
        name: Identifier, unique on the page.
        title: What the chart shows.
        description: The same for readers who hear the page, with the numbers that matter.
        lines: At least one point in all; x > 0; a line without points is left out.
        x: The horizontal scale.
        y: The vertical scale.
        tall: Whether it is a chart by itself, or one of several.
    """
    return _twice(name, title, description, lambda wide: _lines(lines, x, y, wide, 290.0 if wide and tall else 210.0))


def bar_chart(name: str, title: str, bars: Sequence[tuple[str, float]], form: Format) -> str:
    """Horizontal bars from zero, each with its value written at its end."""
    described = "; ".join(f"{label}: {form(value)}" for label, value in bars)
    return _twice(name, title, described, lambda wide: _bars(bars, form, wide))


def nice_ticks(low: float, high: float, wanted: int, limits: tuple[float, float] | None = None) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) whose ends enclose [low, high], cut to the limits."""
    span = (high - low) or abs(high) or 1.0
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
    if limits:
        ticks = [t for t in ticks if limits[0] <= t <= limits[1]]
    return ticks


def smooth(points: Sequence[tuple[float, float]], bins: int = 160) -> list[tuple[float, float]]:
    """A noisy curve for a logarithmic axis: means over `bins` equal log steps, then over three neighbours.

    Points must have x > 0 and a finite y. Sparse curves (few points a bin) stay close to their points.
    """
    if not points:
        return []
    low, high = math.log(points[0][0]), math.log(points[-1][0])
    gathered: dict[int, list[tuple[float, float]]] = {}
    for px, py in points:
        gathered.setdefault(int(bins * (math.log(px) - low) / ((high - low) or 1.0)), []).append((px, py))
    means = [
        (sum(a for a, _ in some) / len(some), sum(b for _, b in some) / len(some))
        for _, some in sorted(gathered.items())
    ]
    near = [means[max(0, i - 1) : i + 2] if 0 < i < len(means) - 1 else [means[i]] for i in range(len(means))]
    return [(means[i][0], sum(b for _, b in some) / len(some)) for i, some in enumerate(near)]


def _spoken(estimates: Sequence[Estimate | None], variants: Sequence[str], form: Format) -> str:
    each = zip(variants, estimates, strict=True)
    return ", ".join(_value(name, e, form) for name, e in each if e is not None)


def _value(name: str, e: Estimate, form: Format) -> str:
    return f"{name} {form(e.value)}" + (f" ({form(e.low)} to {form(e.high)})" if e.low != e.high else "")


def _point(label: str, body: str) -> str:
    return f'<g class="point" role="img" aria-label="{escape(label)}">{body}</g>'


def _twice(name: str, title: str, description: str, draw: Callable[[bool], tuple[float, str]]) -> str:
    drawn = []
    for wide in (True, False):
        kind, width = ("wide", WIDE) if wide else ("narrow", NARROW)
        height, body = draw(wide)
        label = f"{name}-{kind}"
        drawn.append(
            f'<svg class="chart {kind}" viewBox="0 0 {width} {height:.0f}" role="group" '
            f'aria-labelledby="{label}-t {label}-d"><title id="{label}-t">{escape(title)}</title>'
            f'<desc id="{label}-d">{escape(description)}</desc>{body}</svg>'
        )
    return "".join(drawn)


def _dots(
    rows: Sequence[Row], variants: Sequence[str], axis: Axis, ticks: Sequence[float], wide: bool
) -> tuple[float, str]:
    left, right = (232.0, WIDE - 18.0) if wide else (14.0, NARROW - 16.0)
    pitch, gap, head = 15.0, 22.0, 0.0 if wide else 20.0
    place = _scale(ticks[0], ticks[-1], left, right)
    parts, y = [], 8.0
    body = []
    for index, row in enumerate(rows):
        top = y + head
        bottom = top + pitch * len(row.estimates)
        if index:
            body.append(_line("rule", 0, y - gap / 2, WIDE if wide else NARROW, y - gap / 2))
        if wide:
            middle = (top + bottom) / 2
            body.append(_text(0, middle - 3, _cut(row.label, 34), "label"))
            body.append(_text(0, middle + 13, _cut(row.note, 36), "quiet"))
        else:
            label = _cut(row.label, 34)
            body.append(
                f'<text x="0" y="{y + 12:.1f}" class="label">{escape(label)}'
                f'<tspan class="quiet" dx="7">{escape(_cut(row.note, 52 - len(label)))}</tspan></text>'
            )
        if row.reference is not None:
            x = place(row.reference)
            body.append(_line("reference", x, top - 1, x, bottom + 1))
        for style, estimate in enumerate(row.estimates):
            if estimate is None:
                continue
            middle = top + pitch * (style + 0.5)
            a, b = (place(min(max(v, ticks[0]), ticks[-1])) for v in (estimate.low, estimate.high))
            drawn = _line(f"interval v{style % STYLES}", a, middle, b, middle)
            drawn += _line("target", a, middle, b, middle) + marker(style, place(estimate.value), middle)
            body.append(_point(f"{row.label}: {_value(variants[style], estimate, axis.format)}", drawn))
        y = bottom + gap
    floor = y - gap / 2 + 2
    for tick in _thin(ticks, 9 if wide else 6):
        parts.append(_line("grid", place(tick), 0, place(tick), floor))
        parts.append(_text(place(tick), floor + 16, axis.format(tick), "tick", "middle"))
    parts.append(_line("axis", left, floor, right, floor))
    parts.append(_text((left + right) / 2, floor + 36, axis.label, "axis-label", "middle"))
    return floor + 44, "".join(parts + body)


def _lines(lines: Sequence[Line], x: Axis, y: Axis, wide: bool, floor: float) -> tuple[float, str]:
    left, right, top = (46.0, WIDE - 116.0, 10.0) if wide else (34.0, NARROW - 12.0, 10.0)
    points = [p for line in lines for p in line.points]
    ticks = nice_ticks(min(b for _, b in points), max(b for _, b in points), 6)
    low, high = math.log10(min(a for a, _ in points)), math.log10(max(a for a, _ in points))
    across, up = _scale(low, high if high > low else low + 1, left, right), _scale(ticks[0], ticks[-1], floor, top)
    parts = []
    for tick in ticks:
        parts.append(_line("grid", left, up(tick), right, up(tick)))
        parts.append(_text(left - 7, up(tick) + 4, y.format(tick), "tick", "end"))
    for decade in _decades(low, high):
        parts.append(_line("grid", across(decade), top, across(decade), floor))
        parts.append(_text(across(decade), floor + 17, x.format(10**decade), "tick", "middle"))
    parts.append(_line("axis", left, floor, right, floor))
    parts.append(_text((left + right) / 2, floor + 37, x.label, "axis-label", "middle"))
    ends: dict[int, tuple[float, str]] = {}
    values = []
    for line in lines:
        if line.points:
            placed = [(across(math.log10(a)), up(b)) for a, b in line.points]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
            parts.append(f'<polyline class="line v{line.style % STYLES}" points="{path}"/>')
            ends.setdefault(line.style, (placed[-1][1], line.name))
            for at in _spread(len(placed), _POINTS):
                (a, b), (px, py) = line.points[at], placed[at]
                mark = f'<circle class="target" cx="{px:.1f}" cy="{py:.1f}" r="7"/>'
                mark += marker(line.style, px, py) if at == len(placed) - 1 else ""
                values.append(_point(f"{line.name}: {y.format(b)} after {x.format(a)}", mark))
    parts += values
    if wide:
        last = -math.inf
        for height, name in sorted(ends.values()):
            last = max(height + 4, last + 16)
            parts.append(_text(right + 12, last, _cut(name, 15), "label"))
    return floor + 45, "".join(parts)


def _spread(count: int, wanted: int) -> list[int]:
    """Positions spread over a sequence, the last one among them."""
    return sorted({round(k * (count - 1) / max(1, wanted - 1)) for k in range(wanted)})


def _bars(bars: Sequence[tuple[str, float]], form: Format, wide: bool) -> tuple[float, str]:
    left, right = (196.0, WIDE - 76.0) if wide else (0.0, NARROW - 66.0)
    pitch, drop = (25.0, 0.0) if wide else (40.0, 17.0)
    most = max((value for _, value in bars), default=0) or 1
    parts = []
    for index, (label, value) in enumerate(bars):
        y = index * pitch + 4
        length = (right - left) * value / most
        parts.append(_text(0, y + 12, _cut(label, 28 if wide else 46), "label"))
        bar = f'<rect class="bar" x="{left:.1f}" y="{y + drop + 1:.1f}" width="{max(length, 0.8):.1f}" height="14"/>'
        parts.append(_point(f"{label}: {form(value)}", bar))
        parts.append(_text(left + length + 7, y + drop + 12.5, form(value), "tick"))
    if wide:
        parts.append(_line("axis", left, 0, left, len(bars) * pitch))
    return len(bars) * pitch + 4, "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _decades(low: float, high: float) -> list[float]:
    """log10 of 1, 10, ... in the range; of fewer than three also 2 and 5 times those; of fewer than two its ends."""
    whole = [float(k) for k in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) >= 3:
        return whole
    finer = [k + math.log10(m) for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [v for v in finer if low <= v <= high]
    return inside if len(inside) > 1 else sorted({low, high})


def _thin(ticks: Sequence[float], most: int) -> Sequence[float]:
    return ticks if len(ticks) <= most else ticks[:: math.ceil(len(ticks) / most)]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


_PLUS = (-1, 1, 1, 3, 3, 1, 1, -1, -1, -3, -3, -1)

# Corners around (0, 0), y downwards, of about equal area to the unit circle.
_SHAPES: dict[int, list[tuple[float, float]]] = {
    1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],  # square
    2: [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],  # triangle
    3: [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],  # diamond
    4: [(0, 1.25), (1.2, -0.95), (-1.2, -0.95)],  # triangle, point down
    5: [(x * 0.4, y * 0.4) for x, y in zip(_PLUS, _PLUS[3:] + _PLUS[:3], strict=True)],  # cross
    6: [(0, -1.25), (1.2, -0.4), (0.75, 1.05), (-0.75, 1.05), (-1.2, -0.4)],  # pentagon
    7: [(0, -1.4), (0.4, -0.4), (1.4, 0), (0.4, 0.4), (0, 1.4), (-0.4, 0.4), (-1.4, 0), (-0.4, -0.4)],  # star
}
