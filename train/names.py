"""Names of parameters in Hugging Face's `PhiForCausalLM`, `MistralForCausalLM` and `MixtralForCausalLM`.

Several of theirs may lie under each other in one of ours: queries, keys and values; a gate and what it gates; the
experts of a block. So the translation is one table: our name, then theirs and their rows, from the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from train.shape import Shape

Table: TypeAlias = dict[str, dict[str, int]]


def table(shape: Shape) -> Table:
    """Our name of every parameter of a model to their names and rows."""
    phi = shape.block == "parallel"
    modules = {
        "embedding": {"model.embed_tokens": shape.vocabulary},
        "final_norm": {f"model.{'final_layernorm' if phi else 'norm'}": shape.width},
        "head": {"lm_head": shape.vocabulary},
    }
    for layer in range(shape.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        parts = _phi_block(shape) if phi else _mistral_block(shape)
        for name, rows in parts.items():
            modules[f"{ours}.{name}"] = {f"{theirs}.{each}": count for each, count in rows.items()}
    found: Table = {}
    for module, rows in modules.items():
        if ".experts." in module:  # parameters of their own, not of a linear layer
            found[module] = {f"{name}.weight": count for name, count in rows.items()}
            continue
        for kind in _kinds(module, shape):
            found[f"{module}.{kind}"] = {f"{name}.{kind}": count for name, count in rows.items()}
    return found


def to_hugging_face(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Our parameters, or their gradients, under Hugging Face's names; those of Mixtral are the files' names."""
    out: dict[str, Tensor] = {}
    for name, parts in table(shape).items():
        if name in state:
            tensor = state[name].detach().cpu()
            rows = tensor.flatten(0, 1) if tensor.dim() == 3 else tensor
            pieces = torch.split(rows, list(parts.values()))
            out.update((theirs, piece.contiguous()) for theirs, piece in zip(parts, pieces, strict=True))
    return out


def from_hugging_face(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The reverse of `to_hugging_face`.

    Raises:
        KeyError: If a name is missing.
        RuntimeError: If sizes do not fit each other.
    """
    out: dict[str, Tensor] = {}
    for name, parts in table(shape).items():
        pieces = [state[theirs] for theirs in parts]
        tensor = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        stacked = name.endswith(("experts.mlp_in", "experts.mlp_out"))
        out[name] = tensor.view(shape.experts or 1, -1, tensor.shape[-1]) if stacked else tensor
    return out


def _kinds(module: str, shape: Shape) -> tuple[str, ...]:
    """Parameters of a module: RMSNorm has no bias, nor has an embedding."""
    biased = shape.norm == "layer" if module.endswith("norm") else shape.biases and module != "embedding"
    return ("weight", "bias") if biased else ("weight",)


def _projections(shape: Shape) -> dict[str, int]:
    return {f"self_attn.{x}_proj": rows for x, rows in zip("qkv", shape.projections, strict=True)}


def _phi_block(shape: Shape) -> dict[str, dict[str, int]]:
    return {
        "norm": {"input_layernorm": shape.width},
        "query_key_value": _projections(shape),
        "attention_out": {"self_attn.dense": shape.width},
        "mlp_in": {"mlp.fc1": shape.feed_forward},
        "mlp_out": {"mlp.fc2": shape.width},
    }


def _mistral_block(shape: Shape) -> dict[str, dict[str, int]]:
    block = {
        "norm": {"input_layernorm": shape.width},
        "query_key_value": _projections(shape),
        "attention_out": {"self_attn.o_proj": shape.width},
        "mlp_norm": {"post_attention_layernorm": shape.width},
    }
    if not shape.experts:
        gated = {"mlp.gate_proj": shape.feed_forward, "mlp.up_proj": shape.feed_forward}
        return block | {"mlp_in": gated, "mlp_out": {"mlp.down_proj": shape.width}}
    mixture = "block_sparse_moe"
    each = [f"{mixture}.experts.{number}" for number in range(shape.experts)]
    return block | {
        "experts.router": {f"{mixture}.gate": shape.experts},
        "experts.mlp_in": {f"{expert}.{part}": shape.feed_forward for expert in each for part in ("w1", "w3")},
        "experts.mlp_out": {f"{expert}.w2": shape.width for expert in each},
    }
