"""What makes PyTorch train fast on a CPU: threads, memory that is kept, and the faster matrix product."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from primer.environment import usable_cores

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

# Largest error of a product in single precision, relative to the largest entry; bfloat16 products err by over 1e-3.
_SINGLE_PRECISION_ERROR = 1e-5


def prepare_cpu(threads: int | None, processes: int = 1) -> None:
    """Set this process up for training on a CPU.

    Args:
        threads: How many to use; None means its share of the cores that it may run on.
        processes: How many share them.
    """
    torch.set_num_threads(threads or max(1, usable_cores() // processes))
    _keep_freed_memory()
    prefer_onednn()


def prefer_onednn() -> bool:
    """Let oneDNN compute float32 matrix products where it does so in full precision; returns whether it now does.

    PyTorch's own choice, MKL, leaves AVX-512 unused on AMD: 85 GFLOP/s a core where oneDNN reaches 200 (EPYC, Zen 5).
    The only setting that hands oneDNN the products also permits bfloat16 inside them, which CPUs with AMX make use
    of; so the setting stays only if products turn out exact to single precision.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
    except RuntimeError:  # a PyTorch built without oneDNN
        return False
    if all(_product_error(size) < _SINGLE_PRECISION_ERROR for size in (64, 512)):
        return True
    matmul.fp32_precision = before
    return False


def available_memory() -> int:
    """Bytes of memory that can still be taken without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 (a kernel interface, not a file)
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _product_error(size: int) -> float:
    generator = torch.Generator().manual_seed(size)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    return float(((a @ b).double() - exact).abs().max() / exact.abs().max())


def _keep_freed_memory() -> None:
    """Keep freed memory for the next step: giving large blocks back and clearing them anew costs a quarter of it."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library than glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
