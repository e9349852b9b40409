"""Web and code corpora from what ships with the installation: Wikipedia articles and the standard library."""

import ast
import bz2
import json
import re
import sysconfig
from pathlib import Path

import pytest
from source_samples import WIKIPEDIA, recipe, rows_of

from primer.documents import SPLITS, corpus_hashes
from primer.errors import PrimerError
from primer.recipe import Code, Recipe
from primer.run import Built
from primer.words import text_hash
from synth.code import build_code
from synth.python_library import cut_definitions
from synth.text import clean
from synth.web import build_web
from synth.wikipedia import article_documents


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    folder = tmp_path_factory.mktemp("web")
    return folder, build_web(recipe(WIKIPEDIA, characters=500_000), folder)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    folder = tmp_path_factory.mktemp("code")
    return folder, build_code(Recipe(name="x", code=Code(characters=800_000)), folder, set())


def test_wikipedia_documents_are_clean_prose(web: tuple[Path, Built]):
    rows = rows_of(web[0])
    assert len(rows) > 150
    debris = re.compile(
        r"\{\{|\[\[|\]\]|thumb\||<ref|''|&[a-z]+;|\(\s*[;,]|\(\s*\)|[\ue000-\uf8ff]|Category:|\n\n\n| [,.;]|\bISBN\b"
    )
    for row in rows:
        assert not (found := debris.search(row["text"])), (row["title"], found)
        assert 40 <= len(row["text"].split()) <= 1200, row["title"]
        assert row["title"].split(":")[0] == row["group"].split(":")[0]
        assert row["licence"] == "CC BY-SA 3.0"
        assert row["origin"].startswith("https://en.wikipedia.org/wiki/")
        paragraphs = [p for p in row["text"].split("\n") if p]
        in_lists = sum(len(p.split()) for p in paragraphs if p.startswith("- "))
        assert 2 * in_lists <= len(row["text"].split()), row["title"]
        assert all(re.search(r"[.!?…:][\"'”’)\]]*$", p) for p in paragraphs), row["title"]
    headings = {row["title"].partition(": ")[2].lower() for row in rows}
    assert not headings & {"see also", "references", "external links", "further reading", "bibliography", "notes"}


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


def test_splits_share_no_article_and_facts_agree(web: tuple[Path, Built], code: tuple[Path, Built]):
    for (folder, built), name in ((web, "web"), (code, "code")):
        groups = {split: {row["group"] for row in rows_of(folder, split)} for split in SPLITS}
        assert groups["train"]
        assert groups["held_out"]
        assert not groups["train"] & groups["held_out"]
        rows = rows_of(folder)
        assert sorted(row["id"] for row in rows) == [f"{name}-{i:06d}" for i in range(len(rows))]
        assert all(row["hash"] == text_hash(row["text"]) for row in rows)
        assert len({row["hash"] for row in rows}) == len(rows)
        facts = built.facts
        assert facts["documents"] == facts["train_documents"] + facts["held_out_documents"] == len(rows)
        assert facts["characters"] == sum(len(row["text"]) for row in rows)
        assert facts["groups"] == sum(map(len, groups.values()))
        assert {"duplicates_removed", "too_short", "origin", "licence"} <= set(facts)
        json.dumps(facts)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_take(tmp_path: Path):
    def build(seed: int, number: int) -> dict[str, bytes]:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        build_web(recipe(WIKIPEDIA, seed=seed, characters=150_000, held_out=0.4), folder)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    first = build(3, 0)
    assert build(3, 1) == first
    assert build(4, 2)["train-00000.parquet"] != first["train-00000.parquet"]


def test_code_is_spread_over_the_library(code: tuple[Path, Built]):
    folder, built = code
    rows = rows_of(folder)
    groups = {row["group"] for row in rows}
    assert len({group.split("/")[0] for group in groups}) > 15
    assert not any(
        re.search(r"(^|/)(tests?|idlelib|lib2to3|encodings|site-packages)/|topics\.py", group) for group in groups
    )
    assert {row["licence"] for row in rows} == {"PSF-2.0"}
    assert 700_000 < built.facts["characters"] <= 800_000
    assert built.facts["exhausted"] is False
    for row in rows:
        assert 900 < len(row["text"]) < 45_000, row["title"]
    whole = [row for row in rows if "(part" not in row["title"]]
    library = Path(sysconfig.get_path("stdlib"))
    for row in whole[:20]:
        assert row["text"] == clean((library / row["group"]).read_text(encoding="utf-8"))
        ast.parse(row["text"])


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


def test_a_text_in_another_corpus_is_left_out(code: tuple[Path, Built], tmp_path: Path):
    known = corpus_hashes([code[0]])
    built = build_code(Recipe(name="x", code=Code(characters=400_000)), tmp_path, known)
    assert built.facts["duplicates_removed"] == len(known)
    assert not corpus_hashes([tmp_path]) & known


def test_python_library_only_needs_files(tmp_path: Path):
    from synth.python_library import read_python_library

    with pytest.raises(PrimerError, match="holds no Python source files"):
        list(read_python_library(0, tmp_path))
    (tmp_path / "bad.py").write_bytes(b"# coding: utf-8\nx = '\xff'\n" + b"y = 1\n" * 500)
    with pytest.raises(PrimerError, match=r"bad\.py cannot be read"):
        list(read_python_library(0, tmp_path))
