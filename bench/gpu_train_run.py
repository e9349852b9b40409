"""One configuration of the trainer for gpu_train.py: model, engine and batches as training has them, and its pace."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from random_tokens import random_mixture
from torch import nn

from primer.recipe_train import Train
from train.batches import Batches
from train.engine import TorchEngine
from train.hardware import Hardware
from train.mixture import Mixture
from train.model import INITIAL_STANDARD_DEVIATION, Phi
from train.shape import Shape
from train.world import World

_FEWEST_STEPS = 3
_RATE = 2e-4


@dataclass(frozen=True)
class Case:
    """What is measured: the trainer with all its techniques, or with one of them switched off.

    Attributes:
        name: In tables and for `--only`.
        about: What it is, for people.
        precision: Of the products.
        compiled: Whether the model is.
        micro_batch: Sequences of a pass; None for as many as the whole trainer takes.
        documents: Whether attention stays within documents.
        model_patch: Changes train's code while the model is computed; whatever it changes is compiled anew.
        step_patch: Changes it around steps alone, so that the compiled model of the case before can serve again.
        engine: Computes the steps.
    """

    name: str
    about: str
    precision: str = "bf16"
    compiled: bool = True
    micro_batch: int | None = None
    documents: bool = False
    model_patch: Callable[[], AbstractContextManager[object]] = nullcontext
    step_patch: Callable[[], AbstractContextManager[object]] = nullcontext
    engine: type[TorchEngine] = TorchEngine

    @property
    def graph(self) -> tuple[object, ...]:
        """Cases with the same one can use the same compiled model."""
        return self.precision, self.compiled, self.micro_batch, self.documents, self.model_patch


@dataclass(frozen=True)
class Place:
    """Where all cases run, at which size and for how long.

    Attributes:
        device: The device.
        name: Its name, for people.
        shape: The model's sizes.
        sequences: Of a step.
        seconds: To measure each case for, at least.
        peak: Of the device, in 16 bits, in operations a second; None if not known.
        mixture: The data.
    """

    device: torch.device
    name: str
    shape: Shape
    sequences: int
    seconds: float
    peak: float | None
    mixture: Mixture

    @property
    def step_tokens(self) -> int:
        return self.sequences * self.shape.context

    def hardware(self, precision: str) -> Hardware:
        return Hardware(self.device, precision, self.name, self.peak)


@dataclass(frozen=True)
class Pace:
    """What a case came to.

    Attributes:
        micro_batch: Sequences of a pass, after what did not fit was halved.
        tokens_per_second: Median over the steps.
        slowest, fastest: The same of single steps.
        steps: How many were measured.
        memory: Bytes at most.
        warm_up: Seconds before the first measured step, compilation included.
        loss: After the last step, in nats a token.
    """

    micro_batch: int
    tokens_per_second: float
    slowest: float
    fastest: float
    steps: int
    memory: int
    warm_up: float
    loss: float


def make_place(
    device: torch.device, name: str, shape: Shape, sequences: int, seconds: float, peak: float | None, folder: Path
) -> Place:
    """A place with a shard of random tokens in a folder: enough for eight steps, then they come again."""
    mixture = random_mixture(folder, shape.vocabulary, shape.context, 8 * sequences)
    return Place(device, name, shape, sequences, seconds, peak, mixture)


def random_model(shape: Shape, device: torch.device) -> Phi:
    """A model on the device, with weights as training draws them."""
    with torch.device(device):
        model = Phi(shape).train()
    draw_weights(model)
    return model


def draw_weights(model: Phi) -> None:
    """Give a model its first weights, drawn where it is: on a GPU that takes a second."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, 0, INITIAL_STANDARD_DEVIATION)
        else:
            nn.init.constant_(parameter, float(name.endswith("norm.weight")))


class Runner:
    """Measures one case after the other; keeps the model while its compiled form can be used again."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._model: Phi | None = None
        self._graph: tuple[object, ...] | None = None
        self._micro_batch = 0

    def needs_compiling(self, case: Case) -> bool:
        """Whether the case cannot use what is compiled already."""
        return case.compiled and case.graph != self._graph

    def measure(self, case: Case, micro_batch: int) -> Pace:
        """The pace of a case, in passes of at most `micro_batch` sequences, halved for as long as they do not fit."""
        micro_batch = min(micro_batch, self.place.sequences)
        if case.graph == self._graph:
            micro_batch = min(micro_batch, self._micro_batch)
        while True:
            try:
                with quiet_collection(), case.model_patch(), case.step_patch():
                    found = self._measure(case, micro_batch)
            except torch.cuda.OutOfMemoryError:
                if micro_batch == 1:
                    raise
                micro_batch //= 2
            else:
                self._micro_batch = micro_batch
                return found
            # After the handler, not in it: there the error still holds on to the pass's tensors.
            self.forget()

    def forget(self) -> None:
        """Drop the model and all that was compiled: code is looked up by function, and there is a limit to variants."""
        self._model = self._graph = None
        torch._dynamo.reset()
        free_memory(self.place.device)

    def _measure(self, case: Case, micro_batch: int) -> Pace:
        if case.graph != self._graph or self._model is None:
            self.forget()
            self._model, self._graph = random_model(self.place.shape, self.place.device), case.graph
            if case.compiled:
                self._model.compile(dynamic=False)
        else:
            draw_weights(self._model)
        train = Train(batch_tokens=self.place.step_tokens, precision="auto", gradient_clip=1.0)
        engine = case.engine(self._model, train, self.place.hardware(case.precision), World())
        batches = Batches(self.place.mixture, self.place.sequences, World(), self.place.device, case.documents)
        number = 0
        loss = float("nan")

        def step() -> None:
            nonlocal number, loss
            total = torch.zeros((), device=self.place.device)
            for each in batches.passes(number, micro_batch):
                total += engine.accumulate(each.tokens, each.targets, each.documents, last=each.last)
            outcome = engine.step(_RATE, total, stop=False)
            number, loss = number + 1, outcome.loss

        try:
            warm_up, seconds, memory = timed(step, self.place)
        finally:
            engine.clear()
        speeds = [self.place.step_tokens / each for each in seconds]
        median = statistics.median(speeds)
        return Pace(micro_batch, median, min(speeds), max(speeds), len(speeds), memory, warm_up, loss)


def timed(step: Callable[[], None], place: Place, most_steps: int = 10_000) -> tuple[float, list[float], int]:
    """Seconds of a warm-up step, seconds of each step after it, and the most bytes held; the device is waited for."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock = time.perf_counter()
    step()
    synchronize(place.device)
    warm_up = time.perf_counter() - clock
    seconds: list[float] = []
    while len(seconds) < _FEWEST_STEPS or (sum(seconds) < place.seconds and len(seconds) < most_steps):
        clock = time.perf_counter()
        step()
        synchronize(place.device)
        seconds.append(time.perf_counter() - clock)
    return warm_up, seconds, torch.cuda.max_memory_allocated() if place.device.type == "cuda" else 0


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def quiet_collection() -> Iterator[None]:
    """No garbage collection, as in training; a case may switch it on again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
