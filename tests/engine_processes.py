"""What the processes of `test_train_engines` do: the same training by one engine after the other.

Run as a program by each process of a world (RANK, WORLD_SIZE ...), with the folder for the results as its argument.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_samples import recipe

from train import deepspeed_engine
from train.engine import Engine, Outcome, TorchEngine
from train.hardware import Hardware
from train.model import Phi
from train.shape import Shape
from train.world import World, join_world, leave_world

STEPS, HALF = 6, 3
SEQUENCES, CONTEXT, VOCABULARY = 8, 16, 64
CLIP = 0.5  # gradients' norms are above it here, so every step is clipped

# A mixture of so many experts that a pass of two sequences leaves some without a token.
EXPERTS: dict[str, Any] = {
    "norm": "rms",
    "mlp": "swiglu",
    "block": "sequential",
    "biases": False,
    "rotary_dimension": 8,
    "feed_forward": 16,
    "experts": 24,
}

PRECISIONS = ("fp32", "bf16", "fp16")

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]


def model_and_engine(kind: str, precision: str, world: World, **options: Any) -> tuple[Phi, Engine]:
    """A fresh model, the same every time, and its engine; options are the model's."""
    sample = recipe(
        model={"context": CONTEXT, **options},
        train={"batch_tokens": SEQUENCES * CONTEXT, "gradient_clip": CLIP, "epsilon": 1e-4},
    )
    model = Phi(Shape.of(sample.model, VOCABULARY))
    model.initialize(3)
    hardware = Hardware(torch.device("cpu"), precision, "CPU", None)
    if kind == "torch":
        return model, TorchEngine(model, sample.train, hardware, world)
    from train.deepspeed_engine import DeepSpeedEngine

    return model, DeepSpeedEngine(model, sample.train, hardware, world)


def passes(step: int, world: World) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
    """A process's passes of a step: its share of the same sequences, two at a time."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(VOCABULARY, (SEQUENCES, 1), generator=generator) + 5 * torch.arange(CONTEXT + 1)
    rows %= VOCABULARY - step % 2
    documents = (torch.arange(CONTEXT) >= 5 + step).int().expand(SEQUENCES, CONTEXT)  # two in each row
    share = SEQUENCES // world.size
    end = (world.rank + 1) * share
    for start in range(world.rank * share, end, 2):
        part = slice(start, start + 2)
        yield rows[part, :-1], rows[part, 1:], documents[part], start + 2 == end


def take_step(engine: Engine, step: int, world: World, stop: bool = False) -> Outcome:
    loss = torch.zeros(())
    for tokens, targets, documents, last in passes(step, world):
        loss += engine.accumulate(tokens, targets, documents, last=last)
    return engine.step(1e-2 / (step + 1), loss, stop)


def take_steps(engine: Engine, first: int, stop: int, world: World) -> list[dict[str, Any]]:
    return [asdict(take_step(engine, step, world)) for step in range(first, stop)]


def save(path: Path, snapshot: Snapshot) -> None:
    tensors, state = snapshot
    if tensors:
        save_file(tensors, path.with_suffix(".safetensors"))
        path.with_suffix(".json").write_text(json.dumps(state), encoding="utf-8")


def load(path: Path) -> Snapshot:
    state = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return load_file(path.with_suffix(".safetensors")), state


@contextmanager
def spoilt(model: Phi, spoil: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put the model's loss through a function."""
    whole = model.loss
    model.loss = lambda *given: spoil(whole(*given))  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.loss


def spoil_gradient(loss: Tensor) -> Tensor:
    loss.register_hook(lambda gradient: gradient * math.inf)
    return loss


def reference(precision: str, folder: Path) -> list[dict[str, Any]]:
    """Plain PyTorch on one process, here."""
    _, engine = model_and_engine("torch", precision, World())
    save(folder / f"torch-{precision}-1-begun", engine.snapshot())
    outcomes = take_steps(engine, 0, HALF, World())
    save(folder / f"torch-{precision}-1-middle", engine.snapshot())
    outcomes += take_steps(engine, HALF, STEPS, World())
    save(folder / f"torch-{precision}-1-end", engine.snapshot())
    return outcomes


SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "both": lambda loss: loss * math.nan,
    "gradient": spoil_gradient,
    "loss": lambda loss: loss + math.nan,  # the gradient is as it would be
}


def compare_runs(kind: str, precision: str, world: World, folder: Path) -> dict[str, Any]:
    """An uninterrupted run, and runs that go on from its snapshot and from the one of plain PyTorch."""
    _, engine = model_and_engine(kind, precision, world)
    begun = engine.snapshot()
    found: dict[str, Any] = {"first": take_steps(engine, 0, HALF, world)}
    middle = engine.snapshot()
    found["second"] = take_steps(engine, HALF, STEPS, world)
    save(folder / f"{kind}-{precision}-{world.size}-begun", begun)
    save(folder / f"{kind}-{precision}-{world.size}-middle", middle)
    save(folder / f"{kind}-{precision}-{world.size}-end", engine.snapshot())
    world.all(True)  # rank 0 has written it
    for name in (f"{kind}-{precision}-{world.size}", f"torch-{precision}-1"):
        _, engine = model_and_engine(kind, precision, world)
        take_step(engine, 0, world)  # there is something to overwrite
        engine.restore(*load(folder / f"{name}-middle"))
        found[f"after {name}"] = take_steps(engine, HALF, STEPS, world)
        save(folder / f"{kind}-{precision}-{world.size}-after-{name}", engine.snapshot())
    return found


def meet_nan(kind: str, precision: str, world: World) -> dict[str, Any]:
    """Losses and gradients that are not finite, on the last process alone."""
    model, engine = model_and_engine(kind, precision, world)
    found: dict[str, Any] = {"before": asdict(take_step(engine, 0, world))}
    for name, spoil in SPOILT.items():
        tensors, state = engine.snapshot()
        with spoilt(model, spoil if world.rank == world.size - 1 else lambda loss: loss):
            found[name] = asdict(take_step(engine, 1, world))
        tensors_after, state_after = engine.snapshot()
        found[f"{name} changed"] = [key for key, tensor in tensors.items() if not tensor.equal(tensors_after[key])]
        found[f"{name} steps"] = [state.get("optimizer_steps"), state_after.get("optimizer_steps")]
    found["after"] = asdict(take_step(engine, 1, world))
    return found


def try_passes(world: World) -> dict[str, Any]:
    """Trial passes, one of which breaks off, on the last process alone; then the training as if nothing had been."""
    from train.deepspeed_engine import DeepSpeedEngine

    model, engine = model_and_engine("deepspeed", "bf16", world)
    assert isinstance(engine, DeepSpeedEngine)
    tokens, targets, documents, _ = next(passes(0, world))
    loss = engine.trial(tokens, targets, documents).item()
    engine.clear()
    hook = model.blocks[0].register_forward_hook(break_off)
    with pytest.raises(MemoryError):  # on all alike
        engine.accumulate(tokens, targets, documents, last=False)
    engine.clear()
    if world.rank == world.size - 1:
        with pytest.raises(MemoryError):
            engine.trial(tokens, targets, documents)
        engine.clear()
    hook.remove()
    if world.rank == world.size - 1:
        engine.trial(tokens, targets, documents)
        engine.clear()
    found = {"trial": loss, "steps": take_steps(engine, 0, HALF, world)}
    tensors, _ = engine.snapshot()
    engine.finish()
    weights = dict(model.named_parameters())
    found["unlike the snapshot"] = [
        key for key, p in weights.items() if tensors and not p.equal(tensors[f"model.{key}"])
    ]
    left = weakref.ref(engine._deepspeed)
    del engine
    gc.collect()
    found["released"] = left() is None
    found["dtypes"] = sorted({str(p.dtype) for p in model.parameters()})
    return found


def break_off(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    """Let the backward pass raise once it has come to this output, as one does that runs out of memory."""

    def fail(_: Tensor) -> None:
        raise MemoryError

    output.register_hook(fail)


def work(folder: Path) -> None:
    """All that one process does."""
    torch.set_num_threads(1)
    world = join_world()
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("LOCAL_RANK", str(world.local_rank))
        # DeepSpeed has an optimizer compiled that nobody uses: seconds.
        patch.setattr(torch, "compile", lambda function=None, **_: function or (lambda same: same))
        from deepspeed.accelerator import get_accelerator

        patch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)  # slow on a CPU, but not wrong
        patch.setattr(deepspeed_engine, "_BUCKET_ELEMENTS", 1000)  # several, and parameters that are larger
        while not (folder / "ready").exists():  # the snapshots of plain PyTorch
            time.sleep(0.05)
        for kind in ("torch", "deepspeed") if world.size > 1 else ("deepspeed",):
            for precision in PRECISIONS:
                found[f"{kind} {precision}"] = compare_runs(kind, precision, world, folder)
                found[f"{kind} {precision} nan"] = meet_nan(kind, precision, world)
            _, engine = model_and_engine(kind, "fp32", world, **EXPERTS)
            found[f"{kind} experts"] = take_steps(engine, 0, HALF, world)
            _, engine = model_and_engine(kind, "fp32", world)
            found[f"{kind} stop"] = asdict(take_step(engine, 0, world, stop=world.rank == world.size - 1))
        found["trial"] = try_passes(world)
    (folder / f"found-{world.size}-{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    leave_world(world)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
