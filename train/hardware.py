"""Which device and precision a training runs with, and how many sequences fit into one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from primer.errors import PrimerError
from primer.gpus import known_gpus
from primer.recipe_train import Train
from train.attention import LONGEST_EXPLICIT
from train.cpu import available_memory
from train.shape import Shape, parameter_count

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Tokens of a pass. On a CPU more only leaves the caches; on a GPU it is where the search for what fits begins.
_CPU_PASS_TOKENS = 4096
_CUDA_PASS_TOKENS = 131_072

_GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes.

    Attributes:
        device: The device.
        precision: `fp32`, `fp16` or `bf16`: of the matrix products; weights and optimizer state are float32.
        name: The device, for people.
        peak_flops: Its highest rate in this precision, in operations a second; None if not known.
    """

    device: torch.device
    precision: str
    name: str
    peak_flops: float | None

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch knows it."""
        return _DTYPES[self.precision]


def choose_hardware(train: Train, local_rank: int = 0) -> Hardware:
    """The device and precision that a recipe asks for.

    Args:
        train: The recipe's section.
        local_rank: Number of this process on its machine: which GPU it takes.

    Raises:
        PrimerError: If the machine does not have them.
    """
    gpu = torch.cuda.is_available()
    if train.device == "cuda" and not gpu:
        raise PrimerError(
            "train.device is cuda, but PyTorch sees no CUDA device here.",
            "Set train.device to auto or cpu, or install PyTorch for CUDA on a machine with an NVIDIA GPU.",
        )
    if train.device == "cpu" or not gpu:
        if train.precision in ("fp16", "bf16"):
            raise PrimerError(
                f"train.precision is {train.precision}, but this training runs on a CPU, where 16-bit products are "
                "many times slower than 32-bit ones.",
                "Set train.precision to auto or fp32, or train on a GPU.",
            )
        return Hardware(torch.device("cpu"), "fp32", "CPU", None)
    precision = "fp16" if train.precision == "auto" else train.precision
    if local_rank >= torch.cuda.device_count():
        raise PrimerError(
            f"This is process {local_rank + 1} on this machine, which has {torch.cuda.device_count()} GPU(s).",
            "Start one process for each GPU (--processes).",
        )
    name = torch.cuda.get_device_name(local_rank)
    return Hardware(torch.device("cuda", local_rank), precision, name, _peak(name, precision))


def _peak(name: str, precision: str) -> float | None:
    """Peak of matrix products of a GPU, in operations a second; None if it is not known."""
    gpu = next((gpu for gpu in known_gpus().values() if gpu.name in name), None)
    if gpu is None:
        return None
    return 1e12 * (gpu.tflops_fp32 if precision == "fp32" else gpu.tflops)


def first_micro_batch(shape: Shape, sequences: int, hardware: Hardware, processes: int = 1) -> int:
    """Sequences to try in one pass: as many as are useful, and on a CPU as fit.

    Args:
        shape: The model's.
        sequences: Of a step, for this process.
        hardware: What it computes on.
        processes: How many share a CPU's memory.

    Raises:
        PrimerError: If not even one sequence fits into the CPU's memory.
    """
    if hardware.device.type == "cuda":
        return even_split(sequences, max(1, _CUDA_PASS_TOKENS // shape.context))
    fixed, each = cpu_bytes(shape)
    available = available_memory() // processes
    if fixed + each > available:
        raise PrimerError(
            f"Training this model needs about {(fixed + each) / _GIB:.1f} GiB of memory ({parameter_count(shape):,} "
            f"parameters, context {shape.context:,}); {available / _GIB:.1f} GiB are free.",
            "Make the model smaller (model.layers, model.heads, model.context), or train on a larger machine.",
        )
    fitting = (available - fixed) // (2 * each)  # half of what is left: others use this machine too
    return even_split(sequences, max(1, min(_CPU_PASS_TOKENS // shape.context, fitting)))


def even_split(number: int, limit: int) -> int:
    """Size of the parts when `number` is divided as evenly as can be into parts of at most `limit`."""
    return math.ceil(number / math.ceil(number / limit))


def cpu_bytes(shape: Shape) -> tuple[int, int]:
    """Estimated bytes of training on a CPU: those of the model, and those of each sequence in a pass.

    The model: weights, gradients and two moments of 4 bytes, and a checkpoint's copies of all but the gradients while
    it is written. A sequence: what each block keeps for the backward pass (input, norm, query-key-value twice over,
    attention, its projection: about 10 widths; the MLP: twice its hidden layer), and the attention probabilities,
    twice, where they are kept.
    """
    place = shape.layers * (10 * shape.width + 2 * shape.feed_forward) + 6 * shape.width
    square = 2 * shape.layers * shape.heads * shape.context**2 if shape.context <= LONGEST_EXPLICIT else 0
    return 28 * parameter_count(shape), 4 * (place * shape.context + square)
