"""`primer items`: Primer's own evaluation items, which lie sealed so that no crawler reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from primer.errors import PrimerError, did_you_mean

app = typer.Typer(
    help="Primer's own evaluation items: they lie sealed, so that no collection of web text learns them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_items() -> None:
    """List the files of items and how many each holds."""
    from primer.benchmarks import BUILT_IN_ITEMS
    from primer.sealed import SUFFIX, read_items

    for path in sorted(BUILT_IN_ITEMS.glob(f"*{SUFFIX}")):
        typer.echo(f"{path.stem:<14}{sum(bool(line.strip()) for line in read_items(path).splitlines()):>5} items")


@app.command("show")
def show_items(name: Annotated[str, typer.Argument(metavar="NAME", help="A file of `primer items list`.")]) -> None:
    """Print the items of a file as JSON Lines. Keep them out of web pages and training data."""
    from primer.benchmarks import BUILT_IN_ITEMS
    from primer.sealed import SUFFIX, read_items

    path = BUILT_IN_ITEMS / f"{name}{SUFFIX}"
    if not path.is_file():
        known = sorted(found.stem for found in BUILT_IN_ITEMS.glob(f"*{SUFFIX}"))
        raise PrimerError(f"There are no items {name!r}.", f"{did_you_mean(name, known)}Files: {', '.join(known)}.")
    typer.echo(read_items(path), nl=False)


@app.command("seal")
def seal_items(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines in UTF-8.")],
    target: Annotated[Path, typer.Argument(metavar="SEALED", help="Where to write them, a file *.sealed.")],
) -> None:
    """Seal a file of items, after a look that every line is a JSON object."""
    import json

    from primer.run import write_text
    from primer.sealed import SUFFIX, read_items, seal

    if target.suffix != SUFFIX:
        raise PrimerError(f"{target} does not end in {SUFFIX}.", f"Call it {target.with_suffix(SUFFIX).name}.")
    text = read_items(source)
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise PrimerError(f"{source}, line {number}: not a JSON object: {error}", "Mend the line.") from None
    write_text(target, seal(text))
