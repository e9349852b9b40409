"""DeepSpeed's ZeRO stage 2: gradients and optimizer state are divided among the processes (arXiv 1910.02054).

phi-1.5 was trained so, in fp16 (arXiv 2309.05463, section 2.3). In 16-bit precisions the model computes in its own
16-bit weights, without autocast; float32 weights, gradients and moments lie in each process's part.
"""

from __future__ import annotations

import atexit
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from primer.errors import require
from primer.recipe_train import Train
from train.engine import MOMENTS, LossModule, Outcome, copied
from train.hardware import Hardware
from train.model import Phi
from train.optimizer import make_optimizer
from train.world import World

# Gradients that are summed over the processes at a time. A block of phi-1.5 has 50.4 million: each sum (0.27 GB in
# float32) is large enough for a link's full rate, and there are a score of them behind the backward pass.
_BUCKET_ELEMENTS = 2**26

# The loss scale of fp16, by the rule and the defaults of torch.amp.GradScaler.
_FIRST_SCALE, _GROWTH_INTERVAL = 2.0**16, 2000


class DeepSpeedEngine:
    """One model on one device or several; see :class:`train.engine.Engine`.

    Args:
        model: With its weights, on its device; 16-bit precisions turn its weights into 16-bit ones.
        train: The recipe's section.
        hardware: Where it runs, and in which precision.
        world: With whom.

    Raises:
        PrimerError: If DeepSpeed is not installed.
    """

    def __init__(self, model: Phi, train: Train, hardware: Hardware, world: World) -> None:
        deepspeed = _imported(hardware, world)
        self.train, self.world = train, world
        self.parameters = dict(model.named_parameters())
        initial = [p.detach() for p in self.parameters.values()]  # DeepSpeed would keep them rounded to 16 bits
        self._deepspeed, *_ = deepspeed.initialize(
            model=LossModule(model),
            optimizer=make_optimizer(model, train),
            config=configuration(train, hardware, sum(p.numel() for p in initial)),
        )
        self._zero: Any = self._deepspeed.optimizer
        self._scale = self._zero.loss_scaler = LossScale(hardware.precision == "fp16")
        self._make_moments()
        for p, weight in zip(self.parameters.values(), initial, strict=True):
            _set(p, weight)

    def accumulate(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, *, last: bool) -> Tensor:
        """As :class:`train.engine.Engine` says; processes exchange gradients with every pass."""
        self._deepspeed.set_gradient_accumulation_boundary(last)
        loss: Tensor = self._deepspeed(tokens, targets, documents) / self.train.batch_tokens
        self._deepspeed.backward(loss)
        return loss.detach()

    def trial(self, tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        """A pass that nothing is exchanged in, so that it may fail on one process alone; to be followed by `clear`.

        Gradients stay whole, in the weights' precision; with this process's part of their sums, which real passes
        keep, that is no less memory than a real pass takes.
        """
        sums = [torch.empty_like(part) for part in self._zero.single_partition_of_fp32_groups]
        self._zero._coalesce_grad_reduction = self._deepspeed.inside_no_sync_ctxt = True
        try:
            return self.accumulate(tokens, targets, documents, last=False)
        finally:
            self._zero._coalesce_grad_reduction = self._deepspeed.inside_no_sync_ctxt = False
            del sums

    def step(self, rate: float, loss: Tensor, stop: bool) -> Outcome:
        """As :class:`train.engine.Engine` says."""
        numbers = torch.stack([loss, torch.tensor(float(stop), device=loss.device)])
        loss_value, stops = self.world.total(numbers).tolist()
        norm, taken = math.nan, False
        if math.isfinite(loss_value):
            for group in self._zero.param_groups:
                group["lr"] = rate
            self._deepspeed.step()  # not so where the norm is not finite
            norm, taken = float(self._zero._global_grad_norm), not self._zero.overflow
        else:
            self.clear()
        self._scale.follow(taken)
        return Outcome(loss_value, norm, taken, stops > 0, self._scale.cur_scale)

    def clear(self) -> None:
        """As :class:`train.engine.Engine` says; also after a pass that broke off."""
        zero = self._zero
        for bucket in zero.ipg_buckets.values():
            bucket.clear()
        zero.extra_large_param_to_reduce.clear()
        zero.params_already_reduced = [False] * len(zero.params_already_reduced)
        zero._release_ipg_buffers()
        for gradients in (zero.averaged_gradients, zero.all_grad_tensors):
            gradients.update(dict.fromkeys(gradients))
        zero.zero_grad()

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As :class:`train.engine.Engine` says; a parameter at a time, for which alone a device needs memory."""
        tensors: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            for kind, moment in {"model": None, **dict(zip(MOMENTS, MOMENTS, strict=True))}.items():
                whole = p.get_full_hp_param(moment)  # type: ignore[attr-defined]
                if self.world.first:
                    tensors[f"{kind}.{name}"] = copied(whole)
        if not self.world.first:
            return {}, {}
        if whole.device.type == "cuda":
            torch.cuda.synchronize()
        steps = next(int(moments["step"]) for moments in self._zero.optimizer.state.values())
        return tensors, {"optimizer_steps": steps, "scaler": self._scale.state()}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """As :class:`train.engine.Engine` says."""
        for name, p in self.parameters.items():
            _set(p, tensors[f"model.{name}"])
            for moment in MOMENTS:
                _set(p, tensors[f"{moment}.{name}"], moment)
        for moments in self._zero.optimizer.state.values():
            moments["step"].fill_(state["optimizer_steps"])
        self._zero.update_lp_params()
        if state["scaler"]:
            self._scale.restore(state["scaler"])
        self.clear()

    def finish(self) -> None:
        """Leave the model with its float32 weights, and without DeepSpeed."""
        weights = [p.get_full_hp_param() for p in self.parameters.values()]  # type: ignore[attr-defined]
        self._deepspeed.destroy()
        for p, weight in zip(self.parameters.values(), weights, strict=True):
            p.data = weight

    def _make_moments(self) -> None:
        """AdamW's state as before its first step: there to be read and set, and there when memory is tried out."""
        for part in self._zero.single_partition_of_fp32_groups:
            step = torch.zeros((), device=part.device)
            self._zero.optimizer.state[part] = {"step": step, **{kind: torch.zeros_like(part) for kind in MOMENTS}}
        self._zero._lazy_init_hp_params_optimizer_state()


class LossScale:
    """The loss scale of fp16 in the place of DeepSpeed's, which unscales by the new scale in the step it grows."""

    dynamic = False  # what DeepSpeed asks of it: this, `cur_scale`, `scale_loss` and `update_scale`

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.cur_scale = _FIRST_SCALE if enabled else 1.0
        self._good_steps = 0  # since the scale last changed

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss * self.cur_scale

    def update_scale(self, overflow: bool) -> None:
        """Nothing: called in the midst of a step."""

    def follow(self, taken: bool) -> None:
        """After a step: half the scale if it was not taken, double it after many that were."""
        if not self.enabled:
            return
        self._good_steps = self._good_steps + 1 if taken else 0
        if not taken:
            self.cur_scale /= 2
        elif self._good_steps == _GROWTH_INTERVAL:
            self.cur_scale, self._good_steps = 2 * self.cur_scale, 0

    def state(self) -> dict[str, Any] | None:
        return {"scale": self.cur_scale, "growth_tracker": self._good_steps} if self.enabled else None

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.enabled:
            self.cur_scale, self._good_steps = float(state["scale"]), int(state["growth_tracker"])


def _imported(hardware: Hardware, world: World) -> Any:
    """DeepSpeed, with what it wants to find around it."""
    os.environ["DS_ACCELERATOR"] = hardware.device.type  # else it takes a GPU wherever there is one
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    deepspeed: Any = require(
        "deepspeed", install="pip install 'primer-lab[deepspeed]'", purpose="train.engine: deepspeed"
    )
    # Sums through shared memory of its own would be compiled now; gloo has them.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # It calls what PyTorch 2.13 would call by another name.
    warnings.filterwarnings("ignore", message=r".*all_gather_into_tensor. is deprecated", category=FutureWarning)
    if not distributed.is_initialized():  # a group even for one process
        backend = "cpu:gloo,cuda:nccl" if hardware.device.type == "cuda" else "gloo"
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=world.rank, world_size=world.size)
        atexit.register(_leave_group)
    return deepspeed


def _leave_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def configuration(train: Train, hardware: Hardware, parameters: int) -> dict[str, Any]:
    """What DeepSpeed is told.

    Args:
        train: The recipe's section.
        hardware: For the precision.
        parameters: How many the model has.
    """
    settings: dict[str, Any] = {
        # The loop divides a step into passes. A pass's loss is already its share of the step's mean, so gradients are
        # summed, over passes and processes; these numbers scale nothing.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_allreduce_op": "sum",
        "gradient_clipping": train.gradient_clip or 0.0,
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",  # 16-bit sums over many processes would lose digits
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(_BUCKET_ELEMENTS, parameters),
        },
        "timers": {"throughput": {"enabled": False}},  # they would wait for the GPU in every pass
    }
    if hardware.precision == "fp16":
        settings["fp16"] = {"enabled": True, "loss_scale": _FIRST_SCALE}
    elif hardware.precision == "bf16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
    return settings


def _set(parameter: Any, whole: Tensor, moment: str | None = None) -> None:
    """Set this process's part of a parameter's float32 weights, or of a moment of theirs."""
    parameter.set_full_hp_param(whole, moment)
