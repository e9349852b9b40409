"""The output head and its cross-entropy, a chunk of places at a time.

Logits are the largest tensor of a small language model (phi-1.5: 16 x 2,048 places x 51,200 words x 4 bytes =
6.7 GB, and several copies of it). Each chunk's logits are made, turned into their own gradient, multiplied into
the gradients of the hidden states and of the head, and dropped.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at a time. On a CPU 4 MB of them stay in a core's cache; on a GPU the products want to be large.
_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**27}
_SMALLEST_CHUNK = 128


def head_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` against the targets, summed, in nats.

    Args:
        hidden: (places, width).
        weight: (vocabulary, width).
        bias: (vocabulary,).
        targets: Token ids (places,).
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    chunk = max(_SMALLEST_CHUNK, _CHUNK_ELEMENTS.get(kind, 2**20) // weight.shape[0])
    return cast(Tensor, _HeadLoss.apply(hidden.to(dtype), weight, bias, targets, chunk))  # type: ignore[no-untyped-call]


class _HeadLoss(torch.autograd.Function):
    """Gradients are computed with the loss, while a chunk's logits exist, and scaled by what comes from above.

    Unscaled, the logits' gradients are probabilities. In fp16 those below 6e-8 vanish, which is what a loss scale
    of 65,536 leaves of them too once the mean over a micro-batch of 65,536 places is taken.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """Returns the summed loss, float32."""
        dtype = hidden.dtype
        with torch.autocast(hidden.device.type, enabled=False):
            head, head_bias = weight.to(dtype), bias.to(dtype)
            ctx.grad_hidden = torch.empty_like(hidden)
            ctx.grad_weight = torch.zeros_like(weight)
            ctx.grad_bias = torch.zeros_like(bias)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for start in range(0, hidden.shape[0], chunk):
                rows, wanted = hidden[start : start + chunk], targets[start : start + chunk, None]
                log_probability = torch.log_softmax(torch.addmm(head_bias, rows, head.t()), -1, dtype=torch.float32)
                total -= log_probability.gather(1, wanted).sum()
                gradient = log_probability.exp_()
                gradient.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                ctx.grad_bias += gradient.sum(0)
                gradient = gradient.to(dtype)
                torch.mm(gradient, head, out=ctx.grad_hidden[start : start + chunk])
                if dtype == ctx.grad_weight.dtype:
                    ctx.grad_weight.addmm_(gradient.t(), rows)
                else:
                    ctx.grad_weight += gradient.t() @ rows
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Returns the gradients of forward's arguments."""
        gradients = ctx.grad_hidden, ctx.grad_weight, ctx.grad_bias
        del ctx.grad_hidden, ctx.grad_weight, ctx.grad_bias
        hidden, weight, bias = (g.mul_(above.to(g.dtype)) for g in gradients)
        return hidden, weight, bias, None, None
