"""What a model's stage does: token shards to a model directory, on one process or in step with others."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.recipe import Recipe, SourceName, Variant
from primer.run import Built, RunFolder, write_json
from train.build_tokens import HELD_OUT
from train.checkpoint import CheckpointStore
from train.export import export_model
from train.facts_page import Surroundings, derive, facts_line, facts_page
from train.hardware import Hardware, choose_hardware
from train.heartbeat import Heartbeat
from train.loop import Trained, Trainer
from train.mixture import variant_mixture
from train.model import Phi
from train.model_card import write_model_card
from train.portions import Portion, budget_sequences, mixed_portions, repetition_warnings
from train.shape import Shape, flops_per_token, parameter_count
from train.shards import Shard
from train.tokenizer import load_tokenizer, model_vocabulary, tokenizer_hash
from train.trackers import check_trackers
from train.training_log import final_loss
from train.validation import Validation
from train.watch import Watch
from train.world import World

# A finished model's facts: what is found here after an interruption is not trained again.
_FINISHED = "training.json"


def build_model(recipe: Recipe, variant: Variant, run: RunFolder, world: World, folder: Path) -> Built:
    """Fill the folder `models/<variant>`: train, or go on training, and export."""
    finished = folder / _FINISHED
    if not finished.is_file():
        world.told((variant.name, recipe.seed, str(run.folder("tokens").resolve()), str(folder.resolve())))
        write_json(finished, train_model(recipe, variant, run.folder("tokens"), folder, world))
    CheckpointStore(folder, recipe.train.keep_checkpoints, recipe.train.keep_every).remove()
    facts = json.loads(finished.read_text(encoding="utf-8"))
    write_model_card(recipe, variant, run, folder, facts)
    epochs = ", ".join(f"{source} {times:.2f} x" for source, times in facts["epochs"].items())
    return Built(
        summary=f"{facts['parameters']:,} parameters, {facts['tokens']:,} tokens ({epochs}), loss "
        f"{facts['final_loss']:.3f}, {facts['tokens_per_second']:,.0f} tokens/s",
        facts=facts,
    )


def follow(recipe: Recipe, world: World) -> None:
    """Train, as a rank beside the first, every model that the first begins, until it says that there are no more."""
    variants = {variant.name: variant for variant in recipe.variants}
    while (job := world.told()) is not None:
        name, seed, tokens, folder = job
        seeded = recipe.model_copy(update={"seed": seed})
        train_model(seeded, variants[name], Path(tokens), Path(folder), world)


def train_model(recipe: Recipe, variant: Variant, tokens: Path, folder: Path, world: World) -> dict[str, Any]:
    """Train one variant; every process calls this.

    Args:
        recipe: The experiment.
        variant: One of its variants.
        tokens: Folder of the stage `tokens`.
        folder: For checkpoints, logs and, from rank 0, the model.
        world: The processes that train together.

    Returns:
        The facts of the stage's manifest; those of rank 0 count.

    Raises:
        PrimerError: If the model does not fit, or its training fails.
        KeyboardInterrupt: If a signal asked to stop; a checkpoint has been saved.
    """
    check_trackers(recipe.train.trackers)
    tokenizer = load_tokenizer(tokens)
    mark = tokenizer_hash(tokenizer)
    shards: dict[SourceName, Shard] = {source: Shard(tokens, source, mark) for source in recipe.used_sources()}
    mixed = mixed_portions(recipe, {source: len(shard) for source, shard in shards.items()})
    mixture = variant_mixture(recipe, variant, shards)
    validation = held_out(recipe, tokens, mark)
    if world.first:
        for shard in (*mixture.shards.values(), *validation.shards.values()):
            shard.verify()
    hardware = choose_hardware(recipe.train, world.local_rank)
    shape = Shape.of(recipe.model, model_vocabulary(tokenizer, recipe.tokenizer.kind))
    gc.collect()  # the model trained before this one, which may be held in cycles, off the device
    model = Phi(shape)
    model.initialize(recipe.seed)
    title = f"models/{variant.name}" + f", seed {recipe.seed}" * (recipe.train.seeds > 1)
    watch = Watch(recipe, title, folder, tokenizer, validation, hardware) if world.first else None
    heartbeat = Heartbeat.from_environment(world.rank, title)
    trainer = Trainer(recipe, title, model, mixture, hardware, folder, world, watch, heartbeat)
    speed = trainer.prepare()
    if world.first:
        around = Surroundings.look(hardware, folder)
        parts, passes = mixed[variant.name], trainer.micro_batch
        facts = derive(recipe, variant, parts, shape, hardware, world.size, passes, speed, around, trainer.step)
        (facts_page if variant == recipe.variants[0] else facts_line)(facts)
    trained = trainer.run()
    if not world.first:
        return {}
    export_model(model, tokenizer, folder)
    return _facts(recipe, variant, mixed, shape, hardware, trained, folder, world)


def held_out(recipe: Recipe, tokens: Path, mark: str) -> Validation:
    """The held-out text of every source, as the stage `tokens` wrote it."""
    folder = tokens / HELD_OUT
    present = [source for source in recipe.used_sources() if (folder / f"{source}.json").is_file()]
    shards: dict[SourceName, Shard] = {source: Shard(folder, source, mark) for source in present}
    return Validation(shards, recipe.model.context, recipe.train.validation_tokens, recipe.train.mask_documents)


def _facts(
    recipe: Recipe,
    variant: Variant,
    mixed: dict[str, list[Portion]],
    shape: Shape,
    hardware: Hardware,
    trained: Trained,
    folder: Path,
    world: World,
) -> dict[str, Any]:
    parts = mixed[variant.name]
    loss = final_loss(folder)
    if loss is None:
        raise PrimerError(
            f"The loss of variant {variant.name!r} was not a number in the last tenth of its steps.",
            "Lower train.learning_rate, or set train.gradient_clip to 1.0 or train.precision to bf16.",
        )
    tokens = budget_sequences(recipe) * recipe.model.context
    assert tokens == sum(part.tokens for part in parts)  # the same for every variant, whatever its sources
    flops = flops_per_token(shape, causal=False)
    rate = tokens / trained.seconds
    peak = hardware.peak_flops
    return {
        "parameters": parameter_count(shape),
        "tokens": tokens,
        "steps": tokens // recipe.train.batch_tokens,
        "skipped_steps": trained.skipped,
        "rollbacks": trained.rollbacks,
        "seconds": round(trained.seconds, 2),
        "tokens_per_second": round(rate, 1),
        "device": hardware.name,
        "precision": hardware.precision,
        "engine": recipe.train.engine,
        "processes": world.size,
        "micro_batch": trained.micro_batch,
        "final_loss": loss,
        "epochs": {part.source: round(part.passes, 4) for part in parts},
        "tokens_by_source": {part.source: part.tokens for part in parts},
        "warnings": repetition_warnings(recipe, mixed)[variant.name],
        "mfu": round(rate * flops / (peak * world.size), 4) if peak else None,
        "mfu_convention": f"attention over the full square, {flops / 1e9:.4g} GFLOP per token",
    }
