"""Charts: foreign text escaped, every mark inside, ticks that can be read."""

from __future__ import annotations

import re

import pytest
from html_page import Page

from eval import charts
from eval.statistics import Estimate
from eval.tables import short

HOSTILE = "</title><script>alert(1)</script>&amp;\"'"


def test_charts_escape_their_labels_and_keep_every_mark_inside():
    row = charts.Row(HOSTILE, HOSTILE, 0.25, [Estimate(0.3, 0.0, 1.0, 0.2), Estimate(0.9, 0.9, 0.9, 0.0), None])
    axis = charts.Axis(HOSTILE, lambda v: f"{v:.1f}", (0, 1))
    drawn = charts.dot_chart("c", HOSTILE, [row], [HOSTILE, "b", "c"], axis)
    drawn += charts.bar_chart("b", HOSTILE, [(HOSTILE, 3.0), ("none", 0.0)], str)
    line = [(float(10**n), 8.0 - n) for n in range(1, 6)]
    lines = [charts.Line(HOSTILE, 0, line), charts.Line("empty", 1, []), charts.Line("one", 2, [(5.0, 3.0)])]
    drawn += charts.line_chart("l", HOSTILE, HOSTILE, lines, axis, axis)
    page = Page(drawn.replace("\x00", "").replace("\x1b", ""))
    assert "script" not in {tag for tag, _ in page.elements}
    assert len(page.tags("svg")) == 6
    width = 0.0
    for tag, attributes in page.elements:
        if tag == "svg":
            width = float((attributes["viewbox"] or "").split()[2])
        for name in ("x", "x1", "x2", "cx"):
            if name in attributes:
                assert -1 <= float(attributes[name] or "nan") <= width
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_every_variant_has_its_own_marker():
    drawn = [charts.key(n).replace(f"v{n % 8}", "") for n in range(16)]
    assert len(set(drawn)) == 16


def test_ticks_enclose_what_they_measure():
    for low, high in [(0.0, 1.0), (0.21, 0.24), (2.29, 2.3), (5.0, 5.0), (0.0, 0.0), (1e-9, 3e5)]:
        ticks = charts.nice_ticks(low, high, 6)
        assert ticks[0] <= low + 1e-9
        assert ticks[-1] >= high - 1e-9
        assert 2 <= len(ticks) <= 9
    assert charts.nice_ticks(0.02, 1.0, 6, (0, 1))[-1] == 1.0


@pytest.mark.parametrize(("low", "high"), [(20_480.0, 40_960.0), (4.0e6, 9.0e6), (1e3, 1e9), (7.0, 7.0)])
def test_a_scale_of_tokens_says_where_it_begins_and_ends(low: float, high: float):
    axis = charts.Axis("tokens", short)
    drawn = charts.line_chart("l", "Loss", "", [charts.Line("web", 0, [(low, 3.0), (high, 2.0)])], axis, axis)
    wide = drawn[: drawn.index("</svg>")]
    labels = re.findall(r'<text class="tick"[^>]*text-anchor="middle">([^<]+)<', wide)
    assert len(labels) >= (1 if low == high else 2)
    assert len(labels) == len(set(labels))


def test_smoothing_keeps_the_level_and_the_ends():
    points = [(float(n), 5.0 + (-1) ** n) for n in range(1, 2001)]
    line = charts.smooth(points)
    assert (line[0][0], len(line) <= 161) == (1.0, True)
    assert all(4.9 < y < 5.1 for x, y in line if 300 < x < 1900)
    assert charts.smooth([]) == []
    assert charts.smooth([(4.0, 2.0)]) == [(4.0, 2.0)]
