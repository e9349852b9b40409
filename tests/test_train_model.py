from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_train import CODEGEN_VOCABULARY_SIZE
from train.attention import causal_attention, explicit_attention
from train.cpu import prefer_onednn
from train.export import configuration, export_model, from_hugging_face, load_weights, to_hugging_face
from train.head_loss import head_loss
from train.model import Phi
from train.shape import Shape, flops_per_token, parameter_count
from train.tokenizer import codegen_tokenizer

TINY = Shape(layers=3, heads=4, head_dimension=16, rotary_dimension=8, feed_forward=96, context=48, vocabulary=211)
# phi-1.5's full width and vocabulary, two of its 24 layers.
WIDE = Shape(layers=2, heads=32, head_dimension=64, rotary_dimension=32, feed_forward=8192, context=64, vocabulary=4096)
PHI_1_5 = Shape.of(Recipe(name="paper").model, CODEGEN_VOCABULARY_SIZE)


def _model(shape: Shape, seed: int = 0) -> Phi:
    """A model whose biases and norms are not at their initial zeros and ones, lest an exchange of them go unseen."""
    model = Phi(shape)
    model.initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


def _hugging_face(shape: Shape, **changes: Any) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    return PhiForCausalLM(PhiConfig(**{**configuration(shape, 0), **changes})).eval()


def _tokens(shape: Shape, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (batch, shape.context), generator=generator)


def test_default_recipe_is_phi_1_5_to_the_parameter():
    with torch.device("meta"):
        model = Phi(PHI_1_5)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(PHI_1_5) == 1_418_270_720


@pytest.mark.parametrize("shape", [TINY, WIDE])
def test_parameter_count_is_the_model_s(shape: Shape):
    with torch.device("meta"):
        assert sum(p.numel() for p in Phi(shape).parameters()) == parameter_count(shape)


def test_operations_of_phi_1_5_in_both_conventions():
    assert flops_per_token(PHI_1_5, causal=False) == pytest.approx(9.085e9, rel=1e-4)
    assert flops_per_token(PHI_1_5, causal=True) == pytest.approx(8.481e9, rel=1e-4)


def test_operations_agree_with_torch_s_own_count():
    from torch.utils.flop_counter import FlopCounterMode

    shape = Shape(2, 4, 16, 8, 256, 64, 500)
    model, tokens = _model(shape), _tokens(shape, 4)
    with FlopCounterMode(display=False) as counter:
        model.logits(tokens).square().sum().backward()
    assert counter.get_total_flops() == flops_per_token(shape, causal=False) * tokens.numel()


@pytest.mark.parametrize("shape", [TINY, WIDE])
def test_logits_equal_hugging_face_both_ways(shape: Shape):
    tokens = _tokens(shape)
    ours, theirs = _model(shape), _hugging_face(shape)
    with torch.no_grad():
        theirs.load_state_dict(to_hugging_face(ours.state_dict()), strict=True)
        torch.testing.assert_close(ours.logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
        other = _hugging_face(shape)
        ours.load_state_dict(from_hugging_face(other.state_dict()), strict=True)
        torch.testing.assert_close(ours.logits(tokens), other(tokens).logits, atol=1e-4, rtol=0)


def test_gradients_equal_hugging_face():
    ours, theirs, tokens = _model(TINY), _hugging_face(TINY).train(), _tokens(TINY)
    theirs.load_state_dict(to_hugging_face(ours.state_dict()))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    (ours.loss(inputs, targets) / targets.numel()).backward()
    theirs(input_ids=tokens, labels=tokens).loss.backward()
    reference = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in to_hugging_face(
        {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    ).items():
        torch.testing.assert_close(gradient, reference[name], atol=1e-6, rtol=1e-4)


def test_exported_directory_loads_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = codegen_tokenizer()
    shape = Shape(2, 2, 24, 10, 64, 32, CODEGEN_VOCABULARY_SIZE)  # 10 / 24 is no exact fraction
    model, tokens = _model(shape), _tokens(shape)
    export_model(model, tokenizer, tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.INFO):
        loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert not any(report.values()), report
    assert type(loaded).__name__ == "PhiForCausalLM"
    assert loaded.model.layers[0].self_attn.rotary_ndims == 10
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model.logits(tokens), atol=1e-4, rtol=0)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == words.eos_token_id == 50_256
    assert loaded.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False).shape[0] == 1
    again = Phi(shape)
    load_weights(again, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_damaged_or_foreign_weights_are_an_error(tmp_path: Path):
    model = _model(TINY)
    with pytest.raises(PrimerError, match=r"model\.safetensors"):
        load_weights(model, tmp_path)
    export_model(model, codegen_tokenizer(), tmp_path)
    with pytest.raises(PrimerError, match="does not hold the weights of this model"):
        load_weights(_model(WIDE), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PrimerError, match="does not hold the weights of this model"):
        load_weights(model, tmp_path)


def test_transformers_saves_what_we_load(tmp_path: Path):
    theirs, ours, tokens = _hugging_face(TINY), _model(TINY), _tokens(TINY)
    theirs.save_pretrained(tmp_path)
    load_weights(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    saved = json.loads((tmp_path / "config.json").read_text())
    written = configuration(TINY, 0)
    assert {key: saved[key] for key in written} == written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunked_loss_and_its_gradients_equal_the_plain_ones(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    places, width, vocabulary = 700, 24, 4000  # several chunks, the last one short
    hidden = torch.randn(places, width, generator=generator, requires_grad=True)
    weight = (torch.randn(vocabulary, width, generator=generator) * 0.2).requires_grad_()
    bias = torch.randn(vocabulary, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocabulary, (places,), generator=generator)
    expected = F.cross_entropy(hidden @ weight.T + bias, targets, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.25, (hidden, weight, bias))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = head_loss(hidden, weight, bias, targets)
    loss.mul(0.25).backward()
    loose = dtype == torch.bfloat16
    torch.testing.assert_close(loss, expected, rtol=1e-2 if loose else 1e-5, atol=0)
    for parameter, gradient in zip((hidden, weight, bias), wanted, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - gradient).norm() / gradient.norm()
        assert error < (2e-2 if loose else 1e-5)


def test_no_place_sees_what_follows_it():
    model, tokens = _model(TINY), _tokens(TINY, batch=1)
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % TINY.vocabulary
    with torch.no_grad():
        before, after = model.logits(tokens), model.logits(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=1e-5, rtol=0)
    assert (before[:, 20:] - after[:, 20:]).abs().max() > 1e-2


@pytest.mark.parametrize("length", [1, 33, 600])
def test_both_attentions_agree(length: int):
    query, key, value = torch.randn(3, 2, 2, length, 16, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(explicit_attention(query, key, value), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(causal_attention(query, key, value), expected, atol=1e-5, rtol=1e-5)


def test_the_faster_products_stay_in_single_precision():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        prefer_onednn()
        a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(0))
        exact = a.double() @ b.double()
        assert (a @ b - exact).abs().max() / exact.abs().max() < 1e-5
    finally:
        matmul.fp32_precision = before


def test_initial_weights_depend_on_the_seed_alone():
    first, same, other = Phi(TINY), Phi(TINY), Phi(TINY)
    first.initialize(1)
    torch.randn(10)  # the state of the global generator does not matter
    same.initialize(1)
    other.initialize(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not first.head.bias.any()
