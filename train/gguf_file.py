"""A model directory as one GGUF file, which llama.cpp and what is built on it run.

Two families have an architecture there: Phi's (`phi2`) and Mistral's without a window, with or without experts
(`llama`). Names of tensors and keys come from the `gguf` package, which llama.cpp's authors publish.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from primer.errors import PrimerError
from primer.model_folder import read_configuration
from train.gguf_tokenizer import add_tokenizer

TensorType = Literal["f32", "f16", "bf16", "q8_0"]

_TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_Q8_BLOCK = 32  # weights of a row that share a scale

_ARCHITECTURES = {
    "phi": gguf.MODEL_ARCH.PHI2,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
}

# Of config.json: what every family has, and each its own.
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
)
_NEEDED_BY = {
    "phi": ("layer_norm_eps",),
    "mistral": ("rms_norm_eps",),
    "mixtral": ("rms_norm_eps", "num_local_experts", "num_experts_per_tok"),
}

# Mixtral's experts in safetensors: one matrix each, where a GGUF file has one block for all of a layer.
_EXPERT = re.compile(r"(.*\.block_sparse_moe\.experts)\.(\d+)\.(w[123])\.weight")

# Which block a tensor of a GGUF file belongs to.
_BLOCK = re.compile(r"^blk\.\d+\.")

_AGAIN = "Make or copy the model again."

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file to be: its name there, its shape, the type it is kept in, and how to read its values."""

    name: str
    shape: tuple[int, ...]
    kept: gguf.GGMLQuantizationType
    load: Callable[[], Array]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(gguf.quant_shape_to_byte_shape(self.shape, self.kept))


def write_gguf(model: Path, file: Path, kind: TensorType) -> None:
    """Write a model directory as a GGUF file, whole or not at all; one tensor is in memory at a time.

    Args:
        model: A Hugging Face directory with `config.json`, safetensors and `tokenizer.json`.
        file: Where to; a file that is there is replaced.
        kind: Type of the matrices. Biases, norms and routers are always f32, as llama.cpp has them.

    Raises:
        PrimerError: If llama.cpp could not run this model as it is, or a file is missing or damaged.
    """
    settings = read_configuration(model)
    _check(settings, model, kind)
    architecture = _ARCHITECTURES[settings["model_type"]]
    temporary = file.with_name(f".{file.name}.tmp")
    with ExitStack() as stack:
        tensors = list(_tensors(_sources(model, stack), settings, architecture, _TYPES[kind][0], model))
        _check_whole(tensors, settings["num_hidden_layers"], model)
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
        stack.callback(temporary.unlink, missing_ok=True)
        stack.callback(writer.close)
        _add_settings(writer, settings, model.resolve().name, kind)
        add_tokenizer(writer, model / "tokenizer.json", settings["vocab_size"])
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=tensor.kept)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(gguf.quantize(tensor.load(), tensor.kept))
        writer.close()
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)


def _check(settings: Mapping[str, Any], model: Path, kind: TensorType) -> None:
    """Refuse what llama.cpp would not load, or would compute differently without a word."""
    path = model / "config.json"
    family = settings.get("model_type")
    if family not in _ARCHITECTURES:
        raise PrimerError(
            f"{path}: model_type is {family!r}; this command writes {', '.join(_ARCHITECTURES)}.",
            "llama.cpp's own convert_hf_to_gguf.py knows many others.",
        )
    missing = [key for key in (*_NEEDED, *_NEEDED_BY[family]) if key not in settings]
    if missing:
        raise PrimerError(f"{path} has no {', '.join(missing)}.", _AGAIN)
    window, context = settings.get("sliding_window"), settings["max_position_embeddings"]
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    activations = ("gelu_new", "gelu_pytorch_tanh") if family == "phi" else ("silu",)
    oddities = {
        f"hidden_act is {settings['hidden_act']!r}": settings["hidden_act"] not in activations,
        f"rope_type is {rope.get('rope_type')!r}": rope.get("rope_type", "default") != "default",
        "qk_layernorm is true": settings.get("qk_layernorm"),
        "tie_word_embeddings is true": family == "phi" and settings.get("tie_word_embeddings"),
        f"sliding_window is {window}, less than the context of {context}": window is not None and window < context,
    }
    found = [words for words, true in oddities.items() if true]
    if found:
        raise PrimerError(
            f"{path}: {'; '.join(found)}, which llama.cpp's {_ARCHITECTURES[family].name.lower()} has not.",
            "Use the directory itself: transformers and vLLM read it.",
        )
    for key in ("hidden_size", "intermediate_size"):
        if kind == "q8_0" and settings[key] % _Q8_BLOCK:
            raise PrimerError(
                f"{path}: {key} is {settings[key]}, and q8_0 keeps rows in blocks of {_Q8_BLOCK}.",
                "Take --type f16, or f32.",
            )


def _head_dimension(settings: Mapping[str, Any]) -> int:
    return int(settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"])


def _add_settings(writer: gguf.GGUFWriter, settings: Mapping[str, Any], name: str, kind: TensorType) -> None:
    rope = settings.get("rope_parameters") or settings
    head = _head_dimension(settings)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(_TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(settings["vocab_size"])
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings.get("num_key_value_heads") or settings["num_attention_heads"])
    writer.add_rope_freq_base(rope.get("rope_theta", 10_000.0))
    if settings["model_type"] == "phi":
        writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 0.5)))
        writer.add_layer_norm_eps(settings["layer_norm_eps"])
        return
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    if settings["model_type"] == "mixtral":
        writer.add_expert_count(settings["num_local_experts"])
        writer.add_expert_used_count(settings["num_experts_per_tok"])


def _sources(model: Path, stack: ExitStack) -> dict[str, Any]:
    """The open safetensors file of each tensor, by the tensor's name."""
    files = sorted(model.glob("model*.safetensors"))
    if not files:
        raise PrimerError(f"{model} has no model.safetensors.", _AGAIN)
    sources = {}
    for path in files:
        try:
            opened = stack.enter_context(safe_open(path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise PrimerError(f"{path} cannot be read: {error}", _AGAIN) from None
        sources.update(dict.fromkeys(opened.keys(), opened))
    return sources


def _tensors(
    sources: Mapping[str, Any],
    settings: Mapping[str, Any],
    architecture: gguf.MODEL_ARCH,
    matrices: gguf.GGMLQuantizationType,
    model: Path,
) -> Iterator[_Tensor]:
    """What goes into the file, in the order of the names there."""
    names = gguf.get_tensor_name_map(architecture, settings["num_hidden_layers"])
    heads = {"q_proj": settings["num_attention_heads"]}
    heads["k_proj"] = settings.get("num_key_value_heads") or heads["q_proj"]
    experts: dict[str, list[str]] = defaultdict(list)  # matrices that become one block, in the order of their numbers
    for name in sorted(sources, key=_natural):
        match = _EXPERT.fullmatch(name)
        experts[f"{match[1]}.{match[3]}.weight" if match else name].append(name)
    for source, parts in experts.items():
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise PrimerError(f"{model}: llama.cpp has no place for the tensor {source}.", "Leave out what is added.")
        projection = source.split(".")[-2]
        # Phi rotates halves of a head against each other in both; `llama` rotates neighbours.
        interleaved = heads.get(projection) if architecture is gguf.MODEL_ARCH.LLAMA else None
        shape = tuple(sources[parts[0]].get_slice(parts[0]).get_shape())
        shape = (len(parts), *shape) if _EXPERT.fullmatch(parts[0]) else shape
        full = len(shape) == 1 or ".ffn_gate_inp." in name
        kept = gguf.GGMLQuantizationType.F32 if full else matrices
        yield _Tensor(name, shape, kept, partial(_load, sources, parts, shape, interleaved))


def _check_whole(tensors: Sequence[_Tensor], layers: int, model: Path) -> None:
    """Refuse a model that lacks a tensor: its file would be written, and then not load."""
    found = Counter(_BLOCK.sub("", tensor.name) for tensor in tensors)
    blocks = {name for name in found if not name.startswith(("token_embd.", "output"))}
    lacking = [f"{name} of {layers - found[name]} block(s)" for name in sorted(blocks) if found[name] != layers]
    lacking += [name for name in ("token_embd.weight", "output_norm.weight") if not found[name]]
    if lacking or not blocks:
        raise PrimerError(f"{model} lacks tensors: {', '.join(lacking) or 'all blocks'} (llama.cpp's names).", _AGAIN)


def _load(sources: Mapping[str, Any], parts: list[str], shape: tuple[int, ...], heads: int | None) -> Array:
    """A tensor's values; with `heads`, the rows of each head in the order in which neighbours are rotated together."""
    values: Array = np.concatenate([sources[part].get_tensor(part).float().numpy() for part in parts])
    if heads:
        values = values.reshape(heads, 2, -1, *shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(values.reshape(shape))


def _natural(name: str) -> list[str | int]:
    """Sort by the numbers in a name, not by their digits."""
    return [int(part) if part.isdigit() else part for part in name.split(".")]
