"""`primer synth`: make the corpora of a recipe, and look into them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from primer.cli_options import DataPath, Overrides, RecipePath, RunPath, take_steps
from primer.errors import PrimerError, did_you_mean
from primer.inspect_cli import inspect

if TYPE_CHECKING:
    from primer.recipe import Recipe
    from primer.run import RunFolder

_DEFAULT = "run"


class _RecipeOrCommand(TyperGroup):
    """`primer synth RECIPE` means `primer synth run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names) and not self._mistyped(args[0]):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _mistyped(self, word: str) -> bool:
        """Whether a word is more like a command than like a recipe; the group then says what it knows."""
        return word.isalpha() and not Path(word).exists() and bool(did_you_mean(word, self.commands))


app = typer.Typer(
    cls=_RecipeOrCommand,
    help="Make the corpora: web text, code, and textbooks by the teacher.\n\n"
    "`primer synth recipes/demo.yaml` makes them (short for `primer synth run`); the commands below look at what is "
    "there. Interrupt at any time; the same command goes on.",
    subcommand_metavar="RECIPE | COMMAND [ARGS]...",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def make_corpora(recipe: Recipe, run: RunFolder) -> None:
    """The step of a run that makes its corpora."""
    from synth import corpora

    corpora.make_corpora(recipe, run)


def _make_corpora_on_ray(recipe: Recipe, run: RunFolder, address: str, workers: int | None) -> None:
    from synth import corpora
    from synth.ray_pool import on_ray

    corpora.make_corpora(recipe, run, on_ray(recipe.synth, address, workers))


@app.command(_DEFAULT)
def run_(
    recipe: RecipePath,
    set_: Overrides = None,
    run: RunPath = None,
    data: DataPath = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="K/N",
            help="Ask for part K of N alone (every N-th unit), into a journal of its own: one part a machine, for "
            "Slurm arrays and anything else. `primer synth merge` joins them.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Ask from the nodes of a Ray cluster: auto (the one that this machine belongs to), HOST:PORT, or "
            "local (a Ray on this machine, for this run).",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            "--ray-workers",
            metavar="N",
            min=1,
            help="Workers on the cluster. By default one for each vLLM server that the free GPUs have room for; for "
            "other teachers one a node.",
        ),
    ] = None,
) -> None:
    """Make the corpora; `primer synth RECIPE` is short for it."""
    if ray is None and ray_workers is not None:
        raise PrimerError("--ray-workers is given without --ray.", "Say which cluster: --ray auto, local or HOST:PORT.")
    if ray is not None and shard is not None:
        raise PrimerError("--ray and --shard are given together.", "Choose one: a cluster needs no shards.")
    if shard is None:
        step = make_corpora if ray is None else partial(_make_corpora_on_ray, address=ray, workers=ray_workers)
        take_steps([step], recipe, set_, run, data)
        return
    from primer.recipe_file import load_recipe
    from synth.corpora import make_shard
    from synth.shards import Shard

    part, loaded = Shard.parse(shard), load_recipe(recipe, list(set_ or []))
    make_shard(loaded, run or Path("runs") / loaded.name, part)


@app.command()
def merge(
    recipe: RecipePath,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Run folders of other machines, where they share no disk."),
    ] = None,
    set_: Overrides = None,
    run: RunPath = None,
) -> None:
    """Make the corpora out of the answers that `--shard` runs collected.

    The result is the corpus that one machine would have made, whatever the number of shards. What a shard left open is
    asked for here.
    """
    from synth.corpora import merge_shards

    take_steps([lambda loaded, folder: merge_shards(loaded, folder, folders or [])], recipe, set_, run)


app.command()(inspect)
