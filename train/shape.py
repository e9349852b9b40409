"""A model's sizes, and what follows from them by arithmetic alone: parameters and operations. Without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from primer import recipe_train as recipes


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: the recipe's model section and the vocabulary, padding included."""

    layers: int
    heads: int
    head_dimension: int
    rotary_dimension: int
    feed_forward: int
    context: int
    vocabulary: int

    @classmethod
    def of(cls, model: recipes.Model, vocabulary: int) -> Shape:
        """The shape that a recipe asks for."""
        return cls(
            layers=model.layers,
            heads=model.heads,
            head_dimension=model.head_dimension,
            rotary_dimension=model.rotary_dimension,
            feed_forward=model.feed_forward_width,
            context=model.context,
            vocabulary=vocabulary,
        )

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dimension


def matrix_parameters(shape: Shape) -> int:
    """Weights that take part in matrix products: everything but the embedding, the biases and the norms."""
    block = 4 * shape.width**2 + 2 * shape.width * shape.feed_forward
    return shape.layers * block + shape.width * shape.vocabulary


def parameter_count(shape: Shape) -> int:
    """All parameters: 1,418,270,720 for phi-1.5."""
    block_biases = 3 * shape.width + shape.width + shape.feed_forward + shape.width
    norms = 2 * shape.width * (shape.layers + 1)
    embedding, head_bias = shape.vocabulary * shape.width, shape.vocabulary
    return matrix_parameters(shape) + shape.layers * block_biases + norms + embedding + head_bias


def flops_per_token(shape: Shape, *, causal: bool) -> float:
    """Floating-point operations of training on one token, forward and backward.

    6 x (weights in matrix products) + 12 x layers x width x context for attention's two products, over the full
    square of positions (the convention of PaLM, arXiv 2204.02311, appendix B); half of that second term where only
    the causal half is counted. phi-1.5: 9.085e9 and 8.481e9.
    """
    attention = 12.0 * shape.layers * shape.width * shape.context
    return 6.0 * matrix_parameters(shape) + (attention / 2 if causal else attention)
