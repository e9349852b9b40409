"""The vLLM teacher: `vllm serve` as a child process, started, watched and always stopped."""

from __future__ import annotations

import asyncio
import os
import re
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

from primer.environment import end_with_parent
from primer.errors import PrimerError
from primer.progress import console, say
from primer.recipe_synth import VllmTeacher
from synth.presets import ResolvedTeacher, resolve

# Where scripts/vllm.sh installs vLLM, below the current folder.
ENVIRONMENT = ".venv-vllm"

_STOP_SECONDS = 20.0
_WORKERS_SECONDS = 5.0
_POLL_SECONDS = 0.5
_LINE_SECONDS = 15.0  # between two lines where there is no terminal
_SHOWN_LINES = 15
_LOG_TAIL = 65_536
_STATUS_LENGTH = 60
# Hosts that mean every address of this machine.
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

# vLLM's own log lines: (EngineCore pid=9151) ERROR 11-22 16:26:59 [core.py:133] what happened
_LOG_PREFIX = re.compile(r"^\([^()]+ pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]+\] )?")
_CAUSE = re.compile(r"^[\w.]*(?:Error|Exception): (?!.*root cause)\S")  # not those that point to another


class VllmServer:
    """One `vllm serve`, from its start to the end of its last worker.

    It has its own process group: Ctrl-C at the terminal reaches Primer alone, which then stops the whole group. On
    Linux it also gets a signal should Primer be killed.

    Args:
        command: Program and arguments.
        host, port: Where it is told to listen.
        log: A file for what it prints.
    """

    def __init__(self, command: list[str], host: str, port: int, log: IO[bytes]) -> None:
        self.host, self.port = "127.0.0.1" if host in ANYWHERE else host, port
        self.startup_seconds: float | None = None
        self._log = log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )

    @property
    def root(self) -> str:
        """The server's address as this machine reaches it, without a path."""
        return self.address(self.host)

    def address(self, host: str) -> str:
        """The same for another name of this machine."""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def wait_until_healthy(self, limit: float) -> None:
        """Wait until it answers.

        Raises:
            PrimerError: If it stops by itself, or does not answer in time; with its last words.
        """
        started = time.monotonic()
        next_line = _LINE_SECONDS
        with console.status("starting vLLM") as status:
            while (waited := time.monotonic() - started) < limit:
                self.check()
                if await asyncio.to_thread(self._healthy):
                    self.startup_seconds = time.monotonic() - started
                    return
                line = escape(_without_prefix(self.last_lines(1))[:_STATUS_LENGTH])
                told = f"starting vLLM: {waited:.0f} s of at most {limit:.0f}  [dim]{line}[/]"
                status.update(told)
                if not console.is_terminal and waited >= next_line:
                    next_line += _LINE_SECONDS
                    say(f"  {told}")
                await asyncio.sleep(_POLL_SECONDS)
        raise PrimerError(
            f"vLLM did not answer within {limit:.0f} s. Its last lines:\n{self.last_lines()}",
            "Give it longer with synth.teacher.startup_seconds, or mend what its lines name.",
        )

    def check(self) -> None:
        """See whether it still runs.

        Raises:
            PrimerError: If it stopped by itself; with its reason and last words.
        """
        if self._process.poll() is None:
            return
        reason = "".join(f"\nIt says: {cause}" for cause in _causes(self.last_lines(1000)))
        raise PrimerError(
            f"vLLM stopped by itself with exit status {self._process.returncode}.{reason}\n"
            f"Its last lines:\n{self.last_lines()}",
            "Mend what it names; synth.teacher.arguments are passed on to `vllm serve`.",
        )

    def last_lines(self, lines: int = _SHOWN_LINES) -> str:
        """The end of what it printed."""
        # os.pread: the child writes through the same file position, which must not move.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), _LOG_TAIL, max(0, size - _LOG_TAIL)).decode(errors="replace")
        return "\n".join(tail.splitlines()[-lines:])

    def stop(self) -> None:
        """Stop the server and its workers: politely, then for certain. A second Ctrl-C hurries it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(_STOP_SECONDS)
                if self._group_ends():
                    break
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                continue
        self._process.wait()

    def _group_ends(self) -> bool:
        """Wait a little for the workers: they end after the server, and hold the GPU's memory until then."""
        deadline = time.monotonic() + _WORKERS_SECONDS
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid, 0)
            except (ProcessLookupError, PermissionError):  # macOS: the latter for a group of the dead
                return True
            time.sleep(0.05)
        return False

    def _healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to this machine
        try:
            with opener.open(f"{self.root}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@asynccontextmanager
async def run_vllm(teacher: VllmTeacher, host: str = "127.0.0.1", port: int | None = None) -> AsyncIterator[VllmServer]:
    """Run a vLLM server for as long as the context lasts.

    Args:
        teacher: What to serve; presets are filled in.
        host: Address to listen on.
        port: And port; None: one that is free.

    Yields:
        The server, healthy.

    Raises:
        PrimerError: If vLLM is not installed, the port is taken, or vLLM does not start; with its last words.
    """
    resolved = resolve(teacher)
    program = find_vllm(teacher.environment)
    if port is None:
        port = _free_port()
    else:
        _check_port(host, port)
    with tempfile.TemporaryFile() as log:
        server = VllmServer(serve_command(program, resolved, host, port), host, port, log)
        try:
            await server.wait_until_healthy(teacher.startup_seconds)
            yield server
        except PrimerError:
            server.check()  # that it died is the reason for whatever else went wrong
            raise
        finally:
            server.stop()


@asynccontextmanager
async def serve_vllm(teacher: VllmTeacher) -> AsyncIterator[str]:
    """Run a vLLM server on a free port of this machine for as long as the context lasts.

    Yields:
        The API's address, ending in /v1.

    Raises:
        PrimerError: As `run_vllm`.
    """
    async with run_vllm(teacher) as server:
        yield f"{server.root}/v1"


def serve_command(program: Path, resolved: ResolvedTeacher, host: str, port: int) -> list[str]:
    """The command line of a server."""
    command = [str(program), "serve", resolved.model, "--host", host, "--port", str(port)]
    return [*command, "--served-model-name", *resolved.served_names, *resolved.arguments]


def find_vllm(environment: str | None) -> Path:
    """The `vllm` program: of the environment named, of .venv-vllm, of Primer's own, or on the PATH.

    Raises:
        PrimerError: If there is none.
    """
    if environment is not None:
        program = Path(environment).expanduser() / "bin" / "vllm"
        if not program.is_file():
            raise PrimerError(
                f"The teacher's environment is {environment!r}, but there is no program {program}.",
                "Name a virtual environment that has vLLM (synth.teacher.environment, --environment); `make vllm` "
                f"makes one in {ENVIRONMENT}.",
            )
        return program.absolute()
    beside = Path(ENVIRONMENT, "bin", "vllm")
    if beside.is_file():
        return beside.absolute()
    found = shutil.which("vllm", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        raise PrimerError(
            "The recipe's teacher is vllm, but there is no `vllm` program here.",
            f"`make vllm` installs it into {ENVIRONMENT}; or name an environment that has it in "
            "synth.teacher.environment. Without a GPU, the embedded teacher is faster.",
        )
    return Path(found)


def _causes(text: str) -> list[str]:
    """The errors that a log names, the first ones: the last lines often say no more than that something failed."""
    lines = (_without_prefix(line).strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if _CAUSE.match(line)))[:2]


def _without_prefix(line: str) -> str:
    return _LOG_PREFIX.sub("", line)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_port(host: str, port: int) -> None:
    """A server that already listens there would answer in the place of the new one.

    Raises:
        PrimerError: If the port cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PrimerError(
            f"Nothing can listen on {host}, port {port}: {error.strerror or error}.",
            "Choose others with --port and --host.",
        ) from None
