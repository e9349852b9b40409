"""Small decoders of every family, and the same in Hugging Face's classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from train.export import configuration
from train.model import Phi
from train.shape import Shape

TINY = Shape(layers=3, heads=4, head_dimension=16, rotary_dimension=8, feed_forward=96, context=48, vocabulary=211)
# phi-1.5's full width, two of its 24 layers.
WIDE = Shape(layers=2, heads=32, head_dimension=64, rotary_dimension=32, feed_forward=8192, context=64, vocabulary=4096)
GROUPED = replace(TINY, key_value_heads=2)
MISTRAL = replace(
    GROUPED, rotary_dimension=16, window=9, norm="rms", mlp="swiglu", block="sequential", biases=False, vocabulary=199
)
MIXTRAL = replace(MISTRAL, experts=4, layers=2)


def make_model(shape: Shape, seed: int = 0) -> Phi:
    """A model whose biases and norms are not at their initial zeros and ones, lest an exchange of them go unseen."""
    model = Phi(shape)
    model.initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
        elif shape.width < 1000 and not name.startswith("embedding"):
            parameter.data *= 5  # so that what one place sees of another, or an expert adds, shows in the logits
    return model.eval()


def make_tokens(shape: Shape, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (batch, shape.context), generator=generator)


def hugging_face(shape: Shape, **changes: Any) -> Any:
    """A model of the class that `config.json` names, with weights of its own."""
    import transformers

    settings = {**configuration(shape, 0), **changes}
    kind = getattr(transformers, settings["architectures"][0])
    return kind(kind.config_class(**settings)).eval()
