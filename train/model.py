"""A phi-1.5-shaped decoder in plain PyTorch (arXiv 2309.05463, section 2.1, and the layout of Hugging Face's Phi).

Every block computes attention and the MLP in parallel from one LayerNorm. Parameters are named for what they are;
:mod:`train.export` translates them to and from `PhiForCausalLM`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.attention import causal_attention
from train.head_loss import head_loss
from train.shape import Shape

LAYER_NORM_EPSILON = 1e-5  # as in microsoft/phi-1_5's config.json
ROTARY_BASE = 10_000.0  # arXiv 2104.09864, section 3.2.2; as in microsoft/phi-1_5's config.json
# The paper says only that weights start random; 0.02 is PhiConfig's initializer_range in Hugging Face transformers.
INITIAL_STANDARD_DEVIATION = 0.02


class Block(nn.Module):
    """Attention and MLP side by side on one LayerNorm, both added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm = nn.LayerNorm(shape.width, eps=LAYER_NORM_EPSILON)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)  # one product in place of three
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.mlp_in = nn.Linear(shape.width, shape.feed_forward)
        self.mlp_out = nn.Linear(shape.feed_forward, shape.width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Args: x (batch, length, width); cosine and sine (length, 1, 1, rotary_dimension / 2). Returns: as x."""
        y = self.norm(x)
        expanded: Tensor = self.mlp_out(F.gelu(self.mlp_in(y), approximate="tanh"))
        return x + self._attention(y, cosine, sine) + expanded

    def _attention(self, y: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, width = y.shape
        qkv = self.query_key_value(y).view(batch, length, 3, self.shape.heads, self.shape.head_dimension)
        query_key = _rotate(qkv[:, :, :2], cosine, sine)
        query, key = query_key.transpose(1, 3).unbind(2)  # (batch, heads, length, head_dimension)
        value = qkv[:, :, 2].transpose(1, 2)
        attended = causal_attention(query, key, value)
        return cast(Tensor, self.attention_out(attended.transpose(1, 2).reshape(batch, length, width)))


class Phi(nn.Module):
    """The language model.

    Args:
        shape: Its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.final_norm = nn.LayerNorm(shape.width, eps=LAYER_NORM_EPSILON)
        self.head = nn.Linear(shape.width, shape.vocabulary)
        cosine, sine = rotary_tables(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def initialize(self, seed: int) -> None:
        """Fill all weights: matrices and embeddings normal, biases zero, norms one; the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear | nn.Embedding):
                drawn = torch.empty(module.weight.shape).normal_(0, INITIAL_STANDARD_DEVIATION, generator=generator)
                module.weight.data.copy_(drawn)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """The residual stream after the final norm: token ids (batch, length) to (batch, length, width).

        What `model.compile()` compiles: everything but the head.
        """
        length = tokens.shape[1]
        cosine, sine = cast(Tensor, self.cosine)[:length], cast(Tensor, self.sine)[:length]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cosine, sine)
        return cast(Tensor, self.final_norm(x))

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of the next token at every place; for small inputs."""
        return cast(Tensor, self.head(self(tokens)))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy summed over all places, in nats; the logits exist only a chunk of places at a time.

        Args:
            tokens: Token ids (batch, length).
            targets: The token that follows each, (batch, length).
        """
        hidden = self(tokens).view(-1, self.shape.width)
        return head_loss(hidden, self.head.weight, self.head.bias, targets.reshape(-1))


def rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, (context, 1, 1, rotary_dimension / 2) each (arXiv 2104.09864, eq. 15)."""
    exponents = torch.arange(0, shape.rotary_dimension, 2, dtype=torch.float32) / shape.rotary_dimension
    angles = torch.arange(shape.context, dtype=torch.float32)[:, None] * (1.0 / ROTARY_BASE**exponents)
    angles = angles[:, None, None, :]
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the leading dimensions of every head: pairs are (i, i + rotary_dimension / 2), as in Hugging Face's Phi.

    Args:
        x: (batch, length, 2, heads, head_dimension).
        cosine, sine: (length, 1, 1, rotary_dimension / 2).
    """
    half = cosine.shape[-1]
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    first, second, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1)
