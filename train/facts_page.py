"""What follows from a recipe for one model's training, on a page before its first step."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from primer.environment import usable_cores
from primer.plan_screen import amount, size
from primer.progress import console, duration, say
from primer.recipe import Recipe, Variant
from primer.recipe_train import Train
from train.estimate import ModelDisk, gpu_called, model_disk, planned_flops
from train.memory import TrainingMemory, training_memory
from train.portions import Portion, budget_sequences
from train.shape import Shape, flops_per_token, parameter_count

if TYPE_CHECKING:
    from train.hardware import Hardware

# Of the logs, the curve and the card beside the weights: a line of training.jsonl and its event for TensorBoard.
_STEP_BYTES = 500


@dataclass(frozen=True)
class Surroundings:
    """What this machine has, and what time it is.

    Attributes:
        memory: Bytes of memory of the device; of a CPU, of the machine.
        disk: Bytes free where the model will lie.
        now: The time, with its zone.
    """

    memory: int
    disk: int
    now: datetime

    @classmethod
    def look(cls, hardware: Hardware, folder: Path) -> Surroundings:
        """Look around.

        Args:
            hardware: What will train.
            folder: An existing folder on the disk in question.
        """
        if hardware.device.type == "cuda":
            import torch

            memory = torch.cuda.get_device_properties(hardware.device).total_memory
        else:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(memory, shutil.disk_usage(folder).free, datetime.now().astimezone())


@dataclass(frozen=True)
class TrainingFacts:
    """One model's training, before it.

    Attributes:
        train: The recipe's section.
        variant: Name of the variant.
        shape: The model's.
        parts: What each source gives.
        tokens: That it will be trained on.
        steps: In which.
        done: Steps that are done already.
        sequences: Of a step.
        micro_batch: Sequences of a pass on one device.
        ranks: Processes that train together, each on a device of its own.
        precision: Of the products.
        device: Its name.
        memory: Estimated, of each device.
        disk: What the training writes.
        tokens_per_second: Of all devices; None if nothing is known.
        origin: Where that figure comes from.
        utilisation: Its share of the devices' peak, attention over the full square; None where the peak is not known.
        around: What there is.
    """

    train: Train
    variant: str
    shape: Shape
    parts: Sequence[Portion]
    tokens: int
    steps: int
    done: int
    sequences: int
    micro_batch: int
    ranks: int
    precision: str
    device: str
    memory: TrainingMemory
    disk: ModelDisk
    tokens_per_second: float | None
    origin: str
    utilisation: float | None
    around: Surroundings

    @property
    def passes(self) -> int:
        """Passes of a step on each device."""
        return math.ceil(self.sequences / self.ranks / self.micro_batch)

    @property
    def seconds(self) -> float | None:
        """Of training that are left, without validation and checkpoints."""
        rate = self.tokens_per_second
        return (self.steps - self.done) * self.train.batch_tokens / rate if rate else None

    @property
    def ends(self) -> datetime | None:
        """When it would be done."""
        return None if self.seconds is None else self.around.now + timedelta(seconds=self.seconds)

    @property
    def disk_bytes(self) -> int:
        """That the training needs at most."""
        return self.disk.model + self.disk.newest + self.disk.kept_for_good + _STEP_BYTES * self.steps


def derive(
    recipe: Recipe,
    variant: Variant,
    parts: Sequence[Portion],
    shape: Shape,
    hardware: Hardware,
    ranks: int,
    micro_batch: int,
    measured: float | None,
    around: Surroundings,
    done: int = 0,
) -> TrainingFacts:
    """What follows from a recipe for the training of one of its variants.

    Args:
        recipe: The experiment.
        variant: The variant.
        parts: What each source gives to it (`train.portions`).
        shape: The model's.
        hardware: What each process computes on.
        ranks: Number of processes.
        micro_batch: Sequences of a pass.
        measured: Tokens a second of all devices in a trial; None for what the recipe's plan assumes.
        around: What there is of memory, disk and time.
        done: Steps that are done already.
    """
    train, tokens = recipe.train, budget_sequences(recipe) * shape.context
    per_token = flops_per_token(shape, causal=False)
    rate, origin = measured, "measured in a trial pass, which takes no step"
    if rate is None:
        rate, origin = _assumed(recipe, hardware, ranks, per_token)
    peak = hardware.peak_flops
    return TrainingFacts(
        train=train,
        variant=variant.name,
        shape=shape,
        parts=parts,
        tokens=tokens,
        steps=tokens // train.batch_tokens,
        done=done,
        sequences=train.batch_tokens // shape.context,
        micro_batch=micro_batch,
        ranks=ranks,
        precision=hardware.precision,
        device=hardware.name,
        memory=training_memory(
            shape,
            engine=train.engine,
            precision=hardware.precision,
            device=hardware.device.type,
            ranks=ranks,
            micro_batch=micro_batch,
        ),
        disk=model_disk(train, parameter_count(shape)),
        tokens_per_second=rate,
        origin=origin,
        utilisation=rate * per_token / (peak * ranks) if rate and peak else None,
        around=around,
    )


def _assumed(recipe: Recipe, hardware: Hardware, ranks: int, per_token: float) -> tuple[float | None, str]:
    """Tokens a second by the recipe's plan, and in words on what grounds."""
    if hardware.device.type == "cpu":
        cores = recipe.train.threads * ranks if recipe.train.threads else usable_cores()
        grounds = f"assumed: plan.cpu_gflops {recipe.plan.cpu_gflops:g} on {cores} core(s)"
        return planned_flops(recipe, None, cores) / per_token, grounds
    kind = gpu_called(hardware.name)
    if kind is None:
        return None, "nothing is known of this GPU"
    return planned_flops(recipe, kind, ranks) / per_token, "assumed: plan.training_utilisation"


def facts_page(facts: TrainingFacts) -> None:
    """Print the page."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in (
        ("model", _model(facts)),
        ("work", _work(facts.shape)),
        ("data", _data(facts)),
        ("steps", _steps(facts)),
        ("learning", schedule_in_words(facts.train, facts.steps)),
        ("on", _devices(facts)),
        ("memory", _memory(facts)),
        ("held-out", _held_out(facts.train)),
        ("saved", _saved(facts)),
        ("disk", _disk(facts)),
        ("time", _time(facts)),
    ):
        table.add_row(label, text)
    console.print(f"[bold]models/{escape(facts.variant)}[/]: what is about to be trained")
    console.print(table)


def facts_line(facts: TrainingFacts) -> None:
    """Print the same in a line, for a variant that differs from the one before in its data alone."""
    data = ", ".join(f"{part.share:.2%} {part.source} ({part.passes:.2f} passes)" for part in facts.parts)
    say(f"[bold]models/{escape(facts.variant)}[/]: {data}; {facts.steps:,} steps; {_time(facts, brief=True)}")


def schedule_in_words(train: Train, steps: int) -> str:
    """The learning rate over the steps, in a sentence (`train.optimizer.learning_rate`)."""
    peak, last = f"{train.learning_rate:g}", f"{train.learning_rate * train.final_share:.3g}"
    warm = f"linear to {peak} over {train.warmup_steps:,} steps, then " if train.warmup_steps else ""
    if train.schedule == "constant":
        return f"{warm}constant{'' if warm else f' {peak} from the first step'}"
    begin = "" if warm else f"from {peak} "
    if train.schedule == "wsd":
        decay = max(train.warmup_steps, steps - round(train.decay_share * steps))
        constant = f"constant {'' if warm else f'{peak} '}to step {decay:,}"
        return f"{warm}{constant}, then linear to {last} at step {steps:,}"
    return f"{warm}{begin}{'along a cosine' if train.schedule == 'cosine' else 'linear'} to {last} at step {steps:,}"


def _model(facts: TrainingFacts) -> str:
    shape, number = facts.shape, parameter_count(facts.shape)
    shared = f" ({shape.key_value_heads} of keys and values)" if shape.key_value_heads else ""
    experts = f", {shape.experts_per_token} of {shape.experts} experts" if shape.experts else ""
    ends = number - parameter_count(replace(shape, vocabulary=0))
    return (
        f"{shape.layers} layers, {shape.heads} heads of {shape.head_dimension}{shared}, width {shape.width:,}, "
        f"MLP {shape.feed_forward:,}{experts}, context {shape.context:,}\n"
        f"[bold]{number:,} parameters[/], {ends:,} of them embedding and head of {shape.vocabulary:,} tokens"
    )


def _work(shape: Shape) -> str:
    full, causal = (flops_per_token(shape, causal=causal) / 1e9 for causal in (False, True))
    return f"{full:.4g} GFLOP a token with attention over the full square, {causal:.4g} over its causal half"


def _data(facts: TrainingFacts) -> str:
    rows = [f"{facts.tokens:,} tokens"]
    for part in facts.parts:
        row = f"{part.share:.2%} {part.source}: {part.tokens:,} from {part.available:,} tokens, {part.passes:.2f} x"
        rows.append(f"[yellow]{row}[/]" if part.passes > facts.train.max_epochs else row)
    return "\n".join(rows)


def _steps(facts: TrainingFacts) -> str:
    each = facts.sequences / facts.ranks / facts.passes
    text = (
        f"{facts.steps:,}, each of {facts.train.batch_tokens:,} tokens: {facts.sequences:,} sequences = "
        f"{each:.4g} a pass x {facts.passes} pass{'es' * (facts.passes > 1)} x {facts.ranks} device"
        f"{'s' * (facts.ranks > 1)}"
    )
    return text + f"; {facts.done:,} are done" * bool(facts.done)


def _devices(facts: TrainingFacts) -> str:
    engine = "DeepSpeed, ZeRO stage 2" if facts.train.engine == "deepspeed" else "PyTorch"
    together = " and DDP" * (facts.train.engine == "torch" and facts.ranks > 1)
    count = f"{facts.ranks} x " if facts.ranks > 1 else ""
    compiled = ", compiled" * facts.train.compile
    return f"{count}{escape(facts.device)}, {facts.precision}, {engine}{together}{compiled}"


def _memory(facts: TrainingFacts) -> str:
    memory, there = facts.memory, facts.around.memory
    text = (
        f"about {size(memory.total)} of {size(there)}{' a device' * (facts.ranks > 1)}: "
        f"weights {size(memory.weights)}, gradients {size(memory.gradients)}, moments {size(memory.moments)}, "
        f"a pass {size(memory.activations)}, logits {size(memory.logits)}"
    )
    return f"[yellow]{text}[/]" if memory.total > there else text


def _held_out(train: Train) -> str:
    if not train.validations:
        return "no loss is measured while it trains"
    completed = f", then {len(train.prompts)} prompts completed" if train.prompts else ""
    curves = f"; curves in {' and '.join(train.trackers)}" if train.trackers else ""
    return f"loss measured {train.validations} times on {train.validation_tokens:,} tokens a source{completed}{curves}"


def _saved(facts: TrainingFacts) -> str:
    train, disk = facts.train, facts.disk
    text = (
        f"every {duration(train.checkpoint_seconds).removesuffix(' 00 s')}, {size(disk.checkpoint)} each; the newest "
        f"{train.keep_checkpoints} are kept"
    )
    if train.keep_every:
        text += f", and for good every {train.keep_every:,} steps: {disk.for_good:,} x"
    return text


def _disk(facts: TrainingFacts) -> str:
    text = f"{size(facts.disk_bytes)} needed at most, {size(facts.around.disk)} free"
    return f"[yellow]{text}[/]" if facts.disk_bytes > facts.around.disk else text


def _time(facts: TrainingFacts, *, brief: bool = False) -> str:
    if facts.seconds is None or facts.ends is None or facts.tokens_per_second is None:
        return f"not known: {facts.origin}"
    until = f"{facts.ends:%a %d %b %Y, %H:%M}"
    if brief:
        return f"{duration(facts.seconds)}, until {until}"
    used = f", {facts.utilisation:.1%} of the peak by the full square" if facts.utilisation is not None else ""
    return (
        f"[bold]{duration(facts.seconds)}, until {until}[/]\n"
        f"at {amount(facts.tokens_per_second)} tokens/s ({facts.origin}{used})"
    )
