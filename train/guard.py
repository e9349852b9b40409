"""When a training goes back to a checkpoint and past the data that led it astray. Without PyTorch.

A step whose loss or gradient is not finite is skipped by the engine. Where that persists, or the loss leaps, the
weights or the data are bad: the trainer returns to the last checkpoint from before, and leaves out the batches that did
it. PaLM was restarted some 100 steps before each spike, past 200 to 500 batches (arXiv 2204.02311, section 5.1); here
spikes are seen at once, so few batches are suspicious.

The verdict is a function of the losses alone, which are the same on every process and after every resume.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from primer.errors import PrimerError

if TYPE_CHECKING:
    from train.engine import Outcome

NAME = "incidents.jsonl"

# Losses that a spike is seen against, how many there must be, and how many are thought to be of one time: the first
# steps of a training fall fast, and their fall is no spread.
_WINDOW, _FEWEST, _STRETCH = 128, 32, 16
_PERSISTENT = 3  # steps in a row that were skipped, or not as they should be
_SPIKES = 2  # steps in a row with a spike
_LEAST = 0.25  # nats above the median, however flat the curve
# One step alone is enough if it is twice as far out, this many nats, and twice as far as any loss in a full window: a
# source of 1% in batches of one sequence is odd each time it comes.
_ALONE, _LEAST_ALONE = 2.0, 1.0
_NORMAL_MAD, _NORMAL_95 = 1.4826, 1.645  # a normal distribution's deviation by its MAD; its 95% point in deviations

_MOST_IN_PLACE, _MOST = 3, 10  # rollbacks: without a checkpoint past the place, and in all


class Verdict(Enum):
    """What to do after a step."""

    FINE = "fine"
    SKIPPED = "skipped"  # the engine has left the weights as they were
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class _Suspect:
    step: int
    batch: int
    loss: float
    spike: bool
    counts: bool  # not so where fp16 looks for its loss scale


class Guard:
    """Sees every step of a training.

    Args:
        deviations: How far above the median of recent losses a spike is, in deviations; None: no loss is one.
    """

    def __init__(self, deviations: float | None) -> None:
        self.deviations = deviations
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._suspects: list[_Suspect] = []  # the last steps, as far back as none was fine
        self._last_fine: int | None = None  # the batch of the last step that was

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Begin anew with the rows of training.jsonl up to a checkpoint, which is only taken when all is calm."""
        kept = list(rows)
        losses = [row["loss"] for row in kept if row["loss"] is not None]
        self._losses = deque(losses, maxlen=_WINDOW)
        self._suspects = []
        self._last_fine = kept[-1]["batch"] if kept else None

    @property
    def calm(self) -> bool:
        """Whether a checkpoint may be taken now: the last step was fine."""
        return not self._suspects

    @property
    def last_good(self) -> int:
        """The last step whose weights are beyond suspicion; a checkpoint to return to is no later.

        A loss is measured before the step's update: what the first suspicious step shows, the update of the step before
        it may have done.
        """
        return max(0, self._suspects[0].step - 2)

    def judge(self, step: int, batch: int, outcome: Outcome) -> Verdict:
        """Look at a step.

        Args:
            step: Steps done, this one included.
            batch: The batch it took.
            outcome: What the engine says of it.
        """
        suspect = self._suspected(step, batch, outcome)
        alone = suspect is not None and suspect.spike and self._stands_alone(outcome.loss)
        if math.isfinite(outcome.loss):
            self._losses.append(outcome.loss)
        if suspect is None:
            self._suspects, self._last_fine = [], batch
            return Verdict.FINE
        self._suspects.append(suspect)
        counted = [each.spike for each in self._suspects if each.counts]
        if alone or sum(counted) >= _SPIKES or len(counted) >= _PERSISTENT:
            return Verdict.ROLL_BACK
        return Verdict.FINE if outcome.taken else Verdict.SKIPPED

    def offending(self) -> range:
        """Batches to leave out: from the one before the first suspicious step, whose update did it, to the last."""
        first = self._suspects[0].batch if self._last_fine is None else self._last_fine
        return range(first, self._suspects[-1].batch + 1)

    def account(self) -> tuple[str, list[float | None], str]:
        """What was wrong: its kind ("spike", "not finite"), the losses (None: not finite), and a sentence."""
        seen = [each for each in self._suspects if each.counts]
        losses = [each.loss if math.isfinite(each.loss) else None for each in seen]
        where = f"in steps {seen[0].step:,} to {seen[-1].step:,}" if len(seen) > 1 else f"in step {seen[0].step:,}"
        if not any(each.spike for each in seen):
            return "not finite", losses, f"The loss or its gradient was not finite {where}."
        shown = ", ".join("not finite" if loss is None else f"{loss:.3f}" for loss in losses)
        middle, deviation = self._centre()
        usual = f"recent ones were {middle:.3f} give or take {deviation:.3f}"
        return "spike", losses, f"The loss was {shown} {where}; {usual}."

    def _suspected(self, step: int, batch: int, outcome: Outcome) -> _Suspect | None:
        spike = math.isfinite(outcome.loss) and self._is_spike(outcome.loss)
        if outcome.taken and not spike:
            return None
        # In fp16 a finite loss with infinite gradients is how the loss scale is found, until that has come down to 1.
        counts = spike or not (math.isfinite(outcome.loss) and outcome.scale > 1)
        return _Suspect(step, batch, outcome.loss, spike, counts)

    def _is_spike(self, loss: float) -> bool:
        if self.deviations is None or len(self._losses) < _FEWEST:
            return False
        middle, deviation = self._centre()
        return loss - middle > max(_LEAST, self.deviations * deviation)

    def _stands_alone(self, loss: float) -> bool:
        assert self.deviations is not None
        if len(self._losses) < _WINDOW:
            return False
        middle, deviation = self._centre()
        usual = max(self.deviations * deviation, max(self._losses) - middle)
        return loss - middle > max(_LEAST_ALONE, _ALONE * usual)

    def _centre(self) -> tuple[float, float]:
        """Middle of the last losses, and the deviation of those in the window from the middle of their time.

        The larger of two measures: where most sequences are of one source, the median absolute deviation is blind to
        the others, and the upper 95% point is not.
        """
        losses, rests = list(self._losses), list[float]()
        for stop in range(len(losses), _STRETCH - 1, -_STRETCH):
            stretch = losses[stop - _STRETCH : stop]
            middle = statistics.median(stretch)
            rests.extend(loss - middle for loss in stretch)
        upper = sorted(rests)[math.ceil(0.95 * len(rests)) - 1]
        deviation = max(_NORMAL_MAD * statistics.median(map(abs, rests)), upper / _NORMAL_95)
        return statistics.median(losses[-_STRETCH:]), deviation


def batch_of(step: int, left_out: Sequence[range]) -> int:
    """The batch of the order that a step takes.

    Args:
        step: Counted from 0.
        left_out: Ranges of batches that no step takes, in any order; they may overlap.
    """
    batch, covered = step, 0
    for gap in sorted(left_out, key=lambda gap: gap.start):
        start = max(gap.start, covered)
        if start > batch:
            break
        batch += max(0, gap.stop - start)
        covered = max(covered, gap.stop)
    return batch


@dataclass(frozen=True)
class Incident:
    """One rollback.

    Attributes:
        time: When, in UTC.
        kind: "spike" or "not finite".
        step: The step after which it was found.
        losses: Of the steps that gave rise to it; None where not finite.
        returned_to: The checkpoint's step.
        left_out: First and last of the batches that are left out.
        sentence: The same for people.
    """

    time: str
    kind: str
    step: int
    losses: list[float | None]
    returned_to: int
    left_out: list[int]
    sentence: str


class Incidents:
    """`incidents.jsonl`: the rollbacks of a training, one a line.

    Args:
        folder: Where it lies.

    Raises:
        PrimerError: If a line is damaged; only the last may be cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.all = self._read()

    def left_out(self) -> list[range]:
        """Ranges of batches that no step takes."""
        return [range(each.left_out[0], each.left_out[1] + 1) for each in self.all]

    def record(self, guard: Guard, step: int, returned_to: int, left_out: range) -> Incident:
        """Bring a rollback to disk, before it is acted on: a process killed in the middle of it does the same again.

        Raises:
            PrimerError: If it is one too many; it has been recorded all the same.
        """
        kind, losses, what = guard.account()
        incident = Incident(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=kind,
            step=step,
            losses=losses,
            returned_to=returned_to,
            left_out=[left_out.start, left_out.stop - 1],
            sentence=f"{what} Back to step {returned_to:,}, past batches {left_out.start:,} to {left_out.stop - 1:,}.",
        )
        self._append(incident)
        self.all.append(incident)
        self._check()
        return incident

    def _append(self, incident: Incident) -> None:
        whole = "".join(json.dumps(asdict(each), allow_nan=False) + "\n" for each in self.all).encode()
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(len(whole))  # half a line of a process that was killed
            file.seek(len(whole))
            file.write(json.dumps(asdict(incident), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[Incident]:
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")  # what follows the last line's end is half a line, or nothing
        try:
            return [Incident(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise PrimerError(
                f"{self.path} is damaged: {error}",
                f"Mend the line, or delete {self.path.parent} to train this model from the start.",
            ) from None

    def _check(self) -> None:
        last = self.all[-1]
        here = [each for each in self.all if each.step > last.returned_to]
        if len(here) <= _MOST_IN_PLACE and len(self.all) <= _MOST:
            return
        raise PrimerError(
            f"Training went back {len(self.all)} times, {len(here)} of them without getting past step "
            f"{last.returned_to:,}, and still goes astray. The last time: {last.sentence}",
            "Lower train.learning_rate, set train.gradient_clip to 1.0, raise train.warmup_steps, use bf16 in place of "
            f"fp16, or look at the data: {self.path} names the batches that were left out.",
        )
