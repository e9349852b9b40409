"""Starts the processes of a training on this machine, ends them together, and starts them again when one fails.

A training continues from its checkpoint, so starting it again is all it takes to survive a crash, a machine's hiccup or
a collective that never returns. Errors that the command has explained itself are not tried again.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.markup import escape

from primer.environment import end_with_parent
from primer.errors import PrimerError
from primer.progress import console, say
from train.heartbeat import FOLDER, PREPARING, TRAINING, Beat, read_heartbeats

INTERRUPTED = 130
_SAID_WHY = (1, 2)  # the command's exit codes for what it has explained

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0  # for the others, when one has failed: one that waits for it in a collective cannot react
_KILL_SECONDS = 60.0  # what SIGKILL does not end within this is stuck in the kernel
_MOST_IN_VAIN = 3  # restarts in a row without a step further than before
_TAIL_LINES = 20

# Silence that is no hang, where the recipe does not say: at least a minute, and ten of the longest recent steps.
_LEAST_LIMIT, _STEPS_OF_LIMIT, _RECENT_STEPS = 60.0, 10, 32
# Before the second step, and in any phase but training: compiling, loading, validating, saving.
_LONG_WORK = 1800.0


def run_ranks(
    command: Sequence[str],
    processes: int,
    heartbeats: Path,
    *,
    restart: bool,
    hang_seconds: float | None,
    record: Path,
) -> int:
    """Run a command as one or more processes that know of each other, to the end.

    SIGTERM and SIGINT are passed on once, and waited for: a training stops at the end of a step. A second one kills.

    Args:
        command: Program and arguments; the same for every process.
        processes: How many. They find each other by torchrun's variables (RANK and so on); one alone gets none.
        heartbeats: A folder for signs of life, and for what processes other than the first print.
        restart: Start again what ends unexpectedly or is silent.
        hang_seconds: Silence that is a hang; None: by the pace of the training.
        record: JSON lines, one a failure.

    Returns:
        0 if all ended well, else the exit code of the process that failed first; 128 + n for signal n.

    Raises:
        PrimerError: If it failed again and again without a step further.
    """
    heartbeats.mkdir(parents=True, exist_ok=True)
    reached, in_vain, failure = dict[str, int](), 0, None
    with _signals() as asked:
        while True:
            ranks = _start(command, processes, heartbeats)
            try:
                if failure:
                    _note(record, failure, time.monotonic() - failure.found)
                failure = _watch(ranks, heartbeats, asked, _Silence(ranks, hang_seconds) if restart else None)
            finally:
                _kill(ranks)
            if failure is None:
                return max(_code(rank, asked) or 0 for rank in ranks)
            _tell(failure, ranks[failure.rank])
            if not restart or asked or failure.code in _SAID_WHY:
                return failure.exit_code
            if _further(read_heartbeats(heartbeats), reached):
                in_vain = 0
            if in_vain == _MOST_IN_VAIN:
                _note(record, failure, None)
                raise PrimerError(
                    f"Training was started again {_MOST_IN_VAIN} times and got no step further; the last time "
                    f"{failure.sentence()}.",
                    f"Run it without --supervise to see the whole error; {record} lists the failures.",
                )
            in_vain += 1
            say(f"  starting again from the last checkpoint [dim](see {escape(str(record))})[/]")


@dataclass
class _Rank:
    """One of the processes, and where in its log this start of it begins."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path | None
    log_start: int


@dataclass(frozen=True)
class _Failure:
    """What ended a start: a process's exit code, or the silence, in seconds, of the one that was silent longest."""

    rank: int
    code: int | None
    silence: float | None
    step: int | None
    found: float

    @property
    def exit_code(self) -> int:
        """As a shell would give it."""
        if self.code is None:
            return INTERRUPTED
        return self.code if self.code >= 0 else 128 - self.code

    def sentence(self) -> str:
        after = "before the first step" if self.step is None else f"after step {self.step:,}"
        if self.silence is not None:
            return f"process {self.rank} gave no sign of life for {self.silence:.1f} s, the longest of all, {after}"
        assert self.code is not None
        how = f"was ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with status {self.code}"
        return f"process {self.rank} {how} {after}"


@dataclass
class _Pulse:
    """What is known of one process's pace.

    Attributes:
        beat: Its last one.
        seen: When that was first seen.
        since: When its present step, or phase, was first seen.
        steady: Whether a step has been done since it prepared, so that the next ones take no longer.
        steps: Seconds between looks that saw a new step each: at least as long as a step.
    """

    beat: Beat | None = None
    seen: float = field(default_factory=time.monotonic)
    since: float = 0.0
    steady: bool = False
    steps: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))

    def see(self, beat: Beat, now: float) -> None:
        """Look at its last beat."""
        if beat == self.beat:
            return
        before, self.beat, self.seen = self.beat, beat, now
        if before is None or beat.phase == PREPARING or beat.work != before.work:
            self.steady = False
        if before is None or beat.phase != before.phase:
            self.since = now  # what other phases take is no step's time
        elif beat.phase == TRAINING and beat.step > before.step:
            if self.steady:
                self.steps.append(now - self.since)
            self.steady, self.since = True, now

    def limit(self, hang_seconds: float | None) -> float:
        """Seconds for which it may be silent now; for ever before its first beat, when corpora are made."""
        if self.beat is None:
            return math.inf
        pace = hang_seconds or max(_LEAST_LIMIT, _STEPS_OF_LIMIT * max(self.steps, default=0.0))
        return pace if self.beat.phase == TRAINING and self.steady else max(pace, _LONG_WORK)


class _Silence:
    """Listens for the processes of one start."""

    def __init__(self, ranks: Sequence[_Rank], hang_seconds: float | None) -> None:
        self._hang_seconds = hang_seconds
        self._pulses = {rank.number: _Pulse() for rank in ranks}
        self._patience, self._since = math.inf, time.monotonic()

    def longest(self, beats: Mapping[int, Beat], living: Sequence[int]) -> tuple[int, float] | None:
        """The process that has been silent longest, and for how many seconds, if that is too long for any of them.

        All have the patience of the one with most to do: while it saves, the others wait for it and are silent too.
        Afterwards they are given time to go on.
        """
        now = time.monotonic()
        for number in living:
            if number in beats:
                self._pulses[number].see(beats[number], now)
        patience = max(self._pulses[number].limit(self._hang_seconds) for number in living)
        if patience < self._patience:
            self._since = now
        self._patience = patience
        if all(now - max(self._since, self._pulses[number].seen) <= patience for number in living):
            return None
        number = min(living, key=lambda number: beats[number].time if number in beats else 0.0)
        return number, now - self._pulses[number].seen


def _start(command: Sequence[str], processes: int, heartbeats: Path) -> list[_Rank]:
    for stale in heartbeats.glob("rank-*.json"):
        stale.unlink()
    common = {
        FOLDER: str(heartbeats.absolute()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    ranks: list[_Rank] = []
    try:
        for number in range(processes):
            own = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
            environment = own if processes > 1 else {FOLDER: common[FOLDER]}
            ranks.append(_start_rank(command, number, heartbeats, {**os.environ, **environment}))
    except BaseException:
        _kill(ranks)
        raise
    return ranks


def _start_rank(command: Sequence[str], number: int, folder: Path, environment: Mapping[str, str]) -> _Rank:
    """The first process has the terminal, the others a log file. Each leads a session, which is ended as a whole."""
    log = folder / f"rank-{number}.log" if number else None
    end_with_us = end_with_parent if sys.platform == "linux" else None
    if log is None:
        process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=end_with_us)
        return _Rank(number, process, None, 0)
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_us,
        )
        return _Rank(number, process, log, file.tell())


def _watch(ranks: Sequence[_Rank], heartbeats: Path, asked: Sequence[int], silence: _Silence | None) -> _Failure | None:
    """Wait until all have ended well or were interrupted (None), or one failed."""
    passed_on = False
    while True:
        if asked and not passed_on:
            passed_on = True
            for rank in ranks:
                rank.process.send_signal(asked[0])
        if len(asked) > 1:
            _kill(ranks)
        codes = {rank.number: _code(rank, asked) for rank in ranks}
        if any(code not in (None, 0, INTERRUPTED) for code in codes.values()):
            return _first_failure(ranks, read_heartbeats(heartbeats), asked)
        living = [number for number, code in codes.items() if code is None]
        if not living:
            return None
        beats = read_heartbeats(heartbeats) if silence else {}
        if silence and (found := silence.longest(beats, living)):
            return _failure(found[0], None, found[1], beats)
        time.sleep(_POLL_SECONDS)


def _code(rank: _Rank, asked: Sequence[int]) -> int | None:
    """A process's exit code, None while it runs; who is asked to stop and dies of it was interrupted."""
    code = rank.process.poll()
    return INTERRUPTED if asked and code is not None and code < 0 else code


def _first_failure(ranks: Sequence[_Rank], beats: Mapping[int, Beat], asked: Sequence[int]) -> _Failure:
    """Give the others a moment to end, then tell which failed by itself: its peers fail for want of it.

    Who ended first is not always seen first. One that has explained its error comes before one that was killed, and
    that before one with an unexpected error, which may be that of a lost connection.
    """
    found = time.monotonic()
    failed = {rank.number: code for rank in ranks if (code := _code(rank, asked)) not in (None, 0, INTERRUPTED)}
    for rank in ranks:
        rank.process.terminate()
    while time.monotonic() - found < _GRACE_SECONDS and any(rank.process.poll() is None for rank in ranks):
        time.sleep(_POLL_SECONDS)
    failed |= {rank.number: code for rank in ranks if (code := rank.process.poll()) in _SAID_WHY}
    number, code = min(failed.items(), key=lambda item: (item[1] not in _SAID_WHY, item[1] >= 0, item[0]))
    return _failure(number, code, None, beats, found)


def _failure(
    rank: int, code: int | None, silence: float | None, beats: Mapping[int, Beat], found: float | None = None
) -> _Failure:
    step = beats[rank].step if rank in beats else None
    return _Failure(rank, code, silence, step, time.monotonic() if found is None else found)


def _kill(ranks: Sequence[_Rank]) -> None:
    """End whatever is left of all processes, their own children too; SIGKILL also ends what is stopped.

    Raises:
        PrimerError: If one does not end even so.
    """
    for rank in ranks:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(rank.process.pid, signal.SIGKILL)
    for rank in ranks:
        try:
            rank.process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise PrimerError(
                f"Process {rank.number} (pid {rank.process.pid}) does not end after SIGKILL: the kernel waits for a "
                "disk or a device.",
                "See to the disk or the GPU (dmesg), restart the machine if need be, and run the same command again.",
            ) from None


def _further(beats: Mapping[int, Beat], reached: dict[str, int]) -> bool:
    """Whether some process got further than any start before; remembers how far."""
    further = False
    for beat in beats.values():
        if beat.step > reached.get(beat.work, 0):
            reached[beat.work] = beat.step
            further = True
    return further


def _tell(failure: _Failure, rank: _Rank) -> None:
    """Say what failed, with the last lines of a process whose output went to a file."""
    console.show_cursor()  # a progress bar that was killed has left it hidden
    if rank.log is not None:
        with rank.log.open("rb") as file:
            file.seek(rank.log_start)
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        say("\n".join([f"[dim]the end of {escape(str(rank.log))}:[/]", *map(escape, lines)]))
    if rank.log is not None or failure.code not in _SAID_WHY:
        say(f"[yellow]{failure.sentence()}[/]")


def _note(record: Path, failure: _Failure, seconds: float | None) -> None:
    """Add a failure to the record, with the seconds from its detection to the new start; None: there is none."""
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "ended" if failure.silence is None else "silent",
        "rank": failure.rank,
        "code": failure.code,
        "silence": failure.silence and round(failure.silence, 3),
        "step": failure.step,
        "seconds": seconds and round(seconds, 3),
    }
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The SIGTERMs and SIGINTs that arrive meanwhile."""
    asked: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
