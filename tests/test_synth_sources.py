"""Texts from local files: every format, cleaning and counting, and files that are damaged or absent."""

import bz2
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import WIKIPEDIA, files, problem, prose, recipe, rows_of, write_jsonl

from primer.errors import PrimerError
from primer.recipe import HubDataset, PythonLibrary
from synth.code import build_code
from synth.sources import source_material
from synth.web import build_web


def test_what_an_interrupted_build_left_is_replaced(tmp_path: Path):
    source = files(write_jsonl(tmp_path / "a.jsonl", ({"text": prose(i)} for i in range(20))))
    folder = tmp_path / "partial"
    folder.mkdir()
    for name in ("train.parquet", "train-00000.parquet", "train-00007.parquet"):
        (folder / name).write_bytes(b"half a file")
    build_web(recipe(source), folder)
    assert len(rows_of(folder)) == 20


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
