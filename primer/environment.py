"""What this machine and its Python installation offer."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


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
