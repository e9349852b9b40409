"""Tensor files written without a copy and without a line of C++ or Rust in the thread that writes.

The format is safetensors' (https://github.com/huggingface/safetensors, section "Format"): eight bytes with the length
of a JSON header, the header (name to data type, shape and place), the tensors' bytes. Reading is the library's work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

# Bytes written, read or hashed between two looks at the GIL.
_STRIDE = 16 << 20


def pieces(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """A file's content: its header, then each tensor's own memory (contiguous, on the CPU)."""
    header: dict[str, Any] = {}
    data: list[memoryview] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):  # wide types first: all are aligned
        tensor = tensors[name]
        view = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + view.nbytes],
        }
        end += view.nbytes
        data.append(view)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *data]


def write_pieces(path: Path, data: Sequence[memoryview]) -> tuple[int, str]:
    """Write a file, flushed to disk; returns its size in bytes and the SHA-256 of what should be in it."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for part in _strides(data):
            digest.update(part)
            size += part.nbytes
            while part:  # a write may be short
                part = part[file.write(part) :]
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def content_hash(path: Path, *, from_disk: bool = False) -> str:
    """SHA-256 of a file's content.

    Args:
        path: The file.
        from_disk: Read what lies on the disk, not what the system still has of it in memory; nor leave it there,
            where it would push out the shards that training reads.
    """
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(_STRIDE, path.stat().st_size)))
    with path.open("rb", buffering=0) as file:
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _strides(data: Iterable[memoryview]) -> Iterable[memoryview]:
    for piece in data:
        for start in range(0, piece.nbytes, _STRIDE):
            yield piece[start : start + _STRIDE]
