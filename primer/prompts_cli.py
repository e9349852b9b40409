"""`primer prompts`: see what a teacher will be asked, count it, and try a form."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from primer.recipe import Recipe
    from prompts.stream import PromptStream
    from prompts.unit import Unit

# `sample` draws from as many units; `show` reaches any.
_SAMPLED = 1_000_000
_SHOWN_FIELDS = 8

app = typer.Typer(
    help="The prompts: what a teacher is asked, made from a topic, a form, a reader, a style and a passage of web text."
    "\n\nUnit I of the stream is always the same for the same recipe, on any machine. Forms are Jinja templates: drop "
    "one into a folder, name the folder in a recipe (prompts.folders), and try it with `render`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipePath = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Draw as this recipe does; by default Primer's own, no passages."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe. Repeatable.")
]
RunPath = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="The run folder whose web corpus gives the passages."),
]
AsJson = Annotated[bool, typer.Option("--jsonl", help="Write JSON lines for other programs.")]


@app.command()
def sample(
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="How many.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another sample.")] = 0,
    recipe: RecipePath = None,
    set_: Overrides = None,
    run: RunPath = None,
    as_json: AsJson = False,
) -> None:
    """Print some units from anywhere in the first million, in full."""
    stream = _stream(recipe, set_, run)
    for index in sorted(random.Random(seed).sample(range(_SAMPLED), count)):
        _print(stream[index], as_json=as_json)


@app.command()
def show(
    index: Annotated[int, typer.Argument(metavar="I", min=0, help="Place in the stream, from 0.")],
    recipe: RecipePath = None,
    set_: Overrides = None,
    run: RunPath = None,
    as_json: AsJson = False,
) -> None:
    """Print one unit as the teacher would get it, with everything it was made from. Asks no teacher."""
    _print(_stream(recipe, set_, run)[index], as_json=as_json)


@app.command()
def stats(
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Units to count, from 0.")] = 10_000,
    recipe: RecipePath = None,
    set_: Overrides = None,
    run: RunPath = None,
) -> None:
    """Count the first units along every axis, and how many are the same."""
    import time

    from rich.columns import Columns
    from rich.table import Table

    from primer.progress import bar, printer

    stream = _stream(recipe, set_, run)
    axes: dict[str, Counter[str]] = {}
    seen: set[int] = set()
    topics: set[str] = set()
    words, clock = 0, time.process_time()
    with bar("prompts", count, "units") as progress:
        for index in range(count):
            unit = stream[index]
            messages = unit.messages()
            seen.add(hash(tuple(message["content"] for message in messages)))
            topics.add(unit.topic.id)
            words += sum(len(message["content"].split()) for message in messages)
            for axis, value in _axes(unit):
                axes.setdefault(axis, Counter())[value] += 1
            progress.update(index + 1)
    rate = count / (time.process_time() - clock)
    tables = []
    for axis, counts in axes.items():
        table = Table(box=None, pad_edge=False, show_header=False, title=axis, title_justify="left")
        most = counts.most_common(_SHOWN_FIELDS if axis == "field" else None)
        for name, number in most:
            table.add_row(name, f"{number:,d}", f"{number / count:.1%}")
        if len(most) < len(counts):
            table.add_row(f"... and {len(counts) - len(most)} more", "", "")
        tables.append(table)
    printer.print(Columns(tables, padding=(1, 4)))
    printer.print(
        f"\n{count:,d} units on {len(topics):,d} topics; "
        f"{count - len(seen):,d} prompts equal an earlier one; {words / count:.0f} words a first prompt; "
        f"{rate:,.0f} units per CPU second"
    )


@app.command()
def render(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A form (*.j2).")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="How many previews.")] = 1,
    passage: Annotated[str | None, typer.Option(help="A passage of web text to carry.")] = None,
    recipe: RecipePath = None,
    set_: Overrides = None,
) -> None:
    """Check a form that you are writing, and preview it on topics that it suits."""
    from primer.progress import say
    from prompts.forms import load_form
    from prompts.passages import Snippet
    from prompts.stream import PromptStream, known_fields

    loaded = _recipe(recipe, set_)
    form = load_form(file, known_fields(loaded))
    prompts = loaded.prompts.model_copy(update={"forms": {}, "snippet_share": 1.0 if passage else 0.0})
    snippets = [Snippet("yours", passage)] if passage else []
    stream = PromptStream(loaded.model_copy(update={"prompts": prompts}), snippets, forms={form.name: form})
    if passage and not form.about.snippets:
        say("[yellow]The form takes no passage (snippets: false).[/]")
    say(f"The form is valid. It suits {len(stream.topics):,d} topics ({stream.left_out:,d} not).\n")
    for index in range(count):
        _print(stream[index], as_json=False)


def _recipe(path: Path | None, overrides: Sequence[str] | None) -> Recipe:
    from primer.recipe_file import load_recipe

    # Passages need a web corpus, which the defaults alone have not.
    return load_recipe(path, [*([] if path else ["prompts.snippet_share=0"]), *(overrides or [])])


def _stream(path: Path | None, overrides: Sequence[str] | None, run: Path | None) -> PromptStream:
    from primer.run import RunFolder
    from synth.corpora import prompt_stream

    loaded = _recipe(path, overrides)
    return prompt_stream(loaded, RunFolder(run or Path("runs") / loaded.name))


def _axes(unit: Unit) -> list[tuple[str, str]]:
    return [
        ("form", unit.form),
        ("audience", unit.audience),
        ("level", unit.level),
        ("length", unit.length),
        ("register", unit.register),
        ("language", unit.language),
        ("passage", "with" if unit.snippet else "without"),
        ("required_words", "with" if unit.required_words else "without"),
        ("steps", str(unit.steps)),
        ("kind", unit.topic.kind),
        ("field", unit.topic.field),
    ]


def _print(unit: Unit, *, as_json: bool) -> None:
    from rich.markup import escape

    from primer.progress import printer

    # What a teacher will answer is not known yet: later prompts show where its words will stand.
    replies = [f"[the reply to prompt {step + 1}]\n[its second line]\n[its third line]" for step in range(unit.steps)]
    asked = [unit.messages(replies[:step]) for step in range(unit.steps)]
    if as_json:
        row = dict(_axes(unit)) | {
            "index": unit.index,
            "topic_id": unit.topic.id,
            "topic": unit.topic.title,
            "steps": unit.steps,
            "words": unit.words,
            "required_words": list(unit.required_words),
            "passage": unit.snippet.id if unit.snippet else None,
            "seed": unit.seed,
            "messages": asked,
        }
        typer.echo(json.dumps(row, ensure_ascii=False))
        return
    printer.print(
        f"[bold]unit {unit.index:,d}[/], topic {escape(unit.topic.id)}: {escape(unit.topic.title)}\n"
        f"[dim]form {escape(unit.form)}, audience {unit.audience}, level {unit.level}, "
        f"length {unit.length} ({unit.words} words), register {unit.register}, language {unit.language}\n"
        f"required words {', '.join(unit.required_words) or 'none'}, "
        f"passage {escape(unit.snippet.id) if unit.snippet else 'none'}, seed {unit.seed}[/]\n"
    )
    for step, messages in enumerate(asked):
        if unit.steps > 1:
            typer.echo(f"--- prompt {step + 1} of {unit.steps} ---")
        for message in messages:
            typer.echo(f"[{message['role']}]\n{message['content']}\n")
