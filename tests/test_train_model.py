from __future__ import annotations

import pytest
import torch
from decoder_samples import TINY, WIDE, make_model, make_tokens
from torch.nn import functional as F

from primer.recipe import Recipe
from primer.recipe_train import CODEGEN_VOCABULARY_SIZE
from train.attention import attend, attention_mask
from train.cpu import prefer_onednn
from train.head_loss import chunk_places, head_loss, loss_and_gradient
from train.model import Phi
from train.shape import Shape, flops_per_token, parameter_count

PHI_1_5 = Shape.of(Recipe(name="paper").model, CODEGEN_VOCABULARY_SIZE)


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
    model, tokens = make_model(shape), make_tokens(shape, 4)
    with FlopCounterMode(display=False) as counter:
        model.logits(tokens).square().sum().backward()
    assert counter.get_total_flops() == flops_per_token(shape, causal=False) * tokens.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_chunked_loss_and_its_gradients_equal_the_plain_ones(dtype: torch.dtype, biased: bool):
    generator = torch.Generator().manual_seed(0)
    places, width, vocabulary = 700, 24, 4000  # several chunks, the last one short
    hidden = torch.randn(places, width, generator=generator, requires_grad=True)
    weight = (torch.randn(vocabulary, width, generator=generator) * 0.2).requires_grad_()
    bias = torch.randn(vocabulary, generator=generator, requires_grad=True) if biased else None
    targets = torch.randint(0, vocabulary, (places,), generator=generator)
    given = [x for x in (hidden, weight, bias) if x is not None]
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.25, given)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = head_loss(hidden, weight, bias, targets)
        with torch.no_grad():
            assert head_loss(hidden, weight, bias, targets) == loss
    loss.mul(0.25).backward()
    loose = dtype == torch.bfloat16
    torch.testing.assert_close(loss, expected, rtol=1e-2 if loose else 1e-5, atol=0)
    for parameter, gradient in zip(given, wanted, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - gradient).norm() / gradient.norm()
        assert error < (2e-2 if loose else 1e-5)


def test_loss_of_a_certain_or_hopeless_prediction_is_exact():
    logits = torch.tensor([[300.0, 0.0, -300.0], [12.0, 0.0, 0.0]])
    for row, target in [(0, 0), (0, 2), (1, 0), (1, 1)]:
        one, word = logits[row : row + 1], torch.tensor([[target]])
        loss, gradient, _ = loss_and_gradient(one, word)
        exact = one.double().requires_grad_()
        expected = F.cross_entropy(exact, word[0], reduction="sum")
        expected.backward()
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=2e-7)
        torch.testing.assert_close(gradient.double(), exact.grad, rtol=1e-6, atol=2e-7)


def test_chunks_of_the_head_come_out_even():
    assert chunk_places("cuda", CODEGEN_VOCABULARY_SIZE) == 4096
    assert chunk_places("cpu", CODEGEN_VOCABULARY_SIZE) == 128
    assert chunk_places("cpu", 4096) == 256
    assert chunk_places("cuda", 2**30) == 128


def test_no_place_sees_what_follows_it():
    model, tokens = make_model(TINY), make_tokens(TINY, batch=1)
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % TINY.vocabulary
    with torch.no_grad():
        before, after = model.logits(tokens), model.logits(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=1e-5, rtol=0)
    assert (before[:, 20:] - after[:, 20:]).abs().max() > 1e-2


@pytest.mark.parametrize("length", [1, 33, 600])
def test_attention_is_that_of_pytorch(length: int):
    query, key, value = torch.randn(3, 3, 2, length, 16, generator=torch.Generator().manual_seed(0))  # heads first
    mask = attention_mask(torch.zeros(2, length), None, None, head_dimension=16, dropout=0.0)
    assert (mask is None) == (length == 600)  # explicit products up to 512 places
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)
    torch.testing.assert_close(attend(query, key, value, mask), expected, atol=1e-5, rtol=1e-5)


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
