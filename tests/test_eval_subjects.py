"""What a report compares: runs, evaluations of models from anywhere, several seeds; names without doubt."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixture import Scene, build_run, make_recipe

from eval.subjects import find_subjects
from primer.errors import PrimerError
from primer.recipe import Variant


def test_a_run_gives_its_variants_with_their_models(tmp_path: Path) -> None:
    recipe = make_recipe("synthetic", "web")
    build_run(tmp_path / "run", Scene(recipe))
    found = find_subjects([tmp_path / "run"])
    assert [subject.name for subject in found] == ["synthetic", "web"]
    assert found[0].scores == (tmp_path / "run/eval/synthetic",)
    assert found[0].models == (tmp_path / "run/models/synthetic",)
    assert found[0].recipe == recipe
    assert found[0].manifests[0].stage == "models/synthetic"


def test_variants_of_several_runs_carry_the_name_of_their_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_run(tmp_path / name, Scene(make_recipe("web")))
    found = find_subjects([tmp_path / "one", tmp_path / "two"])
    assert [subject.name for subject in found] == ["one/web", "two/web"]


def test_results_of_models_from_elsewhere_are_found_together_or_one_by_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "eval" / name).mkdir(parents=True)
        (tmp_path / "eval" / name / "results.json").write_text("{}")
    assert [subject.name for subject in find_subjects([tmp_path])] == ["a", "b"]
    assert find_subjects([tmp_path / "eval" / "b"])[0].scores == (tmp_path / "eval" / "b",)
    assert [subject.name for subject in find_subjects([tmp_path, tmp_path / "eval" / "b"])] == [
        *("a", f"{tmp_path.name}/b", "b/b")
    ]
    with pytest.raises(PrimerError, match="is named twice"):
        find_subjects([tmp_path, tmp_path / "eval" / ".."])


def test_a_folder_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrimerError, match="holds no evaluation"):
        find_subjects([tmp_path])


def test_the_names_of_seeds_cannot_clash() -> None:
    recipe = make_recipe("web")
    assert recipe.model_names(recipe.variants[0]) == ["web"]
    several = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seeds": 3})})
    assert several.model_names(recipe.variants[0]) == ["web", "web-seed2", "web-seed3"]
    variants = [Variant(name=name, mixture={"web": 1.0}) for name in ("web", "web-seed2")]
    with pytest.raises(ValueError, match="expected each once"):
        make_recipe(variants=variants, train=several.train)
