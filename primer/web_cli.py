"""`primer web`: the filter for educational value, step by step, and what was left out of web text and code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from primer.cli_options import DataPath, Overrides, RecipePath, RunPath, take_steps
from primer.errors import PrimerError
from primer.web_duplicates_cli import duplicates

if TYPE_CHECKING:
    from synth.executors import Execute

app = typer.Typer(
    help="Filter web text and code: label samples, train a classifier on the labels, filter the source.\n\n"
    "`primer synth` does all of it by itself. These commands stop after one step, run the filtering on a cluster, and "
    "show what was left out. A recipe has a filter where it has web.quality or code.quality (docs/quality.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Corpus = Annotated[Literal["web", "code"], typer.Option("--corpus", help="Which corpus: web text, or code.")]


@app.command()
def annotate(recipe: RecipePath, set_: Overrides = None, run: RunPath = None, corpus: Corpus = "web") -> None:
    """Have the teacher score samples of the source for educational value, from 0 to 5, with a reason.

    Some are scored twice, to see how far the teacher agrees with itself. Answers are kept as they come: the same
    command goes on after an interruption, and pays for nothing twice.
    """
    from synth.corpora import filtering
    from synth.filtered import complete_labels

    take_steps([lambda loaded, folder: complete_labels(filtering(loaded, folder), corpus)], recipe, set_, run)


@app.command("train-filter")
def train_filter(recipe: RecipePath, set_: Overrides = None, run: RunPath = None, corpus: Corpus = "web") -> None:
    """Train the classifier on the labels (which are asked for first), and measure it on held-out ones.

    Ends with the address of a page: how well it separates, and twenty documents just above and below the threshold.
    """
    from primer.progress import say
    from primer.recipe import Recipe
    from primer.run import RunFolder
    from synth.corpora import filtering
    from synth.filtered import complete_filter

    def train(loaded: Recipe, folder: RunFolder) -> None:
        complete_filter(filtering(loaded, folder), corpus)
        say(f"\nThe filter: [bold]{folder.folder(f'filter/{corpus}') / 'quality.html'}[/]  (open it in a browser)")

    take_steps([train], recipe, set_, run)


@app.command("filter")
def filter_(
    recipe: RecipePath,
    set_: Overrides = None,
    run: RunPath = None,
    corpus: Corpus = "web",
    data: DataPath = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Tasks at once: processes here, or jobs on a cluster."),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="Run the tasks as a Slurm job array: --slurm partition=cpu --slurm time=12:00:00, and if need be "
            "cpus_per_task, mem_per_cpu_gb, gpus_per_task, qos; anything else goes to sbatch. Repeatable.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Run the tasks on a Ray cluster: auto, HOST:PORT, or local."),
    ] = None,
) -> None:
    """Read the source and keep what passes: heuristic rules, the filter, decontamination, screens.

    One task a part of the source; interrupted, the same command goes on with the tasks that are missing. The result
    is the same wherever it runs. `primer synth` then removes duplicates and makes the corpus.
    """
    from primer.recipe import Recipe
    from primer.run import RunFolder
    from synth.corpora import filtering
    from synth.filtered import complete_refined

    execute = _where(workers, slurm, ray)

    def refine(loaded: Recipe, folder: RunFolder) -> None:
        complete_refined(filtering(loaded, folder, execute), corpus)

    take_steps([refine], recipe, set_, run, data)


def _where(workers: int | None, slurm: list[str] | None, ray: str | None) -> Execute | None:
    from synth.executors import locally, on_ray, on_slurm

    if slurm and ray:
        raise PrimerError("--slurm and --ray are given together.", "Choose one.")
    if slurm:
        pairs = [text.partition("=") for text in slurm]
        if wrong := next((text for text in slurm if "=" not in text or "," in text.partition("=")[0]), None):
            raise PrimerError(f"--slurm {wrong}: expected KEY=VALUE.", "One --slurm each: --slurm partition=cpu")
        at_once = {"workers": str(workers)} if workers else {}
        return on_slurm(at_once | {key: value for key, _, value in pairs})
    if ray:
        return on_ray(ray, workers)
    return locally(workers) if workers else None


@app.command()
def contaminated(
    recipe: RecipePath,
    set_: Overrides = None,
    run: RunPath = None,
    corpus: Annotated[
        Literal["web", "code", "synthetic"], typer.Option("--corpus", help="Web text, code, or the textbooks.")
    ] = "web",
    suite: Annotated[str | None, typer.Option("--suite", metavar="NAME", help="Of this benchmark alone.")] = None,
    number: Annotated[int, typer.Option("--number", metavar="N", min=1, help="At most so many.")] = 20,
) -> None:
    """Show the passages for which documents were left out, each with the benchmark's item that it holds."""
    from primer.benchmarks import OWN_ITEMS
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder
    from synth.browse import printable
    from synth.refine import read_contaminated

    folder = RunFolder(run or Path("runs") / load_recipe(recipe, set_ or []).name)
    stage = "corpus/synthetic" if corpus == "synthetic" else f"refined/{corpus}"
    manifest = folder.require(stage)
    counts: dict[str, int] | None = manifest.facts.get("contaminated")
    if counts is None:
        raise PrimerError(f"{stage} was not compared with benchmarks.", "Set corpus.decontaminate to true.")
    if suite is not None and suite not in manifest.facts["compared_with"]:
        raise PrimerError(
            f"{stage} was not compared with {suite!r}.", f"It was with: {', '.join(manifest.facts['compared_with'])}."
        )
    compared = manifest.facts["compared_with"]
    typer.echo(
        f"{stage}: {sum(counts.values()):,d} documents hold items of {len(compared)} benchmarks that were compared"
    )
    if all(name.startswith(OWN_ITEMS) for name in compared):
        typer.echo("(Primer's own alone: name a folder of others in eval.data or PRIMER_EVAL_DATA, and filter again)")
    for name in compared:
        typer.echo(f"  {name:<24} {counts.get(name, 0):>8,d}")
    shown = 0
    for found in read_contaminated(folder.folder(stage)):
        if shown == number:
            break
        if suite is None or found["suite"] == suite:
            typer.echo("\n" + printable(_contaminated_text(found)))
            shown += 1


def _contaminated_text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['suite']}, {found['ratio']:.0%} of the item's words ({found['where']})",
        f"document  {found['title'] or found['origin'] or 'without a title'}",
        f"passage   {found['passage']}",
        f"item      {found['item']}",
    ]
    return "\n".join(lines)


app.command()(duplicates)
