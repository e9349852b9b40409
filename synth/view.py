"""How a generation goes: a live view on a terminal, a line now and then elsewhere, and `progress.json`."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from primer.progress import console, duration
from primer.run import write_json
from synth.journal import Journal, Reply
from synth.units import Attempt

if TYPE_CHECKING:
    from synth.pool import LaneState

# Tokens per second are those of about this many latest seconds.
_PACE_SECONDS = 20.0

# Seconds between two lines where there is no terminal, and between two versions of progress.json.
_LINE_SECONDS = 30.0
_FILE_SECONDS = 5.0

# Of the whole; before this much is done a forecast of the time left is a guess.
_SHARE_BEFORE_FORECAST = 0.02

_SHOWN_REASONS = 4


class Target(Protocol):
    """How far a generation is to go."""

    @property
    def tokens(self) -> int | None: ...
    @property
    def documents(self) -> int | None: ...
    @property
    def units(self) -> int | None: ...
    def done(self, outcome: Any) -> float: ...


class Tally(Protocol):
    """What the engine counts; see `synth.engine.Outcome`."""

    accepted: int
    tokens: int
    units: int
    rejected: Counter[str]
    failed: Counter[str]
    reused: int
    tries: int
    continuations: int


class Source(Protocol):
    """Where answers come from: a pool, or batches."""

    def states(self) -> Sequence[LaneState]: ...


class Pace:
    """An amount per second over the latest seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._sum = 0

    def count(self, amount: int) -> None:
        """Something came in."""
        now = self._clock()
        self._counts.append((now, amount))
        self._sum += amount
        while len(self._counts) > 2 and self._counts[1][0] < now - _PACE_SECONDS:
            self._counts.popleft()
            self._sum -= self._counts[0][1]  # the oldest entry marks the window's start; its amount came before it

    def per_second(self) -> float:
        """The amount per second, until now: what stands still falls to nothing."""
        return self._sum / max(1.0, self._clock() - self._counts[0][0])


class Progress:
    """Everything that can be told of a generation under way.

    Args:
        title: What is being made ("corpus/synthetic").
        target: How far it is to go.
        tally: What the engine counts.
        journal: Knows what was paid.
        fields: Number of topic fields that there are.
    """

    def __init__(self, title: str, target: Target, tally: Tally, journal: Journal, fields: int = 0) -> None:
        self.title, self._target, self._tally, self._journal, self._all_fields = title, target, tally, journal, fields
        self._fields: Counter[str] = Counter()
        self._in, self._out = Pace(), Pace()
        self._source: Source | None = None
        self._asking_since: tuple[float, float] | None = None  # when, and the share that was done then

    def start(self, source: Source) -> None:
        """Asking begins."""
        self._source = source
        self._in, self._out = Pace(), Pace()
        self._asking_since = time.monotonic(), self.share

    def answered(self, reply: Reply) -> None:
        """A reply came."""
        self._in.count(reply.prompt_tokens or 0)
        self._out.count(reply.completion_tokens or len(reply.text) // 4)

    def accepted(self, attempt: Attempt) -> None:
        """A document was accepted."""
        topic = getattr(attempt.unit, "topic", None)
        if topic is not None:
            self._fields[topic.field] += 1

    @property
    def share(self) -> float:
        """Share of the target that is reached."""
        return min(1.0, self._target.done(self._tally))

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON values."""
        tally, totals = self._tally, self._journal.totals
        states = self._source.states() if self._source else []
        return {
            "stage": self.title,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "share": round(self.share, 4),
            "seconds_left": self._seconds_left(),
            "tokens": tally.tokens,
            "target_tokens": self._target.tokens,
            "documents": tally.accepted,
            "target_documents": self._target.documents,
            "units": tally.units,
            "target_units": self._target.units,
            "rejected": _ranked(tally.rejected),
            "failed": _ranked(tally.failed),
            "reused": tally.reused,
            "tries": tally.tries,
            "continuations": tally.continuations,
            "near_duplicate_share": round(tally.rejected["near_duplicate"] / max(1, tally.units), 4),
            "fields": _ranked(self._fields, 1000),
            "fields_in_all": self._all_fields or None,
            "tokens_per_second": {"in": round(self._in.per_second(), 1), "out": round(self._out.per_second(), 1)},
            "paid": {
                "prompt_tokens": totals.prompt_tokens,
                "completion_tokens": totals.completion_tokens,
                "dollars": None if totals.dollars is None else round(totals.dollars, 6),
            },
            "in_flight": sum(state.in_flight for state in states),
            "errors": _ranked(sum((state.errors for state in states), Counter[str]())),
            "backends": [
                {"name": s.name, "in_flight": s.in_flight, "limit": s.limit, "broken": s.broken, "answers": s.answers}
                for s in states
            ],
        }

    def _seconds_left(self) -> int | None:
        if self._asking_since is None:
            return None
        since, share_then = self._asking_since
        done = self.share - share_then
        if done < _SHARE_BEFORE_FORECAST * (1 - share_then):
            return None
        return round((time.monotonic() - since) / done * (1 - self.share))


class View:
    """Shows a progress for as long as the context lasts; `watch` says which.

    Args:
        path: Where `progress.json` goes; None for nowhere.
        to: The console to show it on; None for none.
    """

    def __init__(self, path: Path | None, to: Console | None = console) -> None:
        self._path, self._console = path, to
        self._progress: Progress | None = None
        self._live: Live | None = None
        self._state = "running"
        self._next_line = time.monotonic() + _LINE_SECONDS
        self._next_file = 0.0

    def watch(self, progress: Progress) -> AbstractContextManager[View]:
        """Show this progress from now on."""
        self._progress = progress
        return self

    def __enter__(self) -> Self:
        if self._console is not None and self._console.is_terminal and self._progress is not None:
            self._live = Live(
                get_renderable=self._rendered, console=self._console, refresh_per_second=2, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._state = "ended" if error is None else "stopped"
        self._write()

    def update(self) -> None:
        """Something moved. The terminal is redrawn by itself; a line and the file are due now and then."""
        now = time.monotonic()
        if now >= self._next_file:
            self._next_file = now + _FILE_SECONDS
            self._write()
        if self._live is None and self._console is not None and self._progress is not None and now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            self._console.print(Text(line(self._progress.snapshot())))

    def _write(self) -> None:
        if self._path is not None and self._progress is not None:
            with suppress(OSError):  # a full disk is for the journal to say
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._path, {"state": self._state, **self._progress.snapshot()})

    def _rendered(self) -> RenderableType:
        return screen(self._progress.snapshot()) if self._progress else Text("")


def line(state: Mapping[str, Any]) -> str:
    """A snapshot in one line, for log files."""
    parts = [
        f"  {state['stage']}: {_goals(state)} ({state['share']:.0%}){_left(state)}",
        f"{state['documents']:,d} accepted of {state['units']:,d}",
        f"{state['tokens_per_second']['out']:,.0f} tokens/s",
        f"{state['in_flight']} in flight",
    ]
    if state["errors"]:
        parts.append("errors " + _reasons(state["errors"]))
    if state["paid"]["dollars"] is not None:
        parts.append(f"${state['paid']['dollars']:,.2f}")
    return ", ".join(parts)


def screen(state: Mapping[str, Any]) -> RenderableType:
    """A snapshot as it stands on a terminal."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=state["share"], width=28)
    head.add_row(f"  {state['stage']}", bar, Text(f"{state['share']:.0%}{_left(state)}"))
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", min_width=12)
    body.add_column(overflow="fold")
    for label, text in _rows(state):
        body.add_row(f"  {label}", Text(text))
    return Group(head, body)


def _rows(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    units, paid, speed = state["units"], state["paid"], state["tokens_per_second"]
    yield "so far", _goals(state)
    if units:
        reused = f", {state['reused']:,d} of them by the journal" * bool(state["reused"])
        yield "accepted", f"{state['documents'] / units:.0%} of {units:,d} prompts{reused}"
    if state["rejected"]:
        yield "rejected", _reasons(state["rejected"])
    if state["failed"]:
        yield "failed", _reasons(state["failed"])
    again = f", {state['tries']:,d} asked again" * bool(state["tries"])
    yield "tokens/s", f"{speed['in']:,.0f} in, {speed['out']:,.0f} out{again}"
    cost = f", ${paid['dollars']:,.4f}" if paid["dollars"] is not None else ""
    yield "paid so far", f"{paid['prompt_tokens']:,d} tokens in, {paid['completion_tokens']:,d} out{cost}"
    errors = f"; passing errors: {_reasons(state['errors'])}" if state["errors"] else ""
    yield "in flight", f"{state['in_flight']:,d}{errors}"
    fields = f", topics of {len(state['fields'])} of {state['fields_in_all']} fields" if state["fields_in_all"] else ""
    yield "variety", f"{state['near_duplicate_share']:.1%} near duplicates{fields}"
    if len(state["backends"]) > 1 or any(backend["name"].startswith("batch ") for backend in state["backends"]):
        for backend in state["backends"]:
            resting = "resting, " * backend["broken"]
            flying = f"{backend['in_flight']:,d} of {backend['limit']:,d} in flight"
            yield "", f"{backend['name']}: {resting}{flying}, {backend['answers']:,d} answers"


def _ranked(counts: Mapping[str, int], most: int = 20) -> dict[str, int]:
    """The largest counts, largest first; a copy at once, because the live view asks from a thread of its own."""
    return dict(sorted(dict(counts).items(), key=lambda item: -item[1])[:most])


def _goals(state: Mapping[str, Any]) -> str:
    goals = [
        f"{state[name]:,d} of {state[f'target_{name}']:,d} {name}"
        for name in ("tokens", "documents", "units")
        if state[f"target_{name}"]
    ]
    return " or ".join(goals)


def _left(state: Mapping[str, Any]) -> str:
    return f", {duration(state['seconds_left'])} left" if state["seconds_left"] is not None else ""


def _reasons(counts: Mapping[str, int]) -> str:
    shown = [f"{count:,d} {reason.replace('_', ' ')[:60]}" for reason, count in list(counts.items())[:_SHOWN_REASONS]]
    more = sum(list(counts.values())[_SHOWN_REASONS:])
    return ", ".join(shown + [f"{more:,d} more"] * bool(more))
