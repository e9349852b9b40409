"""How fast a device multiplies matrices of a model's shapes: what no training on it can exceed."""

from __future__ import annotations

import time

import torch
from gpu_train_run import synchronize

from train.shape import Shape

# What a GPU reaches depends on the numbers too: zeros draw less power. So the matrices are random.


def products(shape: Shape) -> dict[str, tuple[int, int, int]]:
    """The matrix products of a forward pass: (width in, width out, how often)."""
    return {
        "query_key_value": (shape.width, sum(shape.projections), shape.layers),
        "attention_out": (shape.width, shape.width, shape.layers),
        "mlp_in": (shape.width, shape.mlp_rows, shape.layers),
        "mlp_out": (shape.feed_forward, shape.width, shape.layers),
        "head": (shape.width, shape.vocabulary, 1),
    }


def ceiling(
    shape: Shape, places: int, head_places: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> tuple[float, dict[str, float]]:
    """Operations a second of all products of a training step, and of each kind.

    Each product is made three times, as in training: forward, and for the gradients of its input and its weight.

    Args:
        shape: The model's.
        places: Rows of a pass.
        head_places: Rows of a chunk of the head.
        dtype: Of the numbers.
        device: Where.
        seconds: To measure each kind for.
    """
    speeds: dict[str, float] = {}
    operations = duration = 0.0
    for name, (width_in, width_out, times) in products(shape).items():
        rows = head_places if name == "head" else places
        x, weight, above = (
            torch.randn(size, device=device, dtype=dtype)
            for size in ((rows, width_in), (width_out, width_in), (rows, width_out))
        )
        each = 6.0 * rows * width_in * width_out
        took = _seconds(x, weight, above, device, seconds)
        speeds[name] = each / took
        operations += each * times * (places / rows)
        duration += took * times * (places / rows)
    return operations / duration, speeds


def _seconds(x: torch.Tensor, weight: torch.Tensor, above: torch.Tensor, device: torch.device, limit: float) -> float:
    """Seconds of the three products, the mean over as many as fit into the limit."""

    def once() -> None:
        torch.mm(x, weight.t())
        torch.mm(above, weight)
        torch.mm(above.t(), x)

    once()
    synchronize(device)
    times, started = 0, time.perf_counter()
    while times == 0 or time.perf_counter() - started < limit:
        for _ in range(8):
            once()
        synchronize(device)
        times += 8
    return (time.perf_counter() - started) / times
