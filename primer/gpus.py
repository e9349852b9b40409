"""What is known of GPUs: peaks, memory and bandwidth, as data in `gpus.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from primer.recipe_plan import GpuName

_FILE = Path(__file__).with_name("gpus.yaml")


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        title: For people.
        name: A part of the device's name in PyTorch.
        tflops: Peak of 16-bit matrix products, without sparsity, in 10^12 operations a second.
        tflops_fp32: Peak of 32-bit arithmetic.
        memory: In GB (10^9 bytes).
        bandwidth: Of its memory, in GB/s.
        source: Where the figures stand.
    """

    title: str
    name: str
    tflops: float
    tflops_fp32: float
    memory: float
    bandwidth: float
    source: str


@cache
def known_gpus() -> dict[GpuName, Gpu]:
    """Every GPU by its name in recipes."""
    return {name: Gpu(**facts) for name, facts in yaml.safe_load(_FILE.read_text(encoding="utf-8")).items()}
