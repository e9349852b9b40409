"""A training tried and not begun: what would be trained, whether it fits, how fast it would be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from primer.errors import PrimerError
from primer.progress import say
from primer.recipe import Recipe, SourceName
from train.cpu import prepare_cpu
from train.facts_page import Surroundings, derive, facts_line, facts_page
from train.hardware import Hardware, choose_hardware, first_micro_batch
from train.loop import Trainer, check_division
from train.model import Phi
from train.portions import mixed_portions
from train.shape import Shape


class RandomTokens:
    """Sequences of random tokens, in the place of a mixture: they cost as much as any.

    Args:
        vocabulary: Number of tokens.
        context: Tokens of a sequence.
    """

    def __init__(self, vocabulary: int, context: int) -> None:
        self.vocabulary, self.context = vocabulary, context

    def sequences(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """As `train.mixture.Mixture` has them: (stop - start, context + 1)."""
        return np.random.default_rng(start).integers(0, self.vocabulary, (stop - start, self.context + 1))

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Four documents in each row."""
        row = np.arange(self.context, dtype=np.int32) * 4 // self.context
        return np.broadcast_to(row, (stop - start, self.context)).copy()


def dry_run(recipe: Recipe, available: Mapping[SourceName, int], processes: int) -> None:
    """Show what training every variant would be, after a trial pass of random tokens on one device.

    Args:
        recipe: The experiment.
        available: Tokens of each source, counted or estimated.
        processes: That would train together.

    Raises:
        PrimerError: If the machine cannot train this model; what follows from the recipe has been shown.
    """
    check_division(recipe.train.batch_tokens // recipe.model.context, processes)
    shape = Shape.of(recipe.model, recipe.tokenizer.vocabulary_size)
    mixed = mixed_portions(recipe, available)
    problem: PrimerError | None = None
    precision = "fp32" if recipe.train.precision == "auto" else recipe.train.precision
    hardware = Hardware(torch.device("cpu"), precision, "CPU", None)
    speed, micro_batch = None, 1
    try:
        hardware = choose_hardware(recipe.train)
        speed, micro_batch = _trial(recipe, shape, hardware, processes)
    except PrimerError as error:
        problem = error
    around = Surroundings.look(hardware, Path())
    for number, variant in enumerate(recipe.variants):
        parts = mixed[variant.name]
        facts = derive(recipe, variant, parts, shape, hardware, processes, micro_batch, speed, around)
        (facts_line if number else facts_page)(facts)
    if problem:
        raise problem
    say("A dry run: nothing was changed.")


def _trial(recipe: Recipe, shape: Shape, hardware: Hardware, processes: int) -> tuple[float, int]:
    """Tokens a second of all processes, and sequences of a pass."""
    share = recipe.train.batch_tokens // recipe.model.context // processes
    first_micro_batch(shape, share, hardware, processes)  # refuses before a model is made that does not fit
    model = Phi(shape)
    model.initialize(recipe.seed)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            recipe, "dry run", model, RandomTokens(shape.vocabulary, shape.context), hardware, Path(folder)
        )
        trainer.batches.share = share
        if hardware.device.type == "cpu":
            prepare_cpu(recipe.train.threads, processes)  # one of them has its share of the cores
        return trainer.prepare(resume=False) * processes, trainer.micro_batch
