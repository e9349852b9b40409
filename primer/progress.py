"""What the person at the terminal sees: one console, progress bars, and plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, soft_wrap=True)

# What a command was asked for goes to standard output, so that it can be piped; all else to the console.
printer = Console(highlight=False, soft_wrap=True)

# Where output goes to a file or a pipe, a line this often (seconds) takes the place of the bar.
_LINE_INTERVAL = 15.0

# Of the whole; before this much is done a forecast of the time left is a guess.
_SHARE_BEFORE_FORECAST = 0.02


def say(message: str) -> None:
    """Print one line for people (rich markup allowed; escape foreign text with `rich.markup.escape`)."""
    console.print(message)


class Bar:
    """A long piece of work: how far it is, and how it goes."""

    def __init__(self, title: str, total: float, unit: str, progress: Progress | None) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._progress = progress
        self._task: TaskID | None = None
        self._started = self._last_line = time.monotonic()
        self._first: float | None = None
        if progress is not None:
            self._task = progress.add_task(title, total=total, status="")

    def update(self, completed: float, status: str = "") -> None:
        """Say how much is done, of `total`, and a few words beside the bar ("182 tokens/s, 71% accepted")."""
        if self._first is None:
            self._first = completed  # what an earlier run had done says nothing about this one's pace
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=min(completed, self._total), status=status)
        elif time.monotonic() - self._last_line >= _LINE_INTERVAL:
            self._last_line = time.monotonic()
            share = min(completed / self._total, 1.0) if self._total else 1.0
            far = f"{completed:,.0f} of {self._total:,.0f} {self._unit} ({share:.0%}){self._eta(completed)}"
            say(f"  {self._title}: {far}" + f"  {status}" * bool(status))

    def _eta(self, completed: float) -> str:
        done = completed - (self._first or 0.0)
        if done < _SHARE_BEFORE_FORECAST * self._total:
            return ""
        seconds = (time.monotonic() - self._started) / done * max(self._total - completed, 0.0)
        return f", {duration(seconds)} left"


@contextmanager
def bar(title: str, total: float, unit: str) -> Iterator[Bar]:
    """Show the progress of a piece of work: a bar on a terminal, a line now and then elsewhere.

    Args:
        title: What is going on ("corpus/synthetic").
        total: How much there is to do, in `unit`s.
        unit: Plural noun ("tokens", "documents", "steps").
    """
    if not console.is_terminal:
        yield Bar(title, total, unit, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[status]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(title, total, unit, progress)


def duration(seconds: float) -> str:
    """A time for people: "42 s", "3 min 05 s", "7 h 12 min", "3 d 4 h"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
