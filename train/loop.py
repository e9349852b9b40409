"""The training loop: one model, one mixture, a fixed number of steps."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from primer.errors import PrimerError
from primer.progress import Bar, bar, say
from primer.recipe import Recipe
from train.checkpoint import load_checkpoint, save_checkpoint
from train.cpu import prepare_cpu
from train.hardware import Hardware, even_split, first_micro_batch
from train.mixture import Mixture
from train.model import Phi
from train.optimizer import learning_rate, make_optimizer
from train.training_log import TrainingLog

_MOST_SKIPPED_IN_A_ROW = 10


class Trainer:
    """Trains a model in place.

    Args:
        recipe: The experiment.
        title: What the progress bar calls it.
        model: The model, with its initial weights.
        mixture: Its data.
        hardware: What to train on; the model is moved there.
        folder: For the checkpoint and `training.jsonl`.
    """

    def __init__(
        self, recipe: Recipe, title: str, model: Phi, mixture: Mixture, hardware: Hardware, folder: Path
    ) -> None:
        self.train, self.title, self.mixture, self.hardware, self.folder = (
            recipe.train,
            title,
            mixture,
            hardware,
            folder,
        )
        self.device = hardware.device
        if self.device.type == "cpu":
            prepare_cpu(recipe.train.threads)
        self.model = model.to(self.device).train()
        self.parameters = list(model.parameters())
        self.optimizer = make_optimizer(model, recipe.train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=hardware.precision == "fp16")
        self.context = recipe.model.context
        self.sequences = recipe.train.batch_tokens // self.context
        self.steps = recipe.train.tokens // recipe.train.batch_tokens
        self.step = 0  # steps done
        self.seconds = 0.0  # spent on them, in all runs together
        self.skipped = self.skipped_in_a_row = 0
        self.micro_batch = 0
        self._stop: signal.Signals | None = None

    def run(self) -> tuple[float, int]:
        """Train to the end, from the checkpoint if there is one.

        Returns:
            Seconds of training in all runs together, and the number of steps skipped.

        Raises:
            PrimerError: If the model does not fit, or the loss stays non-finite.
            KeyboardInterrupt: If a signal asked to stop; a checkpoint has been saved.
        """
        self._restore()
        if self.train.compile:
            self.model.compile(dynamic=False)
        self._dry_run()
        log = TrainingLog(self.folder, self.step)
        try:
            with self._signals(), _no_garbage_collection(), bar(self.title, self.steps, "steps") as progress:
                self._loop(log, progress)
        finally:
            log.close()
        return self.seconds, self.skipped

    def _loop(self, log: TrainingLog, progress: Bar) -> None:
        saved = clock = time.monotonic()
        while self.step < self.steps:
            rate = learning_rate(self.train, self.step, self.steps)
            loss, norm = self._take_step(rate)
            now = time.monotonic()
            speed = self.train.batch_tokens / (now - clock)
            self.seconds += now - clock
            clock = now
            log.append(
                {
                    "step": self.step,
                    "tokens": self.step * self.train.batch_tokens,
                    "loss": loss if math.isfinite(loss) else None,
                    "learning_rate": rate,
                    "gradient_norm": norm if math.isfinite(norm) else None,
                    "tokens_per_second": round(speed, 1),
                }
            )
            progress.update(self.step, f"loss {loss:.3f}, {speed:,.0f} tokens/s")
            if self._stop is not None or now - saved >= self.train.checkpoint_seconds:
                log.flush()
                self._save()
                saved = clock = time.monotonic()  # the time it takes to save counts for no step
            if self._stop is not None:
                say(f"  {self.title}: checkpoint saved after step {self.step:,} of {self.steps:,}")
                raise KeyboardInterrupt

    def _take_step(self, rate: float) -> tuple[float, float]:
        """One optimiser step; returns the mean loss in nats a token and the gradient's norm before clipping."""
        first = self.step * self.sequences
        total = torch.zeros((), device=self.device)
        for start in range(first, first + self.sequences, self.micro_batch):
            batch = self._batch(start, min(start + self.micro_batch, first + self.sequences))
            total += self._backward(batch)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # The only place where the CPU waits for the GPU: once a step.
        loss_value, norm_value = torch.stack([total, norm]).tolist()
        finite = math.isfinite(loss_value) and math.isfinite(norm_value)
        if finite and self.train.gradient_clip is not None:
            clip_grads_with_norm_(self.parameters, self.train.gradient_clip, norm)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._count_skipped(finite, loss_value)
        return loss_value, norm_value

    def _count_skipped(self, finite: bool, loss: float) -> None:
        """A step with a non-finite loss or gradient has been skipped; too many in a row end the training.

        In fp16 a finite loss with infinite gradients is how the loss scale is found, and counts for nothing until
        the scale has fallen below one.
        """
        if finite:
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        if math.isfinite(loss) and self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
            return
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise PrimerError(
                f"{self.title}: the loss or its gradient was not finite in {self.skipped_in_a_row} steps in a row, up "
                f"to step {self.step:,} (loss {loss}).",
                "Lower train.learning_rate, raise train.warmup_steps, set train.gradient_clip to 1.0, or use bf16 or "
                "fp32; then run again.",
            )

    def _batch(self, start: int, stop: int) -> Tensor:
        """The sequences at places `start` to `stop`, on the device: (stop - start, context + 1)."""
        batch = torch.from_numpy(self.mixture.sequences(start, stop))
        return batch.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else batch

    def _backward(self, batch: Tensor) -> Tensor:
        """Add a batch's share to the gradients; returns its share of the step's mean loss."""
        with torch.autocast(self.device.type, self.hardware.dtype, enabled=self.hardware.precision != "fp32"):
            loss = self.model.loss(batch[:, :-1], batch[:, 1:]) / self.train.batch_tokens
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _dry_run(self) -> None:
        """Find a number of sequences that fits into one pass, and try it, before the first step."""
        asked, kept = self.train.micro_batch, self.micro_batch
        found = kept or first_micro_batch(self.model.shape, self.sequences, self.hardware)
        self.micro_batch = min(asked or found, self.sequences)
        if self.device.type == "cpu":  # memory was estimated; what else may fail fails with one sequence too
            self._try_pass(1)
            return
        while not self._try_pass(self.micro_batch):
            if asked or self.micro_batch == 1:
                raise PrimerError(
                    f"{self.title}: {self.micro_batch} sequences of {self.context:,} tokens do not fit into the memory "
                    f"of {self.hardware.name}.",
                    "Lower train.micro_batch or set it to null." if asked else "Use a smaller model or model.context.",
                )
            self.micro_batch = even_split(self.sequences, self.micro_batch // 2)
        say(f"  {self.title}: {self.micro_batch} sequences a pass")

    def _try_pass(self, sequences: int) -> bool:
        """Whether a forward and backward pass fits, beside the optimizer's two moments. Changes nothing else."""
        fits, moments = True, list[Tensor]()
        try:
            if not self.optimizer.state:
                moments.extend(torch.empty_like(p) for p in self.parameters for _ in range(2))
            self._backward(self._batch(0, sequences))
        except torch.cuda.OutOfMemoryError:
            fits = False
        # After the handler, not in it: there the error still holds on to the pass's tensors.
        moments.clear()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return fits

    def _save(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "micro_batch": self.micro_batch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }
        save_checkpoint(self.folder, self.step, state)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder)
        if state is None:
            return
        self.step, self.seconds = state["step"], state["seconds"]
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]
        # How a step is divided changes the order of its sums, so it stays as it was where the recipe leaves it open.
        self.micro_batch = state["micro_batch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])
        say(f"  {self.title}: going on after step {self.step:,} of {self.steps:,}")

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
