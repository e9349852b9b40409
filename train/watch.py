"""What looks on while a model is trained: the logs, the trackers, the held-out loss by source, sample completions."""

from __future__ import annotations

import math
from pathlib import Path

from rich.markup import escape
from tokenizers import Tokenizer

from primer.progress import say
from primer.recipe import Recipe
from train.completions import complete, shown
from train.engine import Outcome
from train.hardware import Hardware
from train.model import Phi
from train.trackers import Trackers
from train.training_log import COMPLETIONS, TRAINING, VALIDATION, TrainingLog
from train.validation import Validation


class Watch:
    """Everything that records a training and changes nothing in it.

    Args:
        recipe: The experiment.
        title: Name of the training, for trackers.
        folder: Where the records go.
        tokenizer: For completions.
        validation: Held-out text.
        hardware: What the model is on.
    """

    def __init__(
        self,
        recipe: Recipe,
        title: str,
        folder: Path,
        tokenizer: Tokenizer,
        validation: Validation,
        hardware: Hardware,
    ) -> None:
        self.recipe, self.title, self.folder, self.hardware = recipe, title, folder, hardware
        self.tokenizer, self.validation = tokenizer, validation
        self.steps = recipe.train.tokens // recipe.train.batch_tokens
        self._open: tuple[TrainingLog, TrainingLog, TrainingLog, Trackers] | None = None

    def open(self, step: int) -> None:
        """Begin, or go on, after a step; what was recorded of later steps is dropped."""
        self.close()
        logs = [TrainingLog(self.folder, step, name) for name in (TRAINING, VALIDATION, COMPLETIONS)]
        settings = self.recipe.model_dump(mode="json")
        trackers = Trackers(self.folder, self.recipe.train.trackers, self.title, settings, step)
        self._open = (logs[0], logs[1], logs[2], trackers)

    def note(self, step: int, batch: int, rate: float, outcome: Outcome, speed: float) -> None:
        """Record a step."""
        training, _, _, trackers = self._opened()
        row = {
            "step": step,
            "tokens": step * self.recipe.train.batch_tokens,
            "loss": outcome.loss if math.isfinite(outcome.loss) else None,
            "learning_rate": rate,
            "gradient_norm": outcome.norm if math.isfinite(outcome.norm) else None,
            "tokens_per_second": round(speed, 1),
            "batch": batch,
            "taken": outcome.taken,
        }
        training.append(row)
        curves = {"loss": outcome.loss, "learning rate": rate, "gradient norm": outcome.norm, "tokens a second": speed}
        trackers.scalars(step, {f"train/{name}": value for name, value in curves.items() if math.isfinite(value)})

    def due(self, step: int) -> bool:
        """Whether the held-out loss is measured now: `train.validations` times, evenly, last after the last step."""
        times = self.recipe.train.validations
        return step * times // self.steps > (step - 1) * times // self.steps

    def look(self, step: int, model: Phi) -> None:
        """Measure the held-out loss of every source, and let the model complete the recipe's prompts."""
        _, validation, completions, trackers = self._opened()
        losses = self.validation.losses(model, self.hardware)
        bits = self.validation.bits_per_byte(losses)
        tokens = step * self.recipe.train.batch_tokens
        validation.append({"step": step, "tokens": tokens, "losses": losses, "bits_per_byte": bits})
        validation.flush()
        trackers.scalars(step, {f"held-out/{source}": loss for source, loss in losses.items()})
        trackers.scalars(step, {f"held-out bits per byte/{source}": value for source, value in bits.items()})
        told = ", ".join(f"{source} {loss:.3f}" for source, loss in losses.items())
        say(f"  {escape(self.title)}: step {step:,}, held-out loss {told or 'of nothing'}")
        prompts = self.recipe.train.prompts
        for number, (prompt, text) in enumerate(zip(prompts, complete(model, self.tokenizer, prompts), strict=True)):
            completions.append({"step": step, "prompt": prompt, "text": text})
            trackers.text(step, f"completion/{number}", prompt + text)
            say(f"    {shown(prompt, text)}")
        completions.flush()

    def flush(self) -> None:
        """Bring all records to disk; before a checkpoint that counts on them."""
        for log in self._opened()[:3] if self._open else ():
            log.flush()

    def close(self) -> None:
        """Flush and close."""
        if self._open:
            for each in self._open:
                each.close()
            self._open = None

    def _opened(self) -> tuple[TrainingLog, TrainingLog, TrainingLog, Trackers]:
        assert self._open is not None
        return self._open
