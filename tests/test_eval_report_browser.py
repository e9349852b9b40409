"""The page in a browser: no error, no scrolling sideways, charts drawn, the keyboard enough, hostile text harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import NAMES, Tab, find_browser, opened_browser
from report_fixture import Scene, build_run, make_recipe

from eval.report import write_report

HOSTILE = "</script></style><script>window.taken = 1</script><img src=x onerror=window.taken=2>\u202e\x00" + "w" * 300

# What has the focus, in words that do not change with the content.
FOCUS = """(() => { const e = document.activeElement;
  return e.closest(".chart") ? "point" : e.matches(".scroll") ? "table" : e.localName; })()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with opened_browser(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every name and text from outside is hostile."""
    scene = Scene(
        make_recipe(description=HOSTILE),
        suites=("science", "arc_easy", "functions"),
        foreign=HOSTILE,
        web_text=f"{HOSTILE} heron ",
        prompt=HOSTILE.replace("{", "{{") + "{topic}",
    )
    return write_report(scene.recipe, build_run(tmp_path_factory.mktemp("report") / "run", scene))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_the_page_fits_and_nothing_complains(tab: Tab, page: Path, width: int, dark: bool):
    tab.open(page, width, dark=dark)
    assert tab.complaints() == []
    assert tab.run("window.taken") is None
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") == width
    outside = """[...document.querySelectorAll('.mark-sign')].filter(
        m => m.getBoundingClientRect().right > m.closest('table').getBoundingClientRect().right).length"""
    assert tab.run("document.querySelectorAll('.mark-sign').length") > 10
    assert tab.run(outside) == 0, "a mark behind a number is cut off"
    ink = tab.run("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)[0]")
    assert (ink > 128) == dark


def test_every_chart_is_drawn_once_at_each_width(tab: Tab, page: Path):
    for width, kind in ((1280, "wide"), (390, "narrow")):
        tab.open(page, width)
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        boxes = tab.run(
            """[...document.querySelectorAll("figure")].map(f => [...f.querySelectorAll(".chart")]
               .filter(c => c.getBoundingClientRect().height > 40)
               .map(c => [c.classList[1], c.querySelectorAll(".point").length,
                  [...c.querySelectorAll("text")].every(t => t.getBoundingClientRect().right <= innerWidth + 1)]))"""
        )
        assert len(boxes) >= 8
        for drawn in boxes:
            assert [kind] == [name for name, _, _ in drawn]
            assert drawn[0][1] > 0
            assert drawn[0][2], "a label leaves the window"


def test_the_keyboard_reaches_everything(tab: Tab, page: Path):
    tab.open(page)
    seen = []
    for _ in range(400):
        tab.press("Tab", 9)
        focus = tab.run(FOCUS)
        if focus == "body":
            break
        seen.append(focus)
    assert {"a", "table", "point", "summary", "input"} <= set(seen)
    charts = tab.run("[...document.querySelectorAll('.chart')].filter(c => c.checkVisibility()).length")
    assert seen.count("point") == charts  # one stop a chart
    assert seen.count("summary") == tab.run(
        "[...document.querySelectorAll('summary')].filter(s => s.checkVisibility()).length"
    )


def test_arrow_keys_walk_through_a_chart_and_show_each_value(tab: Tab, page: Path):
    tab.open(page)
    tab.run("document.querySelector('.chart.wide .point').focus()")
    first = tab.run("document.querySelector('.tip').textContent")
    assert re.search(r": synthetic \d+ \(\d+ to \d+\)$", first)
    tab.press("ArrowRight", 39)
    assert ": web " in tab.run("document.querySelector('.tip:not([hidden])').textContent")
    assert tab.run("document.activeElement.getAttribute('tabindex')") == "0"
    tab.press("Home", 36)
    assert tab.run("document.querySelector('.tip').textContent") == first
    tab.press("Escape", 27)
    assert tab.run("document.querySelector('.tip').hidden") is True


def test_searching_leaves_the_documents_that_hold_every_word(tab: Tab, page: Path):
    tab.open(page)
    shown = "document.querySelectorAll('.document:not([hidden])').length"
    every = tab.run(shown)
    assert every == 15
    tab.run("document.querySelector('.search input').focus()")
    tab.type("HERON waits-not-here")
    assert tab.run(shown) == 0
    assert tab.run("document.querySelectorAll('.source:not([hidden])').length") == 0
    tab.run("document.querySelector('.search input').select()")
    tab.type("Heron")
    assert tab.run(shown) == 3
    assert tab.run("document.querySelector('.search output').textContent") == "3 of 15"
    tab.run("document.querySelector('.search input').select()")
    tab.type("area_")  # stands in the text of what is folded away
    assert tab.run(shown) == 2


def test_without_its_script_the_page_is_whole(tab: Tab, page: Path):
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(page, 390)
        assert tab.run("document.querySelectorAll('.document').length") == 15
        assert tab.run("getComputedStyle(document.querySelector('.search')).display") == "none"
        assert tab.run("document.querySelector('.chart.narrow').getBoundingClientRect().height") > 40
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_prints_with_all_that_is_folded_away(tab: Tab, page: Path):
    tab.open(page)
    printed = tab.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) > 10
    tab.open(page, 673, media="print")
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    folded = "[...document.querySelectorAll('details:not([open]) pre')].filter(p => p.getBoundingClientRect().height)"
    assert tab.run(f"{folded}.length") >= 15
