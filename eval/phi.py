"""Phi's decoder, as small as scoring and writing need it: Hugging Face's layout in, transformers' logits out.

Importing transformers' own takes 6 s of CPU, and this one does less: queries, keys and values are one multiplication,
angles are computed once, and the last block is evaluated only where its output is wanted. It is called as
transformers' models are, so `eval.batched` takes either.

Architecture: a parallel block, x + attention(norm(x)) + mlp(norm(x)), and partial rotary embeddings, as in phi-1.5
(arXiv 2309.05463) and `PhiForCausalLM`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Weight and bias of a part.
Part = tuple[Tensor, Tensor]

# The operation that PyTorch's compiler uses for the same; PyTorch is also built without it.
_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")

# Phi's activation under the names that transformers has for it.
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")


@dataclass
class Cache:
    """Keys and values of what was read, a pair a layer, each of the shape (batch, heads, tokens, head dimension)."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def batch_select_indices(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]

    def batch_repeat_interleave(self, times: int) -> None:
        """Have each row of the batch so often."""
        self.layers = [
            (keys.repeat_interleave(times, 0), values.repeat_interleave(times, 0)) for keys, values in self.layers
        ]


@dataclass(frozen=True)
class _Layer:
    """One block: weights and biases. `into` is queries, keys and values together."""

    norm: Part
    into: Part
    dense: Part
    inner: Part
    out: Part


class Phi:
    """A Phi model.

    Args:
        config: Of `config.json`; see `fits`.
        weights: Parameters under Hugging Face's names, in one precision.
        device: Where they shall be.

    Raises:
        KeyError: If a parameter is missing.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor], device: torch.device) -> None:
        self.config, self.device = SimpleNamespace(**config), device
        self.shares = True  # see `eval.scoring.Decoder`
        self._heads = config["num_attention_heads"]
        self._key_heads = config.get("num_key_value_heads") or self._heads
        self._dimension = config["hidden_size"] // self._heads
        self._epsilon: float = config["layer_norm_eps"]

        def pair(*names: str) -> Part:
            """Weight and bias of some parts as of one."""
            weight, bias = (torch.cat([weights[f"{name}.{kind}"] for name in names]) for kind in ("weight", "bias"))
            return weight.to(device), bias.to(device)

        self._layers = []
        for number in range(config["num_hidden_layers"]):
            at = f"model.layers.{number}"
            into = pair(*(f"{at}.self_attn.{name}_proj" for name in "qkv"))
            names = ("self_attn.dense", "mlp.fc1", "mlp.fc2")
            self._layers.append(_Layer(pair(f"{at}.input_layernorm"), into, *(pair(f"{at}.{name}") for name in names)))
        self._embedding = weights["model.embed_tokens.weight"].to(device)
        self.dtype = self._embedding.dtype
        self._norm = pair("model.final_layernorm")
        head = self._embedding if config.get("tie_word_embeddings") else weights["lm_head.weight"].to(device)
        self._head = (head, weights["lm_head.bias"].to(device))
        base, share = _rotation(config)
        rotary = int(self._dimension * share)
        frequencies = 1.0 / base ** (torch.arange(0, rotary, 2, dtype=torch.float32) / rotary)
        angles = torch.arange(config["max_position_embeddings"])[:, None] * frequencies
        self._angles = [found.to(device, self.dtype) for found in (angles.cos(), angles.sin())]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> SimpleNamespace:
        """Logits, and keys and values.

        Args:
            input_ids: Tokens, shape (batch, length).
            attention_mask: 1 for what may be seen of what was read before and of `input_ids`, shape (batch, both).
            position_ids: Shape (batch, length).
            past_key_values: What was read before; it is brought up to date.
            use_cache: Whether keys and values are wanted.
            logits_to_keep: Of the last so many tokens; 0 means of all.
        """
        cache = Cache() if past_key_values is None else past_key_values
        seen = cache.layers[0][0].shape[2] if cache.layers else 0
        length = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(seen, seen + length, device=self.device)[None]
        mask = self._mask(attention_mask, seen, length)
        found = self.read(input_ids, position_ids, mask, cache, grows=True)
        logits = self.logits(found[:, -logits_to_keep:])
        return SimpleNamespace(logits=logits, past_key_values=cache if use_cache else None)

    __call__ = forward

    def read(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        past: Cache | None = None,
        wanted: Tensor | None = None,
        *,
        grows: bool = False,
    ) -> Tensor:
        """Hidden states after the last norm, shape (batch, length or wanted, width).

        Args:
            tokens: Shape (batch, length).
            positions: Shape (batch or 1, length); None counts from 0.
            mask: Added to the attention scores, shape (batch or 1, 1, length, past and length); None means that a token
                sees what is before it.
            past: Keys and values of what was read before; of one row, they are every row's.
            wanted: The places in each row whose hidden states are wanted, shape (batch, wanted); None means all.
            grows: Whether the keys and values of `tokens` are added to `past`.
        """
        length = tokens.shape[1]
        angles = [table[:length] if positions is None else table[positions] for table in self._angles]
        hidden = functional.embedding(tokens, self._embedding)
        for number, layer in enumerate(self._layers):
            known = past.layers[number] if past is not None and past.layers[number:] else None
            some = wanted if number == len(self._layers) - 1 else None
            hidden, now = self._block(layer, hidden, angles, mask, known, some)
            if past is not None and grows:
                past.layers[number : number + 1] = [now]
        return functional.layer_norm(hidden, hidden.shape[-1:], *self._norm, self._epsilon)

    def begin(self, tokens: Tensor) -> Cache:
        """Keys and values of a beginning that several texts share, shape (1, length)."""
        cache = Cache()
        self.read(tokens, past=cache, wanted=torch.zeros(1, 1, dtype=torch.long, device=self.device), grows=True)
        return cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states, shape (..., width), to logits, shape (..., vocabulary)."""
        return _linear(hidden, self._head)

    def _block(
        self,
        layer: _Layer,
        hidden: Tensor,
        angles: list[Tensor],
        mask: Tensor | None,
        known: tuple[Tensor, Tensor] | None,
        wanted: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A block's output, and all keys and values that it had."""
        normed = functional.layer_norm(hidden, hidden.shape[-1:], *layer.norm, self._epsilon)
        asked, told = self._heads * self._dimension, self._key_heads * self._dimension
        causal = mask is None and known is None
        if wanted is None:
            turned, values = torch.split(_linear(normed, layer.into), [asked + told, told], -1)
            queries, keys = torch.split(self._turn(turned, angles), [self._heads, self._key_heads], 1)
        else:
            # Every token is seen, but only the wanted ones look.
            keys, values = torch.split(_linear(normed, layer.into, slice(asked, None)), told, -1)
            places = torch.arange(len(wanted), device=self.device)[:, None], wanted
            normed, hidden = normed[places], hidden[places]
            own = [angle.expand(len(wanted), -1, -1)[places] for angle in angles]
            queries = self._turn(_linear(normed, layer.into, slice(asked)), own)
            keys = self._turn(keys, angles)
            mask, causal = self._mask_of(wanted, mask, keys.shape[2]), False
        values = self._heads_first(values)
        if known is not None:
            keys, values = (
                torch.cat([old.expand(len(hidden), -1, -1, -1), new], 2)
                for old, new in zip(known, (keys, values), strict=True)
            )
        shared = self._heads != self._key_heads
        found = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=shared
        )
        added = _linear(found.transpose(1, 2).flatten(2), layer.dense)
        added += _linear(_linear(normed, layer.inner, gelu=True), layer.out)
        return added + hidden, (keys, values)

    def _heads_first(self, vectors: Tensor) -> Tensor:
        """(batch, length, heads x dimension) as (batch, heads, length, dimension)."""
        return vectors.view(*vectors.shape[:2], -1, self._dimension).transpose(1, 2)

    def _turn(self, vectors: Tensor, angles: list[Tensor]) -> Tensor:
        """Put positions into queries or keys, in place; shapes as in `_heads_first`."""
        found = self._heads_first(vectors)
        cosine, sine = (angle.unsqueeze(-3) for angle in angles)
        half = cosine.shape[-1]
        first, second = found[..., :half], found[..., half : 2 * half]
        turned = first * cosine - second * sine
        second.mul_(cosine).add_(first * sine)
        first.copy_(turned)
        return found

    def _mask_of(self, wanted: Tensor, mask: Tensor | None, length: int) -> Tensor:
        """The rows of a mask that belong to the wanted places."""
        if mask is not None:
            rows = torch.arange(len(wanted), device=self.device)[:, None]
            return mask.expand(len(wanted), -1, -1, -1)[:, 0][rows, wanted][:, None]
        hidden = torch.arange(length, device=self.device) > wanted[:, :, None]
        return torch.zeros(hidden.shape, dtype=self.dtype, device=self.device).masked_fill_(hidden, -torch.inf)[:, None]

    def _mask(self, visible: Tensor | None, seen: int, length: int) -> Tensor | None:
        """What is added to the scores of `length` tokens after `seen` others; None where `read` needs none."""
        if visible is not None and not bool(visible.all()):
            hidden = visible[:, None, :] == 0
        elif seen and length > 1:
            hidden = torch.zeros(1, 1, seen + length, dtype=torch.bool, device=self.device)
        else:
            return None
        hidden = hidden | torch.ones(length, seen + length, dtype=torch.bool, device=self.device).triu(seen + 1)
        # Not minus infinity: what is padding sees nothing, and would be not a number.
        lowest = torch.finfo(self.dtype).min
        return torch.zeros(hidden.shape, dtype=self.dtype, device=self.device).masked_fill_(hidden, lowest)[:, None]


def fits(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` describes a model that this file computes."""
    return (
        config.get("model_type") == "phi"
        and config.get("hidden_act") in _ACTIVATIONS
        and (config.get("rope_parameters") or {}).get("rope_type", "default") == "default"
        and not any(config.get(key) for key in ("qk_layernorm", "rope_scaling", "head_dim", "quantization_config"))
    )


def load_phi(folder: Path, device: torch.device) -> Phi | None:
    """The model in a directory; None where it is of another architecture, in several files, or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not fits(config):
            return None
        weights = load_file(folder / "model.safetensors")
        # Half precision is many times slower than single on most CPUs; on a GPU the model's own is kept.
        named = config.get("dtype") or config.get("torch_dtype") or "float32"
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, named)
        model = Phi(config, {name: tensor.to(dtype) for name, tensor in weights.items()}, device)
        with torch.inference_mode():
            model(torch.zeros(1, 1, dtype=torch.long, device=device))  # fails where the shapes do not fit the settings
        return model
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError):
        return None  # transformers finds out what is wrong with it


def _linear(vectors: Tensor, part: Part, rows: slice = slice(None), *, gelu: bool = False) -> Tensor:
    """A linear layer, or some rows of it, perhaps with Phi's activation after it.

    On a CPU by oneDNN, in full single precision: PyTorch's own choice, MKL, leaves AVX-512 unused on AMD and takes
    twice as long.
    """
    weight, bias = (tensor[rows] for tensor in part)
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32 and _ONEDNN:
        after, kind = ("gelu", "tanh") if gelu else ("none", "")
        done: Tensor = torch.ops.mkldnn._linear_pointwise(vectors, weight, bias, after, [], kind)
        return done
    found = functional.linear(vectors, weight, bias)
    return functional.gelu(found, approximate="tanh") if gelu else found


def _rotation(config: Mapping[str, Any]) -> tuple[float, float]:
    """The base of the rotary frequencies, and the share of a head that is rotated."""
    named = {**config, **(config.get("rope_parameters") or {})}
    return float(named.get("rope_theta", 10_000.0)), float(named.get("partial_rotary_factor", 0.5))
