"""Web and code corpora from what ships with the installation: Wikipedia articles and the standard library."""

import ast
import bz2
import re
import sysconfig
from itertools import islice
from pathlib import Path

import pytest
from source_samples import WIKIPEDIA

from primer.errors import PrimerError
from primer.recipe_corpora import PythonLibrary
from synth.python_library import cut_definitions
from synth.sources import AnySource, open_source
from synth.text import SourceText, clean
from synth.wikipedia import article_documents


def first_texts(source: AnySource, seed: int, number: int) -> list[SourceText]:
    opened = open_source(source, "source", seed, 10**9)
    assert opened.parts == 1
    return list(islice(opened.read(0), number))


@pytest.fixture(scope="module")
def articles() -> list[SourceText]:
    return first_texts(WIKIPEDIA, 0, 250)


def test_wikipedia_documents_are_clean_prose(articles: list[SourceText]):
    texts = articles
    assert len(texts) == 250
    debris = re.compile(
        r"\{\{|\[\[|\]\]|thumb\||<ref|''|&[a-z]+;|\(\s*[;,]|\(\s*\)|[\ue000-\uf8ff]|Category:|\n\n\n| [,.;]|\bISBN\b"
    )
    for text in texts:
        assert not (found := debris.search(clean(text.text))), (text.title, found)
        assert len(text.text.split()) <= 1200, text.title
        assert str(text.title).split(":")[0] == text.group.split(":")[0]
        assert text.licence == "CC BY-SA 3.0"
        assert str(text.origin).startswith("https://en.wikipedia.org/wiki/")
        paragraphs = [p for p in clean(text.text).split("\n") if p]
        in_lists = sum(len(p.split()) for p in paragraphs if p.startswith("- "))
        assert 2 * in_lists <= len(text.text.split()), text.title
        assert all(re.search(r"[.!?…:][\"'”’)\]]*$", p) for p in paragraphs), text.title
    headings = {str(text.title).partition(": ")[2].lower() for text in texts}
    assert not headings & {"see also", "references", "external links", "further reading", "bibliography", "notes"}


def test_the_seed_decides_the_order(articles: list[SourceText]):
    again, other = (first_texts(WIKIPEDIA, seed, 30) for seed in (0, 1))
    assert articles[:30] == again != other


def test_wiki_markup_becomes_prose():
    markup = """{{Infobox|name=Moth}}
[[File:Moth.jpg|thumb|A [[moth]] at ''night'']]
'''Moths''' ({{IPAc-en|m|ɒ|θ}}; {{lang-la|''Heterocera''}}) are [[insect|insects]]&nbsp;of the night.<ref>{{cite
book|title=Lost}}</ref> Some fly {{convert|12000|km|mi}} in a year<ref name="a"/> and weigh 10<sup>-3</sup> kg.
{| class="wikitable"
| table || cell
|}
Their number is <math>n^2</math> and so this paragraph goes.

The colours are:
* red
* a blue that is deeper than the sea at midnight, say the poets.

Short caption

== Life ==
The [[larva]]e eat leaves of oak, birch and lime, and spin a cocoon in {{as of|2008|lc=y}} year. [[Category:Moths]]

== References ==
Text of the references section that must never be seen in the corpus at all.
=== Below it ===
Text below the references section that must never be seen in the corpus either.
== Uses ==
Silk comes from the cocoons of a moth that people have kept for five thousand years.
"""
    [(heading, text)] = article_documents(markup)
    assert heading == "Life"
    assert text == (
        "Moths (Heterocera) are insects of the night. Some fly 12,000 km in a year and weigh 10⁻³ kg.\n\n"
        "The colours are:\n\n"
        "- a blue that is deeper than the sea at midnight, say the poets.\n\n"
        "The larvae eat leaves of oak, birch and lime, and spin a cocoon in as of 2008 year.\n\n"
        "Silk comes from the cocoons of a moth that people have kept for five thousand years."
    )


def test_long_sections_are_divided_between_paragraphs():
    paragraphs = [f"Paragraph {i} " + "has many words " * 40 + "here." for i in range(20)]
    documents = article_documents("== Long ==\n" + "\n\n".join(paragraphs))
    assert [heading for heading, _ in documents] == ["Long", "Long (part 2)", "Long (part 3)", "Long (part 4)"]
    assert "\n\n".join(text for _, text in documents) == "\n\n".join(paragraphs)
    assert max(len(text.split()) for _, text in documents) <= 800


def test_damaged_wikipedia_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from synth import wikipedia

    broken = tmp_path / "dump.bz2"
    for data in (b"no bzip2", bz2.compress(b"<mediawiki><page><title>x")):
        broken.write_bytes(data)
        monkeypatch.setattr(wikipedia, "dump_path", lambda: broken)
        with pytest.raises(PrimerError, match=r"dump\.bz2 is damaged"):
            list(wikipedia.read_wikipedia(0))
    monkeypatch.undo()
    monkeypatch.setattr(wikipedia, "_FILE", "absent.bz2")
    with pytest.raises(PrimerError, match=r"requirements-bundled\.txt"):
        wikipedia.dump_path()


def test_code_is_spread_over_the_library():
    texts = first_texts(PythonLibrary(kind="python_library"), 0, 150)
    groups = {text.group for text in texts}
    assert len({group.split("/")[0] for group in groups}) > 15
    assert not any(
        re.search(r"(^|/)(tests?|idlelib|lib2to3|encodings|site-packages)/|topics\.py", group) for group in groups
    )
    assert {text.licence for text in texts} == {"PSF-2.0"}
    for text in texts:
        assert 900 < len(text.text) < 45_000, text.title
    whole = [text for text in texts if "(part" not in str(text.title)]
    library = Path(sysconfig.get_path("stdlib"))
    for text in whole[:20]:
        assert text.text == (library / text.group).read_text(encoding="utf-8")
        ast.parse(text.text)


def test_cutting_loses_nothing_and_cuts_before_definitions():
    source = "".join(
        f"# about f{i}\n@decorate\ndef f{i}(x):\n" + "    y = 1\n" * 30 + f"    return x + {i}\n\n\n" for i in range(40)
    )
    source += "class Long:\n    a = 1\n" + "".join(
        f"    # method m{i}\n    def m{i}(self):\n" + "        pass\n" * 50 for i in range(20)
    )
    pieces = cut_definitions(source, longest=3_000)
    assert "".join(pieces) == source
    assert len(pieces) > 6
    assert max(map(len, pieces)) <= 4_000  # the last may have taken a short rest
    for piece in pieces:
        assert re.match(r"# about f|class Long|    # method m", piece), piece[:60]
    assert cut_definitions("def f(:\n" * 1000, longest=100) == ["def f(:\n" * 1000]  # no Python: left whole
    deep = "x = " + "(" * 5000 + ")" * 5000
    assert cut_definitions(deep, longest=100) == [deep]
    paged = source.replace("\n# about", "\n\f\n# about")  # form feeds end no line for the parser
    pieces = cut_definitions(paged, longest=3_000)
    assert "".join(pieces) == paged
    assert all(re.match(r"(\f\n)?# about f|class Long|    # method m", piece) for piece in pieces)


def test_python_library_only_needs_files(tmp_path: Path):
    from synth.python_library import read_python_library

    with pytest.raises(PrimerError, match="holds no Python source files"):
        list(read_python_library(0, tmp_path))
    (tmp_path / "bad.py").write_bytes(b"# coding: utf-8\nx = '\xff'\n" + b"y = 1\n" * 500)
    with pytest.raises(PrimerError, match=r"bad\.py cannot be read"):
        list(read_python_library(0, tmp_path))
