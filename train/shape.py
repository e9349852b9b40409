"""A model's sizes, and what follows from them by arithmetic alone: parameters and operations. Without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from primer import recipe_train as recipes


@dataclass(frozen=True)
class Shape:
    """Sizes and options of a model: the recipe's model section and the vocabulary, padding included.

    The options' defaults are phi-1.5's; which of them go together is checked where the recipe is read.
    """

    layers: int
    heads: int
    head_dimension: int
    rotary_dimension: int
    feed_forward: int
    context: int
    vocabulary: int
    key_value_heads: int | None = None
    window: int | None = None
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["gelu", "swiglu"] = "gelu"
    block: Literal["parallel", "sequential"] = "parallel"
    biases: bool = True
    experts: int | None = None
    experts_per_token: int = 2
    dropout: float = 0.0

    @classmethod
    def of(cls, model: recipes.Model, vocabulary: int) -> Shape:
        """The shape that a recipe asks for."""
        # They have the same names, so that an option cannot be left behind.
        return cls(**{**model.model_dump(), "feed_forward": model.feed_forward_width}, vocabulary=vocabulary)

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dimension

    @property
    def keys(self) -> int:
        """Heads of keys, and as many of values."""
        return self.key_value_heads or self.heads

    @property
    def projections(self) -> tuple[int, int, int]:
        """Rows of the products that make queries, keys and values."""
        return self.width, self.keys * self.head_dimension, self.keys * self.head_dimension

    @property
    def mlp_rows(self) -> int:
        """Rows of an MLP's first product: SwiGLU has a gate beside what it gates."""
        return (2 if self.mlp == "swiglu" else 1) * self.feed_forward


def matrix_parameters(shape: Shape) -> int:
    """Weights that a token meets in matrix products: not the embedding, the biases, the norms and idle experts."""
    attention = shape.width * (sum(shape.projections) + shape.width)
    mlps = shape.experts_per_token * _mlp(shape) + shape.width * shape.experts if shape.experts else _mlp(shape)
    return shape.layers * (attention + mlps) + shape.width * shape.vocabulary


def parameter_count(shape: Shape) -> int:
    """All parameters: 1,418,270,720 for phi-1.5."""
    idle = (shape.experts - shape.experts_per_token) * _mlp(shape) if shape.experts else 0
    block_biases = sum(shape.projections) + shape.width + shape.mlp_rows + shape.width
    biases = shape.layers * block_biases + shape.vocabulary if shape.biases else 0
    norms = shape.layers * (2 if shape.block == "sequential" else 1) + 1
    norm = (2 if shape.norm == "layer" else 1) * shape.width
    embedding = shape.vocabulary * shape.width
    return matrix_parameters(shape) + shape.layers * idle + biases + norms * norm + embedding


def flops_per_token(shape: Shape, *, causal: bool) -> float:
    """Floating-point operations of training on one token, forward and backward.

    6 x (weights in matrix products) + 12 x layers x width x context for attention's two products, over the full
    square of positions (the convention of PaLM, arXiv 2204.02311, appendix B); half of that second term where only
    the causal half is counted. A window w within a context L leaves w of a row's L positions, and w - w^2 / 2L of
    them on the causal side. phi-1.5: 9.085e9 and 8.481e9.
    """
    seen = float(min(shape.window or shape.context, shape.context))
    if causal:
        seen -= seen**2 / (2 * shape.context)
    return 6.0 * matrix_parameters(shape) + 12.0 * shape.layers * shape.width * seen


def _mlp(shape: Shape) -> int:
    """Weights of one MLP."""
    return shape.width * (shape.mlp_rows + shape.feed_forward)
