"""`primer eval` and `primer report`: score models, of a recipe or from anywhere, and compare them on one page."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from primer.cli_options import DataPath, Overrides, RunPath, take_steps
from primer.errors import PrimerError
from primer.synth_cli import make_corpora
from primer.train_cli import train_models

if TYPE_CHECKING:
    from primer.recipe import Recipe
    from primer.run import RunFolder

_RECIPES = (".yaml", ".yml")
_MODELS, _REPORTS = Path("runs") / "models", Path("runs") / "reports"

Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME", help="A suite, or a group of them (--suites lists both). Repeatable."),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="ROWS", min=1, help="Largest number of rows of a suite.")]


def eval_command(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECIPE | MODEL...", help="One recipe, or model directories in Hugging Face layout."),
    ] = None,
    set_: Overrides = None,
    run: RunPath = None,
    data: DataPath = None,
    suite: Suites = None,
    limit: Limit = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help=f"For the results of model directories; {_MODELS} by default."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="For model directories: auto (the default), cpu or cuda.")
    ] = None,
    suites: Annotated[bool, typer.Option("--suites", help="List the suites, their groups and protocols.")] = False,
) -> None:
    """Score models on every suite, and compare them on one page.

    With a recipe: the whole experiment, to the report of its variants. With model directories: any causal language
    models on this disk. What was asked of the same weights before is not asked again. Benchmarks come from --data (or
    $PRIMER_EVAL_DATA), else from the Hugging Face hub; --set eval.hub=false keeps to what is here.

    Examples: primer eval recipes/demo.yaml; primer eval ./phi-1_5 ./my-model --data benchmarks --limit 500;
    primer eval ./model --suite common-sense --suite gsm8k_code --set eval.backend=vllm
    """
    if suites:
        _list_suites()
        return
    if not targets:
        raise PrimerError("`primer eval` needs a recipe or model directories.", "Try: primer eval recipes/demo.yaml")
    settings = [*(set_ or []), *([f"eval.suites={json.dumps(suite)}"] if suite else [])]
    settings += [f"eval.limit={limit}"] if limit else []
    if any(target.suffix in _RECIPES for target in targets):
        if len(targets) > 1:
            raise PrimerError("`primer eval` takes one recipe at a time.", "Compare runs by: primer report A B")
        if output or device:
            raise PrimerError(
                "--output and --device belong to model directories.", "With a recipe: --run, --set train.device=cuda."
            )
        take_steps(steps(), targets[0], settings, run, data)
    elif run is not None:
        raise PrimerError("--run belongs to a recipe.", "Name the folder for models' results by --output.")
    else:
        settings += [f"train.device={json.dumps(device)}"] if device else []
        _eval_models(targets, settings, data, output or _MODELS)


def report_command(
    targets: Annotated[
        list[Path],
        typer.Argument(metavar="RECIPE | RUN...", help="One recipe, or folders of runs and evaluations to compare."),
    ],
    set_: Overrides = None,
    run: RunPath = None,
    data: DataPath = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="For a comparison; below runs/reports by default.")
    ] = None,
) -> None:
    """Compare models on one page: a recipe's, to its end, or those of any runs.

    With a recipe: the whole experiment, as far as it is not done. With folders (runs/A runs/B, or what `primer eval
    MODEL` has written): every model in them, on the suites of which they were asked the same items; nothing is trained
    or asked.

    Examples: primer report recipes/demo.yaml; primer report runs/demo runs/demo-2 runs/models
    """
    if len(targets) == 1 and targets[0].suffix in _RECIPES:
        take_steps(steps(), targets[0], set_, run, data)
        return
    if set_ or run or data:
        raise PrimerError("--set, --run and --data belong to a recipe.", "Leave them out, or name one recipe alone.")
    from primer.recipe_file import load_recipe

    folders = [Path("runs") / load_recipe(t).name if t.suffix in _RECIPES else t for t in targets]
    name = "-".join(dict.fromkeys(folder.resolve().name for folder in folders))
    _compare(folders, output or _REPORTS / name)


def steps() -> tuple[Callable[[Recipe, RunFolder], None], ...]:
    """The way from a recipe to its report."""
    return (make_corpora, train_models, _eval, _report)


def _eval(recipe: Recipe, run: RunFolder) -> None:
    from eval.stages import evaluate_variants

    evaluate_variants(recipe, run)


def _report(recipe: Recipe, run: RunFolder) -> None:
    from eval.report import write_report

    _say_report(write_report(recipe, run))


def _eval_models(models: Sequence[Path], settings: Sequence[str], data: Path | None, output: Path) -> None:
    from eval.stages import evaluate_models
    from primer.recipe_file import load_recipe
    from primer.run import locked

    recipe = load_recipe(None, [*settings, *([f"eval.data={json.dumps(str(data))}"] if data else [])])
    with locked(output):
        evaluate_models(models, recipe, output)
    _compare([output], output / "report")


def _compare(folders: Sequence[Path], output: Path) -> None:
    from eval.report import write_comparison
    from eval.subjects import find_subjects
    from primer.recipe_file import load_recipe

    defaults = load_recipe(None)
    subjects = find_subjects(folders)
    command = shlex.join(["primer", *sys.argv[1:]])
    _say_report(write_comparison(subjects, output, defaults.seed, defaults.eval.bootstrap_samples, command))


def _say_report(path: Path) -> None:
    from rich.markup import escape

    from primer.progress import say

    say(f"\nThe report: [bold]{escape(str(path))}[/]  (open it in a browser)")


def _list_suites() -> None:
    from rich.table import Table
    from rich.text import Text

    from eval.suites import all_suites
    from primer.progress import printer

    table = Table("suite", "groups", "shots", "what is scored", box=None, pad_edge=False)
    for suite in all_suites().values():
        twin = f"; twin of {suite.twin}" * (suite.twin is not None)
        cells = (suite.name, "\n".join(suite.groups()), str(suite.shots), suite.protocol + twin)
        table.add_row(*(Text(cell) for cell in cells))
    printer.print(table)
