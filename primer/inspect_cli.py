"""`primer synth inspect`: read documents beside their prompts, in a pager on a terminal or as plain text."""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from primer.cli_options import RecipePath, RunPath
from primer.errors import PrimerError, did_you_mean

if TYPE_CHECKING:
    from primer.run import Manifest
    from synth.browse import Browser, Wanted

Source = Literal["synthetic", "web", "code"]


def inspect(
    recipe: RecipePath,
    run: RunPath = None,
    source: Annotated[Source, typer.Option("--source", help="Which corpus.")] = "synthetic",
    identity: Annotated[str | None, typer.Option("--id", help="The document of this identity.")] = None,
    number: Annotated[int | None, typer.Option("--number", min=1, help="The document at this place, from 1.")] = None,
    form: Annotated[str | None, typer.Option("--form", help="Only documents of this form.")] = None,
    field: Annotated[str | None, typer.Option("--field", help="Only documents on topics of this field.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="TEXT", help="Only where the topic says so.")] = None,
    contains: Annotated[str | None, typer.Option("--contains", metavar="TEXT", help="Only texts that hold it.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other documents.")] = 0,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many, where no pager shows them.")] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="Print, also on a terminal: no pager, no colours.")] = False,
) -> None:
    """Read documents beside their prompts.

    Starts at a random document, or at --id or --number. On a terminal keys turn the pages; elsewhere the documents are
    printed as plain text.
    """
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder
    from synth.browse import Browser, Wanted

    wanted = Wanted(form, field, topic, contains)
    folder = RunFolder(run or Path("runs") / load_recipe(recipe).name)
    manifest = folder.require(f"corpus/{source}")
    if source != "synthetic" and (form or field):
        raise PrimerError(
            f"--form and --field are given, but no teacher wrote the {source} corpus.", "Use --topic or --contains."
        )
    browser = Browser(folder.folder(f"corpus/{source}"), wanted)
    first = _first(browser, wanted, manifest, identity, number, seed)
    screen = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if screen and not plain:
        from primer.pager_cli import Pager

        Pager(browser, wanted, first, seed).run()
        return
    numbers = [first]
    if identity or number:
        while len(numbers) < count and (following := browser.after(numbers[-1])):
            numbers.append(following)
    else:
        numbers = list(islice(browser.draw(seed), count))
    for place in numbers:
        typer.echo(plain_document(browser.document(place), place, browser.total))


def _first(
    browser: Browser, wanted: Wanted, manifest: Manifest, identity: str | None, number: int | None, seed: int
) -> int:
    if identity and number:
        raise PrimerError("--id and --number both say where to start.", "Give one of them.")
    if number is not None and number > browser.total:
        raise PrimerError(
            f"--number is {number:,d}, but {manifest.stage} has {browser.total:,d} documents.",
            f"Give a number from 1 to {browser.total}.",
        )
    if identity and (found := browser.find(identity)) is None:
        raise PrimerError(
            f"{manifest.stage} holds no document {identity!r}.",
            f"Identities look like {browser.document(1)['id']}; not every prompt became a document.",
        )
    place = number or (found if identity else None) or next(browser.draw(seed), None)
    if place is None:
        forms: dict[str, int] = manifest.facts.get("forms", {})
        hint = did_you_mean(wanted.form, forms) if wanted.form and wanted.form not in forms else ""
        raise PrimerError(
            f"None of the {browser.total:,d} documents of {manifest.stage} has {wanted}.",
            f"{hint}Ask for less." + f" Its forms: {', '.join(forms)}." * bool(wanted.form and forms),
        )
    return place


def describe(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of a document beside its text: labels and values for people, fit for a terminal."""
    from synth.browse import printable

    made = row["provenance"]
    if made is None:
        pairs = [(label, row[label]) for label in ("title", "origin", "licence", "group")]
        pairs += [(label, _score(row[label])) for label in ("quality", "toxicity")] + [("masked", row["masked"])]
    else:
        language = "" if made["language"] == "english" else f", in {made['language']}"
        pairs = [
            ("topic", f"{made['topic']} ({made['field']})"),
            ("form", made["form"]),
            ("audience", f"{made['audience']}, level {made['level']}"),
            ("length", f"{made['length']}, {len(row['text'].split()):,d} words"),
            ("register", f"{made['register']}{language}"),
            ("words", ", ".join(made["required_words"] or [])),
            ("passage", made["snippet_id"]),
            ("teacher", made["teacher"]),
            ("finish", made["finish_reason"]),
            ("tokens", _tokens(made)),
            ("tries", _tries(made)),
        ]
    return [(label, " ".join(printable(str(value)).split())) for label, value in pairs if value]


def _score(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _tokens(made: dict[str, Any]) -> str:
    asked, written = made["prompt_tokens"], made["completion_tokens"]
    return f"{written:,d} written, {asked:,d} in prompts" if asked is not None and written is not None else "not known"


def _tries(made: dict[str, Any]) -> str:
    if made.get("tries") is None:
        return ""
    return f"asked again {made['tries']} times, {made['continuations'] or 0} continuations"


def heading(row: dict[str, Any], number: int, total: int) -> str:
    """A document's identity and place."""
    from synth.browse import printable

    return f"{printable(row['id'])}: document {number:,d} of {total:,d}"


def plain_document(row: dict[str, Any], number: int, total: int) -> str:
    """A document as text without control codes."""
    from synth.browse import printable

    lines = [heading(row, number, total), *(f"{label:<9} {value}" for label, value in describe(row)), ""]
    if row["provenance"]:
        lines += ["--- prompt ---", printable(row["provenance"]["prompt"]), ""]
    return "\n".join([*lines, "--- text ---", printable(row["text"]), ""])
