"""Hugging Face's Trainer at the same shape, for gpu_train.py."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch
from gpu_train_checks import hugging_face_phi
from gpu_train_run import Pace, Place, free_memory, synchronize
from torch import Tensor

_FEWEST_STEPS = 3


class _Rows:
    """The sequences as a map-style data set."""

    def __init__(self, place: Place) -> None:
        self.mixture = place.mixture
        self.length = sum(place.mixture.counts.values())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        tokens = torch.from_numpy(self.mixture.sequences(number, number + 1)[0, :-1])
        return {"input_ids": tokens, "labels": tokens}


def measure_trainer(place: Place, micro_batch: int, *, compiled: bool) -> Pace:
    """The pace of `transformers.Trainer`, its own settings but the optimiser's; what does not fit is halved."""
    while True:
        try:
            return _measure(place, micro_batch, compiled)
        except torch.cuda.OutOfMemoryError:
            if micro_batch == 1:
                raise
            micro_batch //= 2
        torch._dynamo.reset()
        free_memory(place.device)


def _measure(place: Place, micro_batch: int, compiled: bool) -> Pace:
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> None:
            synchronize(place.device)
            ends.append(time.perf_counter())
            control.should_training_stop = len(ends) > _FEWEST_STEPS and ends[-1] - ends[0] >= place.seconds

    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=math.ceil(place.sequences / micro_batch),
            num_train_epochs=1000,
            learning_rate=2e-4,
            adam_beta2=0.98,
            adam_epsilon=1e-7,
            weight_decay=0.1,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            bf16=place.device.type == "cuda",
            torch_compile=compiled,
            use_cpu=place.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        with torch.device(place.device):
            model = hugging_face_phi(place.shape)
        trainer = Trainer(model, arguments, train_dataset=_Rows(place), callbacks=[Clock()])
        started = time.perf_counter()
        loss = trainer.train().training_loss
    seconds = [after - before for before, after in pairwise(ends)]
    tokens = math.ceil(place.sequences / micro_batch) * micro_batch * place.shape.context
    speeds = [tokens / each for each in seconds]
    memory = torch.cuda.max_memory_allocated() if place.device.type == "cuda" else 0
    warm_up, median = ends[0] - started, statistics.median(speeds)
    return Pace(micro_batch, median, min(speeds), max(speeds), len(speeds), memory, warm_up, loss)
