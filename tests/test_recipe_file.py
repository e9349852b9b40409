"""Reading recipes: inheritance, overrides, and errors that name the key, the value and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_file import dump_recipe, load_recipe
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, VllmTeacher


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(PrimerError) as caught:
        load_recipe(path, overrides)
    assert caught.value.remedy
    return caught.value.problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {learning_rat: 1e-3}", ["train.learning_rat: unknown key", "Did you mean train.learning_rate?"]),
        ("trian: {}", ["trian: unknown key", "Did you mean train?"]),
        ("train: {tokens: many}", ["train.tokens", "'many'", "valid integer"]),
        ("train: {tokens: 1.5}", ["train.tokens", "1.5", "valid integer"]),
        ("train: {compile: 1}", ["train.compile", "is 1", "valid boolean"]),
        ("train: {schedule: steps}", ["train.schedule", "'steps'", "'constant', 'cosine', 'linear' or 'wsd'"]),
        ("train: {batch_tokens: 1000}", ["train.batch_tokens is 1000", "multiple of model.context (2048)"]),
        ("train: {tokens: 5}", ["train.tokens is 5", "at least one batch"]),
        ("train: 5", ["train", "is 5"]),
        ("seed: -1", ["seed", "-1", "greater than or equal to 0"]),
        ("model: {rotary_dimension: 7}", ["rotary_dimension is 7", "even number"]),
        ("model: {rotary_dimension: 96}", ["rotary_dimension is 96", "at most head_dimension (64)"]),
        ("tokenizer: {vocabulary_size: 4096}", ["vocabulary_size is 4096", "51200"]),
        ("variants: [{name: a, mixture: {web: 0.8, code: 0.1}}]", ["variant 'a' add up to 0.9", "expected 1"]),
        ("variants: [{name: a, mixture: {wep: 1.0}}]", ["variants.0.mixture.wep", "'wep'"]),
        ("variants: []", ["variants", "at least 1"]),
        ("variants: [{name: a, mixture: {web: 1.0}}, {name: a, mixture: {code: 1.0}}]", ["['a', 'a']", "each once"]),
        ("synth: {teacher: {kind: opena}}", ["synth.teacher", "opena", "'embedded', 'openai', 'vllm'"]),
        ("synth: {teacher: {kind: openai}}", ["synth.teacher.model: is missing"]),
        ("synth: {teacher: {kind: openai, model: m, threads: 2}}", ["synth.teacher.threads: unknown key"]),
        ("web: {source: {kind: wikipedia_sample, path: a}}", ["of web.source of the kind wikipedia_sample: kind."]),
        ("web: {source: {kind: files, path: a}}", ["web.source.path: unknown key. Did you mean web.source.paths?"]),
        ("web: {quality: {teacher: {kind: openai, modl: a}}}", ["Did you mean web.quality.teacher.model?"]),
        ("variants: [{nam: a}]", ["variants.0.nam: unknown key. Did you mean variants.name?"]),
        ("web: {source: {kind: files, paths: []}}", ["web.source.paths", "at least 1"]),
        ("corpus: {held_out_share: 0}", ["corpus.held_out_share", "is 0"]),
    ],
)
def test_a_mistake_is_named_with_key_value_and_expectation(text: str, said: list[str], tmp_path: Path):
    problem = message(write(tmp_path, f"name: x\n{text}\n"))
    assert "a.yaml is not a valid recipe" in problem
    for part in said:
        assert part in problem


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    problem = message(write(tmp_path, "name: Bad Name\nsed: 1\ntrain: {tokens: x}\n"))
    assert len(problem.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nseed: 1\nseed: 2\n", "key 'seed' is given twice"),
        ("name: x\ntrain: {tokens: 1, tokens: 2}\n", "key 'tokens' is given twice"),
        ("name: [x\n", "is not valid YAML"),
        ("- name\n", "holds a list, not a table"),
        ("just words\n", "holds a str, not a table"),
        ("", "name: is missing"),
        ("name: x\nextends: 5\n", "extends is 5; expected a file name"),
        ("name: x\nextends: absent.yaml\n", "absent.yaml"),
        ("name: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
        ("? [a, b]\n: 1\n", "is not valid YAML"),
    ],
)
def test_damaged_files(text: str, said: str, tmp_path: Path):
    assert said in message(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path):
    write(tmp_path, "name: x", "demo.yaml")
    with pytest.raises(PrimerError, match=r"Did you mean .*demo\.yaml"):
        load_recipe(tmp_path / "demmo.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Grüße".encode("latin-1"))
    assert "cannot be read" in message(tmp_path / "latin.yaml")
    assert "cannot be read" in message(tmp_path)


def test_numbers_as_people_write_them(tmp_path: Path):
    text = "name: x\ntrain: {learning_rate: 2e-4, epsilon: 1E-7, tokens: 10_000_000, batch_tokens: 4096}\n"
    train = load_recipe(write(tmp_path, text)).train
    assert (train.learning_rate, train.epsilon, train.tokens) == (2e-4, 1e-7, 10_000_000)
    assert load_recipe(tmp_path / "a.yaml", ["train.learning_rate=3e-3"]).train.learning_rate == 3e-3


def test_a_chain_of_parents_is_merged_key_by_key(tmp_path: Path):
    (tmp_path / "base").mkdir()
    write(
        tmp_path, "name: a\nseed: 1\ntrain: {tokens: 8192, batch_tokens: 4096}\ntopics: {fields: [x, y]}", "base/a.yaml"
    )
    write(tmp_path, "extends: base/a.yaml\nname: b\ntrain: {tokens: 16384}\ntopics: {fields: [z]}", "b.yaml")
    recipe = load_recipe(write(tmp_path, "extends: b.yaml\nname: c\ntrain: {weight_decay: 0.0}", "c.yaml"))
    assert (recipe.name, recipe.seed, recipe.topics.fields) == ("c", 1, ["z"])
    assert (recipe.train.tokens, recipe.train.batch_tokens, recipe.train.weight_decay) == (16384, 4096, 0.0)


def test_another_kind_replaces_the_whole_table(tmp_path: Path):
    write(tmp_path, "name: a\nsynth: {tokens: 7, teacher: {kind: openai, model: m, price_input: 1.0}}")
    child = write(tmp_path, "extends: a.yaml\nsynth: {teacher: {kind: vllm, model: n}}", "b.yaml")
    synth = load_recipe(child).synth
    assert synth.teacher == VllmTeacher(kind="vllm", model="n")
    assert synth.tokens == 7
    same = write(tmp_path, "extends: a.yaml\nsynth: {teacher: {model: n}}", "c.yaml")
    assert load_recipe(same).synth.teacher == EndpointTeacher(kind="openai", model="n", price_input=1.0)


def test_a_circle_of_parents_is_shown(tmp_path: Path):
    write(tmp_path, "extends: b.yaml\nname: a", "a.yaml")
    write(tmp_path, "extends: c.yaml", "b.yaml")
    write(tmp_path, "extends: a.yaml", "c.yaml")
    problem = message(tmp_path / "a.yaml")
    assert "goes in a circle" in problem
    assert problem.count("a.yaml") == 3  # the file, and both ends of the circle
    write(tmp_path, "extends: self.yaml", "self.yaml")
    assert "goes in a circle" in message(tmp_path / "self.yaml")


def test_overrides(tmp_path: Path):
    path = write(tmp_path, "name: x\ntrain: {tokens: 8192, batch_tokens: 4096}")
    recipe = load_recipe(
        path, ["train.tokens=16384", "eval.suites=[a, b]", "synth.teacher.threads=3", "eval.data=null"]
    )
    assert (recipe.train.tokens, recipe.train.batch_tokens) == (16384, 4096)
    assert recipe.eval.suites == ["a", "b"]
    assert recipe.synth.teacher == EmbeddedTeacher(threads=3)
    assert recipe.eval.data is None


def test_one_screen_leaves_the_others_as_they_are(tmp_path: Path):
    recipe = load_recipe(
        write(tmp_path, "name: x\nweb: {screens: {max_toxicity: 0.05}}"), ["code.screens.toxicity=true"]
    )
    web, code = recipe.web.screens, recipe.code.screens
    assert (web.personal_data, web.toxicity, web.max_toxicity) == (True, True, 0.05)
    assert (code.personal_data, code.toxicity, code.max_toxicity) == (False, True, None)
    assert load_recipe(write(tmp_path, dump_recipe(recipe), "frozen.yaml")) == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.tokens", "not of the form key=value"),
        ("=5", "not of the form key=value"),
        ("train.tokens=[1", "not valid YAML"),
        ("name.first=5", "'name' is 'x', not a table"),
        ("train.tokns=5", "train.tokns: unknown key"),
        ("train.tokens=lots", "'lots'"),
        ("train..tokens=5", "unknown key"),
    ],
)
def test_bad_overrides(override: str, said: str, tmp_path: Path):
    assert said in message(write(tmp_path, "name: x"), override)


@pytest.mark.parametrize(
    "text",
    [
        "description: 'ünïcode: yes, and # signs'",
        "synth: {teacher: {kind: openai, model: m, base_url: 'http://localhost:8000/v1'}}",
        "synth: {teacher: {kind: vllm, model: a/b, arguments: [--max-model-len, '4096', '1e3', 'null']}}",
        "web: {source: {kind: files, paths: ['*.txt', 'yes', '~', '2026-01-01']}}",
        "code: {source: {kind: dataset, path: a/b, name: '1', text_column: content}}",
        "train: {learning_rate: 1e-05, epsilon: 1e-12, gradient_clip: 1.0, max_epochs: 3}",
        "variants: [{name: a.b-c_1, mixture: {web: 0.333333, code: 0.666667}}]",
        "prompts: {forms: {story: 2, qa: 0.5}, audiences: {children: 1.0}}",
    ],
)
def test_a_frozen_recipe_reads_back_equal(text: str, tmp_path: Path):
    recipe = load_recipe(write(tmp_path, f"name: x\n{text}\n"))
    frozen = write(tmp_path, dump_recipe(recipe), "frozen.yaml")
    assert load_recipe(frozen) == recipe
    assert dump_recipe(load_recipe(frozen)) == dump_recipe(recipe)
    assert recipe != Recipe(name="x")
