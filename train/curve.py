"""The loss over a training as one SVG file: it stands beside the model, and its README shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 860.0, 400.0
_LEFT, _RIGHT, _TOP, _FLOOR = 56.0, 676.0, 44.0, 344.0

# Points of the training's line: more would not be seen at this width. What is averaged for it is shown behind it.
_POINTS = 320

# Colours of the training and of the sources, on light and on dark; each source has a marker of its own too.
_STYLES = {
    "training": ("#5c6672", "#9aa5b1"),
    "synthetic": ("#b3541e", "#f0955c"),
    "web": ("#1f6fb2", "#6db3f2"),
    "code": ("#2e7d4f", "#6fce97"),
}
_CORNERS = {
    "web": ((-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)),
    "code": ((0.0, -4.6), (4.4, 3.5), (-4.4, 3.5)),
}
_FONT = "font-family:system-ui,sans-serif;font-size:13px"

Point = tuple[float, float]


def loss_curve(title: str, rows: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]) -> str:
    """Draw the loss over the tokens: of the training, smoothed, and of the held-out text of each source.

    Args:
        title: What was trained.
        rows: Of `training.jsonl`.
        validations: Of `validation.jsonl`.

    Returns:
        An SVG document without scripts and references, of at most 60 kB, for light and dark pages.
    """
    training = [(float(row["tokens"]), float(row["loss"])) for row in rows if row["loss"] is not None]
    lines = {"training": training} | {
        source: [(float(row["tokens"]), float(row["losses"][source])) for row in validations if source in row["losses"]]
        for source in _STYLES
        if any(source in row["losses"] for row in validations)
    }
    lines = {name: line for name, line in lines.items() if line}
    means, spread = _smoothed(training)
    drawn = {**lines, "training": means} if training else lines
    seen = [point for line in drawn.values() for point in line]
    if not seen:
        return _document(title, "no losses", [_text(_LEFT, _TOP + 20, "No losses yet", "start")])
    across = _Scale(0.0, max(x for x, _ in seen), _LEFT, _RIGHT)
    # The first steps, at the logarithm of the vocabulary's size, would leave the rest no room.
    top = max(_quantile([y for _, y in line], 0.98 if name == "training" else 1.0) for name, line in drawn.items())
    up = _Scale(min(y for _, y in seen), top, _FLOOR, _TOP)
    parts = _axes(across, up)
    if spread:
        parts.append(f'<polygon class="spread" points="{_places(spread, across, up)}"/>')
    parts += [_line(name, line, across, up) for name, line in drawn.items()]
    parts += _labels(drawn, up)
    described = "; ".join(f"{_called(name)} {line[-1][1]:.3f}" for name, line in drawn.items())
    return _document(title, f"loss in nats a token at the end: {described}", parts)


class _Scale:
    """From values to places; values beyond its ends are drawn at them."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.step = _step((high - low) or 1.0)
        # The horizontal scale ends with its data, the vertical one with a round number.
        floor = math.floor(low / self.step + 1e-9) * self.step
        self.low, self.high = floor, high if start < end else math.ceil(high / self.step - 1e-9) * self.step
        if self.high <= self.low:
            self.high = self.low + self.step
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * (inside - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        return [self.low + k * self.step for k in range(int((self.high - self.low) / self.step + 1e-9) + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, such that a span has five to ten of them."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next((m * power for m in (1, 2, 5) if span / (m * power) <= 7.5), 10 * power)


def _smoothed(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Means of neighbouring steps, and the outline of the least and greatest of each group (none where all are one)."""
    each = max(1, math.ceil(len(points) / _POINTS))
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    means = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    near = [means[max(0, i - 2) : i + 3] for i in range(len(means))]  # and over five neighbours
    smooth = [(means[i][0], sum(y for _, y in some) / len(some)) for i, some in enumerate(near)]
    upper = [(group[-1][0], max(y for _, y in group)) for group in groups]
    lower = [(group[-1][0], min(y for _, y in group)) for group in groups]
    return smooth, [*upper, *reversed(lower)] if each > 1 else []


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _axes(across: _Scale, up: _Scale) -> list[str]:
    parts = []
    for tick in up.ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(_text(_LEFT - 8, up(tick) + 4, f"{tick:.{_decimals(up.step)}f}", "end", "quiet"))
    for tick in across.ticks:
        parts.append(f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{_TOP}" y2="{_FLOOR}"/>')
        parts.append(_text(across(tick), _FLOOR + 18, _count(tick), "middle", "quiet"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _FLOOR + 42, "training tokens", "middle", "quiet"))
    parts.append(_text(_LEFT - 40, _TOP - 14, "loss, nats a token", "start", "quiet"))
    return parts


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _count(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g} {name}"
    return f"{number:g}"


def _line(name: str, line: Sequence[Point], across: _Scale, up: _Scale) -> str:
    drawn = f'<polyline class="line {name}" points="{_places(line, across, up)}"/>'
    if name == "training":
        return drawn
    return drawn + "".join(_marker(name, across(x), up(y)) for x, y in line)


def _marker(name: str, x: float, y: float) -> str:
    if name == "synthetic":
        return f'<circle class="mark {name}" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    corners = _CORNERS[name]
    return f'<polygon class="mark {name}" points="{" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)}"/>'


def _places(line: Sequence[Point], across: _Scale, up: _Scale) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)


def _labels(lines: Mapping[str, Sequence[Point]], up: _Scale) -> list[str]:
    """Names and last values to the right of the lines' ends, moved apart where they would overlap."""
    parts, before = [], -math.inf
    for height, name in sorted((up(line[-1][1]) + 4, name) for name, line in lines.items()):
        before = max(height, before + 18)
        parts.append(_text(_RIGHT + 12, before, f"{_called(name)} {lines[name][-1][1]:.3f}", "start", f"label {name}"))
    return parts


def _called(name: str) -> str:
    return name if name == "training" else f"held-out {name}"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, description: str, parts: Sequence[str]) -> str:
    rules = [
        f"text{{{_FONT}}}.line{{fill:none;stroke-width:2;stroke-linejoin:round}}.label{{fill:#1c2126}}"
        ".quiet{fill:#5c6672}.grid{stroke:#e3e7eb}.page{fill:#fff}.spread{fill:#5c6672;opacity:.16}",
        *(_rule(name, light) for name, (light, _) in _STYLES.items()),
        "@media(prefers-color-scheme:dark){.label{fill:#e6eaee}.quiet{fill:#9aa5b1}.grid{stroke:#30363d}"
        ".page{fill:#14181c}.spread{fill:#9aa5b1}" + "".join(_rule(name, dark) for name, (_, dark) in _STYLES.items()),
        "}",
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-labelledby="t d"><title id="t">{escape(title)}</title><desc id="d">{escape(description)}</desc>'
        f'<style>{"".join(rules)}</style><rect class="page" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


def _rule(name: str, colour: str) -> str:
    return f".line.{name}{{stroke:{colour}}}.mark.{name},.label.{name}{{fill:{colour}}}"
