"""Signs of life: a tiny file for each process of a training, written as it goes and read by the supervisor."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "PRIMER_HEARTBEATS"  # the environment variable by which the supervisor asks for them

# Phases: steps follow one another in the second; any other may take long.
PREPARING, TRAINING = "preparing", "training"

# Seconds between two writes of 20 microseconds: which process fell silent first is seen in what each did last.
_INTERVAL = 0.05
_BYTES = 512  # written over in place: nothing is allocated, renamed or left behind


@dataclass(frozen=True)
class Beat:
    """What a process last said.

    Attributes:
        pid: The process.
        host: Its machine.
        work: What it trains; steps are counted anew for each.
        step: Steps done.
        phase: What it is at.
        time: When, in seconds of the Unix epoch.
    """

    pid: int
    host: str
    work: str
    step: int
    phase: str
    time: float


class Heartbeat:
    """A process's sign of life, given by the work itself: a thread beside it would go on after the work hangs.

    Args:
        folder: Where it lies.
        rank: The process's number.
        work: What it trains.
    """

    def __init__(self, folder: Path, rank: int, work: str = "") -> None:
        self.work = work[:128]
        self._file = os.open(folder / f"rank-{rank}.json", os.O_WRONLY | os.O_CREAT, 0o644)
        self._phase, self._written = "", 0.0
        self._pid, self._host = os.getpid(), platform.node()[:64]

    @classmethod
    def from_environment(cls, rank: int, work: str = "") -> Heartbeat | None:
        """The one that a supervisor asks for; None where there is no supervisor."""
        folder = os.environ.get(FOLDER)
        return cls(Path(folder), rank, work) if folder else None

    def beat(self, step: int, phase: str = TRAINING) -> None:
        """Say that work goes on; to disk 20 times a second at most, and when the phase changes.

        Args:
            step: Steps done.
            phase: "training", or the name of longer work that begins now.
        """
        now = time.monotonic()
        if phase == self._phase and now - self._written < _INTERVAL:
            return
        self._phase, self._written = phase, now
        text = json.dumps(asdict(Beat(self._pid, self._host, self.work, step, phase, time.time())))
        os.pwrite(self._file, text.encode().ljust(_BYTES), 0)


def read_heartbeats(folder: Path) -> dict[int, Beat]:
    """What every process last said, by rank; those that have not spoken are left out."""
    beats = {}
    for path in folder.glob("rank-*.json"):
        try:
            beats[int(path.stem.removeprefix("rank-"))] = Beat(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue  # being written: the next look finds it
    return beats
