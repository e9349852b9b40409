"""The training loop: one model, one mixture, a fixed number of steps, on one process or in step with others."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from primer.errors import PrimerError
from primer.progress import Bar, bar, say
from primer.recipe import Recipe
from train.batches import Batches, Sequences
from train.checkpoint import CheckpointStore
from train.cpu import prepare_cpu
from train.engine import Engine, Outcome, make_engine
from train.guard import Guard, Incidents, Verdict, batch_of
from train.hardware import Hardware, even_split, first_micro_batch
from train.heartbeat import Heartbeat
from train.model import Phi
from train.optimizer import learning_rate
from train.shape import flops_per_token
from train.training_log import read_log
from train.watch import Watch
from train.world import World


@dataclass(frozen=True)
class Trained:
    """What a training took, in all runs together.

    Attributes:
        seconds: Spent on steps.
        skipped: Steps whose loss or gradient was not finite.
        rollbacks: How often it went back to a checkpoint.
        micro_batch: Sequences of a pass.
    """

    seconds: float
    skipped: int
    rollbacks: int
    micro_batch: int


class Trainer:
    """Trains a model in place.

    Args:
        recipe: The experiment.
        title: What the progress bar calls it.
        model: The model, with its initial weights.
        mixture: Its data.
        hardware: What to train on; the model is moved there.
        folder: For checkpoints and logs.
        world: The processes that train it together.
        watch: What looks on; of rank 0 alone.
        heartbeat: What a supervisor listens to.
    """

    def __init__(
        self,
        recipe: Recipe,
        title: str,
        model: Phi,
        mixture: Sequences,
        hardware: Hardware,
        folder: Path,
        world: World | None = None,
        watch: Watch | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.train, self.title, self.hardware, self.folder = recipe.train, title, hardware, folder
        self.world, self.watch, self.heartbeat = world or World(), watch, heartbeat
        self.device = hardware.device
        if self.device.type == "cpu":
            prepare_cpu(recipe.train.threads, self.world.size)
        self.model = model.to(self.device).train()
        self.engine: Engine = make_engine(model, recipe.train, hardware, self.world)
        self.context, self.seed = recipe.model.context, recipe.seed
        self.sequences = recipe.train.batch_tokens // self.context
        check_division(self.sequences, self.world.size)
        self.batches = Batches(mixture, self.sequences, self.world, self.device, recipe.train.mask_documents)
        self.steps = recipe.train.tokens // recipe.train.batch_tokens
        self.flops = flops_per_token(model.shape, causal=False)
        self.store = CheckpointStore(folder, recipe.train.keep_checkpoints, recipe.train.keep_every)
        self.incidents = Incidents(folder)
        self.guard = Guard(recipe.train.spike)
        self.left_out = self.incidents.left_out()
        self.step = 0  # steps done
        self.seconds = 0.0  # spent on them, in all runs together
        self.skipped = 0
        self.micro_batch = 0
        self._stop: signal.Signals | None = None

    def prepare(self, *, resume: bool = True) -> float:
        """Bring everything to where the first step can be taken, and try a pass.

        Args:
            resume: Go on from the newest checkpoint, if there is one.

        Returns:
            Tokens a second of a forward and backward pass, on all devices together.

        Raises:
            PrimerError: If the model does not fit, or every checkpoint is damaged.
        """
        self._beat("preparing")
        if resume:
            self._resume(None)
        if self.train.compile:
            self.model.compile(dynamic=False)
        self._find_micro_batch()
        return self._trial_speed()

    def run(self) -> Trained:
        """Train to the end, from where `prepare` left it.

        Raises:
            PrimerError: If the loss stays non-finite or goes astray again and again, or a disk is full.
            KeyboardInterrupt: If a signal asked to stop; a checkpoint has been saved.
        """
        if self.world.told(not self.store.steps() if self.world.first else None):
            self._save()  # so that there is always something to go back to
        if self.watch:
            self.watch.open(self.step)
        try:
            shown = bar(self.title, self.steps, "steps") if self.world.first else nullcontext()
            with self._signals(), _no_garbage_collection(), shown as progress:
                self._loop(progress)
        finally:
            if self.watch:
                self.watch.close()
        self._beat("saving")  # and exporting, and hashing, until the next model is prepared
        self.store.wait()
        self.engine.finish()
        return Trained(self.seconds, self.skipped, len(self.left_out), self.micro_batch)

    def _loop(self, progress: Bar | None) -> None:
        saved = clock = time.monotonic()
        while self.step < self.steps:
            batch = batch_of(self.step, self.left_out)
            rate = learning_rate(self.train, self.step, self.steps)
            outcome = self._take_step(batch, rate)
            now = time.monotonic()
            took, clock = now - clock, now
            self.seconds += took
            self._note(batch, rate, outcome, self.train.batch_tokens / took, progress)
            if self.guard.judge(self.step, batch, outcome) is Verdict.ROLL_BACK:
                self._roll_back()
            elif outcome.stop:
                self._stop_here()
            else:
                if self.watch and self.watch.due(self.step):
                    self._beat("validating")
                    self.watch.look(self.step, self.model)
                if self.guard.calm and self.world.any(self._checkpoint_due(now - saved)):
                    self._save()
                    saved = time.monotonic()
            clock = time.monotonic()  # none of this counts as training

    def _stop_here(self) -> None:
        """Leave a checkpoint, unless the last steps are suspicious: then the one before is what to go on from."""
        if self.guard.calm:
            self._save()
        self.store.wait()
        if self.world.first:
            say(f"  {self.title}: stopped; the checkpoint is of step {self.store.steps()[-1]:,} of {self.steps:,}")
        raise KeyboardInterrupt

    def _checkpoint_due(self, seconds: float) -> bool:
        every = self.train.keep_every
        return seconds >= self.train.checkpoint_seconds or (every is not None and self.step % every == 0)

    def _take_step(self, batch: int, rate: float) -> Outcome:
        total = torch.zeros((), device=self.device)
        for number, each in enumerate(self.batches.passes(batch, self.micro_batch)):
            self._beat("training")
            self._seed_dropout(number)
            total += self.engine.accumulate(each.tokens, each.targets, each.documents, last=each.last)
        outcome = self.engine.step(rate, total, self._stop is not None)
        self.step += 1
        self.skipped += not outcome.taken
        return outcome

    def _seed_dropout(self, number: int) -> None:
        """Make what is dropped a function of the place in the training, so that nothing random need be saved."""
        if self.model.shape.dropout:
            places = (self.seed, self.step, number, self.world.rank)
            torch.manual_seed(hash(places))  # of whole numbers, so the same in every process

    def _note(self, batch: int, rate: float, outcome: Outcome, speed: float, progress: Bar | None) -> None:
        if self.watch:
            self.watch.note(self.step, batch, rate, outcome, speed)
        if progress is None:
            return
        peak = self.hardware.peak_flops
        used = f", {speed * self.flops / (peak * self.world.size):.1%} MFU" if peak else ""
        progress.update(self.step, f"loss {outcome.loss:.3f}, lr {rate:.2g}, {speed:,.0f} tokens/s{used}")

    def _roll_back(self) -> None:
        """Go back to the newest checkpoint that is beyond suspicion, and leave out the data that led astray."""
        self._beat("preparing")
        self.store.wait()
        found = self.store.load(self.guard.last_good) if self.world.first else None
        to = self.world.told(found.step if found else None)
        offending = self.guard.offending()
        left_out = range(max(offending.start, batch_of(to, self.left_out)), offending.stop)
        if self.world.first:
            # Before the record: a process killed in between finds the same fault again, one killed after it the record.
            self.store.forget_after(to)
            say(f"[yellow]  {self.title}: {self.incidents.record(self.guard, self.step, to, left_out).sentence}[/]")
        self.left_out = [*self.left_out, left_out]
        self._resume(to)
        if self.watch:
            self.watch.open(self.step)

    def _save(self) -> None:
        self._beat("saving")
        gc.collect()  # what little there is by now
        if self.watch:
            self.watch.flush()  # the rows before it belong to the checkpoint
        self.store.wait()  # before another copy of everything is made
        tensors, engine = self.engine.snapshot()
        if self.world.first:
            state = {
                "seconds": self.seconds,
                "skipped": self.skipped,
                "micro_batch": self.micro_batch,
                "engine": engine,
            }
            self.store.save(self.step, tensors, state)

    def _resume(self, no_later_than: int | None) -> None:
        """Go on from the newest good checkpoint, the same on every process; from the start where there is none."""
        found = self.store.load(no_later_than) if self.world.first else None
        step = self.world.told(found.step if found else None)
        if step is None:
            return
        found = found or self.store.load(step)
        assert found is not None
        assert found.step == step
        self.engine.restore(found.tensors, found.state["engine"])
        self.step, self.seconds, self.skipped = step, found.state["seconds"], found.state["skipped"]
        # How a step is divided changes the order of its sums, so it stays as it was where the recipe leaves it open.
        self.micro_batch = found.state["micro_batch"]
        self.guard.recall([row for row in read_log(self.folder) if row["step"] <= step])
        if step and self.world.first:
            say(f"  {self.title}: going on after step {self.step:,} of {self.steps:,}")

    def _find_micro_batch(self) -> None:
        """Find a number of sequences that fits into one pass, before the first step."""
        share, asked = self.batches.share, self.train.micro_batch
        found = self.micro_batch or first_micro_batch(self.model.shape, share, self.hardware, self.world.size)
        self.micro_batch = self.world.told(min(asked or found, share))  # by rank 0's memory: all take as many passes
        if self.device.type == "cpu":  # memory was estimated; what else may fail fails with one sequence too
            self._try_pass(1)
            return
        while not self.world.all(self._try_pass(self.micro_batch)):
            if asked or self.micro_batch == 1:
                raise PrimerError(
                    f"{self.title}: {self.micro_batch} sequences of {self.context:,} tokens do not fit into the memory "
                    f"of {self.hardware.name}.",
                    "Lower train.micro_batch or set it to null." if asked else "Use a smaller model or model.context.",
                )
            self.micro_batch = even_split(share, self.micro_batch // 2)

    def _try_pass(self, sequences: int) -> bool:
        """Whether a forward and backward pass fits into the device's memory. Changes nothing else."""
        fits = True
        try:
            trial = self.batches.trial(sequences)
            self.engine.trial(trial.tokens, trial.targets, trial.documents)
        except torch.cuda.OutOfMemoryError:
            fits = False
        # After the handler, not in it: there the error still holds on to the pass's tensors.
        self.engine.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return fits

    def _trial_speed(self) -> float:
        """The first pass of all that processes exchange gradients after: DDP then sets the order of its sums.

        Here rather than in a step, so that a training that goes on sums as one that never stopped.
        """
        trial = self.batches.trial(self.micro_batch)
        started = time.monotonic()
        self.engine.accumulate(trial.tokens, trial.targets, trial.documents, last=True).item()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.engine.clear()
        return trial.tokens.numel() * self.world.size / (time.monotonic() - started)

    def _beat(self, phase: str) -> None:
        if self.heartbeat:
            self.heartbeat.beat(self.step, phase)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a wish to stop after the step; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets only the main thread handle signals
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def remember(number: int, _: FrameType | None) -> None:
            self._stop = signal.Signals(number)
            for each, handler in before.items():
                signal.signal(each, handler)
            if self.world.first:
                say(f"  {self.title}: {self._stop.name}: stopping after this step")

        try:
            for number in before:
                signal.signal(number, remember)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing in a step makes cycles worth searching for, and the search stops all else."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def check_division(sequences: int, processes: int) -> None:
    """Make sure that the sequences of a step can be divided among some processes.

    Raises:
        PrimerError: If not.
    """
    if sequences % processes:
        raise PrimerError(
            f"A batch of {sequences:,} sequences (train.batch_tokens / model.context) cannot be divided evenly among "
            f"{processes} processes.",
            f"Set train.batch_tokens to a multiple of {processes} x model.context, or use another number of processes.",
        )
