"""Engines: how a step is computed, on one device or on many. The loop (`train.loop`) knows only the protocol.

Every engine gives and takes its whole state under the same names: `model.<parameter>`, `exp_avg.<parameter>` and
`exp_avg_sq.<parameter>`, in float32 and full size. So a checkpoint moves between engines and numbers of processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from primer.recipe_train import Train
from train.hardware import Hardware
from train.model import Phi
from train.optimizer import make_optimizer
from train.world import World

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Outcome:
    """What a step came to, the same on every process.

    Attributes:
        loss: Mean over the batch, in nats a token.
        norm: The gradient's, before clipping.
        taken: Whether the weights moved; not so where loss or norm were not finite.
        stop: Whether some process was asked to stop.
        scale: The loss scale of fp16, after the step; 1 without one.
    """

    loss: float
    norm: float
    taken: bool
    stop: bool
    scale: float


class Engine(Protocol):
    """Computes the steps of one model; all calls are made by every process alike."""

    def accumulate(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, *, last: bool) -> Tensor:
        """Add a pass to the gradients.

        Args:
            tokens, targets: (sequences, context), on the device.
            documents: Number of each token's document, (sequences, context), to keep attention within; or None.
            last: Whether the step has no further pass.

        Returns:
            The pass's share of the step's mean loss on this process: a detached float32 scalar on the device.
        """

    def step(self, rate: float, loss: Tensor, stop: bool) -> Outcome:
        """Move the weights by the gradients of all processes, if loss and gradient are finite; clear the gradients.

        Args:
            rate: The learning rate.
            loss: This process's sum of what its passes returned.
            stop: Whether this process was asked to stop.
        """

    def trial(self, tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        """A pass in which nothing is exchanged, so that it may fail on one process alone; `clear` comes after it."""

    def clear(self) -> None:
        """Drop all gradients."""

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of the whole state on the CPU, for rank 0; other ranks may return empty ones."""

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go back to a snapshot, whichever engine took it; every process has it whole."""

    def finish(self) -> None:
        """Leave the model with its float32 weights; the engine is of no more use."""


class TorchEngine:
    """Plain PyTorch: one device, or `DistributedDataParallel` over several.

    Args:
        model: With its weights, on its device.
        train: The recipe's section.
        hardware: Where it runs, and in which precision.
        world: With whom.
    """

    def __init__(self, model: Phi, train: Train, hardware: Hardware, world: World) -> None:
        self.model, self.train, self.hardware, self.world = model, train, hardware, world
        self.parameters = dict(model.named_parameters())
        self.optimizer = make_optimizer(model, train)
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.precision == "fp16")
        self._loss: nn.Module = LossModule(model)
        if world.size > 1:
            self._loss = DistributedDataParallel(
                self._loss,
                device_ids=[hardware.device] if hardware.device.type == "cuda" else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )

    def accumulate(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, *, last: bool) -> Tensor:
        """As :class:`Engine` says; processes exchange gradients with the last pass."""
        alone = last or self.world.size == 1
        with nullcontext() if alone else cast(DistributedDataParallel, self._loss).no_sync():
            with torch.autocast(
                self.hardware.device.type, self.hardware.dtype, enabled=self.hardware.precision != "fp32"
            ):
                loss: Tensor = self._loss(tokens, targets, documents) / self.train.batch_tokens
            # The exchange takes the mean over the processes; their sum is wanted.
            self.scaler.scale(loss * self.world.size).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def trial(self, tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        """As :class:`Engine` says; beside gradients of passes before it, and moments, which may not be there yet."""
        missing = [] if self.optimizer.state else list(self.parameters.values())
        moments = [torch.empty_like(p) for p in missing for _ in MOMENTS]
        for p in self.parameters.values():
            p.grad = torch.zeros_like(p)
        try:
            return self.accumulate(tokens, targets, documents, last=False)
        finally:
            del moments

    def step(self, rate: float, loss: Tensor, stop: bool) -> Outcome:
        """As :class:`Engine` says."""
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        wish = torch.tensor(float(stop), device=loss.device)
        numbers = self.world.total(torch.stack([loss, norm / self.world.size, wish]))
        # The CPU waits for the GPU once a step: here. (In fp16 once more, below, for the loss scale.)
        loss_value, norm_value, stops = numbers.tolist()
        finite = math.isfinite(loss_value) and math.isfinite(norm_value)
        if finite and self.train.gradient_clip is not None:
            clip_grads_with_norm_(self.parameters.values(), self.train.gradient_clip, norm)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.clear()
        return Outcome(loss_value, norm_value, finite, stops > 0, self.scaler.get_scale())

    def clear(self) -> None:
        """As :class:`Engine` says."""
        # Of several processes they lie in what is exchanged: let go, they would be there once more in the next step.
        self.optimizer.zero_grad(set_to_none=self.world.size == 1)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As :class:`Engine` says; ranks but the first give nothing."""
        if not self.world.first:
            return {}, {}
        tensors = {f"model.{name}": copied(p) for name, p in self.parameters.items()}
        steps = 0
        for name, p in self.parameters.items():
            moments = self.optimizer.state.get(p)
            if moments:
                steps = int(moments["step"])
                tensors.update({f"{kind}.{name}": copied(moments[kind]) for kind in MOMENTS})
            else:  # before the first step
                tensors.update({f"{kind}.{name}": torch.zeros(p.shape) for kind in MOMENTS})
        if self.hardware.device.type == "cuda":
            torch.cuda.synchronize()
        scaler = self.scaler.state_dict() if self.scaler.is_enabled() else None
        kept = {"scale": scaler["scale"], "growth_tracker": scaler["_growth_tracker"]} if scaler else None
        return tensors, {"optimizer_steps": steps, "scaler": kept}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """As :class:`Engine` says."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"model.{name}"])
                moments = {kind: torch.empty_like(p).copy_(tensors[f"{kind}.{name}"]) for kind in MOMENTS}
                step = torch.tensor(float(state["optimizer_steps"]), device=p.device)
                self.optimizer.state[p] = {"step": step, **moments}
        scaler = state["scaler"]
        if scaler and self.scaler.is_enabled():
            whole = {**self.scaler.state_dict(), "scale": scaler["scale"], "_growth_tracker": scaler["growth_tracker"]}
            self.scaler.load_state_dict(whole)
        self.clear()

    def finish(self) -> None:
        """As :class:`Engine` says: they never were anything else."""


class LossModule(nn.Module):
    """A model's loss as a module's forward pass, which is what several processes wrap."""

    def __init__(self, model: Phi) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        """As `Phi.loss`."""
        return self.model.loss(tokens, targets, documents)


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU; from a GPU into page-locked memory, which PyTorch keeps for the next one."""
    if tensor.device.type != "cuda":
        return tensor.detach().clone()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor.detach(), non_blocking=True)


def make_engine(model: Phi, train: Train, hardware: Hardware, world: World) -> Engine:
    """The engine that a recipe asks for.

    Raises:
        PrimerError: If it is DeepSpeed, and that is not installed.
    """
    if train.engine == "torch":
        return TorchEngine(model, train, hardware, world)
    from train.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, train, hardware, world)
