"""The evaluation of a run's models, in `eval/<model>/`, and of models from elsewhere."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from eval.suites import Plan, make_plan
from primer.errors import PrimerError
from primer.fingerprint import stage_settings
from primer.progress import say
from primer.recipe import Eval, Recipe
from primer.run import Built, RunFolder, Stage

if TYPE_CHECKING:
    from eval.language_model import LanguageModel
    from eval.parts import Part

# Kept answers, below a run folder, by what ran the model: they outlive every change of what is asked.
SCORES = "scores"


def evaluate_variants(recipe: Recipe, run: RunFolder) -> None:
    """Evaluate every model of a run: stages `eval/<model>`.

    Raises:
        PrimerError: If a model or corpus is missing, a suite does not exist, or data is damaged.
    """
    plan = make_plan(recipe.eval, recipe.seed)
    say_left_out(plan)
    corpora = tuple(f"corpus/{source}" for source in recipe.used_sources())
    for variant in recipe.variants:
        for name in recipe.model_names(variant):
            run.complete(
                Stage(
                    name=f"eval/{name}",
                    settings=stage_settings(recipe, "eval"),
                    reads=(f"models/{name}", *corpora),
                    material=plan.material,
                    build=partial(_build, recipe, run, plan, name),
                )
            )


def evaluate_models(folders: Sequence[Path], recipe: Recipe, output: Path) -> None:
    """Evaluate model directories in Hugging Face layout, into `<output>/eval/<name>/`, as a recipe says.

    Raises:
        PrimerError: If a folder is no model directory, two have one name, or data is damaged.
    """
    from eval.measure import measure, summary, write_measured
    from eval.parts import suite_parts

    names = _names(folders)
    plan = make_plan(recipe.eval, recipe.seed)
    say_left_out(plan)
    parts = suite_parts(plan)
    for name, folder in zip(names, folders, strict=True):
        load = partial(load_model, recipe.eval, folder, recipe.train.device, recipe.train.threads)
        measured = measure(name, parts, folder, load, output / SCORES / recipe.eval.backend, plan.skipped)
        place = output / "eval" / name
        place.mkdir(parents=True, exist_ok=True)
        write_measured(place, measured)
        say(f"[green]✓[/] {escape(name)}: {summary(measured.results)} [dim]({measured.asked:,} rows asked now)[/]")


def say_left_out(plan: Plan) -> None:
    """Why suites have no data: a line each, and one for those that share a reason."""
    for reason in dict.fromkeys(skipped["reason"] for skipped in plan.skipped):
        suites = [skipped["suite"] for skipped in plan.skipped if skipped["reason"] == reason]
        say(f"Left out: {', '.join(suites)}: {escape(reason)}.")


def load_model(settings: Eval, folder: Path, device: str, threads: int | None) -> LanguageModel:
    """A model, ready to be asked.

    Raises:
        PrimerError: If the folder holds no such model, or what is to run it is not installed.
    """
    if settings.backend == "vllm":
        from eval.vllm_model import VllmModel

        return VllmModel(folder)
    gc.disable()  # importing torch makes objects that all stay: looking among them for garbage takes 0.35 s
    try:
        import torch

        from eval.model import TorchModel
    finally:
        gc.enable()
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchModel(folder, device)


def _build(recipe: Recipe, run: RunFolder, plan: Plan, name: str, folder: Path) -> Built:
    from eval.measure import measure, summary, write_measured

    model = run.folder(f"models/{name}")
    load: Callable[[], LanguageModel] = partial(
        load_model, recipe.eval, model, recipe.train.device, recipe.train.threads
    )
    kept = run.path / SCORES / recipe.eval.backend
    measured = measure(name, _parts(recipe, run, plan), model, load, kept, plan.skipped)
    write_measured(folder, measured)
    facts = {"rows": len(measured.items), "asked": measured.asked, "seconds": round(measured.seconds, 2)}
    return Built(summary(measured.results), facts)


def _parts(recipe: Recipe, run: RunFolder, plan: Plan) -> list[Part]:
    from eval.parts import held_out_parts, suite_parts

    return [*suite_parts(plan), *held_out_parts(recipe, run)]


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each model: its folder's, with as many above it as tell two of the same name apart."""
    # Not resolved: a link keeps the name that it was given.
    paths = [Path(os.path.abspath(folder)).parts for folder in folders]  # noqa: PTH100
    names = []
    for path, folder in zip(paths, folders, strict=True):
        if paths.count(path) > 1:
            raise PrimerError(f"{folder} is named twice.", "Name each model once.")
        others = [other for other in paths if other != path]
        length = next(n for n in range(1, len(path) + 1) if all(other[-n:] != path[-n:] for other in others))
        names.append("-".join(path[-length:]).lstrip("/-"))
        if names.index(names[-1]) < len(names) - 1:
            raise PrimerError(f"Two of the models are called {names[-1]!r}.", "Rename one of the folders.")
        if not (folder / "config.json").is_file():
            raise PrimerError(
                f"{folder} is no model directory: it has no config.json.", "Name a folder in Hugging Face layout."
            )
    return names
