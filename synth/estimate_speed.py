"""How long a generation would take, and what bounds it: a limit of the endpoint, the GPU, this machine's cores."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from primer.environment import usable_cores
from primer.errors import PrimerError
from primer.gpus import Gpu, known_gpus
from primer.recipe import Recipe
from primer.recipe_plan import GpuName, Planning
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, VllmTeacher
from synth.estimate import Work
from synth.estimate_measured import Measured

# What `primer synth` does in one process (docs/scale.md, measured on a busy machine): no teacher is asked faster.
_CLIENT_REQUESTS_PER_SECOND = 260.0

# A batch is answered within a day, often sooner.
_BATCH_SECONDS = 86_400.0

# The embedded teacher's speed in `plan.cpu_tokens_per_second` is that of a model of this size.
_MEASURED_PARAMETERS = 0.135e9

# vLLM takes 0.9 of the memory; beside the weights a fifth of their size is wanted for the cache of the replies in
# flight. Models are divided over 1, 2, 4 or 8 GPUs.
_USABLE_MEMORY = 0.9
_WEIGHTS_AND_CACHE = 1.2
_DIVISIONS = (1, 2, 4, 8)

# arXiv 2401.04088, section 2 and table 2: Mixtral 8x7B has 47 billion parameters, of which 13 work on a token.
_OF_EXPERTS, _OF_TWO_EXPERTS = 47 / 56, 13 / 14


@dataclass(frozen=True)
class Size:
    """Parameters of a teacher, all and those that work on one token; `origin` says how they are known."""

    parameters: float
    active: float
    origin: str


@dataclass(frozen=True)
class Bound:
    """One thing that limits a generation: how long it would take if nothing else did."""

    name: str
    seconds: float


@dataclass(frozen=True)
class GpuRow:
    """A teacher on one kind of GPU.

    Attributes:
        gpu: Its name in recipes.
        fits: GPUs that one copy of the teacher is divided over; None if eight do not hold it.
        gpus: GPUs at work.
        tokens_per_second: Written tokens of all of them.
        seconds: Until all is written.
        gpu_hours: Of all of them.
        dollars: At the recipe's price.
        bound: What limits it.
    """

    gpu: GpuName
    fits: int | None
    gpus: int | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None
    gpu_hours: float | None = None
    dollars: float | None = None
    bound: str | None = None


def teacher_size(model: str, plan: Planning) -> Size | None:
    """The size of a model: what the recipe says, or else its name ("8x7B", "30B-A3B", "4B", "135m")."""
    found = _size_in_name(model)
    if plan.teacher_parameters is not None:
        active = plan.teacher_active if plan.teacher_active is not None else plan.teacher_parameters
        return Size(plan.teacher_parameters * 1e9, active * 1e9, "plan.teacher_parameters")
    if found is None:
        return None
    active = plan.teacher_active * 1e9 if plan.teacher_active is not None else found[1]
    return Size(found[0], active, "the model's name")


def _size_in_name(model: str) -> tuple[float, float] | None:
    name = model.rsplit("/", 1)[-1].lower()
    if experts := re.search(r"(?<![a-z0-9.])(\d+)x(\d+(?:\.\d+)?)b(?![a-z])", name):
        each = float(experts[2]) * 1e9
        return int(experts[1]) * each * _OF_EXPERTS, 2 * each * _OF_TWO_EXPERTS
    sizes = re.findall(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z])", name)
    if not sizes:
        return None
    whole = float(sizes[0][0]) * (1e9 if sizes[0][1] == "b" else 1e6)
    active = re.search(r"(?<![a-z0-9.])a(\d+(?:\.\d+)?)b(?![a-z])", name)
    return whole, float(active[1]) * 1e9 if active else whole


def endpoint_bounds(recipe: Recipe, teacher: EndpointTeacher, work: Work) -> list[Bound]:
    """The limits of an endpoint, the slowest first."""
    addresses = len(teacher.addresses)
    if teacher.batch:
        from synth.batch_wave import MOST_FILES, MOST_REQUESTS

        rounds = max(work.most_steps, math.ceil(work.requests / (MOST_FILES * MOST_REQUESTS)))
        within = "a day at most" if rounds == 1 else f"a day at most for each of {rounds:,} rounds"
        return [Bound(f"the Batch API: {within}", rounds * _BATCH_SECONDS)]
    reply = work.completion_tokens / work.requests / recipe.plan.reply_tokens_per_second
    in_flight = f"synth.concurrency: {recipe.synth.concurrency:,} at a time, {reply:.1f} s a reply"
    bounds = [
        Bound(in_flight, work.requests * reply / recipe.synth.concurrency),
        Bound(
            f"Primer's process: {_CLIENT_REQUESTS_PER_SECOND:.0f} requests/s",
            work.requests / _CLIENT_REQUESTS_PER_SECOND,
        ),
    ]
    if teacher.requests_per_minute is not None:
        rate = addresses * teacher.requests_per_minute
        bounds.append(Bound(f"requests_per_minute: {rate:,}", work.requests / rate * 60))
    if teacher.tokens_per_minute is not None:
        rate = addresses * teacher.tokens_per_minute
        bounds.append(Bound(f"tokens_per_minute: {rate:,}", (work.prompt_tokens + work.completion_tokens) / rate * 60))
    return sorted(bounds, key=lambda bound: -bound.seconds)


def embedded_bound(recipe: Recipe, teacher: EmbeddedTeacher, work: Work, known: Measured) -> tuple[Bound, int]:
    """The embedded teacher's time on this machine, and its cores.

    Raises:
        PrimerError: If neither the model's name nor the recipe says how large it is.
    """
    cores = teacher.threads or usable_cores()
    if (answers := known.answers) and answers.seconds and answers.whole:
        seconds = work.completion_tokens * answers.seconds / answers.completion_tokens
        rate = answers.completion_tokens / answers.seconds
        return Bound(f"this machine: {rate:,.0f} tokens/s written, measured here", seconds), cores
    size = known_size(teacher.model, recipe.plan)
    rate = recipe.plan.cpu_tokens_per_second * cores * _MEASURED_PARAMETERS / size.parameters
    seconds = (work.prompt_tokens + work.completion_tokens) / rate
    return Bound(f"{cores} core(s): {rate:,.0f} tokens/s in and out", seconds), cores


def known_size(model: str, plan: Planning) -> Size:
    """`teacher_size`, where it must be known.

    Raises:
        PrimerError: If it is not.
    """
    size = teacher_size(model, plan)
    if size is None:
        raise PrimerError(
            f"synth.teacher.model is {model!r}, which does not say how large the model is.",
            "Give its parameters in billions: --set plan.teacher_parameters=7 (and plan.teacher_active for a mixture "
            "of experts).",
        )
    return size


def gpu_table(recipe: Recipe, teacher: VllmTeacher, work: Work) -> list[GpuRow]:
    """The teacher on every known kind of GPU.

    Raises:
        PrimerError: If the teacher's size is not known, or `plan.teacher_gpus` is no multiple of what it needs.
    """
    size = known_size(teacher.model, recipe.plan)
    return [_gpu_row(recipe, size, work, name, gpu) for name, gpu in known_gpus().items()]


def reading_rate(plan: Planning, size: Size, gpu: Gpu) -> float:
    """Prompt tokens a second of one GPU: 2 operations for each active parameter, at a share of the peak."""
    return plan.reading_utilisation * gpu.tflops * 1e12 / (2 * size.active)


def writing_rate(plan: Planning, size: Size, gpu: Gpu, in_flight: float) -> float:
    """Written tokens a second of one GPU: so many each time that its memory could bring the active weights once.

    `in_flight` is the number of replies that the copy of the teacher works on, which may be less than it could.
    """
    return min(plan.writing_batch, in_flight) * gpu.bandwidth * 1e9 / (size.active * plan.teacher_bits / 8)


def _gpu_row(recipe: Recipe, size: Size, work: Work, name: GpuName, gpu: Gpu) -> GpuRow:
    plan = recipe.plan
    weights = size.parameters * plan.teacher_bits / 8
    fits = next((n for n in _DIVISIONS if weights * _WEIGHTS_AND_CACHE <= _USABLE_MEMORY * gpu.memory * 1e9 * n), None)
    if fits is None:
        return GpuRow(name, None)
    gpus = fits
    if name == plan.teacher_gpu and plan.teacher_gpus is not None:
        gpus = plan.teacher_gpus
        if gpus % fits:
            raise PrimerError(
                f"plan.teacher_gpus is {gpus}, but one copy of the teacher takes {fits} {gpu.title}.",
                f"Give a multiple of {fits}, or another plan.teacher_gpu.",
            )
    in_flight = recipe.synth.concurrency * fits / gpus
    reading = work.prompt_tokens / reading_rate(plan, size, gpu)
    writing = work.completion_tokens / writing_rate(plan, size, gpu, in_flight)
    bounds = [
        Bound("synth.concurrency" if in_flight < plan.writing_batch else "the GPU", (reading + writing) / gpus),
        Bound("Primer's process", work.requests / _CLIENT_REQUESTS_PER_SECOND),
    ]
    slowest = max(bounds, key=lambda bound: bound.seconds)
    hours = slowest.seconds * gpus / 3600
    return GpuRow(
        gpu=name,
        fits=fits,
        gpus=gpus,
        tokens_per_second=work.completion_tokens / slowest.seconds,
        seconds=slowest.seconds,
        gpu_hours=hours,
        dollars=hours * plan.price_per_gpu_hour[name],
        bound=slowest.name,
    )
