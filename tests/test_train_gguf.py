"""A model as a GGUF file is the same model in llama.cpp: the same tokens, the same text, the same probabilities."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import xllamacpp
from tokenizers import Tokenizer
from train_samples import random_unicode, texts

from primer.errors import PrimerError
from train.gguf_file import TensorType, write_gguf
from train.tokenizer import codegen_tokenizer, end_of_text, save_tokenizer, trained_tokenizer

PROSE = "The water cycle begins when 12,345 rays warm the sea; it's quiet,  isn't it? \n\n Déjà vu — 雨 🌧."
CODE = 'def add(a, b=10):\n    """Add."""\n        return a + b\n\n\tif a:\n\t\t\tpass\n' + " " * 45 + "# end"


def trained() -> Tokenizer:
    return trained_tokenizer({"web": lambda: iter([*texts("web", 30), PROSE, CODE])}, 400)


def phi(**changes: Any) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    return PhiForCausalLM(PhiConfig(**{"intermediate_size": 96, "rope_parameters": rope, **changes}))


def mistral(**changes: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"intermediate_size": 96, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    return MistralForCausalLM(MistralConfig(**sizes, head_dim=8, sliding_window=None, **changes))


def mixtral(**changes: Any) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"intermediate_size": 32, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(**sizes, head_dim=8, num_local_experts=11, **changes))


def save(folder: Path, make: Callable[..., Any], tokenizer: Tokenizer, vocabulary: int, **changes: Any) -> Path:
    """A model directory with random weights large enough that choices differ by more than rounding."""
    import torch

    torch.manual_seed(1)
    end = end_of_text(tokenizer)
    common = {"vocab_size": vocabulary, "num_hidden_layers": 2, "max_position_embeddings": 256}
    model = make(**common, bos_token_id=end, eos_token_id=end, initializer_range=0.2, **changes)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    folder.mkdir()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, 256)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phi whose groups of queries share keys and values."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    return save(tmp_path_factory.mktemp("small") / "phi", phi, trained(), 400, **sizes)


class Llama:
    """llama.cpp with a file, in single precision throughout."""

    def __init__(self, file: Path) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.hostnames, settings.port = ["127.0.0.1"], 0
        settings.n_parallel, settings.n_ctx, settings.verbosity, settings.warmup = 1, 256, -1, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(settings)

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.post("/tokenize", content=text)["tokens"]
        return tokens

    def greedy(self, prompt: list[int], tokens: int) -> tuple[list[int], list[dict[str, Any]]]:
        """The likeliest continuation, and the likeliest five tokens at its places."""
        reply = self.post(
            "/completion",
            prompt=prompt,
            n_predict=tokens,
            temperature=0,
            n_probs=5,
            return_tokens=True,
            ignore_eos=True,
        )
        return reply["tokens"], reply["completion_probabilities"]


def largest_difference(model: Any, prompt: list[int], written: list[int], places: list[dict[str, Any]]) -> float:
    """Of the log-probabilities that llama.cpp reports from those of the model; some broken characters have none."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 :]
    expected = logits.log_softmax(-1).tolist()
    remaining, differences = iter(places), []
    place = next(remaining)
    for token, row in zip(written, expected, strict=False):
        if place["id"] == token:
            differences += [abs(top["logprob"] - row[top["id"]]) for top in place["top_logprobs"]]
            place = next(remaining, {"id": None})
    assert len(differences) >= 5 * len(places)
    return max(differences)


# llama.cpp looks Phi's GELU up in a table of half precision on a CPU; Mistral's activation is exact there.
@pytest.mark.parametrize(
    ("make", "own", "vocabulary", "tolerance", "sizes"),
    [
        # phi-1.5's heads, rotation and vocabulary
        (phi, codegen_tokenizer, 51_200, 0.01, {"hidden_size": 64, "num_attention_heads": 1}),
        (phi, trained, 400, 0.01, {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}),
        (mistral, codegen_tokenizer, 51_200, 1e-3, {}),
        (mixtral, trained, 400, 1e-3, {}),
    ],
    ids=["phi", "phi-grouped", "mistral", "mixtral"],
)
def test_llama_cpp_writes_what_transformers_writes(
    tmp_path: Path, repository: Path, make: Any, own: Any, vocabulary: int, tolerance: float, sizes: dict[str, int]
):
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = own()
    folder = save(tmp_path / "model", make, tokenizer, vocabulary, **sizes)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    llama, model = Llama(tmp_path / "model.gguf"), AutoModelForCausalLM.from_pretrained(folder)
    sources = [path.read_text(encoding="utf-8") for path in sorted((repository / "train").glob("*.py"))]
    for text in [*sources, (repository / "README.md").read_text(encoding="utf-8"), *map(random_unicode, range(20))]:
        assert llama.encode(text) == tokenizer.encode(text).ids
    for text in (PROSE, CODE):
        prompt = tokenizer.encode(text).ids
        written, places = llama.greedy(prompt, 24)
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=24, eos_token_id=None, pad_token_id=0)
        assert written == expected[0, len(prompt) :].tolist()
        assert largest_difference(model, prompt, written, places) < tolerance


def with_changes(folder: Path, copy: Path, **changes: Any) -> Path:
    """A copy of a model directory with other settings."""
    shutil.copytree(folder, copy)
    settings = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, **changes}))
    return copy


@pytest.mark.parametrize(("kind", "error"), [("f32", 0.0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 1 / 127)])
def test_the_types_keep_what_they_promise(small: Path, tmp_path: Path, kind: TensorType, error: float):
    from safetensors.numpy import load_file

    write_gguf(small, tmp_path / "model.gguf", kind)
    assert Llama(tmp_path / "model.gguf").greedy([5, 6, 7], 3)[0]
    weights = load_file(small / "model.safetensors")
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert len(found) == len(weights)
    matrix, expected = found["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.fc2.weight"]
    kept = gguf.dequantize(matrix.data, matrix.tensor_type)
    assert matrix.tensor_type.name.lower() == kind
    assert np.abs(kept - expected).max() <= error * np.abs(expected).max()
    assert np.array_equal(found["output.bias"].data, weights["lm_head.bias"])  # always exact


def test_what_llama_cpp_would_run_otherwise_is_refused_and_leaves_no_file(small: Path, tmp_path: Path):
    def refused(folder: Path, kind: TensorType = "f32") -> str:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        with pytest.raises(PrimerError) as error:
            write_gguf(folder, out / "model.gguf", kind)
        assert list(out.iterdir()) == []
        return str(error.value)

    def changed(name: str, **changes: Any) -> Path:
        return with_changes(small, tmp_path / name, **changes)

    assert "model_type is 'gpt2'" in refused(changed("family", model_type="gpt2"))
    assert "hidden_act is 'relu'" in refused(changed("activation", hidden_act="relu"))
    window = changed("window", model_type="mistral", hidden_act="silu", rms_norm_eps=1e-6, sliding_window=100)
    assert "sliding_window is 100, less than the context of 256" in refused(window)
    assert "intermediate_size is 100, and q8_0" in refused(changed("width", intermediate_size=100), "q8_0")
    bare = changed("bare")
    (bare / "config.json").write_text('{"model_type": "phi", "vocab_size": 400}')
    assert "config.json has no hidden_size, intermediate_size" in refused(bare)
    damaged = changed("damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    assert "model.safetensors cannot be read" in refused(damaged)
    assert "lacks tensors: attn_k.bias of 1 block(s), " in refused(changed("short", num_hidden_layers=3))
    other = changed("tokenizer")
    settings = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps({**settings, "normalizer": {"type": "NFC"}}))
    assert "no byte-level BPE tokenizer" in refused(other)
    (other / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(other)
