"""Texts from local files: every format, and files that are damaged or absent."""

import bz2
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import WIKIPEDIA, files, parts_of, problem, prose, repositories, texts_of, write_jsonl

from primer.recipe_corpora import HubDataset, PythonLibrary
from synth.sources import open_source, source_material


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
    expected = sorted(row["text"] for row in rows)
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.bz2", "d.jsonl.zst", "e.parquet", "plain/*.txt"):
        assert sorted(texts_of(files(tmp_path / name))) == expected, name
    everything = open_source(files(tmp_path / "*.*", tmp_path / "plain" / "**" / "*.txt"), "web.source", 0, 3_000_000)
    assert everything.facts == {"files": 45}
    assert len([text for part in range(everything.parts) for text in everything.read(part)]) == 240


def test_titles_addresses_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("a.jsonl"), [{"text": "x", "title": "T", "url": "http://a.b/"}, {"text": None, "title": 7}])
    Path("b.txt").write_text("y", encoding="utf-8")
    [first, second] = parts_of(files("a.jsonl"))[0]
    assert (first.text, first.title, first.origin, first.group) == ("x", "T", "http://a.b/", "")
    assert (second.text, second.title, second.origin) == ("", None, "a.jsonl, line 2")
    opened = open_source(files("b.txt"), "web.source", 0, 100)
    monkeypatch.chdir("/")  # where a worker process may run
    [plain] = opened.read(0)
    assert (plain.text, plain.title, plain.origin, plain.group) == ("y", "b.txt", "b.txt", "b.txt")


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
        ("a.jsonl.gz", gzip.compress(TEXT * 500)[:-20], "the file cannot be read further"),
        ("a.jsonl.gz", b"no gzip", "after line 0: the file cannot be read further"),
        ("a.jsonl.zst", b"no zstandard", "after line 0: the file cannot be read further"),
        ("a.jsonl.bz2", b"no bzip2", "after line 0: the file cannot be read further"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read"),
        ("a.txt", b"binary \0 data", "is not text: byte 7 is NUL"),
        ("a.txt", "Grüße".encode("latin-1"), "not UTF-8: byte 2 is 0xfc"),
        ("a.csv", b"text\nx\n", "is of a kind that Primer does not read"),
        ("a.gz", b"", "is of a kind that Primer does not read"),
    ],
)
def test_damaged_files_are_named_with_the_place(name: str, data: bytes, said: str, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    message = problem(files(tmp_path / name))
    assert said in message
    assert name in message


def test_parquet_without_the_column_or_with_numbers_in_it(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    assert "a.parquet: there is no column 'text'; there are 'body', 'n'" in problem(files(path))
    assert "a.parquet, row 1: column 'n' holds int (1)" in problem(files(path, column="n"))


def test_parquet_with_bytes_that_are_not_utf8(tmp_path: Path):
    path = tmp_path / "a.parquet"
    damaged = pa.array([b"ok", b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": damaged}), path)
    assert "rows 1 to 2: not UTF-8" in problem(files(path))


def test_damage_inside_a_parquet_file(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [prose(i) for i in range(2000)]}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[2_000:4_000] = bytes(2_000)
    path.write_bytes(data)
    assert "a.parquet cannot be read" in problem(files(path))


def test_paths_that_match_nothing(tmp_path: Path):
    assert "there is no file" in problem(files(tmp_path / "absent.txt"))
    assert "no file matches" in problem(files(tmp_path / "*.txt"))
    assert "is a folder; name the files in it" in problem(files(tmp_path))
    odd = tmp_path / "a[1].txt"  # a name that is also a pattern
    odd.write_text("x", encoding="utf-8")
    assert texts_of(files(odd)) == ["x"]


def test_huge_lines_and_files_are_refused_before_they_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synth.local_files.LONGEST_TEXT", 1000)
    (tmp_path / "a.jsonl").write_bytes(TEXT + b'{"text": "' + b"x" * 5000 + b'"}\n')
    assert "a.jsonl, line 2: the line is longer than 1,000 bytes" in problem(files(tmp_path / "a.jsonl"))
    (tmp_path / "a.txt").write_bytes(b"x" * 5000)
    assert "a.txt has 5,000 bytes" in problem(files(tmp_path / "a.txt"))


def test_files_that_change_make_the_corpus_again(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}]))
    before = source_material(source, "web.source")
    assert before == source_material(source, "web.source")
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a longer one"}])
    assert source_material(source, "web.source") != before
    for other in (WIKIPEDIA, PythonLibrary(kind="python_library")):
        assert source_material(other, "web.source")
    code = tmp_path / "repository" / "inner" / "a.py"
    code.parent.mkdir(parents=True)
    marks = set()
    for text in ("x = 1\n", "x = 1\ny = 2\n"):
        code.write_text(text, encoding="utf-8")
        marks.add(source_material(repositories(tmp_path / "repository"), "code.source")["repositories"])
    assert len(marks) == 2


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
    for folder in ("data/web", "data/more/deep", "src/project/inner"):
        (tmp_path / folder).mkdir(parents=True)
    pq.write_table(pa.table({"content": [prose(i) for i in range(10)]}), "data/web/a.parquet")
    lines = "".join(json.dumps({"content": prose(i)}) + "\n" for i in range(5, 20)).encode()
    Path("data/more/deep/a.jsonl.gz").write_bytes(gzip.compress(lines))
    for i in range(10):
        Path(f"src/project/inner/{i}.py").write_text(f"def f{i}():\n" + f"    print('a line of {i}')\n" * 9)
    assert len(texts_of(local.web.source)) == 25
    assert len(texts_of(local.code.source)) == 10
