"""The pager of `primer synth inspect`: one document on the screen, keys for the others."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.control import Control
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from primer.inspect_cli import describe, heading

if TYPE_CHECKING:
    from synth.browse import Browser, Wanted

# Longer lines are hard to read.
_WIDEST = 100

# A text beyond this many characters is no reading matter, and takes seconds to lay out.
_MOST_CHARACTERS = 1_000_000

# A screen that was resized is drawn again after so many seconds.
_LOOK_AGAIN = 0.3

# On a screen of 80 columns all of them stand beside the number of lines.
_KEYS = "q quit  n next  p previous  r random  g number  t text  space more"

# One key as a terminal sends it: an escape sequence, or a character.
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)

_NAMES = {
    **dict.fromkeys(["n", "\x1b[C", "\x1bOC"], "next"),
    **dict.fromkeys(["p", "\x1b[D", "\x1bOD"], "previous"),
    **dict.fromkeys([" ", "\x1b[6~"], "more"),
    **dict.fromkeys(["b", "\x1b[5~"], "back"),
    **dict.fromkeys(["j", "\r", "\n", "\x1b[B", "\x1bOB"], "down"),
    **dict.fromkeys(["k", "\x1b[A", "\x1bOA"], "up"),
    **dict.fromkeys(["\x1b[H", "\x1bOH", "\x1b[1~"], "top"),
    **dict.fromkeys(["G", "\x1b[F", "\x1bOF", "\x1b[4~"], "end"),
    **dict.fromkeys(["q", "Q", "\x04"], "quit"),
    "r": "random",
    "g": "number",
    "t": "text",
}


class Pager:
    """Shows documents until it is told to stop.

    Args:
        browser: The corpus.
        wanted: What the browser keeps to, for people.
        number: The document to begin with.
        seed: Seed of what `r` shows.
    """

    def __init__(self, browser: Browser, wanted: Wanted, number: int, seed: int) -> None:
        self._browser, self._wanted, self._number, self._seed = browser, wanted, number, seed
        self._draws = self._drawn()
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._size = self._console.size
        self._top = 0
        self._note = ""
        self._digits: str | None = None
        self._lines: list[list[Segment]] = []
        self._text_starts = 0
        self._laid_out: tuple[int, int] | None = None

    def run(self) -> None:
        """Take the screen, follow the keys, and give it back as it was."""
        with self._screen() as terminal:
            try:
                self._draw()
                while self._follow(terminal):
                    self._draw()
            except KeyboardInterrupt:
                return

    @contextmanager
    def _screen(self) -> Iterator[int]:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal)
            mode = termios.tcgetattr(terminal)
            mode[6][termios.VSUSP] = b"\0"  # a pager that is stopped would leave its screen behind
            termios.tcsetattr(terminal, termios.TCSANOW, mode)
            with self._console.screen(hide_cursor=True):
                yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def _follow(self, terminal: int) -> bool:
        """Wait for keys, or another size of the screen; False if it is enough."""
        while not select.select([terminal], [], [], _LOOK_AGAIN)[0]:
            if self._console.size != self._size:
                return True
        typed = os.read(terminal, 1024).decode(errors="ignore")
        return bool(typed) and all(self._press(key) for key in _KEY.findall(typed))

    def _press(self, key: str) -> bool:
        self._note = ""
        if self._digits is not None:
            self._type(key)
            return True
        name = _NAMES.get(key)
        page = self._page
        moves = {"more": page, "back": -page, "down": 1, "up": -1, "end": len(self._lines), "top": -len(self._lines)}
        if name == "quit":
            return False
        if name in ("next", "previous", "random") and self._wanted.columns:
            self._note = "Searching ..."
            self._draw()
            self._note = ""
        if name == "next":
            self._go(self._browser.after(self._number), "This is the last one.")
        elif name == "previous":
            self._go(self._browser.before(self._number), "This is the first one.")
        elif name == "random":
            self._go(next((n for n in islice(self._draws, 2) if n != self._number), None), "There is no other one.")
        elif name == "number":
            self._digits = ""
        elif name == "text":
            self._scroll(self._text_starts - self._top)
        elif name:
            self._scroll(moves[name])
        return True

    def _type(self, key: str) -> None:
        """One more key of a number."""
        typed = self._digits or ""
        if key.isdecimal() and len(typed) < 12:
            self._digits = typed + key
        elif key in ("\x7f", "\b"):
            self._digits = typed[:-1]
        elif key in ("\r", "\n", "\x1b", "q"):
            self._digits = None
            if typed and key in ("\r", "\n"):
                known = 1 <= int(typed) <= self._browser.total
                self._go(int(typed) if known else None, f"There is no document {typed}.")

    def _go(self, number: int | None, otherwise: str) -> None:
        if number is None:
            self._note = otherwise
        else:
            self._number, self._top, self._laid_out = number, 0, None

    def _drawn(self) -> Iterator[int]:
        while True:
            yield from self._browser.draw(self._seed)

    @property
    def _page(self) -> int:
        """Lines of the document on the screen: all but the first and the last."""
        return max(1, self._console.size.height - 2)

    def _scroll(self, lines: int) -> None:
        self._top = min(max(0, self._top + lines), max(0, len(self._lines) - self._page))

    def _draw(self) -> None:
        self._size = self._console.size
        width, height = self._size
        if self._laid_out != (self._number, width):
            self._lay_out(width)
        self._scroll(0)
        page = self._page
        shown = self._lines[self._top : self._top + page]
        shown += [[]] * (page - len(shown))
        row = self._browser.document(self._number)
        about = f"  only {self._wanted}" if self._wanted.columns else ""
        first = Text.assemble((heading(row, self._number, self._browser.total), "bold"), (_one_line(about), "dim"))
        lines = [self._line(first, width), *shown, self._line(self._footer(), width)]
        segments: list[Segment] = []
        for place, line in enumerate(lines[:height]):
            segments += [Segment.line()] * bool(place)
            segments += Segment.adjust_line_length(line, width)
        self._console.control(Control.home())
        self._console.print(Segments(segments), end="", soft_wrap=True)

    def _footer(self) -> Text:
        if self._digits is not None:
            return Text(f"document number: {self._digits}▏ Enter goes there", style="bold")
        rest = len(self._lines) - self._top - self._page
        far = f"+{rest:,d} lines" if rest > 0 else "end"
        return Text.assemble((self._note or far, "bold"), "  ", (_KEYS, "dim"))

    def _line(self, text: Text, width: int) -> list[Segment]:
        text.truncate(width, overflow="ellipsis")
        return self._rendered(text, width)[0]

    def _lay_out(self, width: int) -> None:
        """The document as lines of the screen's width."""
        from synth.browse import printable

        row = self._browser.document(self._number)
        narrow = min(width, _WIDEST)
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in describe(row):
            table.add_row(label, Text(value))
        above: list[Table | Text | Rule] = [table, Text()]
        if row["provenance"]:
            prompt = Text(printable(row["provenance"]["prompt"]), style="dim")
            above += [Rule("prompt", align="left", style="dim"), prompt, Text()]
        self._lines = self._rendered(Group(*above), narrow)
        self._text_starts = len(self._lines)
        text: list[Text | Rule] = [
            Rule("text", align="left", style="dim"),
            Text(printable(row["text"][:_MOST_CHARACTERS])),
        ]
        if (rest := len(row["text"]) - _MOST_CHARACTERS) > 0:
            text.append(Text(f"{rest:,d} more characters: --plain prints them.", style="bold"))
        self._lines += self._rendered(Group(*text), narrow)
        self._laid_out = (self._number, width)

    def _rendered(self, what: Group | Text, width: int) -> list[list[Segment]]:
        options = self._console.options.update(width=width, height=None)
        return self._console.render_lines(what, options, pad=False)


def _one_line(text: str) -> str:
    """A filter as the user typed it, fit for a line of the screen."""
    from synth.browse import printable

    return printable(text).replace("\n", " ")
