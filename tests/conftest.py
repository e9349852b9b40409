"""What every test runs under: one thread, no model hub, no benchmark data unless the caller names it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from primer.errors import PrimerError
from primer.sandbox import Sandbox

# Set before torch and datasets are first imported by a test module.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# A test process inherits them from one that has loaded readline; rich would believe them over the terminal itself.
for _size in ("LINES", "COLUMNS"):
    os.environ.pop(_size, None)

# Tests that interrupt themselves must be heard, also where a shell's `&` had the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of real benchmark rows that $PRIMER_EVAL_DATA names."""
    folder = os.environ.get("PRIMER_EVAL_DATA")
    if not folder:
        pytest.skip("PRIMER_EVAL_DATA is not set: no real benchmark rows to compare with")
    return Path(folder)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox; tests that need it are skipped where user namespaces are forbidden."""
    try:
        opened = Sandbox().__enter__()
    except PrimerError as error:
        pytest.skip(f"this machine allows no sandbox: {error.problem}")
    yield opened
    opened.__exit__(None, None, None)
