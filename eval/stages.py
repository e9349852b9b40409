"""The evaluation of a run's models, in `eval/<model>/`, and of models from elsewhere."""

from __future__ import annotations

import gc
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

# Kept answers, below a run folder: they outlive every change of what is asked.
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


def evaluate_models(folders: Sequence[Path], settings: Eval, seed: int, device: str, output: Path) -> list[Path]:
    """Evaluate model directories in Hugging Face layout, into `<output>/eval/<name>/`.

    Returns:
        The folder of each model's results.

    Raises:
        PrimerError: If a folder is no model directory, two have one name, or data is damaged.
    """
    from eval.measure import measure, summary, write_measured
    from eval.parts import suite_parts

    names = _names(folders)
    plan = make_plan(settings, seed)
    say_left_out(plan)
    parts = suite_parts(plan)
    written = []
    for name, folder in zip(names, folders, strict=True):
        load = partial(load_model, settings, folder, device, None)
        measured = measure(name, parts, folder, load, output / SCORES, plan.skipped)
        place = output / "eval" / name
        place.mkdir(parents=True, exist_ok=True)
        write_measured(place, measured)
        say(f"[green]✓[/] {escape(name)}: {summary(measured.results)} [dim]({measured.asked:,} rows asked now)[/]")
        written.append(place)
    return written


def say_left_out(plan: Plan) -> None:
    """One line for each suite that has no data."""
    for skipped in plan.skipped:
        say(f"Left out: {skipped['suite']}: {escape(skipped['reason'])}.")


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
    measured = measure(name, _parts(recipe, run, plan), model, load, run.path / SCORES, plan.skipped)
    write_measured(folder, measured)
    facts = {"rows": len(measured.items), "asked": measured.asked, "seconds": round(measured.seconds, 2)}
    return Built(summary(measured.results), facts)


def _parts(recipe: Recipe, run: RunFolder, plan: Plan) -> list[Part]:
    from eval.parts import held_out_parts, suite_parts

    return [*suite_parts(plan), *held_out_parts(recipe, run)]


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each model: its folder's, with the one above where two are called the same."""
    short = [folder.resolve().name for folder in folders]
    names = [
        name if short.count(name) == 1 else f"{folder.resolve().parent.name}-{name}"
        for name, folder in zip(short, folders, strict=True)
    ]
    for name, folder in zip(names, folders, strict=True):
        if names.count(name) > 1:
            raise PrimerError(f"Two of the models are called {name!r}; one is {folder}.", "Rename one of the folders.")
        if not (folder / "config.json").is_file():
            raise PrimerError(
                f"{folder} is no model directory: it has no config.json.", "Name a folder in Hugging Face layout."
            )
    return names
