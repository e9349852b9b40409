"""`primer web duplicates`: what deduplication removed, beside what it kept."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from primer.cli_options import RecipePath, RunPath
from primer.errors import PrimerError

if TYPE_CHECKING:
    from rich.text import Text

    from synth.browse import Browser
    from synth.removed import Removed

Corpus = Literal["web", "code", "synthetic"]
Kind = Literal["near", "exact"]
Side = list[tuple[str, bool]]  # pieces of a text, and whether both texts hold them

# Comparing takes the square of the words, and more where they repeat: two texts that begin alike for so long are alike.
_MOST_WORDS = 1000

_WIDEST = 160  # two columns of lines that can be read
_PAIRS = 20  # shown where nothing says how many

_WORD = re.compile(r"\S+\s*")

_KINDS = {"near": "near duplicate", "exact": "exact duplicate"}


def duplicates(
    recipe: RecipePath,
    run: RunPath = None,
    corpus: Annotated[Corpus, typer.Option("--corpus", help="Which corpus.")] = "web",
    number: Annotated[
        int | None,
        typer.Option("--number", min=1, help="The removed document at this place, of its --kind."),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="near: alike; exact: equal but for case and white space.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, help="How many pairs, from the first or --number.")
    ] = None,
) -> None:
    """Show documents that were removed as duplicates, each beside the one that was kept.

    What both hold is dimmed, and what only one holds stands out; where no pager shows it, as [-words of the removed
    one-] and {+words of the kept one+}. The similarity is the estimated share of word sequences that both hold, of all
    that either holds; corpus.duplicates in the recipe says from which on a document goes. If pairs look different to
    you, raise corpus.duplicates.threshold; if the corpus still repeats itself, lower it.
    """
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder
    from synth.removed import REMOVED, RemovedReader

    folder = RunFolder(run or Path("runs") / load_recipe(recipe).name)
    folder.require(f"corpus/{corpus}")
    home = folder.folder(f"corpus/{corpus}")
    if not (home / REMOVED).exists():
        raise PrimerError(
            f"{home} has no list of removed documents ({REMOVED}).",
            f"Delete {home} and make the corpus again: it is written beside it.",
        )
    reader = RemovedReader(home)
    first, many = (0, _PAIRS) if number is None else (number - 1, 1)
    numbers = list(islice(reader.numbers(kind), first, first + (count or many)))
    if not numbers:
        _complain(corpus, kind, number, sum(1 for _ in reader.numbers(kind)), reader.total)
    _show(_Pairs(folder.path, reader.total, reader.row), numbers)


def _complain(corpus: Corpus, kind: Kind | None, number: int | None, of_kind: int, total: int) -> None:
    what = _KINDS[kind] if kind else "duplicate"
    if number is not None and of_kind:
        documents = f"{what}s" if kind else "documents"
        raise PrimerError(
            f"--number is {number:,d}, but {of_kind:,d} {documents} were removed from corpus/{corpus}.",
            f"Give a number from 1 to {of_kind}.",
        )
    raise PrimerError(
        f"No {what} was removed from corpus/{corpus}; {total:,d} documents were removed in all.",
        "Name another corpus (--corpus), or leave --kind out." if total else "There is nothing to look at.",
    )


class _Pairs:
    """Removed documents beside those that were kept, as text for a console."""

    def __init__(self, run: Path, total: int, row: Any) -> None:
        self._run, self._total, self._row = run, total, row
        self._browsers: dict[str, Browser] = {}

    def pair(self, number: int) -> tuple[Removed, dict[str, Any]]:
        """A removed document and the row of the kept one."""
        from synth.browse import Browser, Wanted

        removed: Removed = self._row(number)
        name = removed["kept_corpus"]
        if name not in self._browsers:
            self._browsers[name] = Browser(self._run / "corpus" / name, Wanted())
        place = self._browsers[name].find(removed["kept"])
        if place is None:
            raise PrimerError(
                f"corpus/{name} holds no document {removed['kept']!r}, which the list of removed documents names.",
                "The corpus was made again since: run the command that makes the corpora.",
            )
        return removed, self._browsers[name].document(place)

    def heading(self, number: int, removed: Removed) -> str:
        """What a pair is."""
        alike = f", similarity {removed['similarity']:.2f}" * (removed["kind"] == "near")
        return f"removed document {number:,d} of {self._total:,d}: {_KINDS[removed['kind']]}{alike}"


def _show(pairs: _Pairs, numbers: list[int]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not (console.is_terminal and sys.stdin.isatty()):
        for number in numbers:
            typer.echo(_plain(pairs, number))
        return
    os.environ.setdefault("LESS", "-RF")
    with console.pager(styles=not console.no_color):
        for number in numbers:
            _print_beside(console, pairs, number)


def _print_beside(console: Any, pairs: _Pairs, number: int) -> None:
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    removed, kept = pairs.pair(number)
    ours, theirs, note = compared(removed, kept)
    table = Table(box=None, expand=True, width=min(console.width, _WIDEST), padding=(0, 1))
    table.add_column("removed", ratio=1, overflow="fold")
    table.add_column("kept", ratio=1, overflow="fold")
    table.add_row(
        *(Text("\n".join(_about(name, row, removed))) for name, row in (("removed", removed), ("kept", kept)))
    )
    table.add_row(_styled(ours, "bold red"), _styled(theirs, "bold green"))
    console.print(Rule(pairs.heading(number, removed), align="left", style="dim"), table, note)


def _plain(pairs: _Pairs, number: int) -> str:
    """A pair as text without control codes: one after the other, with the marks of wdiff."""
    removed, kept = pairs.pair(number)
    ours, theirs, note = compared(removed, kept)
    parts = [pairs.heading(number, removed)]
    for name, row, side, begin, end in (("removed", removed, ours, "[-", "-]"), ("kept", kept, theirs, "{+", "+}")):
        text = "".join(piece if shared or not piece.strip() else f"{begin}{piece}{end}" for piece, shared in side)
        parts.append("\n".join([f"--- {name} ---", *_about(name, row, removed), "", text]))
    return "\n\n".join(filter(None, [*parts, note])) + "\n"


def _about(name: str, row: Any, removed: Removed) -> Iterator[str]:
    """What is known of one of the two, line by line."""
    from synth.browse import printable

    known = [f"{removed['kept']} in corpus/{removed['kept_corpus']}"] if name == "kept" else []
    for value in (*known, row["title"], row["origin"]):
        if value:
            yield " ".join(printable(value).split())


def compared(removed: Removed, kept: dict[str, Any]) -> tuple[Side, Side, str]:
    """The two texts in pieces, each of them shared or not, and a note on what is not shown.

    Args:
        removed: The removed document.
        kept: The row of the kept one.
    """
    from synth.browse import printable

    if removed["text"] is None:
        text = printable(kept["text"])
        return [("(equal but for case and white space)", True)], [(text, True)], ""
    ours, theirs = (_words(printable(text)) for text in (removed["text"], kept["text"]))
    rest = max(len(ours), len(theirs)) - _MOST_WORDS
    note = f"({rest:,d} more words are not compared here)" if rest > 0 else ""
    ours, theirs = ours[:_MOST_WORDS], theirs[:_MOST_WORDS]
    sides: tuple[Side, Side] = ([], [])
    one, other = ([word.strip().lower() for word in words] for words in (ours, theirs))
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for side, words in zip(sides, (ours[a:b], theirs[c:d]), strict=True):
            if words:
                text = "".join(words)
                side.append((text.rstrip(), tag == "equal"))
                side.append((text[len(text.rstrip()) :], True))
    return *sides, note


def _words(text: str) -> list[str]:
    """Words, each with the white space after it."""
    return _WORD.findall(text)


def _styled(side: Side, style: str) -> Text:
    from rich.text import Text

    return Text.assemble(*((piece, "dim" if shared else style) for piece, shared in side))
