"""What the training of each variant would take: operations, hours, dollars, disk. Without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from primer.environment import usable_cores
from primer.gpus import known_gpus
from primer.recipe import Recipe
from primer.recipe_plan import GpuName
from primer.run import RunFolder
from train.portions import Portion, budget_sequences, mixed_portions, repetition_warnings
from train.shape import Shape, flops_per_token, parameter_count

# `plan.training_device: auto` trains on the CPU what takes less than this there, in seconds.
_CPU_LIMIT = 86_400.0

# float32 weights and two moments in a checkpoint (train/loop.py), and the one before it until it is replaced; float32
# weights in a finished model (train/export.py); a token id has two bytes up to 65,536 of them (train/shards.py).
_CHECKPOINT_BYTES = 2 * 12
_MODEL_BYTES = 4
_SHORT_IDS = 2**16

# In training: weights, gradients and two moments in float32, before anything that depends on the batch.
_TRAINING_BYTES = 16


@dataclass(frozen=True)
class Device:
    """What a training is planned on.

    Attributes:
        gpu: Its name in recipes; None on a CPU.
        title: For people.
        flops: Operations a second of all of them, at the assumed utilisation.
        count: GPUs, or cores.
        utilisation: The assumed share of the peak; None on a CPU.
        price: US dollars an hour of all of them; None on a CPU.
    """

    gpu: GpuName | None
    title: str
    flops: float
    count: int
    utilisation: float | None = None
    price: float | None = None


@dataclass(frozen=True)
class VariantEstimate:
    """One variant's training.

    Attributes:
        name: The variant.
        tokens: It is trained on.
        flops: Operations, attention over the full square.
        tokens_per_second: On the device.
        seconds: Of training.
        gpu_hours: None on a CPU.
        dollars: None on a CPU.
        epochs: How often it sees each source, about.
        origin: "assumed", or "measured here".
    """

    name: str
    tokens: int
    flops: float
    tokens_per_second: float
    seconds: float
    gpu_hours: float | None
    dollars: float | None
    epochs: dict[str, float]
    origin: str


@dataclass(frozen=True)
class Training:
    """All variants' training, and what holds for each of them."""

    parameters: int
    flops_per_token: float
    device: Device
    variants: list[VariantEstimate]
    notes: list[str] = field(default_factory=list)


def estimate_training(recipe: Recipe, run: RunFolder, source_tokens: Mapping[str, float]) -> Training:
    """What it takes to train every variant of a recipe.

    Args:
        recipe: The experiment.
        run: Its run folder: what a model of this size measured there on this device is taken over.
        source_tokens: About how many tokens of each source there are.

    Raises:
        PrimerError: If a manifest of the run folder is damaged, or a source would be shorter than one sequence.
    """
    shape = Shape.of(recipe.model, recipe.tokenizer.vocabulary_size)
    per_token, parameters = flops_per_token(shape, causal=False), parameter_count(shape)
    device = _device(recipe, per_token)
    measured = _measured_rate(run, recipe, device, parameters)
    mixed = mixed_portions(recipe, {source: int(source_tokens[source]) for source in recipe.used_sources()})
    variants = [_variant(recipe, name, device, per_token, measured, parts) for name, parts in mixed.items()]
    return Training(parameters, per_token, device, variants, _notes(device, parameters, recipe, mixed))


def forward_flops(recipe: Recipe) -> float:
    """Operations of evaluating one token: a third of those of training on it."""
    return flops_per_token(Shape.of(recipe.model, recipe.tokenizer.vocabulary_size), causal=False) / 3


def training_disk(recipe: Recipe, parameters: int, source_tokens: Mapping[str, float]) -> dict[str, float]:
    """Bytes of the token shards, the models, and the checkpoints of the one that is being trained."""
    width = 2 if recipe.tokenizer.vocabulary_size <= _SHORT_IDS else 4
    return {
        "tokens": width * sum(source_tokens.values()),
        "models": _MODEL_BYTES * parameters * len(recipe.variants),
        "checkpoints (one variant at a time)": _CHECKPOINT_BYTES * parameters,
    }


def _device(recipe: Recipe, per_token: float) -> Device:
    plan, train = recipe.plan, recipe.train
    cores = train.threads or usable_cores()
    cpu = Device(None, f"this CPU, {cores} core(s)", plan.cpu_gflops * 1e9 * cores, cores)
    kind = plan.training_device
    if kind == "auto":
        quick = train.tokens * per_token / cpu.flops < _CPU_LIMIT
        on_cpu = train.device == "cpu" or (
            train.device == "auto" and train.precision in ("auto", "fp32") and not train.compile and quick
        )
        kind = "cpu" if on_cpu else "h100"
    if kind == "cpu":
        return cpu
    gpu, utilisation = known_gpus()[kind], plan.training_utilisation[kind]
    peak = gpu.tflops_fp32 if train.precision == "fp32" else gpu.tflops
    count = plan.training_gpus
    return Device(
        gpu=kind,
        title=f"{count} x {gpu.title}" if count > 1 else gpu.title,
        flops=peak * 1e12 * utilisation * count,
        count=count,
        utilisation=utilisation,
        price=plan.price_per_gpu_hour[kind] * count,
    )


def _measured_rate(run: RunFolder, recipe: Recipe, device: Device, parameters: int) -> float | None:
    """Tokens a second that a finished model of this size had on one such device."""
    name = known_gpus()[device.gpu].name if device.gpu else "CPU"
    rates = []
    for variant in recipe.variants:
        manifest = run.manifest(f"models/{variant.name}")
        facts = manifest.facts if manifest else {}
        if facts.get("parameters") == parameters and name in str(facts.get("device")):
            rates.append(float(facts["tokens_per_second"]))
    return sum(rates) / len(rates) if rates else None


def _variant(
    recipe: Recipe, name: str, device: Device, per_token: float, measured: float | None, parts: Sequence[Portion]
) -> VariantEstimate:
    tokens = budget_sequences(recipe) * recipe.model.context
    count = device.count if device.gpu else 1
    rate = device.flops / per_token if measured is None else measured * count
    seconds = tokens / rate
    return VariantEstimate(
        name=name,
        tokens=tokens,
        flops=tokens * per_token,
        tokens_per_second=rate,
        seconds=seconds,
        gpu_hours=seconds * count / 3600 if device.gpu else None,
        dollars=seconds / 3600 * device.price if device.price is not None else None,
        epochs={part.source: part.passes for part in parts},
        origin="assumed" if measured is None else "measured here",
    )


def _notes(device: Device, parameters: int, recipe: Recipe, mixed: Mapping[str, Sequence[Portion]]) -> list[str]:
    notes = []
    needed = parameters * _TRAINING_BYTES / 1e9
    gpu = known_gpus()[device.gpu] if device.gpu else None
    if gpu and needed > 0.9 * gpu.memory:
        notes.append(
            f"The model does not fit: weights, gradients and moments take {needed:,.0f} GB, one {gpu.title} has "
            f"{gpu.memory:g} GB."
        )
    every = repetition_warnings(recipe, mixed)
    return notes + [f"{name}, by estimate: {sentence}" for name, sentences in every.items() for sentence in sentences]
