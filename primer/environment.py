"""What this machine and its Python installation offer."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: little is safe between fork and exec


def end_with_parent() -> None:
    """Ask Linux, in a child, for a SIGTERM when its parent dies: one left behind would hold memory, GPUs and files."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def package_folders(name: str) -> list[Path]:
    """Folders of an installed package, found without importing it; none if it is not installed.

    For packages whose data files are wanted and whose own dependencies are not installed (requirements-bundled.txt).
    """
    found = importlib.util.find_spec(name)
    return [Path(folder) for folder in found.submodule_search_locations or ()] if found else []


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Where results that can always be made again are kept between commands: below $XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "primer"


def save_cache(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file of the cache, whole or not at all. Where that fails the next command does the work again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
