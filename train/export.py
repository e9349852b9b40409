"""Weights to and from the directory layout of Hugging Face's `PhiForCausalLM`.

Files are written without importing transformers, which would cost every training run over ten seconds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from primer.errors import PrimerError
from primer.run import write_json
from train.model import INITIAL_STANDARD_DEVIATION, LAYER_NORM_EPSILON, ROTARY_BASE, Phi
from train.shape import Shape
from train.tokenizer import end_of_text, save_tokenizer

_TOP = {"embedding": "model.embed_tokens", "final_norm": "model.final_layernorm", "head": "lm_head"}
_BLOCK = {
    "norm": "input_layernorm",
    "attention_out": "self_attn.dense",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # in the order of the rows of the fused product


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under Phi's names, the fused query-key-value product divided in three."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, kind = name.rsplit(".", 1)
        if not module.startswith("blocks."):
            out[f"{_TOP[module]}.{kind}"] = tensor
            continue
        _, layer, part = module.split(".")
        if part == "query_key_value":
            for projection, rows in zip(_PROJECTIONS, tensor.chunk(3), strict=True):
                out[f"model.layers.{layer}.self_attn.{projection}.{kind}"] = rows
        else:
            out[f"model.layers.{layer}.{_BLOCK[part]}.{kind}"] = tensor
    return {name: tensor.detach().cpu().contiguous() for name, tensor in out.items()}


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `to_hugging_face`."""
    layers = {int(name.split(".")[2]) for name in state if name.startswith("model.layers.")}
    out = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in _TOP.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in state
    }
    for layer in sorted(layers):
        for kind in ("weight", "bias"):
            prefix = f"model.layers.{layer}"
            fused = [state[f"{prefix}.self_attn.{projection}.{kind}"] for projection in _PROJECTIONS]
            out[f"blocks.{layer}.query_key_value.{kind}"] = torch.cat(fused)
            for ours, theirs in _BLOCK.items():
                out[f"blocks.{layer}.{ours}.{kind}"] = state[f"{prefix}.{theirs}.{kind}"]
    return out


def load_weights(model: Phi, folder: Path) -> None:
    """Fill a model from `model.safetensors` of a Hugging Face Phi directory.

    Raises:
        PrimerError: If the file is missing, damaged, or of another shape.
    """
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(from_hugging_face(load_file(path)))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise PrimerError(
            f"{path} does not hold the weights of this model: {error}",
            "Name the directory of a Phi model of this shape.",
        ) from None


def configuration(shape: Shape, end: int) -> dict[str, Any]:
    """`config.json` of a model, as transformers 5 reads it."""
    return {
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.context,
        "hidden_act": "gelu_new",  # the tanh approximation
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "initializer_range": INITIAL_STANDARD_DEVIATION,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": _rotary_factor(shape),
        },
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "qk_layernorm": False,
        "tie_word_embeddings": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "use_cache": True,
        "dtype": "float32",
    }


def export_model(model: Phi, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a directory that `AutoModelForCausalLM` and `AutoTokenizer` load and vLLM serves."""
    end = end_of_text(tokenizer)
    temporary = folder / ".model.safetensors.tmp"
    save_file(to_hugging_face(model.state_dict()), temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # the library writes files that only their owner reads
    temporary.replace(folder / "model.safetensors")
    write_json(folder / "config.json", configuration(model.shape, end))
    write_json(folder / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end})
    save_tokenizer(tokenizer, folder, model.shape.context)


def _rotary_factor(shape: Shape) -> float:
    """The share of a head that is rotated, such that rounding it down again gives the rotary dimension."""
    factor = shape.rotary_dimension / shape.head_dimension
    exact = int(shape.head_dimension * factor) == shape.rotary_dimension
    return factor if exact else math.nextafter(factor, 1.0)
