"""Whether the trainer computes what it should on this device: checked by gpu_train.py before anything is timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_train_cases import plain_head_loss
from gpu_train_run import Place, random_model
from torch import Tensor

from train.head_loss import head_loss
from train.model import INITIAL_STANDARD_DEVIATION, Phi
from train.names import to_hugging_face
from train.shape import Shape


@dataclass(frozen=True)
class Check:
    """Two ways to the same number: how far apart they came out, relative to the second, and how far they may."""

    name: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed  # false for NaN too


def checks(place: Place, *, compiled: bool) -> Iterator[Check]:
    """All of them, on two layers of the shape.

    Args:
        place: Device and shape.
        compiled: Whether to compile too.
    """
    shape = replace(place.shape, layers=2)
    model = sensitive_model(shape, place.device)
    rows = torch.from_numpy(place.mixture.sequences(0, 2)).to(place.device)
    tokens, targets = rows[:, :-1], rows[:, 1:]
    exact = model.loss(tokens, targets)
    yield Check("loss beside Hugging Face's Phi, float32", _apart(_theirs(model, tokens, targets), exact), 1e-5)
    half = {dtype: _in(dtype, model, tokens, targets) for dtype in (torch.bfloat16, torch.float16)}
    yield Check("loss in bf16 beside float32", _apart(half[torch.bfloat16], exact), 2e-3)
    yield Check("loss in fp16 beside bf16", _apart(half[torch.float16], half[torch.bfloat16]), 2e-3)
    yield Check("head in chunks beside whole: gradients", _heads_apart(shape, place.device), 1e-4)
    packed, separate = _packed(model, tokens)
    yield Check("masked documents beside documents apart", _apart(packed, separate), 1e-4)
    if compiled:
        gradient = _gradient(model, tokens, targets)
        model.compile(dynamic=False)
        both = _in(torch.bfloat16, model, tokens, targets)
        yield Check("compiled beside not compiled, bf16: loss", _apart(both, half[torch.bfloat16]), 1e-3)
        yield Check(
            "compiled beside not compiled, bf16: gradient", _apart(_gradient(model, tokens, targets), gradient), 3e-2
        )
        torch._dynamo.reset()


def sensitive_model(shape: Shape, device: torch.device) -> Phi:
    """A model whose every part tells in its result: at training's first weights attention hardly does."""
    model = random_model(shape, device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(shape.width**-0.5 / INITIAL_STANDARD_DEVIATION)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _apart(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference, relative."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def _theirs(model: Phi, tokens: Tensor, targets: Tensor) -> Tensor:
    """The loss that transformers computes with the same weights."""
    theirs = hugging_face_phi(model.shape).to(tokens.device)
    theirs.load_state_dict(to_hugging_face(model.state_dict(), model.shape))
    with torch.no_grad():
        logits = theirs(input_ids=tokens).logits.flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")


def hugging_face_phi(shape: Shape) -> Any:
    """`PhiForCausalLM` of a shape, with weights of its own, ready to be trained."""
    from transformers import PhiConfig, PhiForCausalLM

    from train.export import configuration

    settings = {key: value for key, value in configuration(shape, 0).items() if key not in ("architectures", "dtype")}
    return PhiForCausalLM._from_config(PhiConfig(**settings | {"use_cache": False}), attn_implementation="sdpa").train()


def _in(dtype: torch.dtype, model: Phi, tokens: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast(tokens.device.type, dtype):
        return model.loss(tokens, targets)


def _gradient(model: Phi, tokens: Tensor, targets: Tensor) -> Tensor:
    """The gradient of a matrix in the first block, in bf16: all of the way back lies behind it."""
    model.zero_grad(set_to_none=True)
    (_in(torch.bfloat16, model, tokens, targets) / targets.numel()).backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter("blocks.0.query_key_value.weight").grad
    assert gradient is not None
    return gradient.clone()


def _heads_apart(shape: Shape, device: torch.device) -> float:
    """The head's two ways compared: gradients of hidden states, weight and bias, after one another."""
    generator = torch.Generator(device).manual_seed(0)
    places = 1024
    hidden, weight, bias = (
        (scale * torch.randn(*size, device=device, generator=generator)).requires_grad_()
        for scale, size in (
            (1.0, (places, shape.width)),
            (0.02, (shape.vocabulary, shape.width)),
            (0.02, (shape.vocabulary,)),
        )
    )
    targets = torch.randint(shape.vocabulary, (places,), device=device, generator=generator)
    found = []
    for loss in (head_loss, plain_head_loss):
        gradients = torch.autograd.grad(loss(hidden, weight, bias, targets), (hidden, weight, bias))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return _apart(*found)


def _packed(model: Phi, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The last layer's output for rows of two documents each, masked, and for the documents by themselves."""
    length = tokens.shape[1]
    cut = length // 3 // 8 * 8
    documents = (torch.arange(length, device=tokens.device) >= cut).int().expand(tokens.shape).contiguous()
    with torch.no_grad():
        return model(tokens, documents), torch.cat([model(tokens[:, :cut]), model(tokens[:, cut:])], 1)
