from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from train_samples import make_shards, texts

from primer.recipe import SourceName
from train import completions
from train.completions import complete, shown
from train.hardware import Hardware
from train.model import Phi
from train.shape import Shape
from train.shards import Shard
from train.tokenizer import codegen_tokenizer, encode_documents, end_of_text, trained_tokenizer
from train.validation import Validation

_CPU = Hardware(torch.device("cpu"), "fp32", "CPU", None)


@pytest.fixture(scope="module")
def tokenizer():
    return trained_tokenizer({"web": lambda: iter(texts("web", 40))}, 300)


def _shards(folder: Path, tokenizer: Tokenizer) -> dict[SourceName, Shard]:
    return make_shards(folder, tokenizer, {"web": 20, "code": 1})


def _model(vocabulary: int = 300, context: int = 32, seed: int = 0) -> Phi:
    model = Phi(Shape(2, 2, 8, 4, 64, context, vocabulary))
    model.initialize(seed)
    with torch.no_grad():
        model.embedding.weight.mul_(40)  # so that choices differ by more than rounding
    return model


def _straight(model: Phi, tokens: np.ndarray, context: int) -> float:
    """Summed loss of each token after the first, a window at a time."""
    total = torch.zeros(())
    for start in range(0, len(tokens) - 1, context):
        row = torch.from_numpy(tokens[start : start + context + 1].astype(np.int64))[None]
        total += F.cross_entropy(model.logits(row[:, :-1])[0], row[0, 1:], reduction="sum").detach()
    return float(total)


def test_losses_are_those_of_the_first_tokens_of_each_source(tmp_path: Path, tokenizer: Tokenizer):
    shards = _shards(tmp_path, tokenizer)
    model, wanted = _model(), 1000
    found = Validation(shards, 32, wanted).losses(model, _CPU)
    few = len(shards["code"])
    assert few < wanted < len(shards["web"])
    assert found["web"] == pytest.approx(_straight(model, shards["web"].tokens[: wanted + 1], 32) / wanted, rel=1e-5)
    assert found["code"] == pytest.approx(_straight(model, shards["code"].tokens, 32) / (few - 1), rel=1e-5)


def test_bits_per_byte_count_the_bytes_of_the_text(tmp_path: Path, tokenizer: Tokenizer):
    shards = _shards(tmp_path, tokenizer)
    header = shards["web"].header
    found = Validation(shards, 32, 100).bits_per_byte({"web": 2 * math.log(2)})
    assert found == {"web": pytest.approx(2 * header.tokens / header.bytes)}


def test_validation_and_completions_change_nothing_in_a_training(tmp_path: Path, tokenizer: Tokenizer):
    shards = _shards(tmp_path, tokenizer)
    rows = torch.from_numpy(shards["web"].windows(np.arange(4) * 32, 33))

    def trained(look: bool) -> tuple[list[bytes], bytes]:
        torch.manual_seed(5)
        model = _model().train()
        for _ in range(3):
            noise = torch.rand(())  # as dropout would draw
            (model.loss(rows[:, :-1], rows[:, 1:]) * (1 + noise) / rows.numel()).backward()
            if look:
                Validation(shards, 32, 500).losses(model, _CPU)
                complete(model, tokenizer, ["the water"], tokens=4)
                assert model.training
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        weights = [p.detach().numpy().tobytes() for p in model.parameters()]
        return weights, torch.get_rng_state().numpy().tobytes()

    assert trained(look=True) == trained(look=False)


def test_a_compiled_model_is_not_compiled_again_for_validation(tmp_path: Path, tokenizer: Tokenizer):
    model = _model()
    calls = []
    model._compiled_call_impl = lambda tokens: calls.append(tokens.shape) or model.forward(tokens)  # as compile() sets
    Validation(_shards(tmp_path, tokenizer), 32, 100).losses(model, _CPU)
    complete(model, tokenizer, ["the water"], tokens=2)
    assert calls == []
    model(torch.zeros(1, 32, dtype=torch.int64))
    assert calls == [(1, 32)]  # what was compiled is still there


def test_documents_are_kept_apart_where_training_keeps_them_apart(tmp_path: Path, tokenizer: Tokenizer):
    shards = _shards(tmp_path, tokenizer)
    given = []

    class Recording(Phi):
        def loss(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
            given.append((tokens, documents))
            return super().loss(tokens, targets)

    model = Recording(Shape(1, 2, 8, 4, 32, 64, 300))
    Validation(shards, 64, 3000).losses(model, _CPU)
    assert all(documents is None for _, documents in given)
    given.clear()
    Validation(shards, 64, 3000, mask_documents=True).losses(model, _CPU)
    end = end_of_text(tokenizer)
    for tokens, documents in given:
        assert documents.dtype == torch.int32
        ends = (tokens == end).int()
        # The end of a text belongs to the document that it ends.
        assert torch.equal(documents, (ends.cumsum(1) - ends).int())
    assert any(documents.max() > 0 for _, documents in given)


def test_a_completion_is_the_likeliest_token_again_and_again(tokenizer: Tokenizer):
    model, prompt = _model(), "water heat light"
    (ids,) = encode_documents(tokenizer, [prompt])
    wanted = []
    for _ in range(8):
        step = torch.tensor([[*ids, *wanted][-32:]])
        wanted.append(int(model.logits(step)[0, -1].argmax()))
    assert end_of_text(tokenizer) not in wanted
    assert complete(model, tokenizer, [prompt, prompt], tokens=8) == [tokenizer.decode(wanted)] * 2


def test_a_completion_ends_with_the_text_and_knows_no_padding():
    codegen = codegen_tokenizer()
    model = Phi(Shape(1, 1, 4, 2, 4, 16, 51_200))
    model.initialize(0)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias[51_000] = 9.0  # a row of the padding
        model.head.bias[codegen.token_to_id("Ġa")] = 5.0
    assert (
        complete(model, codegen, ["", "x " * 40], tokens=3) == [" a a a"] * 2
    )  # nothing before it, too much before it
    with torch.no_grad():
        model.head.bias[end_of_text(codegen)] = 7.0
    assert complete(model, codegen, ["x"], tokens=3) == [""]


def test_nothing_in_a_completion_reaches_the_terminal_as_a_command():
    line = shown("first\nWhy [bold]?", "\x1b]0;title\x07 red\x9b31m\u202e [red]x\r\nnext" + "y" * 300)
    assert "\n" not in line
    assert all(character.isprintable() for character in line)
    assert r"\x1b]0;title\x07" in line
    assert r"\[red]" in line  # no markup either
    assert line.startswith("[dim]Why")
    assert len(line) < completions._SHOWN + 30
    assert shown("", "") == "[dim][/]"
