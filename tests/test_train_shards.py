from __future__ import annotations

import itertools
import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from train_samples import documents, fill_corpora, recipe, texts

from primer.documents import Block, read_documents, write_corpus
from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.recipe import SOURCES
from primer.run import RunFolder
from train.build_tokens import build_tokens, encode_blocks, split_blocks, spread_texts
from train.encoder import Encoded
from train.shards import Shard, write_encoded, write_shard
from train.stages import complete_tokens
from train.tokenizer import codegen_tokenizer, encode_documents, load_tokenizer, tokenizer_hash, trained_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer({"web": lambda: iter(texts("web", 60))}, 300)


def test_documents_come_back_from_a_shard(tmp_path: Path, tokenizer: Tokenizer):
    items = [*texts("web", 1100, words=9), "", "é\u0000 end"]  # more than one batch; an empty document
    header = write_shard(tmp_path, "web", iter(items), tokenizer)
    shard = Shard(tmp_path, "web", tokenizer_hash(tokenizer))
    shard.verify()
    offsets = np.fromfile(tmp_path / "web.idx", dtype="<u8").astype(int)
    assert header.documents == len(items) == len(offsets) - 1
    assert offsets[-1] == len(shard) == header.tokens
    assert header.bytes == sum(len(item.encode()) for item in items)
    assert shard.tokens.dtype == np.uint16
    for item, begin, end in zip(items, offsets, offsets[1:], strict=False):
        ids = shard.tokens[begin:end].tolist()
        assert ids[-1] == 0
        assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == item


def test_codegen_ids_fit_sixteen_bits_and_larger_vocabularies_get_thirty_two(tmp_path: Path, tokenizer: Tokenizer):
    codegen = codegen_tokenizer()
    assert write_shard(tmp_path, "code", ["\t\t x"], codegen).dtype == "uint16"
    codegen.add_tokens([f"<extra{i}>" for i in range(70_000 - codegen.get_vocab_size())])
    header = write_shard(tmp_path, "web", ["a<extra15000>"], codegen)
    assert header.dtype == "uint32"
    shard = Shard(tmp_path, "web", tokenizer_hash(codegen))
    assert shard.tokens.tolist() == [*next(iter(encode_documents(codegen, ["a<extra15000>"]))), 50_256]
    assert max(shard.tokens) == 65_295


def test_no_documents_is_an_error_and_leaves_no_header(tmp_path: Path, tokenizer: Tokenizer):
    with pytest.raises(PrimerError, match="corpus/web has no documents"):
        write_shard(tmp_path, "web", [], tokenizer)
    assert not (tmp_path / "web.json").exists()


def test_truncated_shard_is_an_error(tmp_path: Path, tokenizer: Tokenizer):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    path = tmp_path / "web.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(PrimerError, match=r"web\.bin has [\d,]+ bytes; its header says") as caught:
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))
    assert "Delete" in caught.value.remedy
    path.unlink()
    with pytest.raises(PrimerError, match="has 0 bytes"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))


def test_changed_byte_is_found(tmp_path: Path, tokenizer: Tokenizer):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    data = bytearray((tmp_path / "web.bin").read_bytes())
    data[7] ^= 1
    (tmp_path / "web.bin").write_bytes(data)
    with pytest.raises(PrimerError, match="checksum differs"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer)).verify()


def test_another_tokenizer_is_an_error(tmp_path: Path, tokenizer: Tokenizer):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    with pytest.raises(PrimerError, match="another tokenizer"):
        Shard(tmp_path, "web", tokenizer_hash(codegen_tokenizer()))


@pytest.mark.parametrize("header", ["", "[]", "{}", '{"format": 2}', "nul", "[" * 100_000, "\x00"])
def test_damaged_header_is_an_error(tmp_path: Path, tokenizer: Tokenizer, header: str):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    (tmp_path / "web.json").write_text(header)
    with pytest.raises(PrimerError, match="is not a shard header") as caught:
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))
    assert "Delete" in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("tokens", float("nan"), "tokens is nan"),
        ("tokens", 12.0, r"tokens is 12\.0"),
        ("tokens", True, "tokens is True"),
        ("tokens", "12", "tokens is '12'"),
        ("tokens", -1, "-1 tokens"),
        ("tokens", 10**30, "its header says 2,000"),
        ("documents", 0, "0 documents"),
        ("documents", 10**9, "documents"),
        ("documents", 4, r"web\.idx has 48 bytes; its header says 40"),
        ("bytes", -5, "-5 bytes"),
        ("sha256", None, "sha256 is None"),
        ("dtype", "float64", "dtype 'float64'"),
        ("dtype", ["uint16"], "dtype is"),
        ("dtype", "uint32", r"web\.bin has [\d,]+ bytes"),
        ("format", 2.0, r"format is 2\.0"),
        ("format", 1, "has format 1; expected 2"),
        ("format", [], r"has format \[\]"),
        ("other", 1, "unexpected keyword argument 'other'"),
    ],
)
def test_a_hostile_header_is_an_error(tmp_path: Path, tokenizer: Tokenizer, key: str, value: object, problem: str):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    path = tmp_path / "web.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(PrimerError, match=problem):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda offsets: offsets[[0, 2, 1, 3, 4, 5]], "does not increase"),
        (lambda offsets: offsets[[0, 1, 1, 3, 4, 5]], "does not increase"),
        (lambda offsets: np.append(offsets[:-1], offsets[-1] + 7), "expected 0 to"),
        (lambda offsets: np.append(offsets[:-1], np.uint64(2**64 - 1)), "expected 0 to"),
        (lambda offsets: np.append(np.uint64(1), offsets[1:]), "goes from 1 to"),
        (lambda offsets: offsets * 0, "does not increase"),
    ],
)
@pytest.mark.parametrize("block", [2, 2**20])
def test_hostile_offsets_are_errors(
    tmp_path: Path,
    tokenizer: Tokenizer,
    change: Callable[[np.ndarray], np.ndarray],
    problem: str,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("train.shards._INDEX_BLOCK", block)
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    path, header = tmp_path / "web.idx", tmp_path / "web.json"
    change(np.fromfile(path, dtype="<u8")).astype("<u8").tofile(path)
    shard = Shard(tmp_path, "web", tokenizer_hash(tokenizer))
    with pytest.raises(PrimerError, match=r"web\.idx has changed"):
        shard.verify()
    # Also where somebody signed it.
    header.write_text(json.dumps({**json.loads(header.read_text()), "index_sha256": file_hash(path)}))
    with pytest.raises(PrimerError, match=problem):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer)).verify()


def test_a_shard_is_read_once_in_a_process_unless_it_changes(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    monkeypatch.setattr("train.shards.file_hash", lambda path: read.append(path.name) or file_hash(path))
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    for _ in range(3):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer)).verify()
    assert read == ["web.bin", "web.idx"]
    data = bytearray((tmp_path / "web.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "web.bin").write_bytes(data)
    with pytest.raises(PrimerError, match="checksum differs"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer)).verify()
    assert read == ["web.bin", "web.idx", "web.bin"]


def test_missing_header_is_an_error(tmp_path: Path, tokenizer: Tokenizer):
    with pytest.raises(PrimerError, match=r"web\.json is missing"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))


def test_a_shard_that_was_not_finished_has_no_header(tmp_path: Path, tokenizer: Tokenizer):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)

    def breaking() -> Iterator[str]:
        yield from texts("web", 600)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, "web", breaking(), tokenizer)
    assert not (tmp_path / "web.json").exists()  # nor the one of the shard before


def test_a_full_disk_is_an_error(tmp_path: Path, tokenizer: Tokenizer):
    (tmp_path / "web.idx").symlink_to("/dev/full")
    with pytest.raises(PrimerError, match=r"The disk of .* is full"):
        write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    assert not (tmp_path / "web.json").exists()


def test_the_offsets_of_many_documents_do_not_gather_in_memory(tmp_path: Path, tokenizer: Tokenizer):
    part = Encoded(bytes(2 * 100_000), np.ones(100_000, dtype=np.int64), 0)
    tracemalloc.start()
    header = write_encoded(tmp_path, "web", (part for _ in range(30)), tokenizer)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.documents == header.tokens == 3_000_000
    assert most < 5_000_000  # those of one part; a list of all would take over 24 million bytes
    Shard(tmp_path, "web", tokenizer_hash(tokenizer)).verify()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    fill_corpora(run)
    complete_tokens(recipe(), run)
    return run


def test_the_stage_writes_both_splits_of_every_source(run: RunFolder):
    facts, folder = run.require("tokens").facts, run.folder("tokens")
    tokenizer = load_tokenizer(folder)
    assert tokenizer_hash(tokenizer) == run.require("tokenizer").facts["tokenizer"] == facts["tokenizer"]
    for source in SOURCES:
        for split, place in (("train", folder), ("held_out", folder / "held-out")):
            shard = Shard(place, source, facts["tokenizer"])
            shard.verify()
            expected = [row["text"] for row in read_documents(run.folder(f"corpus/{source}"), split, ["text"])]
            bounds = shard.offsets.astype(int)
            found = [shard.tokens[a : b - 1].tolist() for a, b in itertools.pairwise(bounds)]
            assert [tokenizer.decode(ids) for ids in found] == expected
            assert facts["sources"][source][f"{split}_tokens"] == len(shard)


def test_an_interrupted_stage_goes_on_with_the_source_that_is_missing(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for path in run.folder("tokens").rglob("*"):
        if path.is_file() and path.name != "web.json":
            (tmp_path / path.relative_to(run.folder("tokens"))).parent.mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / path.relative_to(run.folder("tokens")))
    written: list[str] = []

    def counting(folder: Path, source: str, *rest: Any) -> Any:
        written.append(f"{folder.name == 'held-out'} {source}")
        return write_encoded(folder, source, *rest)

    monkeypatch.setattr("train.build_tokens.write_encoded", counting)
    build_tokens(recipe(), run, tmp_path)
    assert written == ["False web", "True web"]  # the copy lacks both headers
    for name in ("web.bin", "web.idx", "held-out/web.json"):
        assert (tmp_path / name).read_bytes() == (run.folder("tokens") / name).read_bytes()


def test_several_processes_write_the_same_shard(run: RunFolder, tmp_path: Path):
    tokenizer = load_tokenizer(run.folder("tokenizer"))
    blocks = split_blocks(run.folder("corpus/web"), "train") * 7
    one, two = (list(encode_blocks(blocks, tokenizer, processes)) for processes in (1, 2))
    assert [part.ids for part in one] == [part.ids for part in two]
    assert len(one) == 7
    (tmp_path / "train-00000.parquet").write_bytes(b"no parquet")
    broken = [Block(tmp_path / "train-00000.parquet", 0, 0, 1, None)]
    with pytest.raises(PrimerError, match="cannot be read"):
        list(encode_blocks(broken, tokenizer, 2))


def test_of_a_large_corpus_only_spread_parts_are_read_for_the_vocabulary(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    items = texts("web", 4000, words=5)
    write_corpus(tmp_path, documents("web", items), 0.001, 0)
    blocks = split_blocks(tmp_path, "train")
    assert len(blocks) == 4
    monkeypatch.setattr("train.build_tokens.LARGEST_SAMPLE", sum(map(len, items)) // 2)
    found = list(spread_texts(tmp_path, sum(map(len, items))))
    assert found == [row["text"] for block in blocks[::2] for row in block.read(["text"])]
    assert len(list(spread_texts(tmp_path, 0))) == sum(block.rows for block in blocks)
