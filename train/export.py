"""Model directories in the layout of Hugging Face's `PhiForCausalLM`, `MistralForCausalLM` and `MixtralForCausalLM`.

Files are written without importing transformers, which would cost every training run over ten seconds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from primer.errors import PrimerError
from primer.run import write_json
from train.experts import BALANCE_COEFFICIENT
from train.layers import NORM_EPSILON, ROTARY_BASE
from train.model import INITIAL_STANDARD_DEVIATION, Phi
from train.names import from_hugging_face, to_hugging_face
from train.shape import Shape
from train.tokenizer import end_of_text, save_tokenizer


def load_weights(model: Phi, folder: Path) -> None:
    """Fill a model from `model.safetensors` of a directory of its class.

    Raises:
        PrimerError: If the file is missing, damaged, or of another shape.
    """
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(from_hugging_face(load_file(path), model.shape))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise PrimerError(
            f"{path} does not hold the weights of this model: {error}",
            f"Name the directory of a {_class_name(model.shape)} of this shape.",
        ) from None


def configuration(shape: Shape, end: int) -> dict[str, Any]:
    """`config.json` of a model, as transformers 5 reads it."""
    common: dict[str, Any] = {
        "architectures": [_class_name(shape)],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.keys,
        "max_position_embeddings": shape.context,
        "initializer_range": INITIAL_STANDARD_DEVIATION,
        "attention_dropout": shape.dropout,
        "tie_word_embeddings": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "use_cache": True,
        "dtype": "float32",
    }
    return common | (_phi(shape) if shape.block == "parallel" else _mistral(shape))


def export_model(model: Phi, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a directory that `AutoModelForCausalLM` and `AutoTokenizer` load and vLLM serves."""
    end = end_of_text(tokenizer)
    temporary = folder / ".model.safetensors.tmp"
    save_file(to_hugging_face(model.state_dict(), model.shape), temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # the library writes files that only their owner reads
    temporary.replace(folder / "model.safetensors")
    write_json(folder / "config.json", configuration(model.shape, end))
    write_json(folder / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end})
    save_tokenizer(tokenizer, folder, model.shape.context)


def _class_name(shape: Shape) -> str:
    """The class in transformers."""
    if shape.block == "parallel":
        return "PhiForCausalLM"
    return "MixtralForCausalLM" if shape.experts else "MistralForCausalLM"


def _phi(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "phi",
        "hidden_act": "gelu_new",  # the tanh approximation
        "layer_norm_eps": NORM_EPSILON,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": _rotary_factor(shape),
        },
        "embd_pdrop": 0.0,
        "resid_pdrop": shape.dropout,
        "qk_layernorm": False,
    }


def _mistral(shape: Shape) -> dict[str, Any]:
    found = {
        "model_type": "mistral",
        "head_dim": shape.head_dimension,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "sliding_window": shape.window,
    }
    if not shape.experts:
        return found
    return found | {
        "model_type": "mixtral",
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "output_router_logits": False,
        "router_aux_loss_coef": BALANCE_COEFFICIENT,
        "router_jitter_noise": 0.0,
    }


def _rotary_factor(shape: Shape) -> float:
    """The share of a head that is rotated, such that rounding it down again gives the rotary dimension."""
    factor = shape.rotary_dimension / shape.head_dimension
    exact = int(shape.head_dimension * factor) == shape.rotary_dimension
    return factor if exact else math.nextafter(factor, 1.0)
