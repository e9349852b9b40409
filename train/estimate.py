"""What the training of each variant would take: operations, hours, dollars, disk. Without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from primer.environment import usable_cores
from primer.gpus import known_gpus
from primer.recipe import Recipe
from primer.recipe_plan import GpuName
from primer.recipe_train import Train
from primer.run import RunFolder
from train.portions import Portion, budget_sequences, mixed_portions, repetition_warnings
from train.shape import Shape, flops_per_token, parameter_count

# `plan.training_device: auto` trains on the CPU what takes less than this there, in seconds.
_CPU_LIMIT = 86_400.0

# Of each parameter: float32 weights and two moments in a checkpoint (train/engine.py), float32 weights in a finished
# model (train/export.py). A token id has two bytes up to 65,536 of them (train/shards.py).
_CHECKPOINT_BYTES = 12
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
    model = model_disk(recipe.train, parameters)
    return {
        "tokens": width * sum(source_tokens.values()),
        "models": (model.model + model.kept_for_good) * len(recipe.variants) * recipe.train.seeds,
        "checkpoints (one variant at a time)": model.newest,
    }


@dataclass(frozen=True)
class ModelDisk:
    """Bytes that one training needs on the disk.

    Attributes:
        model: The finished model.
        checkpoint: Each checkpoint.
        newest: The newest checkpoints, and the one that is being written.
        for_good: Number of checkpoints that stay beside the model.
    """

    model: int
    checkpoint: int
    newest: int
    for_good: int

    @property
    def kept_for_good(self) -> int:
        """Bytes of the checkpoints that stay beside the model."""
        return self.for_good * self.checkpoint


def model_disk(train: Train, parameters: int) -> ModelDisk:
    """What the training of one model needs on the disk."""
    checkpoint = _CHECKPOINT_BYTES * parameters
    for_good = train.tokens // train.batch_tokens // train.keep_every if train.keep_every else 0
    return ModelDisk(_MODEL_BYTES * parameters, checkpoint, (train.keep_checkpoints + 1) * checkpoint, for_good)


def gpu_called(name: str) -> GpuName | None:
    """Which known GPU has this name in PyTorch, if any."""
    return next((kind for kind, gpu in known_gpus().items() if gpu.name in name), None)


def planned_flops(recipe: Recipe, kind: GpuName | None, count: int) -> float:
    """Operations a second that the recipe's plan expects in training.

    Args:
        recipe: The experiment.
        kind: The GPU; None for a CPU.
        count: How many of them, or cores.
    """
    if kind is None:
        return recipe.plan.cpu_gflops * 1e9 * count
    gpu = known_gpus()[kind]
    peak = gpu.tflops_fp32 if recipe.train.precision == "fp32" else gpu.tflops
    return peak * 1e12 * recipe.plan.training_utilisation[kind] * count


def _device(recipe: Recipe, per_token: float) -> Device:
    plan, train = recipe.plan, recipe.train
    cores = train.threads or usable_cores()
    cpu = Device(None, f"this CPU, {cores} core(s)", planned_flops(recipe, None, cores), cores)
    kind = plan.training_device
    if kind == "auto":
        quick = train.tokens * per_token / cpu.flops < _CPU_LIMIT
        on_cpu = train.device == "cpu" or (
            train.device == "auto" and train.precision in ("auto", "fp32") and not train.compile and quick
        )
        kind = "cpu" if on_cpu else "h100"
    if kind == "cpu":
        return cpu
    gpu, count = known_gpus()[kind], plan.training_gpus
    return Device(
        gpu=kind,
        title=f"{count} x {gpu.title}" if count > 1 else gpu.title,
        flops=planned_flops(recipe, kind, count),
        count=count,
        utilisation=plan.training_utilisation[kind],
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
            rates.append(float(facts["tokens_per_second"]) / (facts.get("processes", 1) if device.gpu else 1))
    return sum(rates) / len(rates) if rates else None


def _variant(
    recipe: Recipe, name: str, device: Device, per_token: float, measured: float | None, parts: Sequence[Portion]
) -> VariantEstimate:
    tokens = budget_sequences(recipe) * recipe.model.context * recipe.train.seeds
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
