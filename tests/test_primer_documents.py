"""Corpus folders: shards, what an interruption leaves, and reading back in order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from primer import documents
from primer.documents import (
    PROVENANCE,
    SPLITS,
    CorpusWriter,
    Document,
    corpus_blocks,
    read_documents,
    sample_documents,
    write_corpus,
)
from primer.errors import PrimerError
from primer.words import text_hash


def document(number: int) -> Document:
    text = f"Document {number} says something."
    return Document(
        id=f"web-{number:06d}", text=text, source="web", hash=text_hash(text), group=f"g{number}", provenance=None
    )


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows a block; a shard ends after the block that brings it to 5,000 bytes."""
    monkeypatch.setattr(documents, "_GROUP_ROWS", 10)
    monkeypatch.setattr(documents, "_SHARD_BYTES", 5_000)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_shards_roll_over_and_are_read_back_in_order(tmp_path: Path, small_shards: None):
    counts = write_corpus(tmp_path, (document(n) for n in range(305)), 0.3, 0)
    shards = names(tmp_path)
    assert "train-00003.parquet" in shards
    assert "held_out-00001.parquet" in shards
    assert len(shards) == len(list(tmp_path.glob("train-*"))) + len(list(tmp_path.glob("held_out-*")))
    rows = {split: list(read_documents(tmp_path, split, ["id", "text"])) for split in SPLITS}
    for split in SPLITS:
        ids = [row["id"] for row in rows[split]]
        assert ids == sorted(ids)
        assert len(ids) == counts[f"{split}_documents"]
        assert sum(len(row["text"]) for row in rows[split]) == counts[f"{split}_characters"]
        for path in sorted(tmp_path.glob(f"{split}-*"))[:-1]:
            assert 5_000 <= path.stat().st_size < 20_000, f"{path.name} is no shard of the size asked for"
    assert len(rows["train"]) + len(rows["held_out"]) == 305
    assert len({row["hash"] for split in SPLITS for row in read_documents(tmp_path, split, ["hash"])}) == 305


def test_long_texts_end_a_block_before_its_rows_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "_GROUP_CHARACTERS", 100)
    write_corpus(tmp_path, (document(n) for n in range(60)), 0.3, 0)
    assert {block.rows for block in corpus_blocks(tmp_path)} <= {1, 2, 3, 4}


def test_blocks_say_where_their_rows_stand_and_which_identities_they_hold(tmp_path: Path, small_shards: None):
    write_corpus(tmp_path, (document(n) for n in range(305)), 0.3, 0)
    rows = [row for split in SPLITS for row in read_documents(tmp_path, split)]
    blocks = corpus_blocks(tmp_path)
    assert sum(block.rows for block in blocks) == 305
    for block in blocks:
        expected = rows[block.first : block.first + block.rows]
        assert block.read() == expected
        assert block.ids == (expected[0]["id"], expected[-1]["id"])


def test_a_sample_comes_from_both_splits_and_from_few_blocks(tmp_path: Path, small_shards: None):
    write_corpus(tmp_path, (document(n) for n in range(305)), 0.3, 0)
    everything = sample_documents(tmp_path, 10_000, 10_000, 0, ["id"])
    assert len({row["id"] for row in everything}) == 305
    some = sample_documents(tmp_path, 20, 4, 0, ["id"])
    assert len(some) == 20
    assert some == sample_documents(tmp_path, 20, 4, 0, ["id"])
    assert some != sample_documents(tmp_path, 20, 4, 1, ["id"])


def test_tries_and_continuations_are_kept(tmp_path: Path):
    made = {field.name: None for field in PROVENANCE} | {"tries": 3, "continuations": 2}
    with CorpusWriter(tmp_path, 0.3, 0) as writer:
        for number in range(40):
            writer.add(Document(**{**document(number), "provenance": made}))  # type: ignore[typeddict-item]
    row = next(read_documents(tmp_path, "train"))
    assert (row["provenance"]["tries"], row["provenance"]["continuations"]) == (3, 2)
    assert row["provenance"]["topic"] is None


def test_an_error_on_the_way_leaves_no_file(tmp_path: Path, small_shards: None):
    def failing() -> Iterator[Document]:
        yield from (document(n) for n in range(305))
        assert "train-00002.parquet" in names(tmp_path), "the error comes when shards are there"
        raise KeyboardInterrupt

    (tmp_path / "notes.txt").write_text("not a shard")
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path, failing(), 0.3, 0)
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_an_empty_split_is_an_error_and_leaves_no_file(tmp_path: Path, count: int):
    with pytest.raises(PrimerError, match=rf"the (train|held_out) split would be empty \({count} documents"):
        write_corpus(tmp_path, (document(n) for n in range(count)), 0.01, 0)
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_leaves_no_file_and_the_first_error_is_told(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
):
    def full(self: pq.ParquetWriter, table: object) -> None:
        raise OSError(28, "No space left on device")

    def filling() -> Iterator[Document]:
        yield from (document(n) for n in range(50))
        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
        yield from (document(n) for n in range(50, 305))

    with pytest.raises(OSError, match="No space left"):
        write_corpus(tmp_path, filling(), 0.3, 0)
    assert names(tmp_path) == []


def test_shards_of_a_killed_build_do_not_survive_the_next(tmp_path: Path):
    code = (
        "import os, sys; from pathlib import Path; from primer import documents; documents._GROUP_ROWS = 10\n"
        "documents._SHARD_BYTES = 5_000; sys.path.insert(0, 'tests')\n"
        "from test_primer_documents import document\n"
        f"with documents.CorpusWriter(Path({str(tmp_path)!r}), 0.3, 0) as writer:\n"
        "    for number in range(305): writer.add(document(number))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert killed.returncode == -9
    assert "train-00003.parquet" in names(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"of an earlier version")
    write_corpus(tmp_path, (document(n) for n in range(1_000, 1_040)), 0.3, 0)
    assert names(tmp_path) == ["held_out-00000.parquet", "train-00000.parquet"]
    assert len([row for split in SPLITS for row in read_documents(tmp_path, split)]) == 40


def test_a_missing_or_damaged_shard_is_named(tmp_path: Path, small_shards: None):
    with pytest.raises(PrimerError, match=r"(?s)train-00000\.parquet is missing.*Delete .* `primer synth`"):
        list(read_documents(tmp_path, "train"))
    write_corpus(tmp_path, (document(n) for n in range(305)), 0.3, 0)
    second = tmp_path / "train-00001.parquet"
    whole = second.read_bytes()
    second.write_bytes(whole[:-100])
    for read in (
        lambda: list(read_documents(tmp_path, "train")),
        lambda: corpus_blocks(tmp_path),
        lambda: sample_documents(tmp_path, 5, 5, 0, ["id"]),
    ):
        with pytest.raises(PrimerError, match=r"train-00001\.parquet cannot be read"):
            read()
    second.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    with pytest.raises(PrimerError, match=r"train-00001\.parquet cannot be read"):
        list(read_documents(tmp_path, "train"))
    second.unlink()
    with pytest.raises(PrimerError, match=r"train-00001\.parquet is missing"):
        list(read_documents(tmp_path, "train"))


def test_the_hash_of_a_text_needs_no_parquet(repository: Path):
    code = "import sys, primer.words; assert 'pyarrow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


@pytest.mark.parametrize(
    ("folder", "said"), [("corpus-code-4765f5b8aeef", "corpus/code: the held_out"), ("mine", "mine: the held_out")]
)
def test_an_empty_split_is_told_by_the_name_of_the_corpus(tmp_path: Path, folder: str, said: str):
    (tmp_path / folder).mkdir()
    with pytest.raises(PrimerError) as caught:
        write_corpus(tmp_path / folder, (document(n) for n in range(4)), 0.001, 0)
    assert caught.value.problem.startswith(said)
    assert "a larger corpus.held_out_share (now 0.001), or another seed" in caught.value.remedy
