from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from train_samples import texts

from primer.errors import PrimerError
from train.shards import Shard, write_shard
from train.tokenizer import codegen_tokenizer, encode_documents, tokenizer_hash, trained_tokenizer


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


@pytest.mark.parametrize("header", ["", "[]", "{}", '{"format": 1}'])
def test_damaged_header_is_an_error(tmp_path: Path, tokenizer: Tokenizer, header: str):
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    (tmp_path / "web.json").write_text(header)
    with pytest.raises(PrimerError, match="is not a shard header"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))


def test_missing_header_and_unknown_format_are_errors(tmp_path: Path, tokenizer: Tokenizer):
    with pytest.raises(PrimerError, match=r"web\.json is missing"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))
    write_shard(tmp_path, "web", texts("web", 5), tokenizer)
    values = json.loads((tmp_path / "web.json").read_text())
    (tmp_path / "web.json").write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(PrimerError, match="has format 2"):
        Shard(tmp_path, "web", tokenizer_hash(tokenizer))
