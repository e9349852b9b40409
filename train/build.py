"""What the stages of training do: corpora to token shards, token shards to a model directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from primer.documents import read_documents
from primer.errors import PrimerError
from primer.progress import bar, say
from primer.recipe import Recipe, SourceName, Variant
from primer.run import Built, RunFolder, write_json
from train.checkpoint import remove_checkpoints
from train.export import export_model
from train.hardware import Hardware, choose_hardware
from train.loop import Trainer
from train.mixture import variant_mixture
from train.model import Phi
from train.portions import Portion, budget_sequences, mixed_portions, repetition_warnings
from train.shape import Shape, flops_per_token, parameter_count
from train.shards import Header, Shard, read_header, write_shard
from train.tokenizer import (
    Texts,
    codegen_tokenizer,
    load_tokenizer,
    model_vocabulary,
    save_tokenizer,
    tokenizer_hash,
    trained_tokenizer,
)
from train.training_log import final_loss

# A finished model's facts: what is found here after an interruption is not trained again.
_FINISHED = "training.json"


def build_tokens(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    """Fill the folder `tokens`: the tokenizer, and a shard of each source's training split."""
    sources = recipe.used_sources()
    if recipe.train.threads is not None:  # of the Rust tokenizer; read when it first starts them
        os.environ.setdefault("RAYON_NUM_THREADS", str(recipe.train.threads))

    def texts(source: str) -> Iterator[str]:
        return (row["text"] for row in read_documents(run.folder(f"corpus/{source}"), "train", ["text"]))

    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder)
    elif recipe.tokenizer.kind == "codegen":
        tokenizer = codegen_tokenizer()
    else:
        say(f"  tokens: training a vocabulary of {recipe.tokenizer.vocabulary_size:,} tokens")
        streams: dict[str, Texts] = {source: partial(texts, source) for source in sources}
        tokenizer = trained_tokenizer(streams, recipe.tokenizer.vocabulary_size)
    save_tokenizer(tokenizer, folder)
    headers: dict[str, Header] = {}
    for source in sources:
        if (folder / f"{source}.json").is_file():  # written last: an interrupted run got past this one
            headers[source] = read_header(folder / f"{source}.json")
            continue
        facts = run.require(f"corpus/{source}").facts
        with bar(f"tokens/{source}", facts.get("train_documents", 0), "documents") as progress:
            headers[source] = write_shard(folder, source, texts(source), tokenizer, progress)
    summary = ", ".join(
        f"{source} {header.tokens:,} ({header.bytes / header.tokens:.2f} bytes/token)"
        for source, header in headers.items()
    )
    return Built(
        summary=f"tokens by source: {summary}",
        facts={
            "kind": recipe.tokenizer.kind,
            "vocabulary_size": model_vocabulary(tokenizer, recipe.tokenizer.kind),
            "tokenizer": tokenizer_hash(tokenizer),
            "sources": {
                source: {
                    "train_tokens": header.tokens,
                    "train_documents": header.documents,
                    "train_bytes": header.bytes,
                    "bytes_per_token": round(header.bytes / header.tokens, 4),
                }
                for source, header in headers.items()
            },
        },
    )


def build_model(recipe: Recipe, variant: Variant, run: RunFolder, folder: Path) -> Built:
    """Fill the folder `models/<variant>`: train, or go on training, and export."""
    finished = folder / _FINISHED
    if not finished.is_file():
        facts = _train(recipe, variant, run, folder)
        write_json(finished, facts)
    remove_checkpoints(folder)
    facts = json.loads(finished.read_text(encoding="utf-8"))
    epochs = ", ".join(f"{source} {times:.2f} x" for source, times in facts["epochs"].items())
    return Built(
        summary=f"{facts['parameters']:,} parameters, {facts['tokens']:,} tokens ({epochs}), loss "
        f"{facts['final_loss']:.3f}, {facts['tokens_per_second']:,.0f} tokens/s",
        facts=facts,
    )


def _train(recipe: Recipe, variant: Variant, run: RunFolder, folder: Path) -> dict[str, Any]:
    tokens = run.folder("tokens")
    tokenizer = load_tokenizer(tokens)
    mark = tokenizer_hash(tokenizer)
    shards: dict[SourceName, Shard] = {source: Shard(tokens, source, mark) for source in recipe.used_sources()}
    available = {source: len(shard) for source, shard in shards.items()}
    mixed = mixed_portions(recipe, available)
    parts = mixed[variant.name]
    mixture = variant_mixture(recipe, variant, shards)
    for shard in mixture.shards.values():
        shard.verify()
    hardware = choose_hardware(recipe.train)
    shape = Shape.of(recipe.model, model_vocabulary(tokenizer, recipe.tokenizer.kind))
    _introduce(recipe, variant, parts, shape, hardware)
    model = Phi(shape)
    model.initialize(recipe.seed)
    seconds, skipped = Trainer(recipe, f"models/{variant.name}", model, mixture, hardware, folder).run()
    export_model(model, tokenizer, folder)
    loss = final_loss(folder)
    if loss is None:
        raise PrimerError(
            f"The loss of variant {variant.name!r} was not a number in the last tenth of its steps.",
            "Lower train.learning_rate, or set train.gradient_clip to 1.0 or train.precision to bf16.",
        )
    trained = budget_sequences(recipe) * recipe.model.context
    assert trained == sum(part.tokens for part in parts)  # the same for every variant, whatever its sources
    flops = flops_per_token(shape, causal=False)
    rate = trained / seconds
    return {
        "parameters": parameter_count(shape),
        "tokens": trained,
        "steps": trained // recipe.train.batch_tokens,
        "skipped_steps": skipped,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(rate, 1),
        "device": hardware.name,
        "precision": hardware.precision,
        "final_loss": loss,
        "epochs": {part.source: round(part.passes, 4) for part in parts},
        "tokens_by_source": {part.source: part.tokens for part in parts},
        "warnings": repetition_warnings(recipe, mixed)[variant.name],
        "mfu": round(rate * flops / hardware.peak_flops, 4) if hardware.peak_flops else None,
        "mfu_convention": f"attention over the full square, {flops / 1e9:.4g} GFLOP per token",
    }


def _introduce(recipe: Recipe, variant: Variant, parts: list[Portion], shape: Shape, hardware: Hardware) -> None:
    sequences = recipe.train.batch_tokens // recipe.model.context
    steps = budget_sequences(recipe) // sequences
    mixture = ", ".join(f"{part.share:.2%} {part.source} ({part.passes:.2f} passes)" for part in parts)
    say(
        f"  models/{variant.name}: {mixture}; {parameter_count(shape):,} parameters, {steps:,} steps of "
        f"{sequences:,} x {shape.context:,} tokens, {hardware.precision} on {hardware.name}"
    )
