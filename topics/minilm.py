"""BERT's encoder with mean pooling, out of PyTorch's own layers (Devlin et al. 2019; Reimers and Gurevych 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn


class MiniLM(nn.Module):
    """Tokens in, unit sentence vectors out.

    Args:
        vocabulary: Tokens.
        positions: Longest text, in tokens.
        width: Size of a vector.
        layers: Encoder layers.
        heads: Attention heads.
        inner: Width of the feed-forward layers.
        epsilon: Of the layer norms.
    """

    def __init__(
        self, *, vocabulary: int, positions: int, width: int, layers: int, heads: int, inner: int, epsilon: float
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        layer = nn.TransformerEncoderLayer(
            width, heads, inner, dropout=0.0, activation="gelu", layer_norm_eps=epsilon, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            tokens: Ids, shape (batch, length).
            mask: True where a token is, False where padding is; same shape.

        Returns:
            Unit vectors, shape (batch, width): the mean over a text's tokens.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.norm(self.words(tokens) + self.positions(places))
        hidden = self.encoder(hidden, src_key_padding_mask=~mask)
        weights = mask[:, :, None].to(hidden.dtype)
        return nn.functional.normalize((hidden * weights).sum(1), dim=1)

    @classmethod
    def from_bert(cls, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Self:
        """The model from a BertModel's weights and configuration (`config.json`)."""
        model = cls(
            vocabulary=config["vocab_size"],
            positions=config["max_position_embeddings"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            inner=config["intermediate_size"],
            epsilon=config["layer_norm_eps"],
        )
        state = {
            # A text is one segment: the segment's vector is the same everywhere and joins the words'.
            "words.weight": weights["embeddings.word_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0],
            "positions.weight": weights["embeddings.position_embeddings.weight"],
        }
        names = {"norm": "embeddings.LayerNorm"}
        for number in range(config["num_hidden_layers"]):
            ours, theirs = f"encoder.layers.{number}", f"encoder.layer.{number}"
            for end in ("weight", "bias"):
                parts = [weights[f"{theirs}.attention.self.{part}.{end}"] for part in ("query", "key", "value")]
                state[f"{ours}.self_attn.in_proj_{end}"] = torch.cat(parts)
            names |= {
                f"{ours}.self_attn.out_proj": f"{theirs}.attention.output.dense",
                f"{ours}.norm1": f"{theirs}.attention.output.LayerNorm",
                f"{ours}.linear1": f"{theirs}.intermediate.dense",
                f"{ours}.linear2": f"{theirs}.output.dense",
                f"{ours}.norm2": f"{theirs}.output.LayerNorm",
            }
        state |= {
            f"{ours}.{end}": weights[f"{theirs}.{end}"] for ours, theirs in names.items() for end in ("weight", "bias")
        }
        model.load_state_dict(state)
        return model.eval()
