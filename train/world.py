"""The processes that train one model together: who they are, and how they agree."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import ProcessGroup

# A collective of a step is late after this; who waits for a corpus or a vocabulary waits on a channel of its own.
_LONGEST_STEP = timedelta(hours=1)
_LONGEST_PREPARATION = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """One process among those that train together.

    Attributes:
        rank: Its number; 0 reads, writes and speaks for all.
        size: How many there are.
        local_rank: Its number on this machine, which is also its GPU's.
        control: Where processes agree while no model is trained; None for one alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def told(self, value: Any = None) -> Any:
        """What rank 0 says (plain data); every process calls this, the others' values are not looked at."""
        if self.control is None:
            return value
        said = [value]
        distributed.broadcast_object_list(said, src=0, group=self.control)
        return said[0]

    def all(self, true: bool) -> bool:
        """Whether it is true for every process."""
        if self.control is None:
            return true
        untrue = torch.tensor([float(not true)])
        distributed.all_reduce(untrue, group=self.control)
        return not untrue.item()

    def any(self, true: bool) -> bool:
        """Whether it is true for some process; a third of what `told` takes."""
        return not self.all(not true)

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum of the processes' tensors, in place."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers


def join_world() -> World:
    """The world that torchrun, or `primer train --processes`, has put this process into; of its own, if none.

    Both say so by the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    backend = "gloo"
    if torch.cuda.is_available():
        if local_rank < torch.cuda.device_count():  # a training on CPUs may have more processes than there are GPUs
            torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_LONGEST_STEP)
    return World(rank, size, local_rank, distributed.new_group(backend="gloo", timeout=_LONGEST_PREPARATION))


def leave_world(world: World) -> None:
    """Part from the others, when all is done: with NCCL they wait for each other, so not after an error of one."""
    if world.size > 1:
        distributed.destroy_process_group()
