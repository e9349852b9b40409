"""Checkpoints: everything a training needs to go on, written while it goes on, and believed only when it is whole.

    <folder>/checkpoints/step-000000120/tensors.safetensors    weights and moments (see `train.tensor_file`)
                                        state.json             the rest, size and hash of the tensors, its own hash

A checkpoint is written below a temporary name, flushed, read back and compared; then it is renamed, and only then are
older ones removed. So a kill at any moment, a full disk or a flipped bit costs the steps since the one before, no more.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from primer.errors import PrimerError, disk_full
from primer.progress import say
from train.tensor_file import content_hash, pieces, write_pieces

TENSORS = "tensors.safetensors"
STATE = "state.json"

# One that its successor of the same step has just taken the place of is `.old` for a moment.
_NAME = re.compile(r"step-(\d{9,})(\.old)?")

# What reading gives where a file is gone, is no file, or lies on a bad part of the disk.
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole.

    Attributes:
        step: Steps done.
        path: Its folder.
        tensors: By name, mapped from the file; they stay valid when it is removed.
        state: What the caller saved beside them.
    """

    step: int
    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class _DamagedError(Exception):
    """A checkpoint is not what was written."""


class CheckpointStore:
    """The checkpoints of one training. Many processes may read them; one saves.

    Args:
        folder: The training's folder; they lie in `checkpoints` below it.
        keep_last: How many of the newest are kept.
        keep_every: Steps between those that are kept for good; None for none.
    """

    def __init__(self, folder: Path, keep_last: int, keep_every: int | None) -> None:
        self.folder = folder / "checkpoints"
        self.keep_last, self.keep_every = keep_last, keep_every
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint in the background; first wait for the one before.

        Args:
            step: Steps done. Checkpoints of later steps belong to a course that was given up, and are removed.
            tensors: On the CPU; nobody may change them from now on.
            state: JSON values, copied before this returns.

        Raises:
            PrimerError: If the one before could not be written.
        """
        self.wait()
        # Here and not in the thread, which must call nothing of torch: while the interpreter ends, a thread that comes
        # back from C++ or Rust to take the GIL again aborts the process.
        data, copied = pieces(tensors), json.loads(json.dumps(dict(state)))
        self._writer = threading.Thread(target=self._run, args=(step, data, copied), name="checkpoint", daemon=True)
        self._writer.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            PrimerError: If it could not be written; those before it are untouched.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def load(self, no_later_than: int | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones that are newer are said and set aside.

        Args:
            no_later_than: The latest step to go back to; None for any.

        Returns:
            None only if this training never had a checkpoint.

        Raises:
            PrimerError: If there are checkpoints, but none of them can be used.
        """
        self.wait()
        damaged: dict[Path, str] = {}
        for path in reversed(self._complete()):
            if no_later_than is not None and _step(path) > no_later_than:
                continue
            try:
                found = _read(path)
            except _DamagedError as error:
                damaged[path] = str(error)
                continue
            self._set_aside(damaged, found.step)
            return found
        problem = self._why_none(damaged, no_later_than)
        if problem is None:
            return None
        raise PrimerError(
            problem, f"Delete {self.folder} and run the same command again: the training of this model starts anew."
        )

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, ascending."""
        return sorted({_step(path) for path in self._complete()})

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps: their weights were found to be bad."""
        self.wait()
        for path in reversed(self._complete()):
            if _step(path) > step:
                _drop(path)

    def remove(self) -> None:
        """Delete what a finished model needs no more: all but the checkpoints that are kept for good."""
        self.wait()
        for path in self._complete():
            if not self._is_kept_for_good(_step(path)):
                _drop(path)
        for path in [*self.folder.glob("*.damaged"), *self.folder.glob(".step-*.tmp")]:
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # not empty, or never made
            self.folder.rmdir()

    def _run(self, step: int, data: Sequence[memoryview], state: dict[str, Any]) -> None:
        temporary = self.folder / f".step-{step:09d}.tmp"
        try:
            for stale in self.folder.glob(".step-*.tmp"):  # of a run that was killed
                shutil.rmtree(stale, ignore_errors=True)
            _write(temporary, step, data, state)
            self._publish(temporary, step)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._error = _unwritten(self.folder, step, error)
        except Exception as error:
            self._error = error

    def _publish(self, temporary: Path, step: int) -> None:
        final = self.folder / f"step-{step:09d}"
        replaced = final.with_name(f"{final.name}.old")
        if final.exists():  # the same step, reached again
            _drop(replaced)
            final.rename(replaced)
        temporary.rename(final)
        _flush_folder(self.folder)
        _flush_folder(self.folder.parent)
        _drop(replaced)
        every = self._complete()
        course = [path for path in every if _step(path) <= step]
        kept = {*course[-self.keep_last :], *(path for path in course if self._is_kept_for_good(_step(path)))}
        for path in every:
            if path not in kept:
                _drop(path)

    def _is_kept_for_good(self, step: int) -> bool:
        return self.keep_every is not None and step > 0 and step % self.keep_every == 0

    def _complete(self) -> list[Path]:
        """Checkpoints, oldest first; one that is just being replaced before its successor."""
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (_step(path), path.suffix != ".old"))

    def _set_aside(self, damaged: Mapping[Path, str], used: int) -> None:
        """Say which checkpoints are damaged; keep the newest of them for a person to look at."""
        for number, (path, reason) in enumerate(damaged.items()):
            if number:
                _drop(path)
                fate = "removed"
            else:
                for earlier in self.folder.glob("*.damaged"):
                    _drop(earlier)
                aside = path.with_name(f"{path.name}.damaged")
                with suppress(FileNotFoundError):  # another process was first
                    path.rename(aside)
                fate = f"set aside as {aside.name}"
            said = f"The checkpoint {path} is damaged ({reason}) and was {fate}; that of step {used:,} is used."
            say(f"[yellow]{escape(said)}[/]")

    def _why_none(self, damaged: Mapping[Path, str], no_later_than: int | None) -> str | None:
        if damaged:
            reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged.items())
            return f"No checkpoint in {self.folder} can be used ({reasons})."
        if steps := self.steps():
            return (
                f"{self.folder} has no checkpoint of step {no_later_than:,} or before; the earliest is of {steps[0]:,}."
            )
        aside = [path.name for path in self.folder.glob("*.damaged")]
        return f"{self.folder} has only a damaged checkpoint ({', '.join(aside)})." if aside else None


def _write(folder: Path, step: int, data: Sequence[memoryview], state: dict[str, Any]) -> None:
    """Write a checkpoint's files and make sure that they lie on the disk as they should."""
    folder.mkdir(parents=True)
    path = folder / TENSORS
    size, digest = write_pieces(path, data)
    if content_hash(path, from_disk=True) != digest:
        raise OSError(errno.EIO, "what was read back is not what was written")
    facts = {"step": step, "state": state, "tensors": {"bytes": size, "sha256": digest}}
    write_pieces(folder / STATE, [memoryview(_sealed(facts))])
    _flush_folder(folder)


def _read(path: Path) -> Checkpoint:
    """A checkpoint, if it is whole; tensors are looked at only where the state is whole, and loaded if both are."""
    file = path / STATE
    try:
        facts = _unsealed(file.read_bytes())
        if facts["step"] != _step(path):
            raise _DamagedError(f"it is of step {facts['step']:,}")
        file = path / TENSORS
        size, expected = file.stat().st_size, facts["tensors"]
        if size != expected["bytes"]:
            raise _DamagedError(f"{TENSORS} has {size:,} bytes instead of {expected['bytes']:,}")
        if content_hash(file) != expected["sha256"]:
            raise _DamagedError(f"{TENSORS} does not match its hash")
        return Checkpoint(_step(path), path, load_file(file), facts["state"])
    except SafetensorError as error:
        raise _DamagedError(f"{TENSORS}: {error}") from None
    except OSError as error:
        if error.errno in _LOST:
            raise _DamagedError(f"{file.name}: {error.strerror}") from None
        raise PrimerError(
            f"{file} cannot be read: {error.strerror}", "Put that right, then run the same command again."
        ) from None


def _sealed(facts: Mapping[str, Any]) -> bytes:
    """Facts as JSON, with a hash of themselves."""
    digest = hashlib.sha256(json.dumps(facts, indent=1).encode()).hexdigest()
    return json.dumps({**facts, "sha256": digest}, indent=1).encode() + b"\n"


def _unsealed(data: bytes) -> dict[str, Any]:
    """The reverse of `_sealed`; every byte is compared, so that even a change without meaning is found."""
    try:
        facts: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise _DamagedError(f"{STATE} is not JSON") from None
    if not isinstance(facts, dict) or not facts.pop("sha256", None) or _sealed(facts) != data:
        raise _DamagedError(f"{STATE} does not match its hash")
    return facts


def _unwritten(folder: Path, step: int, error: OSError) -> PrimerError:
    again = "then run the same command again: training goes on from the checkpoint before."
    if disk_full(error):
        return PrimerError(
            f"The disk of {folder} is full; the checkpoint of step {step:,} was not written.", f"Make room, {again}"
        )
    return PrimerError(
        f"The checkpoint of step {step:,} could not be written to {folder}: {error.strerror}.",
        f"Put that right, {again}",
    )


def _step(path: Path) -> int:
    return int(path.name.split("-")[1].split(".")[0])


def _drop(path: Path) -> None:
    """Remove a folder, if it is there; renamed first, so that a kill leaves no checkpoint without some of its files."""
    with suppress(OSError):
        path = path.rename(path.with_name(f".{path.name}.tmp"))
    shutil.rmtree(path, ignore_errors=True)  # what a network file system holds back goes with the next checkpoint


def _flush_folder(folder: Path) -> None:
    """Bring a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
