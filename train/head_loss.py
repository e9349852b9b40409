"""The output head and its cross-entropy, a chunk of places at a time.

Logits are the largest tensor of a small language model (phi-1.5: 16 x 2,048 places x 51,200 words x 4 bytes =
6.7 GB, and several copies of it). Each chunk's logits are made, turned into their own gradient, multiplied into
the gradients of the hidden states and of the head, and dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Most logits held at a time. On a CPU 4 MB of them stay in a core's cache. On a GPU every chunk reads and writes the
# head's gradients, 1.3 GB for phi-1.5's 51,200 x 2,048, so its products should be long: 4,096 places, 0.4 GB in bf16.
_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**28}
_SMALLEST_CHUNK = 128

# Where the arithmetic between the products is compiled into a kernel or two: on a GPU it waits for memory alone.
_FUSED = frozenset({"cuda"})

# (logits, targets) to (summed loss, gradient of the logits, sum of the probabilities over the places).
_Arithmetic: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def head_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` against the targets, summed, in nats.

    Args:
        hidden: (places, width).
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.
        targets: Token ids (places,).
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    chunk = chunk_places(kind, weight.shape[0])
    arithmetic = _fused() if kind in _FUSED else loss_and_gradient
    loss: Any = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden.to(dtype), weight, bias, targets, chunk, arithmetic, torch.is_grad_enabled()
    )
    return cast(Tensor, loss)


def chunk_places(kind: str, vocabulary: int) -> int:
    """Places in a chunk: a power of two, so that batches divide into equal chunks and one shape is compiled."""
    fitting = _CHUNK_ELEMENTS.get(kind, 2**20) // vocabulary
    return max(_SMALLEST_CHUNK, 1 << max(fitting, 1).bit_length() - 1)


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What lies between the head's matrix products.

    The log of a target's probability is (its logit - the largest logit) + log(the largest probability): as exact as
    a log-softmax, since the largest probability is far from zero, and without its second pass of exponentials.

    Args:
        logits: (places, vocabulary).
        targets: Token ids (places, 1).

    Returns:
        The summed cross-entropy in float32, its gradient by the logits in their type, and the sum of the
        probabilities over the places in float32: from which the targets' counts are missing to be the gradient of
        the bias.
    """
    probability = torch.softmax(logits, -1, dtype=torch.float32)
    below = logits.gather(1, targets).float() - logits.amax(-1, keepdim=True).float()
    loss = -(below + probability.amax(-1, keepdim=True).log()).sum()
    total = probability.sum(0)
    of_targets = probability.gather(1, targets) - 1
    gradient = probability.to(logits.dtype).scatter_(1, targets, of_targets.to(logits.dtype))
    return loss, gradient, total


@cache
def _fused() -> _Arithmetic:
    return cast(_Arithmetic, torch.compile(loss_and_gradient, dynamic=False))


class _HeadLoss(torch.autograd.Function):
    """Gradients are computed with the loss, while a chunk's logits exist, and scaled by what comes from above.

    Unscaled, the logits' gradients are probabilities. In fp16 those below 6e-8 vanish, which is what a loss scale
    of 65,536 leaves of them too once the mean over a micro-batch of 65,536 places is taken.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk: int,
        arithmetic: _Arithmetic,
        differentiate: bool,
    ) -> Tensor:
        """Returns the summed loss, float32."""
        dtype = hidden.dtype
        with torch.autocast(hidden.device.type, enabled=False):
            head, head_bias = weight.to(dtype), None if bias is None else bias.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            if differentiate:
                ctx.grad_hidden = torch.empty_like(hidden)
                ctx.grad_weight = torch.zeros_like(weight, dtype=torch.float32)
                ctx.grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            for start in range(0, hidden.shape[0], chunk):
                rows, wanted = hidden[start : start + chunk], targets[start : start + chunk, None]
                logits = rows @ head.t() if head_bias is None else torch.addmm(head_bias, rows, head.t())
                loss, gradient, probability = arithmetic(logits, wanted)
                total += loss
                if not differentiate:
                    continue
                if ctx.grad_bias is not None:
                    ctx.grad_bias += probability
                torch.mm(gradient, head, out=ctx.grad_hidden[start : start + chunk])
                if dtype == ctx.grad_weight.dtype:
                    ctx.grad_weight.addmm_(gradient.t(), rows)
                else:
                    ctx.grad_weight += gradient.t() @ rows
            if differentiate and ctx.grad_bias is not None:
                ones = torch.ones_like(targets, dtype=torch.float32)
                # Counted apart: sums of ones are exact in any order, so that a GPU finds the same ones every time.
                ctx.grad_bias -= torch.zeros_like(ctx.grad_bias).scatter_add_(0, targets, ones)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of forward's arguments."""
        gradients = ctx.grad_hidden, ctx.grad_weight, ctx.grad_bias
        del ctx.grad_hidden, ctx.grad_weight, ctx.grad_bias
        scaled = (None if g is None else g.mul_(above.to(g.dtype)) for g in gradients)
        return *scaled, None, None, None, None
