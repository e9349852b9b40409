"""What gpu_train.py measures: the whole trainer, and the trainer with one technique switched off at a time.

Techniques are switched off here, from outside: the trainer itself has no options for them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch
from gpu_train_run import Case
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import train.layers
from primer.recipe_train import Train
from train.attention import Mask, attend
from train.batches import Batches
from train.engine import TorchEngine
from train.layers import Block, rotate
from train.optimizer import make_optimizer


class WaitingEngine(TorchEngine):
    """Reads the loss of every pass, so that the CPU waits for the GPU each time."""

    def accumulate(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, *, last: bool) -> Tensor:
        loss = super().accumulate(tokens, targets, documents, last=last)
        loss.item()
        return loss


def plain_head_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """The head and its cross-entropy over all places at once, differentiated by autograd."""
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="sum")


def three_products(block: Block, y: Tensor, cosine: Tensor, sine: Tensor, mask: Mask) -> Tensor:
    """Attention of a block with queries, keys and values made by a product each."""
    fused, rows = block.query_key_value, list(block.shape.projections)
    biases = fused.bias.split(rows) if fused.bias is not None else (None, None, None)
    query, key, value = (
        F.linear(y, weight, bias).unflatten(-1, (-1, block.shape.head_dimension)).permute(2, 0, 1, 3)
        for weight, bias in zip(fused.weight.split(rows), biases, strict=True)
    )
    if y.device.type == "cpu":
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    attended = attend(rotate(query, cosine, sine), rotate(key, cosine, sine), value, mask)
    out: Tensor = block.attention_out(attended.permute(1, 2, 0, 3).flatten(2))
    return out


def _attend_by(backend: SDPBackend) -> Callable[..., Tensor]:
    def patched(query: Tensor, key: Tensor, value: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
        del mask, dropout
        q, k, v = (x.transpose(0, 1) for x in (query, key, value))
        with sdpa_kernel(backend):
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attended.transpose(0, 1)

    return patched


def _foreach_optimizer(model: nn.Module, train: Train) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {key: group[key] for key in ("params", "weight_decay", "lr", "betas", "eps")}
        for group in make_optimizer(model, train).param_groups
    ]
    return torch.optim.AdamW(groups, foreach=True)


class _InlineBatches(Batches):
    """Fetches a pass when it is asked for, as on a CPU."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fetcher = None


def _patch(target: str, replacement: object) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch(target, replacement)


def _attention(backend: SDPBackend) -> Callable[[], AbstractContextManager[object]]:
    return _patch("train.layers.attend", _attend_by(backend))


@contextmanager
def _collecting() -> Iterator[None]:
    gc.enable()
    try:
        yield
    finally:
        gc.disable()


WHOLE = Case("whole", "the trainer as it is, bf16")

# In the order of what they tell for the time they take; those that use one compiled model stand together.
CASES = (
    WHOLE,
    Case("item per pass", "the loss read after every pass", engine=WaitingEngine),
    Case("foreach AdamW", "AdamW not fused", step_patch=_patch("train.engine.make_optimizer", _foreach_optimizer)),
    Case("inline fetch", "batches fetched when needed", step_patch=_patch("gpu_train_run.Batches", _InlineBatches)),
    Case("collection on", "garbage collection while training", step_patch=_collecting),
    Case("not compiled", "without torch.compile", compiled=False),
    Case("fp16", "the trainer as it is, fp16", precision="fp16"),
    Case("plain head", "logits of all places at once", model_patch=_patch("train.model.head_loss", plain_head_loss)),
    Case("micro-batch 4", "four sequences a pass", micro_batch=4),
    Case("cuDNN attention", "cuDNN's kernel", model_patch=_attention(SDPBackend.CUDNN_ATTENTION)),
    Case(
        "three products",
        "queries, keys, values apart",
        model_patch=_patch("train.layers.Block._attention", three_products),
    ),
    Case("math attention", "attention without a fused kernel", model_patch=_attention(SDPBackend.MATH)),
    Case("documents", "attention within documents, flex attention", documents=True),
)

assert train.layers.attend is attend  # what the patches above replace
