"""What the commands that take a recipe share: their arguments, and the way through the steps of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from primer.recipe import Recipe
    from primer.run import RunFolder

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, such as recipes/demo.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set train.tokens=100000. Repeatable."),
]
RunPath = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="The run folder; runs/<recipe name> by default.")
]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of benchmark data, one folder a suite (or $PRIMER_EVAL_DATA)."),
]


def take_steps(
    steps: Iterable[Callable[[Recipe, RunFolder], object]],
    path: Path,
    overrides: list[str] | None,
    run: Path | None,
    data: Path | None = None,
) -> None:
    """Bring a recipe's run folder through some steps, in their order.

    Raises:
        PrimerError: If the recipe or the folder cannot be used, or a step fails.
    """
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder

    settings = list(overrides or []) + ([f"eval.data={json.dumps(str(data))}"] if data else [])
    recipe = load_recipe(path, settings)
    with RunFolder.opened(run or Path("runs") / recipe.name, recipe) as folder:
        for take in steps:
            take(recipe, folder)
