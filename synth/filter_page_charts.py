"""The charts of the quality filter's page, as inline SVG of one size that stand side by side or below each other.

Colours come from the page's style sheet. No text of a corpus enters here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 350, 270
_LEFT, _RIGHT, _TOP, _FLOOR = 44.0, WIDTH - 10.0, 10.0, HEIGHT - 46.0

Points = Sequence[tuple[float, float]]


def share_chart(title: str, x: str, y: str, lines: Mapping[str, Points], *, marked: bool) -> str:
    """Lines over shares from 0 to 1 on both axes, with the diagonal; the second line is dashed.

    Args:
        title: What it shows, for readers who hear the page.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        lines: Points of each line.
        marked: Whether each point has a mark.
    """
    parts = [_grid(x, y, [f"{tick:.1f}" for tick in _TICKS])]
    parts.append(_line("reference", _across(0), _up(0), _across(1), _up(1)))
    for style, points in enumerate(lines.values()):
        path = " ".join(f"{_across(a):.1f},{_up(b):.1f}" for a, b in points)
        parts.append(f'<polyline class="line s{style}" points="{path}"/>')
        if marked:
            parts += [f'<circle class="s{style}" cx="{_across(a):.1f}" cy="{_up(b):.1f}" r="3"/>' for a, b in points]
    return _svg(title, parts)


def histogram_chart(title: str, lower: Sequence[int], upper: Sequence[int], threshold: float) -> str:
    """Counts over [0, 1], two kinds on top of each other, and the threshold.

    Args:
        title: What it shows, for readers who hear the page.
        lower: Counts of the kind at the bottom.
        upper: Counts of the other kind, as many.
        threshold: Where the line stands.
    """
    most = _top(max(a + b for a, b in zip(lower, upper, strict=True)))
    parts = [_grid("probability of being good", "texts", _counts(most))]
    width = (_RIGHT - _LEFT) / len(lower)
    for place, (low, high) in enumerate(zip(lower, upper, strict=True)):
        left = _LEFT + place * width
        parts.append(_bar("s0", left, width, 0, low / most))
        parts.append(_bar("other", left, width, low / most, (low + high) / most))
    parts.append(_line("threshold", _across(threshold), _TOP - 6, _across(threshold), _FLOOR))
    return _svg(title, parts)


def score_chart(title: str, counts: Sequence[int], good_from: int) -> str:
    """Texts of each of the teacher's scores.

    Args:
        title: What it shows, for readers who hear the page.
        counts: Texts of the scores 0, 1, 2, ...
        good_from: Score from which a text counts as good.
    """
    most = _top(max(counts))
    parts = [_grid("the teacher's score", "texts", _counts(most), across=False)]
    pitch = (_RIGHT - _LEFT) / len(counts)
    for score, count in enumerate(counts):
        left = _LEFT + score * pitch
        parts.append(_bar("s0" if score >= good_from else "other", left + pitch * 0.12, pitch * 0.76, 0, count / most))
        parts.append(_text(left + pitch / 2, _up(count / most) - 4, f"{count:,d}", "value", "middle"))
        parts.append(_text(left + pitch / 2, _FLOOR + 16, str(score), "tick", "middle"))
    return _svg(title, parts)


_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def _across(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share


def _up(share: float) -> float:
    return _FLOOR - (_FLOOR - _TOP) * share


def _top(most: int) -> int:
    """Where the vertical axis ends that counts texts up to `most`: five round steps."""
    most = max(most, 1)
    power = int(10 ** max(0, math.ceil(math.log10(most / 5))))
    steps = (power // 5, power // 2, power)
    return 5 * next(step for step in steps if 5 * step >= most)


def _counts(top: int) -> list[str]:
    """Labels of that axis."""
    return [f"{top * tick:,.0f}" for tick in _TICKS]


def _grid(x: str, y: str, labels: Sequence[str], *, across: bool = True) -> str:
    parts = []
    for tick, label in zip(_TICKS, labels, strict=True):
        parts.append(_line("grid", _LEFT, _up(tick), _RIGHT, _up(tick)))
        parts.append(_text(_LEFT - 6, _up(tick) + 4, label, "tick", "end"))
        if across:
            parts.append(_text(_across(tick), _FLOOR + 16, f"{tick:.1f}", "tick", "middle"))
    parts.append(_line("axis", _LEFT, _FLOOR, _RIGHT, _FLOOR))
    parts.append(_text((_LEFT + _RIGHT) / 2, HEIGHT - 8, x, "tick", "middle"))
    turned = f"translate(9 {(_TOP + _FLOOR) / 2:.0f}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{turned}" text-anchor="middle">{y}</text>')
    return "".join(parts)


def _bar(kind: str, left: float, width: float, low: float, high: float) -> str:
    if high <= low:
        return ""
    return (
        f'<rect class="{kind}" x="{left:.2f}" y="{_up(high):.2f}" width="{width:.2f}" '
        f'height="{_up(low) - _up(high):.2f}"/>'
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _svg(title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
