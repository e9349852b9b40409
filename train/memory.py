"""What a training keeps in the memory of each device, by arithmetic: within a tenth or two of what it will be."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from train.shape import Shape, parameter_count


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device.

    Attributes:
        weights: Of the model, and what the engine keeps beside them in another precision.
        gradients: Their sums over a step's passes.
        moments: The optimiser's two.
        activations: What a pass keeps for its way back.
        logits: Of a chunk of places, and their gradient.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(astuple(self))


def training_memory(
    shape: Shape, *, engine: str, precision: str, device: str, ranks: int, micro_batch: int
) -> TrainingMemory:
    """What a training keeps in the memory of each of its devices.

    With `torch` weights, gradients and both moments are float32 and whole; in 16 bits a pass has a copy of the
    weights. With `deepspeed` (ZeRO stage 2, arXiv 1910.02054, section 5) the weights have the precision's width, and
    gradients, moments and float32 weights are divided among the ranks.

    Args:
        shape: The model's.
        engine: `torch` or `deepspeed`.
        precision: `fp32`, `fp16` or `bf16`.
        device: `cpu` or `cuda`.
        ranks: Processes that train together.
        micro_batch: Sequences of a pass.
    """
    from train.head_loss import chunk_places  # PyTorch

    number, width = parameter_count(shape), 4 if precision == "fp32" else 2
    if engine == "deepspeed":
        weights, divided = width * number + 4 * number // ranks, ranks
    else:
        weights, divided = (4 if precision == "fp32" else 6) * number, 1
    places = micro_batch * shape.context
    chunk = min(places, chunk_places(device, shape.vocabulary))
    return TrainingMemory(
        weights=weights,
        gradients=4 * number // divided,
        moments=8 * number // divided,
        activations=places * place_bytes(shape, width, device),
        logits=chunk * shape.vocabulary * (4 + 2 * width),
    )


def place_bytes(shape: Shape, width: int, device: str) -> int:
    """Bytes that a pass keeps of one place (a token of a sequence) for its way back, without a compiler's help.

    Of each block: the residual stream in float32 and its norm, once or twice; query, key and value before and after
    the rotation; what attention gives; the MLP's hidden layer before and after its activation (SwiGLU: gate, its
    activation, the other half, their product). On a CPU attention's probabilities, where they are kept. And the
    last norm, and the hidden states with their gradient.

    Args:
        shape: The model's.
        width: Bytes of a value in the precision of the products: 2 or 4.
        device: `cpu` or `cuda`.
    """
    from train.attention import LONGEST_EXPLICIT  # PyTorch

    norms = 1 if shape.block == "parallel" else 2
    _, keys, _ = shape.projections
    hidden = 2 * shape.mlp_rows * (shape.experts_per_token if shape.experts else 1)
    block = norms * (4 + width) * shape.width + width * (3 * shape.width + 3 * keys + hidden)
    if device == "cpu" and shape.context <= LONGEST_EXPLICIT:
        block += width * shape.heads * shape.context
    return shape.layers * block + (4 + 2 * width) * shape.width
