"""A decoder's block, its norms and rotary embedding; which of the options it has is the shape's to say."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.attention import Mask, attend
from train.experts import Experts
from train.shape import Shape

# As in microsoft/phi-1_5's and mistralai/Mistral-7B-v0.1's config.json.
NORM_EPSILON = 1e-5
ROTARY_BASE = 10_000.0  # arXiv 2104.09864, section 3.2.2; and as above


class Block(nn.Module):
    """Attention and MLP, added to the residual stream: side by side on one norm, or one after the other on two."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm = make_norm(shape)
        # One product in place of three.
        self.query_key_value = nn.Linear(shape.width, sum(shape.projections), bias=shape.biases)
        self.attention_out = nn.Linear(shape.width, shape.width, bias=shape.biases)
        if shape.block == "sequential":
            self.mlp_norm = make_norm(shape)
        if shape.experts:
            self.experts = Experts(shape)
        else:
            self.mlp_in = nn.Linear(shape.width, shape.mlp_rows, bias=shape.biases)
            self.mlp_out = nn.Linear(shape.feed_forward, shape.width, bias=shape.biases)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Mask) -> Tensor:
        """Args: x (batch, length, width); cosine and sine (length, rotary_dimension / 2). Returns: as x."""
        y = self.norm(x)
        if self.shape.block == "parallel":
            expanded = self._dropped(self._mlp(y))
            return x + self._dropped(self._attention(y, cosine, sine, mask)) + expanded
        x = x + self._dropped(self._attention(y, cosine, sine, mask))
        return x + self._dropped(self._mlp(self.mlp_norm(x)))

    def _attention(self, y: Tensor, cosine: Tensor, sine: Tensor, mask: Mask) -> Tensor:
        heads, keys = self.shape.heads, self.shape.keys
        qkv = self.query_key_value(y).unflatten(-1, (heads + 2 * keys, self.shape.head_dimension)).permute(2, 0, 1, 3)
        if y.device.type == "cpu":
            qkv = qkv.contiguous()  # copied at once, which saves slower passes over scattered rows
        query_key, value = torch.split(qkv, [heads + keys, keys])
        query, key = torch.split(rotate(query_key, cosine, sine), [heads, keys])
        attended = attend(query, key, value, mask, self.shape.dropout if self.training else 0.0)
        return cast(Tensor, self.attention_out(attended.permute(1, 2, 0, 3).flatten(2)))

    def _mlp(self, y: Tensor) -> Tensor:
        if self.shape.experts:
            return cast(Tensor, self.experts(y))
        hidden = self.mlp_in(y)
        if self.shape.mlp == "swiglu":  # arXiv 2002.05202, eq. 6
            gate, up = hidden.chunk(2, -1)
            return cast(Tensor, self.mlp_out(F.silu(gate) * up))
        return cast(Tensor, self.mlp_out(F.gelu(hidden, approximate="tanh")))

    def _dropped(self, added: Tensor) -> Tensor:
        return F.dropout(added, self.shape.dropout) if self.training and self.shape.dropout else added


def make_norm(shape: Shape) -> nn.Module:
    """LayerNorm, or RMSNorm (arXiv 1910.07467)."""
    kind = nn.LayerNorm if shape.norm == "layer" else nn.RMSNorm
    return kind(shape.width, eps=NORM_EPSILON)


def rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, (context, rotary_dimension / 2) each (arXiv 2104.09864, eq. 15)."""
    exponents = torch.arange(0, shape.rotary_dimension, 2, dtype=torch.float32) / shape.rotary_dimension
    angles = torch.arange(shape.context, dtype=torch.float32)[:, None] * (1.0 / ROTARY_BASE**exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the leading dimensions of every head: pairs are (i, i + rotary_dimension / 2), as in Hugging Face's Phi.

    Args:
        x: (heads, batch, length, head_dimension).
        cosine, sine: (length, rotary_dimension / 2).
    """
    half = cosine.shape[-1]
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    first, second, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1)
