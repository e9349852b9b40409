"""Words as texts are compared by: what does not count as a difference, and what stays one."""

from __future__ import annotations

import time

import pytest

from primer.words import text_words
from synth.text import clean

PLAIN = ["the", "technology", "of", "toms", "mill"]


@pytest.mark.parametrize(
    "text",
    [
        "The techno\u00adlogy of Tom's mill",
        "The \u200btechno\u200blogy\u2060 of Tom\u2019s\ufeff mill\u200e",
        "The _technology_ of __Tom__'s (_mill_)",
        "_The technology of Tom's mill_",
        "The&nbsp;technology of Tom&#39;s &amp; mill",
        "<p>The <em>technology</em><br/>of Tom&rsquo;s<br>mill</p>",
        "&lt;B&gt;The&lt;/B&gt; technology of Tom\u2019s mill",
    ],
)
def test_what_nobody_sees_and_what_markup_leaves_behind_make_no_other_words(text: str) -> None:
    assert text_words(text) == PLAIN


def test_gaps_and_programs_keep_their_words() -> None:
    assert text_words("so the _ was _'s: ____") == ["so", "the", "_", "was", "_s", "____"]
    assert text_words("snake_case[x] = List<T>(); a < b; C++ C# -3") == (
        ["snake_case", "x", "list", "t", "a", "b", "c++", "c#", "-3"]
    )
    assert text_words("AT&T &c; R&D") == ["at", "t", "c", "r", "d"]


@pytest.mark.parametrize(
    "unit", ["_", "a_", "_a ", "a__ ", "&", "&a", "&#", "&amp;", "<", "</", "<b", "\u00ad", "\u200ba"]
)
def test_words_of_text_made_to_be_slow_take_no_time(unit: str) -> None:
    started = time.process_time()
    text_words(unit * (400_000 // len(unit)))
    assert time.process_time() - started < 4  # 0.02 to 0.15 s here; what is not linear takes hours


def test_cleaning_takes_out_what_nobody_sees_and_keeps_what_scripts_are_spelled_with() -> None:
    assert clean("\ufeffsoft\u00ad hy\u200bphens\u2060\u200e\u200f \u200b\n") == "soft hyphens"
    persian, family = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert clean(f"{persian} {family}") == f"{persian} {family}"
