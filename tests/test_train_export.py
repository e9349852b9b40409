from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from decoder_samples import GROUPED, MISTRAL, MIXTRAL, TINY, hugging_face, make_model, make_tokens

from primer.errors import PrimerError
from primer.recipe_train import CODEGEN_VOCABULARY_SIZE
from train.export import configuration, export_model, load_weights
from train.model import Phi
from train.shape import Shape
from train.tokenizer import codegen_tokenizer

PHI = Shape(2, 2, 24, 10, 64, 32, CODEGEN_VOCABULARY_SIZE)  # 10 / 24 is no exact fraction


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (PHI, "PhiForCausalLM"),
        (replace(MISTRAL, vocabulary=CODEGEN_VOCABULARY_SIZE), "MistralForCausalLM"),
        (replace(MIXTRAL, vocabulary=CODEGEN_VOCABULARY_SIZE), "MixtralForCausalLM"),
    ],
)
def test_exported_directory_loads_without_a_warning(
    shape: Shape, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokens = make_model(shape), make_tokens(shape)
    export_model(model, codegen_tokenizer(), tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.INFO):
        loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert not any(report.values()), report
    assert type(loaded).__name__ == name
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model.logits(tokens), atol=1e-4, rtol=0)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == words.eos_token_id == 50_256
    assert loaded.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False).shape[0] == 1
    again = Phi(shape)
    load_weights(again, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_rotary_dimension_survives_a_share_that_is_no_exact_fraction():
    assert hugging_face(replace(PHI, vocabulary=100)).model.layers[0].self_attn.rotary_ndims == 10


@pytest.mark.parametrize("shape", [TINY, GROUPED, MISTRAL, MIXTRAL])
def test_transformers_saves_what_we_load(shape: Shape, tmp_path: Path):
    theirs, ours, tokens = hugging_face(shape), make_model(shape), make_tokens(shape)
    theirs.save_pretrained(tmp_path)
    load_weights(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    saved = json.loads((tmp_path / "config.json").read_text())
    written = configuration(shape, 0)
    assert {key: saved[key] for key in written} == written


@pytest.mark.parametrize("shape", [TINY, MISTRAL])
def test_damaged_or_foreign_weights_are_an_error(shape: Shape, tmp_path: Path):
    model, path = make_model(shape), tmp_path / "model.safetensors"
    with pytest.raises(PrimerError, match=r"model\.safetensors"):
        load_weights(model, tmp_path)
    export_model(model, codegen_tokenizer(), tmp_path)
    for other in (replace(shape, feed_forward=80), replace(shape, layers=4), MIXTRAL):
        with pytest.raises(PrimerError, match="does not hold the weights of this model"):
            load_weights(Phi(other), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PrimerError, match="does not hold the weights of this model"):
        load_weights(model, tmp_path)
