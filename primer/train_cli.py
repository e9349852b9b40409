"""`primer train`: train the variants of a recipe, on one device or several, watched over or only tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from primer.cli_options import Overrides, RecipePath, RunPath, take_steps
from primer.errors import PrimerError
from primer.synth_cli import make_corpora

if TYPE_CHECKING:
    from primer.recipe import Recipe, SourceName
    from primer.run import RunFolder


def train_command(
    recipe: RecipePath,
    set_: Overrides = None,
    run: RunPath = None,
    engine: Annotated[
        Literal["torch", "deepspeed"] | None,
        typer.Option(help="torch (DDP on several devices) or deepspeed (ZeRO stage 2); the recipe's by default."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that train together on this machine: one for each GPU.")
    ] = 1,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start again by itself after a crash, a kill or a hang.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be trained, try a pass, measure its speed; change nothing."),
    ] = False,
) -> None:
    """Train one model for each variant of the recipe.

    Ctrl-C and SIGTERM stop after the step with a checkpoint; the same command goes on, to the same weights, with any
    engine and number of processes. Many machines: start the command by torchrun on each of them
    (torchrun ... -m -- primer.cli train ...).
    """
    settings = [*(set_ or []), *([f"train.engine={engine}"] if engine else [])]
    if dry_run:
        _dry_run(recipe, settings, run, processes)
    elif processes > 1 or supervise:
        if "RANK" in os.environ:
            raise PrimerError(
                "--processes and --supervise start processes, but this one was started by torchrun (it has RANK).",
                "Leave them out and give torchrun --nproc-per-node and --max-restarts, or unset RANK.",
            )
        raise typer.Exit(_supervised(recipe, settings, run, processes, supervise))
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _train_together(recipe, settings, run)
    else:
        take_steps((make_corpora, train_models), recipe, settings, run)


def train_models(recipe: Recipe, run: RunFolder) -> None:
    """The step of training, on one process."""
    from train.stages import train_variants

    train_variants(recipe, run)


def _dry_run(path: Path, settings: list[str], run: Path | None, processes: int) -> None:
    """Show every variant's facts, from the run folder's tokens or, where there are none, by estimate."""
    from primer.progress import say
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder
    from train.dry_run import dry_run

    recipe = load_recipe(path, settings)
    folder = RunFolder(run or Path("runs") / recipe.name)
    tokens = folder.manifest("tokens")
    if tokens:
        available = {source: tokens.facts["sources"][source]["train_tokens"] for source in recipe.used_sources()}
    else:
        available = _estimated_tokens(recipe, folder)
        say("[dim]The corpora are not tokenised yet: their sizes are estimates.[/]")
    dry_run(recipe, available, processes)


def _estimated_tokens(recipe: Recipe, run: RunFolder) -> dict[SourceName, int]:
    from synth.estimate import estimate_work, source_tokens
    from synth.estimate_corpora import estimate_further
    from synth.estimate_measured import measured

    work = estimate_work(recipe, measured(recipe, run)) if "synthetic" in recipe.used_sources() else None
    for_code = sum(part.work.tokens for part in estimate_further(recipe))
    found = source_tokens(recipe, work, for_code)
    return {source: int(found[source]) for source in recipe.used_sources()}


def _supervised(path: Path, settings: list[str], run: Path | None, processes: int, supervise: bool) -> int:
    """Run this command as processes of its own, and see that they end well."""
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder
    from train.supervisor import run_ranks

    recipe = load_recipe(path, settings)  # mistakes are told here, once
    folder = run or Path("runs") / recipe.name
    with RunFolder.opened(folder, recipe):
        pass
    command = [sys.executable, "-m", "primer.cli", "train", str(path), "--run", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    return run_ranks(
        command,
        processes,
        folder / "processes",
        restart=supervise,
        hang_seconds=recipe.train.hang_seconds,
        record=folder / "restarts.jsonl",
    )


def _train_together(path: Path, settings: list[str], run: Path | None) -> None:
    """Train as one of several processes: the first brings the run folder through its stages, the others follow."""
    from primer.recipe_file import load_recipe
    from train.build import follow
    from train.stages import train_variants
    from train.world import join_world, leave_world

    world = join_world()

    def train_with_all(recipe: Recipe, folder: RunFolder) -> None:
        train_variants(recipe, folder, world)

    if world.first:
        take_steps((make_corpora, train_with_all), path, settings, run)
        world.told(None)
    else:
        follow(load_recipe(path, settings), world)
    leave_world(world)
