"""A person's grader: one answer on the screen, a key for its grade. Through a pipe, one letter a line."""

from __future__ import annotations

import os
import re
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from primer.errors import PrimerError

# Longer lines are hard to read.
_WIDEST = 100

_BACK, _STOP, _HELP = "b", "q", "?"

# One key as a terminal sends it: an escape sequence, such as of an arrow or of Alt with a letter, which means nothing
# here, or a character.
_KEY = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z]|.)?|.", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """One answer to grade: texts for a terminal, without control characters."""

    given: str
    written: str
    passes: str
    fails: str


class GraderScreen:
    """Shows answers until each has a grade, or the person stops.

    Args:
        cards: What to grade, in the order shown.
        grades: Of each, as far as there are any.
        keys: Grades by the letters that give them.
        give: Keeps a grade, before the next card is shown: the card's number, and the grade.
        rubric: What `?` shows.
    """

    def __init__(
        self,
        cards: Sequence[Card],
        grades: Sequence[str | None],
        keys: Mapping[str, str],
        give: Callable[[int, str], None],
        rubric: str,
    ) -> None:
        self._cards, self._grades, self._keys, self._give, self._rubric = cards, list(grades), keys, give, rubric
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._number = self._next_after(-1)
        self._note = ""

    @property
    def left(self) -> int:
        """How many have no grade."""
        return self._grades.count(None)

    def run(self) -> None:
        """Ask for grades: by keys on a terminal, by lines of standard input elsewhere.

        Raises:
            PrimerError: If a line is no letter that means something, or a grade cannot be kept.
        """
        terminal = sys.stdin.isatty() and self._console.is_terminal
        try:
            if terminal:
                with _keys_at_once(sys.stdin.fileno()) as keys:
                    self._follow(keys)
            else:
                self._follow_lines()
        except KeyboardInterrupt:
            return  # every grade was kept when it was given

    def _follow(self, keys: Iterator[str]) -> None:
        while self.left:
            self._console.clear()
            self._show(self._screen())
            key = next(keys, _STOP)
            if key == _HELP:
                self._console.clear()
                self._show(Text(f"{self._rubric}\n\nAny key goes back to the answer."))
                if next(keys, _STOP) == _STOP:
                    return
            elif key == _STOP:
                return
            elif not self._press(key):
                self._note = f"{key!r} is no key here." if key.isprintable() else "That is no key here."

    def _follow_lines(self) -> None:
        lines = enumerate(sys.stdin, start=1)
        while self.left:
            self._show(self._screen())
            number, line = next(lines, (0, _STOP))
            letter = line.strip().lower()
            if letter == _HELP:
                self._show(Text(self._rubric))
            elif letter == _STOP:
                return
            elif not self._press(letter):
                # Not passed over: the letters after it would go to the wrong answers.
                raise PrimerError(
                    f"Line {number} of the input is {line.rstrip()!r}; expected one of {self._letters()}.",
                    "The grades of the lines before it are kept. Mend the line, and give the rest of the input again.",
                )

    def _press(self, key: str) -> bool:
        """Do what a key says; whether it says anything."""
        self._note = ""
        key = key.lower()
        if key == _BACK:
            self._number = max(0, self._number - 1)
        elif key in self._keys:
            if self._grades[self._number] != self._keys[key]:
                self._give(self._number, self._keys[key])
                self._grades[self._number] = self._keys[key]
            self._number = self._next_after(self._number)
        else:
            return False
        return True

    def _next_after(self, number: int) -> int:
        """The next card without a grade, from the beginning again after the last."""
        following = [*range(number + 1, len(self._cards)), *range(number + 1)]
        return next((place for place in following if self._grades[place] is None), number)

    def _screen(self) -> RenderableType:
        card, grade = self._cards[self._number], self._grades[self._number]
        done = len(self._cards) - self.left
        keys = "   ".join(f"{key} {grade}" for key, grade in self._keys.items())
        return Group(
            Rule(f"{done} of {len(self._cards)} graded", style="dim"),
            Text("It was given", style="dim"),
            Padding(Text(card.given), (0, 0, 1, 2)),
            Text("It wrote", style="dim"),
            Padding(Text(card.written or "(nothing)", style="bold" if card.written else "dim"), (0, 0, 1, 2)),
            Text(f"Pass: {card.passes}\nFail: {card.fails}", style="dim"),
            Rule(style="dim"),
            Text(f"{keys}   {_BACK} back   {_STOP} stop   {_HELP} rubric"),
            Text(self._note or (f"You graded this one: {grade}." if grade else ""), style="yellow"),
        )

    def _show(self, shown: RenderableType) -> None:
        self._console.print(shown, width=min(_WIDEST, self._console.width) if self._console.is_terminal else _WIDEST)

    def _letters(self) -> str:
        return ", ".join([*self._keys, _BACK, _STOP, _HELP])


@contextmanager
def _keys_at_once(terminal: int) -> Iterator[Iterator[str]]:
    """Keys as they are pressed; the terminal is given back as it was."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield _keys(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _keys(terminal: int) -> Iterator[str]:
    while typed := os.read(terminal, 1024).decode(errors="ignore"):
        for key in _KEY.findall(typed):
            if key == "\x04":
                return
            yield key
