"""What a report compares: the variants of a run, the variants of several runs, or models from anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.run import Manifest, RunFolder

RESULTS = "results.json"


@dataclass(frozen=True)
class Subject:
    """One side of a comparison.

    Attributes:
        name: As the report calls it; with several runs `run/variant`.
        scores: Its evaluation folders (`results.json`, `items.parquet`): one a training seed.
        models: Its model folders in the same order, with their logs; empty for a model from elsewhere.
        manifests: Manifests of those models; empty likewise.
        run: The run that it belongs to, if any.
        recipe: The recipe of that run.
    """

    name: str
    scores: tuple[Path, ...]
    models: tuple[Path, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    run: RunFolder | None = None
    recipe: Recipe | None = None


def subjects_of_run(recipe: Recipe, run: RunFolder) -> list[Subject]:
    """The variants of a run, in the recipe's order.

    Raises:
        PrimerError: If a model or its evaluation is missing.
    """
    return [
        Subject(
            name=variant.name,
            scores=tuple(run.folder(f"eval/{name}") for name in recipe.model_names(variant)),
            models=tuple(run.folder(f"models/{name}") for name in recipe.model_names(variant)),
            manifests=tuple(run.require(f"models/{name}") for name in recipe.model_names(variant)),
            run=run,
            recipe=recipe,
        )
        for variant in recipe.variants
    ]


def find_subjects(paths: Sequence[Path]) -> list[Subject]:
    """The subjects in some folders: run folders, outputs of `primer eval MODEL`, or single evaluation folders.

    Of several folders, the variants of runs are called `run/variant`, and so are models that share a name.

    Raises:
        PrimerError: If a folder holds no evaluation or is named twice, or two subjects have one name.
    """
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise PrimerError(f"{path} is named twice.", "Name each folder once.")
    found = [(place, subject) for path, place in zip(paths, places, strict=True) for subject in _in_folder(path)]
    short = Counter(subject.name for _, subject in found)
    subjects = [
        replace(subject, name=f"{place.name}/{subject.name}")
        if len(places) > 1 and (subject.run or short[subject.name] > 1)
        else subject
        for place, subject in found
    ]
    for name, count in Counter(subject.name for subject in subjects).items():
        if count > 1:
            raise PrimerError(f"Two of the models to compare are called {name!r}.", "Rename one of the folders.")
    return subjects


def _in_folder(path: Path) -> list[Subject]:
    if (path / "recipe.yaml").is_file():
        recipe, run = load_recipe(path / "recipe.yaml"), RunFolder(path)
        for variant in recipe.variants:
            for name in recipe.model_names(variant):
                run.require(f"eval/{name}")
        return subjects_of_run(recipe, run)
    if (path / RESULTS).is_file():
        return [Subject(path.resolve().name, (path,))]
    found = sorted(folder.parent for folder in path.glob(f"eval/*/{RESULTS}"))
    if not found:
        raise PrimerError(
            f"{path} holds no evaluation: it has no recipe.yaml, {RESULTS} or eval/*/{RESULTS}.",
            "Name run folders (runs/NAME), or what `primer eval MODEL` has written.",
        )
    return [Subject(folder.name, (folder,)) for folder in found]
