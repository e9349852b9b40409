"""How many workers a Ray cluster has room for, and what each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from primer.errors import PrimerError
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, Teacher, VllmTeacher
from synth.presets import resolve

# Of `vllm serve`, the flags whose product is the number of GPUs of one server.
_GPU_FLAGS = {
    "--tensor-parallel-size": 0,
    "-tp": 0,
    "--pipeline-parallel-size": 1,
    "-pp": 1,
    "--data-parallel-size": 2,
    "-dp": 2,
}


@dataclass(frozen=True)
class Node:
    """What is free on one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Layout:
    """The workers of a run.

    Attributes:
        workers: How many.
        cpus, gpus: What Ray sets aside for each.
        teacher: What each opens.
    """

    workers: int
    cpus: int
    gpus: int
    teacher: Teacher


def lay_out(teacher: Teacher, nodes: Sequence[Node], workers: int | None) -> Layout:
    """Share a cluster out among workers.

    A vLLM server takes the GPUs that its arguments say; llama.cpp the recipe's threads, or an equal part of the
    cores; a client of an endpoint next to nothing.

    Args:
        teacher: The recipe's.
        nodes: What is free on each node.
        workers: How many are wanted; null: one for each server's worth of free GPUs (vllm) or of the recipe's threads
            (embedded), or else one a node.

    Raises:
        PrimerError: If there is no room for them.
    """
    if isinstance(teacher, EndpointTeacher):
        return Layout(workers or max(1, len(nodes)), 0, 0, teacher)
    if isinstance(teacher, VllmTeacher):
        return _fitted(teacher, nodes, workers, cpus=1, gpus=gpus_of(teacher))
    if teacher.threads is not None:
        return _fitted(teacher, nodes, workers, cpus=teacher.threads, gpus=0)
    wanted = workers or max(1, len(nodes))
    most = int(max((node.cpus for node in nodes), default=0))
    cpus = next((cpus for cpus in range(most, 0, -1) if _room(nodes, cpus, 0) >= wanted), 1)
    layout = _fitted(teacher, nodes, wanted if workers else None, cpus, gpus=0)
    return Layout(min(layout.workers, wanted), cpus, 0, _with_threads(teacher, cpus))


def gpus_of(teacher: VllmTeacher) -> int:
    """GPUs of one server: the product of its parallel sizes."""
    words = [word for argument in resolve(teacher).arguments for word in argument.split("=", 1)]
    sizes = [1, 1, 1]
    for flag, value in pairwise(words):
        name = flag.replace("_", "-")
        if name in _GPU_FLAGS and value.isdecimal():
            sizes[_GPU_FLAGS[name]] = int(value)
    return sizes[0] * sizes[1] * sizes[2]


def _with_threads(teacher: EmbeddedTeacher, threads: int) -> EmbeddedTeacher:
    return teacher.model_copy(update={"threads": threads})


def _fitted(teacher: Teacher, nodes: Sequence[Node], workers: int | None, cpus: int, gpus: int) -> Layout:
    room = _room(nodes, cpus, gpus)
    if room < (workers or 1):
        needs = f"{gpus} GPU{'s' * (gpus > 1)} and {cpus} CPU" if gpus else f"{cpus} CPU{'s' * (cpus > 1)}"
        free = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "no node at all"
        raise PrimerError(
            f"The Ray cluster has room for {room} of {workers or 1} workers, each of which needs {needs} on one node. "
            f"Free on each node: {free}.",
            "Wait until others have finished (`ray status`), add nodes, ask for fewer with --ray-workers, or for less "
            "in synth.teacher (threads; --tensor-parallel-size).",
        )
    return Layout(workers or room, cpus, gpus, teacher)


def _room(nodes: Sequence[Node], cpus: int, gpus: int) -> int:
    return sum(
        min(int(node.cpus // cpus), int(node.gpus // gpus)) if gpus else int(node.cpus // cpus) for node in nodes
    )
