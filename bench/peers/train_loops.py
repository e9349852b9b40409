"""The training loops of train_speed.py, each run in a process of its own: `train_loops.py LOOP SHAPE TOKENS THREADS`.

Runs with the Python of the package it measures, so what it imports on top is PyTorch and numpy alone. Every loop takes
the same sequences from the same file of random ids (uint16), clips the gradient's norm at 1 as each of these trainers
does by itself, and calls `Clock.tick` after every step. One line of JSON tells the seconds after the warm-up.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HEAD, ROTARY = 32, 16  # dimensions
WARM_UP = 3
# phi-1.5's (arXiv 2309.05463, section 2.3).
RATE, BETAS, EPSILON, DECAY, CLIP = 2e-4, (0.9, 0.98), 1e-7, 0.1, 1.0


@dataclass(frozen=True)
class Sizes:
    """A phi of heads of 32, and what a step of its training holds."""

    layers: int
    heads: int
    context: int
    vocabulary: int
    sequences: int
    steps: int  # that are measured

    @property
    def width(self) -> int:
        return self.heads * HEAD

    @property
    def needed(self) -> int:
        """Sequences of a whole run."""
        return (WARM_UP + self.steps) * self.sequences


SHAPES = {
    "1.8M": Sizes(layers=4, heads=4, context=256, vocabulary=4096, sequences=16, steps=16),
    "10M": Sizes(layers=8, heads=8, context=512, vocabulary=8192, sequences=8, steps=8),
}


@dataclass
class Clock:
    """Notes the time after each step."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def tick(self) -> None:
        self.wall.append(time.monotonic())
        self.cpu.append(time.process_time())

    def figures(self) -> dict[str, float]:
        """Seconds of the steps after the warm-up."""
        return {"wall": self.wall[-1] - self.wall[WARM_UP - 1], "cpu": self.cpu[-1] - self.cpu[WARM_UP - 1]}


class Rows:
    """The sequences, (context + 1) ids each, as a map-style data set of what Hugging Face's models take."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        self.ids = np.memmap(path, dtype="<u2", mode="r")
        self.sizes = sizes

    def __len__(self) -> int:
        return self.sizes.needed

    def row(self, number: int) -> Tensor:
        start = number * self.sizes.context
        return torch.from_numpy(self.ids[start : start + self.sizes.context + 1].astype(np.int64))

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        tokens = self.row(number)[:-1]
        return {"input_ids": tokens, "labels": tokens}

    def batch(self, step: int) -> Tensor:
        """(sequences, context + 1)."""
        first = step * self.sizes.sequences
        return torch.stack([self.row(first + number) for number in range(self.sizes.sequences)])


def ours(sizes: Sizes, path: Path, threads: int, clock: Clock, *, compile_: bool = False) -> None:
    """Primer's engine, and its batches out of a shard."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from random_tokens import random_mixture

    from primer.recipe_train import Train
    from train.batches import Batches
    from train.cpu import prepare_cpu
    from train.engine import make_engine
    from train.hardware import choose_hardware
    from train.model import Phi
    from train.shape import Shape
    from train.world import World

    prepare_cpu(threads)
    shape = Shape(sizes.layers, sizes.heads, HEAD, ROTARY, 4 * sizes.width, sizes.context, sizes.vocabulary)
    train = Train(device="cpu", batch_tokens=sizes.sequences * sizes.context, gradient_clip=CLIP)
    hardware = choose_hardware(train)
    model = Phi(shape).train()
    model.initialize(0)
    if compile_:
        model.compile(dynamic=False)
    engine = make_engine(model, train, hardware, World())
    mixture = random_mixture(path.parent, sizes.vocabulary, sizes.context, sizes.needed)
    batches = Batches(mixture, sizes.sequences, World(), hardware.device, documents=False)
    gc.disable()  # as the trainer's loop does
    for step in range(WARM_UP + sizes.steps):
        total = torch.zeros(())
        for each in batches.passes(step, sizes.sequences):
            total += engine.accumulate(each.tokens, each.targets, each.documents, last=each.last)
        engine.step(RATE, total, stop=False)
        clock.tick()


def ours_compiled(sizes: Sizes, path: Path, threads: int, clock: Clock) -> None:
    """The same with `train.compile`."""
    ours(sizes, path, threads, clock, compile_=True)


def _hugging_face(sizes: Sizes) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=4 * sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.context,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": ROTARY / HEAD},
        use_cache=False,
    )
    return PhiForCausalLM(config).train()


def hugging_face_trainer(sizes: Sizes, path: Path, threads: int, clock: Clock) -> None:
    """`transformers.Trainer` with its own settings but the optimiser's, and neither logs nor checkpoints."""
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.set_verbosity_error()

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    arguments = TrainingArguments(
        output_dir=str(path.parent / "trainer"),
        per_device_train_batch_size=sizes.sequences,
        max_steps=WARM_UP + sizes.steps,
        learning_rate=RATE,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        weight_decay=DECAY,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    Trainer(_hugging_face(sizes), arguments, train_dataset=Rows(path, sizes), callbacks=[Ticks()]).train()


def hugging_face_bare(sizes: Sizes, path: Path, threads: int, clock: Clock) -> None:
    """`PhiForCausalLM` and `torch.optim.AdamW` as a tutorial would put them together."""
    torch.set_num_threads(threads)
    model, rows = _hugging_face(sizes), Rows(path, sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
    for step in range(WARM_UP + sizes.steps):
        tokens = rows.batch(step)[:, :-1]
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick()


def litgpt(sizes: Sizes, path: Path, threads: int, clock: Clock, *, compile_: bool = False) -> None:
    """litgpt's phi under Lightning Fabric, with the calls that its pretraining makes."""
    import lightning
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer

    torch.set_num_threads(threads)
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    config = Config.from_name(
        "phi-1_5",
        vocab_size=sizes.vocabulary,
        padded_vocab_size=sizes.vocabulary,
        block_size=sizes.context,
        n_embd=sizes.width,
        n_head=sizes.heads,
        n_layer=sizes.layers,
        intermediate_size=4 * sizes.width,
    )
    model = GPT(config)
    model.apply(model._init_weights)
    model = fabric.setup(torch.compile(model) if compile_ else model)
    settings = {"lr": RATE, "betas": BETAS, "eps": EPSILON, "weight_decay": DECAY, "fused": False}
    asked = {"class_path": "torch.optim.AdamW", "init_args": settings}
    optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(asked, model.parameters()))
    rows = Rows(path, sizes)
    for step in range(WARM_UP + sizes.steps):
        batch = rows.batch(step)
        loss = chunked_cross_entropy(model(batch[:, :-1].contiguous()), batch[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=CLIP)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()


def litgpt_compiled(sizes: Sizes, path: Path, threads: int, clock: Clock) -> None:
    """The same compiled, which litgpt's pretraining always does."""
    litgpt(sizes, path, threads, clock, compile_=True)


def nanogpt(sizes: Sizes, path: Path, threads: int, clock: Clock) -> None:
    """nanoGPT's model and optimiser (GPT-2's architecture: blocks in sequence, learned positions, a tied head)."""
    sys.path.insert(0, os.environ["PRIMER_BENCH_NANOGPT"])
    from model import GPT, GPTConfig

    torch.set_num_threads(threads)
    model = GPT(
        GPTConfig(
            block_size=sizes.context,
            vocab_size=sizes.vocabulary,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            n_embd=sizes.width,
        )
    ).train()
    optimizer = model.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    rows = Rows(path, sizes)
    for step in range(WARM_UP + sizes.steps):
        batch = rows.batch(step)
        _, loss = model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick()


LOOPS: dict[str, tuple[Callable[[Sizes, Path, int, Clock], None], str]] = {  # the loop, and the package it measures
    "ours": (ours, "torch"),
    "ours-compiled": (ours_compiled, "torch"),
    "trainer": (hugging_face_trainer, "transformers"),
    "bare": (hugging_face_bare, "transformers"),
    "litgpt": (litgpt, "litgpt"),
    "litgpt-compiled": (litgpt_compiled, "litgpt"),
    "nanogpt": (nanogpt, "torch"),
}


def main() -> None:
    """Run one loop and print its figures."""
    name, shape, path, threads = sys.argv[1:]
    loop, package = LOOPS[name]
    torch.manual_seed(0)
    clock = Clock()
    loop(SHAPES[shape], Path(path), int(threads), clock)
    print(json.dumps({**clock.figures(), "version": f"{package} {version(package)}"}))


if __name__ == "__main__":
    main()
