"""Web and code corpora from the real packages, from local files, and from sources that are damaged or absent."""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from primer.documents import SPLITS, corpus_hashes, read_documents, text_hash
from primer.errors import PrimerError
from primer.recipe import Code, Corpus, HubDataset, LocalFiles, PythonLibrary, Recipe, Web, WebSample
from primer.run import Built
from synth.code import build_code
from synth.python_library import cut_definitions
from synth.sources import source_material
from synth.text import clean
from synth.web import build_web
from synth.wikipedia import article_documents

WIKIPEDIA = WebSample(kind="wikipedia_sample")


def recipe(source: WebSample | HubDataset | LocalFiles, seed: int = 0, held_out: float = 0.3, **web: Any) -> Recipe:
    return Recipe(
        name="x", seed=seed, web=Web(source=source, **web), corpus=Corpus(held_out_share=held_out), code=Code()
    )


def files(*paths: Path | str, column: str = "text") -> LocalFiles:
    return LocalFiles(kind="files", paths=[str(p) for p in paths], text_column=column)


def prose(n: int, words: int = 50) -> str:
    return f"Document number {n} " + " ".join(f"word{n}x{i}" for i in range(words)) + "."


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    return [row for s in ([split] if split else SPLITS) for row in read_documents(folder, s)]


def problem(source: LocalFiles | HubDataset, folder: Path) -> str:
    """The message of the error that building from a source gives; no corpus file may be left behind."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(PrimerError) as caught:
        build_web(recipe(source), folder)
    assert not list(folder.iterdir())
    return f"{caught.value}"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    folder = tmp_path_factory.mktemp("web")
    return folder, build_web(recipe(WIKIPEDIA, characters=500_000), folder)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    folder = tmp_path_factory.mktemp("code")
    return folder, build_code(Recipe(name="x", code=Code(characters=800_000)), folder, set())


# Wikipedia


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
        assert sum(p.startswith("- ") for p in paragraphs) <= len(paragraphs)
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

    assert build(3, 0) == build(3, 1)
    assert build(3, 2)["train.parquet"] != build(4, 3)["train.parquet"]


def test_what_an_interrupted_build_left_is_replaced(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", ({"text": prose(i)} for i in range(20))))
    folder = tmp_path / "partial"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"half a file")
    build_web(recipe(source), folder)
    assert len(rows_of(folder)) == 20


# Code


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


# Local files


def test_every_format_gives_the_same_texts(tmp_path: Path):
    rows = [{"text": prose(i), "title": f"T{i}"} for i in range(40)]
    lines = "".join(json.dumps(row) + "\n\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(lines))
    with pa.output_stream(str(tmp_path / "d.jsonl.zst"), compression="zstd") as stream:
        stream.write(lines)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "plain").mkdir()
    for i, row in enumerate(rows):
        (tmp_path / "plain" / f"{i}.txt").write_text(row["text"], encoding="utf-8")
    expected = {row["text"] for row in rows}
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.bz2", "d.jsonl.zst", "e.parquet", "plain/*.txt"):
        folder = tmp_path / f"out-{name.split('/')[0]}"
        folder.mkdir()
        built = build_web(recipe(files(tmp_path / name)), folder)
        assert {row["text"] for row in rows_of(folder)} == expected, name
        assert built.facts["exhausted"] is True
    folder = tmp_path / "all"
    folder.mkdir()
    everything = files(tmp_path / "*.*", tmp_path / "plain" / "**" / "*.txt")
    facts = build_web(recipe(everything), folder).facts
    assert (facts["documents"], facts["duplicates_removed"], facts["files"]) == (40, 200, 45)


def test_texts_are_cleaned_and_duplicates_and_short_ones_counted(tmp_path: Path):
    body = prose(0)
    texts = [
        f"\ufeffCafe\u0301\x00 bar\x07\r\nnext\u2028line  \n\ud800{body}",
        *(prose(i) for i in range(1, 15)),
        prose(3).upper(),  # the same text to `text_hash`
        prose(4) + "  \n",
        "too short",
        "",
        None,
    ]
    source = files(write_jsonl(tmp_path / "a.jsonl", ({"text": t} for t in texts)))
    folder = tmp_path / "out"
    folder.mkdir()
    facts = build_web(recipe(source), folder).facts
    assert (facts["documents"], facts["duplicates_removed"], facts["too_short"]) == (15, 2, 3)
    assert f"Café bar\nnext\nline\n{body}" in {row["text"] for row in rows_of(folder)}


def test_the_take_stops_at_its_size(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", ({"text": prose(i)} for i in range(100))))
    folder = tmp_path / "out"
    folder.mkdir()
    facts = build_web(recipe(source, characters=20_000), folder).facts
    assert 19_000 < facts["characters"] <= 20_000
    assert facts["exhausted"] is False
    assert facts["documents"] < 100


TEXT = json.dumps({"text": prose(1)}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", TEXT + b'{"text": "cut of', "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", TEXT * 2 + b'{"text": "\xff"}', "a.jsonl, line 3: not UTF-8: byte 10 is 0xff"),
        ("a.jsonl", TEXT + b'{"text": "nul \0 byte"}', "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", TEXT + b"[1, 2]", "a.jsonl, line 2: holds a list"),
        ("a.jsonl", TEXT + b'{"text": 7}', "a.jsonl, line 2: column 'text' holds int (7)"),
        (
            "a.jsonl",
            TEXT + b'{"body": "x", "id": 1}',
            "a.jsonl, line 2: there is no column 'text'; there are 'body', 'id'",
        ),
        ("a.jsonl", TEXT + b"[" * 100_000, "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b"", "holds no usable document: it is empty"),
        ("a.jsonl", b"\n\n\n", "holds no usable document: it is empty"),
        ("a.jsonl", b'{"text": "few words"}\n', "of 1 texts, 1 have fewer than 40 words"),
        ("a.jsonl.gz", gzip.compress(TEXT * 500)[:-20], "the file cannot be read further"),
        ("a.jsonl.gz", b"no gzip", "after line 0: the file cannot be read further"),
        ("a.jsonl.zst", b"no zstandard", "after line 0: the file cannot be read further"),
        ("a.jsonl.bz2", b"no bzip2", "after line 0: the file cannot be read further"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read"),
        ("a.txt", b"", "of 1 texts, 1 have fewer than 40 words"),
        ("a.txt", b"binary \0 data", "is not text: byte 7 is NUL"),
        ("a.txt", "Grüße".encode("latin-1"), "not UTF-8: byte 2 is 0xfc"),
        ("a.csv", b"text\nx\n", "is of a kind that Primer does not read"),
        ("a.gz", b"", "is of a kind that Primer does not read"),
    ],
)
def test_damaged_files_are_named_with_the_place(name: str, data: bytes, said: str, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    message = problem(files(tmp_path / name), tmp_path / "out")
    assert said in message
    assert name in message


def test_parquet_without_the_column_or_with_numbers_in_it(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    assert "a.parquet: there is no column 'text'; there are 'body', 'n'" in problem(files(path), tmp_path / "out")
    assert "a.parquet, row 1: column 'n' holds int (1)" in problem(files(path, column="n"), tmp_path / "out")


def test_parquet_with_bytes_that_are_not_utf8(tmp_path: Path):
    path = tmp_path / "a.parquet"
    damaged = pa.array([b"ok", b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": damaged}), path)
    assert "rows 1 to 2: not UTF-8" in problem(files(path), tmp_path / "out")


def test_damage_inside_a_parquet_file(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [prose(i) for i in range(2000)]}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[2_000:4_000] = bytes(2_000)
    path.write_bytes(data)
    assert "a.parquet cannot be read" in problem(files(path), tmp_path / "out")


def test_paths_that_match_nothing(tmp_path: Path):
    assert "there is no file" in problem(files(tmp_path / "absent.txt"), tmp_path / "out")
    assert "no file matches" in problem(files(tmp_path / "*.txt"), tmp_path / "out")
    assert "is a folder; name the files in it" in problem(files(tmp_path), tmp_path / "out")
    odd = tmp_path / "a[1].txt"  # a name that is also a pattern
    odd.write_text("x", encoding="utf-8")
    assert "1 have fewer than" in problem(files(odd), tmp_path / "out")


def test_huge_lines_and_files_are_refused_before_they_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synth.local_files.LONGEST_TEXT", 1000)
    (tmp_path / "a.jsonl").write_bytes(TEXT + b'{"text": "' + b"x" * 5000 + b'"}\n')
    assert "a.jsonl, line 2: the line is longer than 1,000 bytes" in problem(
        files(tmp_path / "a.jsonl"), tmp_path / "out"
    )
    (tmp_path / "a.txt").write_bytes(b"x" * 5000)
    assert "a.txt has 5,000 bytes" in problem(files(tmp_path / "a.txt"), tmp_path / "out")


def test_a_first_document_larger_than_the_budget_is_an_error(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", [{"text": prose(0)}]))
    with pytest.raises(PrimerError, match=r"longer than web\.characters \(50\)"):
        build_web(recipe(source, characters=50), tmp_path)


def test_files_that_change_make_the_corpus_again(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}]))
    before = source_material(source, "web.source")
    assert before == source_material(source, "web.source")
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a longer one"}])
    assert source_material(source, "web.source") != before
    for other in (WIKIPEDIA, PythonLibrary(kind="python_library")):
        assert source_material(other, "web.source")


# Hub data sets (a local folder is read by the same library in the same way; no network)


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # After a stream's end the library waits 5 s for its network threads; a local folder has none.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    folder = tmp_path / "dataset"
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
        table = pa.table({"text": [f"{name} {prose(i)}" for i in range(60)], "n": list(range(60))})
        pq.write_table(table, folder / name / "train.parquet")
    configurations = "".join(f"- config_name: {n}\n  data_files: {n}/*.parquet\n" for n in ("first", "second"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n", encoding="utf-8")
    return str(folder)


def test_a_data_set_is_streamed_in_an_order_of_the_seed(hub_folder: str, tmp_path: Path):
    source = HubDataset(kind="dataset", path=hub_folder, name="second")
    texts = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        facts = build_web(recipe(source, seed=seed, characters=15_000), folder).facts
        assert facts["exhausted"] is False
        texts.append({row["id"]: row["text"] for row in rows_of(folder)})
        assert all(text.startswith("second Document") for text in texts[-1].values())
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "available configs: ['first', 'second']"),
        (
            {"name": "third"},
            "has no configuration 'third': BuilderConfig 'third' not found. Available: ['first', 'second']",
        ),
        ({"split": "test"}, "Bad split: test. Available splits: ['train']"),
        ({"split": "train[:10]"}, "slices cannot be streamed"),
        ({"text_column": "body"}, "there is no column 'body'; there are 'n', 'text'"),
        ({"text_column": "n"}, "column 'n' holds int"),
    ],
)
def test_mistakes_about_a_data_set_are_explained(change: dict[str, Any], said: str, hub_folder: str, tmp_path: Path):
    settings = {"kind": "dataset", "path": hub_folder, "name": "first"} | change
    assert said in problem(HubDataset(**settings), tmp_path / "out")


def test_a_damaged_data_set_is_named(hub_folder: str, tmp_path: Path):
    (Path(hub_folder) / "first" / "train.parquet").write_bytes(b"junk")
    source = HubDataset(kind="dataset", path=hub_folder, name="first")
    assert "dataset (first), split train cannot be read" in problem(source, tmp_path / "out")


def test_a_data_set_without_data_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    source = HubDataset(kind="dataset", path=str(tmp_path / "empty"))
    assert "empty, split train cannot be read" in problem(source, tmp_path / "out")


_HUB_PROGRAM = """
import http.server, os, sys, threading, time
from pathlib import Path
status, header = sys.argv[2:4]
if status == "closed":
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
else:
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(status))
            self.send_header("X-Error-Code", header)
            self.send_header("Content-Length", "0")
            self.end_headers()
        do_HEAD = do_GET
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from primer.errors import PrimerError
from primer.recipe import HubDataset, Recipe, Web
from synth.web import build_web
source = HubDataset(kind="dataset", path="some/dataset")
started = time.monotonic()
try:
    build_web(Recipe(name="x", web=Web(source=source)), Path(sys.argv[1]))
except PrimerError as error:
    print(error)
assert time.monotonic() - started < 15
"""


@pytest.mark.parametrize(
    ("status", "header", "said"),
    [
        ("closed", "", "cannot be read from the hub (ConnectError"),
        ("401", "RepoNotFound", "the hub has no data set 'some/dataset'"),
        ("403", "GatedRepo", "the data set 'some/dataset' is gated"),
        ("500", "", "cannot be read from the hub (HfHubHTTPError"),
    ],
)
def test_a_hub_that_cannot_help_says_so_quickly(status: str, header: str, said: str, tmp_path: Path):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()
    }
    command = [sys.executable, "-c", _HUB_PROGRAM, str(tmp_path), status, header]
    process = subprocess.run(
        command,
        env=environment | {"HF_HOME": str(tmp_path / "home")},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert said in process.stdout
    assert not list(tmp_path.glob("*.parquet"))


def test_a_hub_that_may_not_be_asked(tmp_path: Path):
    source = HubDataset(kind="dataset", path="some/dataset")
    assert "HF_HUB_OFFLINE forbids asking it" in problem(source, tmp_path / "out")


# The documentation


def test_the_recipe_snippets_of_the_documentation_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from primer.recipe_file import load_recipe

    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2
    recipes = []
    for number, snippet in enumerate(snippets):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"name: snippet\ncorpus: {{held_out_share: 0.4}}\n{snippet}", encoding="utf-8")
        recipes.append(load_recipe(path))
    assert isinstance(recipes[0].web.source, HubDataset)
    local = recipes[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("data/web", "data/more/deep", "src/project/inner", "web", "code"):
        (tmp_path / folder).mkdir(parents=True)
    pq.write_table(pa.table({"content": [prose(i) for i in range(10)]}), "data/web/a.parquet")
    lines = "".join(json.dumps({"content": prose(i)}) + "\n" for i in range(5, 20)).encode()
    Path("data/more/deep/a.jsonl.gz").write_bytes(gzip.compress(lines))
    for i in range(10):
        Path(f"src/project/inner/{i}.py").write_text(f"def f{i}():\n" + f"    print('a line of {i}')\n" * 9)
    assert build_web(local, tmp_path / "web").facts["documents"] == 20
    assert build_code(local, tmp_path / "code", set()).facts["documents"] == 10
