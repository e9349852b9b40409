"""Parts: together they are the whole source, whoever reads them, and what they hold is decided by the recipe."""

import gzip
import json
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import WIKIPEDIA, files, parts_of, prose, repositories, texts_of, write_jsonl

from primer.errors import PrimerError
from primer.recipe_corpora import LocalFiles, PythonLibrary
from synth.parts import deal, equal_spans, parts_wanted
from synth.sources import AnySource, OpenedSource, open_source
from synth.text import SourceText

MANY = 320_000_000  # characters: ten parts


def read_part(opened: OpenedSource, part: int) -> list[SourceText]:
    return list(opened.read(part))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.parts._LEAST_BYTES", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind that can be dealt or divided: 700 texts."""
    write_jsonl(tmp_path / "large.jsonl", ({"text": prose(i, words=5 + i % 40)} for i in range(300)))
    pq.write_table(pa.table({"text": [prose(i) for i in range(300, 500)]}), tmp_path / "a.parquet", row_group_size=9)
    for i in range(5):
        lines = "".join(json.dumps({"text": prose(500 + 20 * i + j)}) + "\n" for j in range(20))
        (tmp_path / f"{i}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for i in range(600, 700):
        (tmp_path / f"{i}.txt").write_text(prose(i), encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("small_parts")
def test_the_parts_of_files_are_the_whole(folder: Path):
    source = files(folder / "*.*")
    parts = parts_of(source, characters=MANY)
    assert len(parts) == 10
    texts = [text.text for part in parts for text in part]
    assert len(texts) == 700
    assert {text.split()[2] for text in texts} == {str(i) for i in range(700)}
    sizes = [sum(len(text.text) for text in part) for part in parts]
    assert max(sizes) < 2 * min(sizes)
    assert sorted(texts) == sorted(texts_of(source)) == sorted(texts_of(source, characters=64_000_000))


@pytest.mark.usefixtures("small_parts")
def test_parts_are_the_same_in_any_order_of_reading_and_in_other_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder)
    opened = open_source(files("*.jsonl", "*.parquet"), "web.source", 0, MANY)
    here = [list(opened.read(part)) for part in reversed(range(opened.parts))][::-1]
    monkeypatch.chdir("/")
    assert [list(pickle.loads(pickle.dumps(opened)).read(part)) for part in range(opened.parts)] == here
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        there = pool.map(partial(read_part, opened), range(opened.parts))
        assert list(there) == here


@pytest.mark.usefixtures("small_parts")
def test_the_seed_decides_which_texts_a_part_holds_and_in_what_order(folder: Path):
    source = files(folder / "*.txt")
    first, again, other = (parts_of(source, seed, MANY) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    names = [text.title for text in first[0]]
    assert names != sorted(map(str, names))


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_is_divided_between_its_lines_wherever_it_is_cut(tmp_path: Path):
    rows = [{"text": "x" * (i % 7) * 30 + f" {i}"} for i in range(200)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    size = path.stat().st_size
    for characters in (64_000_000, 32_000_000 * 9, 32_000_000 * size):
        opened = open_source(files(path), "web.source", 0, characters)
        texts = [text for part in range(opened.parts) for text in opened.read(part)]
        assert sorted(text.text for text in texts) == sorted(row["text"] for row in rows)
        assert len({text.origin for text in texts}) == 200
    path.write_text(path.read_text(encoding="utf-8") + '{"text": 7}\n', encoding="utf-8")
    opened = open_source(files(path), "web.source", 0, 64_000_000)
    with pytest.raises(PrimerError, match=r"a\.jsonl, line \d+ after byte [\d,]+: column 'text' holds int") as caught:
        [list(opened.read(part)) for part in range(opened.parts)]
    place, start = (int(word.strip(":").replace(",", "")) for word in str(caught.value).split()[2:6:3])
    rest = path.read_bytes()[start - 1 :].split(b"\n", 1)[1]
    assert rest.split(b"\n")[place - 1] == b'{"text": 7}'


def test_small_sources_are_one_part(folder: Path):
    for source in (files(folder / "*.*"), WIKIPEDIA, PythonLibrary(kind="python_library")):
        assert open_source(source, "source", 0, 10**12).parts == 1


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_large_parquet_file_is_named(folder: Path):
    (folder / "a.parquet").write_bytes(b"junk" * 1000)
    with pytest.raises(PrimerError, match=r"a\.parquet cannot be read"):
        open_source(files(folder / "*.*"), "web.source", 0, MANY)


def test_errors_reach_other_processes_whole(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\0")
    source = files(tmp_path / "a.txt")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(PrimerError) as caught:
        pool.submit(read_part, open_source(source, "web.source", 0, 1), 0).result()
    assert "is not text" in caught.value.problem
    assert "Remove the file" in caught.value.remedy
    assert str(caught.value) == f"{caught.value.problem}\n{caught.value.remedy}"


@pytest.mark.parametrize("kind", ["files", "repositories", "library"])
def test_an_opened_source_is_plain_data(kind: str, tmp_path: Path):
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    sources: dict[str, AnySource] = {
        "files": LocalFiles(kind="files", paths=[str(tmp_path / "a.py")], text_column="text"),
        "repositories": repositories(tmp_path),
        "library": PythonLibrary(kind="python_library"),
    }
    opened = open_source(sources[kind], "code.source", 0, 1000)
    again = pickle.loads(pickle.dumps(opened))
    assert next(again.read(0)) == next(opened.read(0))
    json.dumps(again.facts)


def test_dealing_loses_nothing_and_makes_equal_parts():
    numbers = random.Random(0)
    for count, parts in ((1, 5), (7, 3), (100, 8), (1000, 30)):
        sizes = [int(numbers.paretovariate(1.5) * 100) for _ in range(count)]
        dealt = deal(range(count), sizes, parts, "0 x")
        assert sorted(i for part in dealt for i in part) == list(range(count))
        assert len(dealt) == min(count, parts)
        loads = [sum(sizes[i] for i in part) for part in dealt]
        assert max(loads) <= max(max(sizes), 4 / 3 * sum(sizes) / len(dealt) + 1)
        assert dealt == deal(range(count), sizes, parts, "0 x")
    assert deal([], [], 4, "0 x") == ((),)
    assert all(deal(range(8), [0] * 8, 4, "0 x"))


def test_spans_cover_everything_once():
    numbers = random.Random(0)
    for _ in range(200):
        sizes = [numbers.randrange(100) for _ in range(numbers.randrange(1, 50))]
        wanted = numbers.randrange(1, 20)
        spans = equal_spans(sizes, wanted)
        assert [i for a, b in spans for i in range(a, b)] == list(range(len(sizes)))
        assert len(spans) <= wanted
        assert all(sum(sizes[a:b]) <= sum(sizes) / wanted + max(sizes) for a, b in spans)


def test_how_many_parts_an_amount_of_text_makes():
    assert [parts_wanted(n) for n in (1, 32_000_000, 32_000_001, 10**9)] == [1, 1, 2, 32]
    assert parts_wanted(10**9, total_bytes=5_000_000) == 5
    assert parts_wanted(10**9, total_bytes=0) == 1
