"""What looks on while a model is trained: the logs, the trackers, the held-out loss by source, sample completions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from primer.recipe import Recipe
from train.completions import complete
from train.engine import Outcome
from train.model import Phi
from train.trackers import Trackers
from train.training_log import COMPLETIONS, VALIDATION, TrainingLog
from train.validation import Validation


class Watch:
    """Everything that records a training and changes nothing in it.

    Args:
        recipe: The experiment.
        title: Name of the training, for trackers.
        folder: Where the records go.
        tokenizer: For completions.
        validation: Held-out text.
    """

    def __init__(self, recipe: Recipe, title: str, folder: Path, tokenizer: Tokenizer, validation: Validation) -> None:
        self.recipe, self.title, self.folder = recipe, title, folder
        self.tokenizer, self.validation = tokenizer, validation
        self.steps = recipe.train.tokens // recipe.train.batch_tokens
        self._open: tuple[TrainingLog, TrainingLog, TrainingLog, Trackers] | None = None

    def open(self, step: int) -> None:
        """Begin, or go on, after a step; what was recorded of later steps is dropped."""
        self.close()
        logs = [TrainingLog(self.folder, step), *(TrainingLog(self.folder, step, n) for n in (VALIDATION, COMPLETIONS))]
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
        shown = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
        trackers.scalars(step, {f"train/{key}": row[key] for key in shown if row[key] is not None})

    def due(self, step: int) -> bool:
        """Whether the held-out loss is measured after this step: `train.validations` times, evenly, the last at the end."""
        times = self.recipe.train.validations
        return step * times // self.steps > (step - 1) * times // self.steps

    def look(self, step: int, model: Phi) -> None:
        """Measure the held-out loss of every source, and let the model complete the recipe's prompts."""
        _, validation, completions, trackers = self._opened()
        losses = self.validation.losses(model)
        row = {"step": step, "tokens": step * self.recipe.train.batch_tokens, **losses}
        validation.append(row)
        validation.flush()
        prompts = self.recipe.train.prompts
        for prompt, text in zip(prompts, complete(model, self.tokenizer, prompts), strict=True):
            completions.append({"step": step, "prompt": prompt, "text": text})
            trackers.text(step, f"completion/{prompts.index(prompt)}", prompt + text)
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
