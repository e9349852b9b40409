"""Checkpoints: everything a training needs to go on exactly as if it had not been stopped.

One file, `checkpoint-<step>-<hash>.pt`, in the stage's folder of half-done work. It is written under a temporary name
and renamed; its name carries the hash of its content, so a damaged one is recognised; only the newest is kept.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from primer.errors import PrimerError, disk_full

_NAME = re.compile(r"^checkpoint-(\d+)-([0-9a-f]{16})\.pt$")
_TEMPORARY = ".checkpoint.tmp"


class _HashingFile:
    """A binary file for writing that hashes what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint and remove older ones.

    Args:
        folder: Where to.
        step: Steps done.
        state: Tensors, numbers, strings, lists and dictionaries.

    Raises:
        PrimerError: If the disk is full; the checkpoint before stays.
    """
    temporary = folder / _TEMPORARY
    try:
        with temporary.open("wb") as file:
            hashing = _HashingFile(file)
            torch.save(state, cast(Any, hashing))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError) and disk_full(cause):
            raise PrimerError(
                f"The disk of {folder} is full; the checkpoint of step {step} was not written.",
                "Make room, then run the same command again: training goes on from the checkpoint before.",
            ) from None
        raise
    path = folder / f"checkpoint-{step:09d}-{hashing.digest.hexdigest()[:16]}.pt"
    temporary.replace(path)
    for other in _checkpoints(folder):
        if other != path:
            other.unlink()
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state, on the CPU; None if there is none.

    Raises:
        PrimerError: If it is damaged.
    """
    paths = _checkpoints(folder)
    if not paths:
        return None
    path = paths[-1]
    remedy = f"Delete {path} and run the same command again; the training of this model starts anew."
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if found != path.stem.rsplit("-", 1)[1]:
        raise PrimerError(f"The checkpoint {path} is damaged: its content does not match its name.", remedy)
    try:
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise PrimerError(f"The checkpoint {path} cannot be read: {error}", remedy) from None


def remove_checkpoints(folder: Path) -> None:
    """Delete all checkpoints: the model is finished."""
    for path in [*_checkpoints(folder), folder / _TEMPORARY]:
        path.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name))
