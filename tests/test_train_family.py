from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from decoder_samples import GROUPED, MISTRAL, MIXTRAL, TINY, WIDE, hugging_face, make_model, make_tokens
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from primer.recipe_train import Model
from train import attention
from train.attention import attend, attention_mask, visibility
from train.experts import balance_loss
from train.model import Phi
from train.names import from_hugging_face, to_hugging_face
from train.shape import Shape, flops_per_token, matrix_parameters, parameter_count

# Three documents in one row, one of them split over nothing, and two in another.
DOCUMENTS = torch.tensor([[0] * 20 + [1] * 3 + [2] * 25, [0] * 30 + [1] * 18], dtype=torch.int32)


@pytest.mark.parametrize("shape", [TINY, WIDE, GROUPED, MISTRAL, replace(MISTRAL, window=None)])
def test_logits_equal_hugging_face_both_ways(shape: Shape):
    tokens = make_tokens(shape)
    ours, theirs = make_model(shape), hugging_face(shape)
    with torch.no_grad():
        theirs.load_state_dict(to_hugging_face(ours.state_dict(), shape), strict=True)
        torch.testing.assert_close(ours.logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
        other = hugging_face(shape)
        ours.load_state_dict(from_hugging_face(other.state_dict(), shape), strict=True)
        torch.testing.assert_close(ours.logits(tokens), other(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("shape", "absolute", "relative"), [(TINY, 1e-6, 1e-4), (GROUPED, 1e-5, 1e-3), (MISTRAL, 1e-5, 1e-3)]
)
def test_gradients_equal_hugging_face(shape: Shape, absolute: float, relative: float):
    ours, theirs, tokens = make_model(shape), hugging_face(shape).train(), make_tokens(shape)
    theirs.load_state_dict(to_hugging_face(ours.state_dict(), shape))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    (ours.loss(inputs, targets) / targets.numel()).backward()
    theirs(input_ids=tokens, labels=tokens).loss.backward()
    reference = {name: p.grad for name, p in theirs.named_parameters()}
    gradients = to_hugging_face({n: p.grad for n, p in ours.named_parameters() if p.grad is not None}, shape)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], atol=absolute, rtol=relative)


@pytest.mark.parametrize("shape", [GROUPED, MISTRAL, MIXTRAL])
def test_parameter_count_is_the_model_s(shape: Shape):
    with torch.device("meta"):
        assert sum(p.numel() for p in Phi(shape).parameters()) == parameter_count(shape)


def test_shapes_of_a_recipe_s_options():
    options = {"norm": "rms", "mlp": "swiglu", "block": "sequential", "biases": False}
    sizes = {"layers": 32, "heads": 32, "head_dimension": 128, "rotary_dimension": 128, "feed_forward": 14_336}
    mixtral = Model.model_validate({**options, **sizes, "key_value_heads": 8, "experts": 8, "context": 4096})
    shape = Shape.of(mixtral, 32_000)
    # Mixtral 8x7B, arXiv 2401.04088, section 4: 47B parameters, of which a token uses 13B.
    assert parameter_count(shape) == 46_702_792_704
    assert matrix_parameters(shape) + 32_000 * 4096 == pytest.approx(12.88e9, rel=1e-3)
    mistral = Shape.of(mixtral.model_copy(update={"experts": None}), 32_000)
    assert parameter_count(mistral) == 7_241_732_096


@pytest.mark.parametrize("shape", [GROUPED, replace(MISTRAL, window=None)])
def test_operations_agree_with_torch_s_own_count(shape: Shape):
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = make_model(shape), make_tokens(shape)
    with FlopCounterMode(display=False) as counter:
        model.logits(tokens).square().sum().backward()
    assert counter.get_total_flops() == flops_per_token(shape, causal=False) * tokens.numel()


def test_a_window_costs_what_it_sees():
    narrow, wide = (replace(MISTRAL, window=window, context=4096) for window in (1024, 8192))
    per_place = 12 * narrow.layers * narrow.width
    weights = 6 * matrix_parameters(narrow)
    assert flops_per_token(narrow, causal=False) == weights + per_place * 1024
    seen = sum(min(place + 1, 1024) for place in range(4096)) / 4096
    assert flops_per_token(narrow, causal=True) == pytest.approx(weights + per_place * seen, rel=1e-3)
    for causal in (True, False):
        assert flops_per_token(wide, causal=causal) == flops_per_token(replace(wide, window=None), causal=causal)


@pytest.mark.parametrize("shape", [TINY, GROUPED, MISTRAL, MIXTRAL])
@pytest.mark.parametrize("longest", [512, 16])  # explicit products, then PyTorch's kernel with the mask
def test_a_document_in_a_row_has_the_logits_it_has_alone(shape: Shape, longest: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "LONGEST_EXPLICIT", longest)
    model, tokens = make_model(shape), make_tokens(shape)
    with torch.no_grad():
        packed = model.logits(tokens, DOCUMENTS)
        unmasked = model.logits(tokens)
        for row, numbers in enumerate(DOCUMENTS):
            for number in numbers.unique():
                places = (numbers == number).nonzero()[:, 0]
                alone = model.logits(tokens[row : row + 1, places])[0]
                torch.testing.assert_close(packed[row, places], alone, atol=1e-4, rtol=0)
                assert number == 0 or (unmasked[row, places] - alone).abs().max() > 1e-2


def test_gradients_do_not_cross_documents():
    model, tokens = make_model(TINY), make_tokens(TINY)
    embedded = model.embedding.weight[tokens].detach().requires_grad_()
    model.embedding.forward = lambda _: embedded
    model(tokens, DOCUMENTS)[0, 20:23].sum().backward()
    assert embedded.grad is not None
    assert embedded.grad[0, 20:23].abs().amax(-1).min() > 0
    embedded.grad[0, 20:23] = 0
    assert not embedded.grad.any()


@pytest.mark.parametrize(("documents", "window"), [(DOCUMENTS, None), (DOCUMENTS, 9), (None, 9)])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_mask_shows(documents: torch.Tensor | None, window: int | None):
    query = torch.randn(4, 2, 48, 16, generator=torch.Generator().manual_seed(0))  # heads first
    key, value = torch.randn(2, 2, 2, 48, 16, generator=torch.Generator().manual_seed(1))
    rows = 1 if documents is None else 2
    blocks = create_block_mask(visibility(documents, window), rows, None, 48, 48, "cpu")
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    by_blocks = flex_attention(q, k, v, block_mask=blocks, enable_gqa=True).transpose(0, 1)
    mask = attention_mask(torch.zeros(2, 48), documents, window, head_dimension=16, dropout=0.0)
    torch.testing.assert_close(attend(query, key, value, mask), by_blocks, atol=1e-5, rtol=1e-5)


def test_masked_attention_is_the_same_beyond_the_explicit_products(monkeypatch: pytest.MonkeyPatch):
    query = torch.randn(4, 2, 48, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 2, 2, 48, 16, generator=torch.Generator().manual_seed(1))
    mask = attention_mask(torch.zeros(2, 48), DOCUMENTS, 9, head_dimension=16, dropout=0.0)
    explicit = attend(query, key, value, mask)
    monkeypatch.setattr(attention, "LONGEST_EXPLICIT", 16)
    torch.testing.assert_close(attend(query, key, value, mask), explicit, atol=1e-5, rtol=1e-5)
    plain = attention_mask(torch.zeros(2, 48), None, 48, head_dimension=16, dropout=0.0)
    assert plain is None  # a window as long as the row hides nothing


def test_dropout_acts_in_training_alone_and_follows_the_seed():
    model, tokens = make_model(replace(MISTRAL, dropout=0.3)), make_tokens(MISTRAL)
    plain = make_model(MISTRAL)
    with torch.no_grad():
        assert torch.equal(model(tokens), plain(tokens))
        model.train()
        drawn = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append(model(tokens))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], plain(tokens))


@pytest.mark.parametrize("longest", [512, 16])
def test_dropout_drops_probabilities_of_attention(longest: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "LONGEST_EXPLICIT", longest)
    torch.manual_seed(0)
    query = key = torch.zeros(1, 1, 64, 64)
    mask = attention_mask(torch.zeros(1, 64), None, None, head_dimension=64, dropout=0.1)
    # Equal scores and the identity as values: what comes out are the probabilities, 1 / (place + 1) if all are kept.
    kept = attend(query, key, torch.eye(64)[None, None], mask, 0.1)[0, 0] * torch.arange(1, 65)[:, None]
    seen = kept[torch.ones(64, 64).tril() > 0]
    assert (seen == 0).float().mean().item() == pytest.approx(0.1, abs=0.03)
    torch.testing.assert_close(seen[seen > 0], torch.full_like(seen[seen > 0], 1 / 0.9))


def test_the_experts_are_those_the_router_prefers_and_share_by_its_scores():
    model = make_model(MIXTRAL)
    layer = model.blocks[0].experts
    y = torch.randn(2, 5, MIXTRAL.width, generator=torch.Generator().manual_seed(0))
    scores = y @ layer.router.T
    expected = torch.zeros_like(y)
    for row in range(2):
        for place in range(5):
            best = scores[row, place].topk(2)
            for weight, expert in zip(best.values.softmax(0), best.indices, strict=True):
                gate, up = (layer.mlp_in[expert] @ y[row, place]).chunk(2)
                expected[row, place] += weight * (layer.mlp_out[expert] @ (F.silu(gate) * up))
    torch.testing.assert_close(layer(y), expected, atol=1e-5, rtol=1e-4)


def test_balance_is_that_of_transformers_and_one_when_all_are_equally_busy():
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    theirs = load_balancing_loss_func((scores,), 4, 2)  # counts each token's choices, where ours takes their share
    torch.testing.assert_close(balance_loss(scores, scores.topk(2).indices) * 2, theirs)
    even = torch.eye(4)[torch.arange(8) % 4] * 5
    assert balance_loss(even, even.topk(1).indices).item() == pytest.approx(1)


def test_training_adds_the_balance_to_the_loss_and_every_expert_has_a_gradient():
    model, tokens = make_model(MIXTRAL), make_tokens(MIXTRAL)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    plain = model.loss(inputs, targets)
    model.train()
    model(inputs)
    balance = sum(block.experts.balance.item() for block in model.blocks)
    loss = model.loss(inputs, targets)
    assert (loss - plain).item() == pytest.approx(0.01 * targets.numel() * balance, rel=1e-3)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad.flatten(1).any(1).all() for n, p in model.named_parameters() if "experts" in n)


def test_initial_weights_of_experts_depend_on_the_seed_alone():
    first, same = Phi(MIXTRAL), Phi(MIXTRAL)
    first.initialize(1)
    torch.randn(10)
    same.initialize(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert first.blocks[0].experts.mlp_in.std().item() == pytest.approx(0.02, rel=0.05)
    assert bool((first.blocks[0].mlp_norm.weight == 1).all())
