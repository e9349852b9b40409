"""The shipped recipes: all valid, phi-1.5's figures are the paper's, and every field has its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from primer.fingerprint import FIELDS, NEVER, stage_settings
from primer.recipe import Recipe
from primer.recipe_file import describe_fields, dump_recipe, load_recipe
from train.optimizer import learning_rate

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_survives_freezing(path: Path, tmp_path: Path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description
    frozen = tmp_path / "recipe.yaml"
    frozen.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(frozen) == recipe


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem != "phi-1"], ids=lambda path: path.stem)
def test_variants_are_the_papers_three_mixtures(path: Path):
    mixtures = [variant.mixture for variant in load_recipe(path).variants]
    assert mixtures == [
        {"synthetic": 0.8, "code": 0.2},
        {"web": 0.8, "code": 0.2},
        {"web": 0.4, "synthetic": 0.4, "code": 0.2},
    ]


def test_phi_recipe_has_the_papers_figures():
    recipe = load_recipe(RECIPES[0].parent / "phi-1.5.yaml")
    model, train = recipe.model, recipe.train
    assert (model.layers, model.heads, model.head_dimension, model.rotary_dimension) == (24, 32, 64, 32)
    assert (model.width, model.feed_forward_width, model.context) == (2048, 8192, 2048)
    assert (train.learning_rate, train.schedule, train.warmup_steps) == (2e-4, "constant", 0)
    assert (train.beta1, train.beta2, train.epsilon, train.weight_decay) == (0.9, 0.98, 1e-7, 0.1)
    assert (train.precision, train.engine, train.tokens) == ("fp16", "deepspeed", 150_000_000_000)
    assert train.batch_tokens == 2048 * 2048
    assert (recipe.tokenizer.kind, recipe.tokenizer.vocabulary_size) == ("codegen", 51_200)


def test_phi_1_has_its_own_papers_figures():
    recipe = load_recipe(RECIPES[0].parent / "phi-1.yaml")  # arXiv 2306.11644, section 2.3
    train = recipe.train
    assert (train.learning_rate, train.schedule, train.warmup_steps) == (1e-3, "linear", 750)
    assert (train.batch_tokens, train.tokens // train.batch_tokens) == (1024 * 2048, 24_000)
    assert (recipe.model.dropout, train.weight_decay, train.precision) == (0.1, 0.1, "fp16")
    # A linear decay to zero over 36,000 steps, at step 24,000.
    assert learning_rate(train, 23_999, 24_000) == pytest.approx(1e-3 * (36_000 - 24_000) / (36_000 - 750), rel=1e-2)
    assert recipe.model.model_copy(update={"dropout": 0.0}) == load_recipe(RECIPES[0].parent / "phi-1.5.yaml").model


def test_the_schemas_defaults_are_the_papers_too():
    paper = load_recipe(RECIPES[0].parent / "phi-1.5.yaml")
    default = Recipe(name="x")
    assert default.model == paper.model
    # What a small machine cannot do by default, and how training is watched and kept.
    others = {"precision", "max_epochs", "compile", "engine", "keep_every", "validations"}
    assert default.train.model_dump(exclude=others) == paper.train.model_dump(exclude=others)


def test_every_field_either_enters_a_fingerprint_or_is_named_as_never():
    covered = {key for keys in FIELDS.values() for key in keys} | {"variants"}
    known = {re.sub(r"\[\w*\]", "", key) for key, *_ in describe_fields()}
    for key in known:
        tables = {key.rsplit(".", depth)[0] for depth in range(key.count(".") + 1)}
        assert tables & (covered | NEVER), f"{key} is in no stage's fingerprint and not in NEVER"
    known |= {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
    assert known >= NEVER, "NEVER names fields that the recipe does not have"


def test_fields_named_as_never_are_absent_from_every_fingerprint():
    recipe = Recipe(name="x")
    for room in FIELDS:
        settings = stage_settings(recipe, room)
        for key in NEVER:
            table = settings
            *parents, last = key.split(".")
            for parent in parents:
                table = table.get(parent, {})
            assert key not in settings
            assert last not in table, f"{key} enters the fingerprint of {room}"
