"""Errors meant for people: what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from types import ModuleType


class PrimerError(Exception):
    """An expected failure, shown without a traceback.

    Args:
        problem: What was wrong and where (file, line, key, value).
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        # What `Exception` is given is what pickle makes it again from: errors of worker processes arrive whole.
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"Did you mean a or b? "` with the known names closest to an unknown one; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}? " if close else ""


def disk_full(error: BaseException) -> bool:
    """Whether a failure means that no more can be written to a disk.

    Libraries that write from Rust or C++ (safetensors, torch, Arrow) report it in words of their own, with the
    operating system's sentence inside.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


def require(module: str, *, install: str, purpose: str) -> ModuleType:
    """Import an optional dependency where it is used.

    Raises:
        PrimerError: If it is not installed; the message names what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PrimerError(
            f"{purpose} needs the Python package {module!r}, which could not be imported ({error}).",
            f"Install it with: {install}",
        ) from error
