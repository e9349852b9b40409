"""The command line: one command a room, and a look into each.

What a command needs is imported inside it, so that `primer --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from primer import __version__
from primer.chat_cli import chat_command
from primer.cli_options import Overrides, RecipePath, RunPath
from primer.errors import PrimerError, disk_full
from primer.eval_cli import eval_command, report_command
from primer.export_cli import export_command
from primer.grade_cli import grade_command
from primer.items_cli import app as items_app
from primer.plan_cli import plan_command
from primer.prompts_cli import app as prompts_app
from primer.synth_cli import app as synth_app
from primer.teacher_cli import app as teacher_app
from primer.tokenizer_cli import app as tokenizer_app
from primer.topics_cli import app as topics_app
from primer.train_cli import train_command
from primer.web_cli import app as web_app

# The exit status by which typer answers Ctrl-C, and the shell's own for SIGINT; and sysexits.h's for a failure that
# nobody expected, which tells a supervisor that starting again may help.
_INTERRUPTED, _UNEXPECTED = 130, 70

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class _InOrder(TyperGroup):
    """Typer lists single commands first; `synth`, a group, is the first step all the same."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "synth")


app = typer.Typer(
    name="primer",
    cls=_InOrder,
    help="Make synthetic textbooks, train small language models on them, and see what the textbooks did.\n\n"
    "An experiment is one recipe (recipes/*.yaml). `synth`, `train` and `eval` each bring its run folder up to that "
    "step, and `eval` to its report: what is complete is skipped, what was interrupted is continued, what the recipe "
    "changed is made again. Interrupt at any time; the same command goes on.",
    epilog="Begin with: primer report recipes/smoke.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

app.add_typer(synth_app, name="synth")
app.add_typer(topics_app, name="topics")
app.add_typer(prompts_app, name="prompts")
app.add_typer(teacher_app, name="teacher")
app.add_typer(web_app, name="web")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(items_app, name="items")
app.command("plan")(plan_command)
app.command("train")(train_command)


app.command("eval")(eval_command)
app.command("report")(report_command)
app.command("grade")(grade_command)
app.command("chat")(chat_command)
app.command("export")(export_command)


@app.command()
def status(recipe: RecipePath, set_: Overrides = None, run: RunPath = None) -> None:
    """Show what a run folder holds, stage by stage. Changes nothing."""
    from rich.table import Table
    from rich.text import Text

    from primer.progress import console, say
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder, stage_names

    loaded = load_recipe(recipe, set_ or [])
    folder = RunFolder(run or Path("runs") / loaded.name)
    table = Table("stage", "state", "made", box=None, pad_edge=False)
    for name in stage_names(loaded):
        manifest = folder.manifest(name)
        if manifest:
            table.add_row(name, "complete", Text(manifest.summary))
        else:
            table.add_row(name, "half done" if folder.has_partial(name) else "not begun", "")
    say(f"[bold]{folder.path}[/]")
    console.print(table)


@app.command("recipe")
def show_recipe(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="A recipe file.")] = None,
    set_: Overrides = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field: type, default, meaning.")] = False,
) -> None:
    """Print a recipe as resolved (inheritance, overrides, defaults), or document its fields."""
    from primer.recipe_file import describe_fields, dump_recipe, load_recipe

    if fields:
        for key, kind, default, meaning in describe_fields():
            typer.echo(f"{key}\n    {kind}, default {default}" + f"\n    {meaning}" * bool(meaning))
    elif recipe is None:
        raise PrimerError("`primer recipe` needs a recipe file or --fields.", "Try: primer recipe recipes/demo.yaml")
    else:
        typer.echo(dump_recipe(load_recipe(recipe, set_ or [])), nl=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"primer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Threads of torch that spin while they wait would take the cores from the teacher and from each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Ctrl-C has a handler everywhere, in event loops too; SIGTERM is to mean the same.
    signal.raise_signal(signal.SIGINT)


def _fail(problem: str, remedy: str) -> int:
    from rich.text import Text

    from primer.progress import console

    console.print(Text("error: ", style="bold red") + Text(problem, style="default not bold"))
    console.print(Text(remedy))
    return 1


def main() -> int:
    """Entry point of the `primer` command: every expected failure is one message and a non-zero status."""
    # Also where a script's `&` had it ignored: an experiment can always be stopped, and loses nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except PrimerError as error:
        return _fail(error.problem, error.remedy)
    except ModuleNotFoundError as error:
        return _fail(
            f"The Python package {error.name!r} is not installed.", "Run `make setup`: it installs what is missing."
        )
    except Exception as error:
        if disk_full(error):
            return _fail(f"The disk is full: {error}", "Free some space; the same command continues where it was.")
        if isinstance(error, OSError) and error.errno in _NOT_ALLOWED:
            return _fail(f"{error.filename}: {error.strerror}.", "Allow it, or choose another folder.")
        traceback.print_exc()
        return _UNEXPECTED
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            from train.heartbeat import FOLDER

            if FOLDER not in os.environ:  # a supervisor says so for all
                _fail("interrupted.", "Nothing is lost: the same command continues where it was.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
