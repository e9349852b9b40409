"""`primer tokenizer`: train a recipe's vocabulary and see how well it fits its corpora; show how a text is cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from primer.cli_options import Overrides, RecipePath, RunPath, take_steps
from primer.errors import PrimerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from primer.recipe import Recipe
    from primer.run import RunFolder

app = typer.Typer(
    help="The vocabulary of a recipe: train it, measure it, look at it.\n\n"
    "`primer train` makes it by itself. Here it can be tried before the corpora are tokenised: with another "
    "vocabulary_size, with other sources, beside codegen's (docs/tokens.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Held-out characters of a source that are measured: the ratios' third digit no longer changes.
_MEASURED = 2_000_000

_LONGEST, _SAMPLES = 12, 24

# Neighbouring pieces differ on a terminal.
_STYLES = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")


@app.command()
def train(recipe: RecipePath, set_: Overrides = None, run: RunPath = None) -> None:
    """Train the recipe's vocabulary on its corpora, and measure it on held-out text beside codegen's.

    The corpora must be there (`primer synth`). A recipe with tokenizer.kind codegen has nothing to train: the ratios
    of codegen's vocabulary are printed.
    """
    take_steps([_train], recipe, set_, run)


@app.command()
def show(
    tokenizer: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A model directory or a run folder: what holds a tokenizer.json.")
    ],
    text: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="What to cut; else standard input.")] = None,
) -> None:
    """Show the tokens of a text and their ids: coloured on a terminal, else one a line."""
    from primer.progress import printer
    from train.tokenizer import encode_documents, token_bytes

    found = _find_tokenizer(tokenizer)
    (ids,) = encode_documents(found, [" ".join(text) if text else _standard_input()])
    pieces = list(zip(ids, token_bytes(found, ids), strict=True))
    if printer.is_terminal:
        _print_coloured(pieces)
    else:
        for token, piece in pieces:
            typer.echo(f"{token}\t{_readable(piece)}")


def _train(recipe: Recipe, run: RunFolder) -> None:
    from primer.progress import say
    from train.compression import longest_tokens, sample_tokens
    from train.stages import complete_tokenizer
    from train.tokenizer import codegen_tokenizer, load_tokenizer

    for source in recipe.used_sources():
        run.require(f"corpus/{source}")
    complete_tokenizer(recipe, run)
    tokenizer = load_tokenizer(run.folder("tokenizer"))
    if recipe.tokenizer.kind == "codegen":
        say("tokenizer.kind is codegen: a published vocabulary, nothing to train.")
        _print_ratios(recipe, run, {"codegen": tokenizer})
        return
    _print_ratios(recipe, run, {"trained": tokenizer, "codegen": codegen_tokenizer()})
    _print_tokens("longest", longest_tokens(tokenizer, _LONGEST))
    _print_tokens("from the first learnt to the last", sample_tokens(tokenizer, _SAMPLES))


def _print_ratios(recipe: Recipe, run: RunFolder, tokenizers: dict[str, Tokenizer]) -> None:
    from rich.table import Table

    from primer.progress import printer
    from train.compression import compression

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("held-out text", no_wrap=True)
    for heading in ("bytes", *(f"{what}, {name}" for name in tokenizers for what in ("bytes/token", "tokens/word"))):
        table.add_column(heading, justify="right")
    for source in recipe.used_sources():
        found = [compression(tokenizer, _held_out(run, source)) for tokenizer in tokenizers.values()]
        ratios = [f"{ratio:.2f}" for one in found for ratio in (one.bytes_per_token, one.tokens_per_word)]
        table.add_row(source, f"{found[0].bytes:,}", *ratios)
    printer.print(table)


def _held_out(run: RunFolder, source: str) -> Iterator[str]:
    from primer.documents import read_documents

    characters = 0
    for row in read_documents(run.folder(f"corpus/{source}"), "held_out", ["text"]):
        if characters >= _MEASURED:
            return
        characters += len(row["text"])
        yield row["text"]


def _print_tokens(title: str, texts: list[str]) -> None:
    from rich.text import Text

    from primer.progress import printer

    printer.print(Text(f"\n{title}: ", style="dim") + Text("  ".join(_readable(text.encode()) for text in texts)))


def _find_tokenizer(folder: Path) -> Any:
    from train.tokenizer import load_tokenizer

    for place in (folder, folder / "tokenizer", folder / "tokens"):
        if (place / "tokenizer.json").is_file():
            try:
                return load_tokenizer(place)
            except PrimerError as error:  # its remedy is a run folder's: to delete what holds it
                raise PrimerError(error.problem, "Make or copy it again, or name another folder.") from None
    raise PrimerError(
        f"{folder} holds no tokenizer.json, nor does {folder / 'tokenizer'}.",
        "Name a model directory, or a run folder after `primer tokenizer train` or `primer train`.",
    )


def _standard_input() -> str:
    if sys.stdin.isatty():
        typer.echo("reading standard input; end with Ctrl-D", err=True)
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise PrimerError(f"Standard input is no UTF-8: {error}.", "Convert it, with iconv for example.") from None


def _readable(piece: bytes) -> str:
    """A piece on one line: a space as ␣, what does not print or is a part of a character as an escape."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in text).replace(
        " ", "␣"
    )


def _print_coloured(pieces: list[tuple[int, bytes]]) -> None:
    from rich.text import Text

    from primer.progress import printer

    line = Text()
    for number, (token, piece) in enumerate(pieces):
        line.append(_readable(piece), style=_STYLES[number % len(_STYLES)])
        line.append(f"{token} ", style="dim")
        if piece.endswith(b"\n"):
            line.append("\n")
    printer.print(line)
    typer.echo(f"{len(pieces):,} tokens, {sum(len(piece) for _, piece in pieces):,} bytes", err=True)
