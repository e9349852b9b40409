"""The vLLM teacher: `vllm serve` as a child process, started, watched and always stopped."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from rich.markup import escape

from primer.errors import PrimerError
from primer.progress import bar
from primer.recipe import VllmTeacher

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.5
_SHOWN_LINES = 15
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: little is safe between fork and exec


@asynccontextmanager
async def serve_vllm(teacher: VllmTeacher) -> AsyncIterator[str]:
    """Run a vLLM server for as long as the context lasts.

    The server has its own process group: Ctrl-C at the terminal reaches Primer alone, which then stops the
    whole group. On Linux it also gets a signal should Primer be killed.

    Yields:
        The API's address, ending in /v1.

    Raises:
        PrimerError: If vLLM is not installed, stops by itself, or does not answer in time; with its last words.
    """
    executable = shutil.which("vllm", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if executable is None:
        raise PrimerError(
            "The recipe's teacher is vllm, but there is no `vllm` program here.",
            "On a machine with a GPU `make setup` installs it (or: pip install -e '.[vllm]'). Without one, use "
            "the embedded teacher.",
        )
    port = _free_port()
    command = [executable, "serve", teacher.model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", teacher.model, *teacher.arguments]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            await _wait_until_healthy(process, port, teacher.startup_seconds, log)
            yield f"http://127.0.0.1:{port}/v1"
        except PrimerError:
            if process.poll() is not None:
                raise _died(process, log) from None
            raise
        finally:
            _stop(process)


async def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, limit: float, log: IO[bytes]) -> None:
    started = time.monotonic()
    with bar("starting vLLM", limit, "seconds at most") as progress:
        while (waited := time.monotonic() - started) < limit:
            if process.poll() is not None:
                raise _died(process, log)
            if await asyncio.to_thread(_healthy, port):
                return
            progress.update(int(waited), escape(_last_lines(log, 1)[:60]))
            await asyncio.sleep(_POLL_SECONDS)
    raise PrimerError(
        f"vLLM did not answer within {limit:.0f} s. Its last lines:\n{_last_lines(log)}",
        "Give it longer with synth.teacher.startup_seconds, or mend what its lines name.",
    )


def _died(process: subprocess.Popen[bytes], log: IO[bytes]) -> PrimerError:
    return PrimerError(
        f"vLLM stopped by itself with exit status {process.returncode}. Its last lines:\n{_last_lines(log)}",
        "Mend what it names; synth.teacher.arguments are passed on to `vllm serve`.",
    )


def _healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to this machine
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers: politely, then for certain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _end_with_parent() -> None:
    """Ask Linux, in the child, for a SIGTERM when Primer dies: a server left behind would hold the whole GPU."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_lines(log: IO[bytes], lines: int = _SHOWN_LINES) -> str:
    # os.pread: the child writes through the same file position, which must not move.
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), 16_384, max(0, size - 16_384)).decode(errors="replace")
    return "\n".join(tail.splitlines()[-lines:])
