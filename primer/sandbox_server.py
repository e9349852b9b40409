"""What runs inside the sandbox: a server that forks once for every program (:mod:`primer.sandbox` starts it).

It is handed to a bare Python as text, so it imports the standard library alone, and its other half. A program runs in
the fork, after the fork has given up everything but one socket to tell its verdict through. That verdict is a token
which no variable, no container and no descriptor holds while the program runs: ending early, printing, and writing
into whatever is open are no proof.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import errno
import fcntl
import functools
import gc
import heapq
import itertools
import json
import linecache
import math
import os
import platform
import random
import re
import resource
import select
import signal
import socket
import statistics
import string
import sys
import time
import traceback
import types
import typing
from contextlib import suppress

from primer import sandbox_kernel

# Programs import these most (arXiv 2306.11644, section 3: six packages make 96% of phi-1's imports); a fork has them
# at once.
PRELOADED = (collections, dataclasses, datetime, functools, heapq, itertools, math, re, statistics, string, typing)

MIB = 2**20
FILE_BYTES = 8 * MIB
OPEN_FILES = 32
THREADS = 32
MOST_OUTPUT = 2**20
KEPT_OUTPUT = 4096
NAME = "program.py"

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38

# What a program makes is looked at this often, in seconds: more than so many files and folders, or bytes, end it.
_LOOK = 0.02
SCRATCH_ENTRIES = 1024
SCRATCH_BYTES = 16 * MIB


@dataclasses.dataclass(frozen=True)
class Outside:
    """What a server that runs without namespaces is told; its working folder is its scratch folder.

    Attributes:
        owner: The process that started it; it ends with that.
        readable: Paths that programs may read.
    """

    owner: int
    readable: list[str]


class Server:
    """Answers requests on two descriptors until the first is closed.

    A message is four bytes that say its length, and JSON.
    """

    def __init__(self, requests: int, answers: int, outside: Outside | None = None) -> None:
        if outside is None and (os.getpid() != 1 or socket.gethostname() != "sandbox"):
            sys.exit("This program runs inside a sandbox alone: primer.sandbox starts it.")
        self._requests, self._answers, self._outside = requests, answers, outside
        self._landlock = sandbox_kernel.landlock_version() if outside else 0
        self._rules: int | None = None
        self._child = 0
        try:
            self._filter = sandbox_kernel.system_call_filter(platform.machine())
        except KeyError:
            sys.exit(f"Which system calls to refuse is not known for {platform.machine()}.")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # no other signal from inside reaches the first process
        # A program has the same user: this keeps it from the server's memory and descriptors.
        sandbox_kernel.control(_PR_SET_DUMPABLE, 0)
        sandbox_kernel.control(_PR_SET_NO_NEW_PRIVS, 1)
        if outside:
            self._prepare_outside(outside)
        self._folder = os.open(".", os.O_PATH | os.O_CLOEXEC)  # also for when it is closed to this user
        self._folder_changed = self._changed()

    def _prepare_outside(self, outside: Outside) -> None:
        """Do for a server among the processes of its user what namespaces do for one in a sandbox."""
        sandbox_kernel.drop_capabilities()
        if self._landlock:
            self._rules = sandbox_kernel.landlock_rules(self._landlock, outside.readable, ".")
        signal.signal(signal.SIGTERM, self._end)
        sandbox_kernel.control(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != outside.owner:
            self._end()

    def serve(self) -> None:
        """Say that all is ready, then answer."""
        # Objects of the server are never freed: a fork need not copy their pages to find that out.
        gc.freeze()
        self._send({"ready": True, "landlock": self._landlock})
        while (length := self._read(4)) is not None:
            request = json.loads(self._read(int.from_bytes(length)) or b"{}")
            self._send(self._run(**request))
        if self._outside:  # a closed owner's pipes are heard before the signal of its end
            self._end()

    def _run(self, program: str, seconds: float, memory_mib: int, wall: float) -> dict[str, typing.Any]:
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        started = time.monotonic()
        server = os.getpid()
        self._child = child = os.fork()
        if child == 0:
            try:
                self._become(server, theirs, their_output, seconds, memory_mib)
            except BaseException:  # nothing runs unprotected, and what happened is not the program's verdict
                os._exit(1)
            _run_program(program, theirs)
        theirs.close()
        os.close(their_output)
        told, tail, ended_by, token = b"", b"", "lost", os.urandom(16)
        with suppress(OSError):
            if ours.recv(1):  # it is closed in
                ours.send(token)
                told, tail, ended_by = _watch(child, ours, output, seconds, started + wall)
        os.kill(child, signal.SIGKILL)  # with its threads; it could start no process
        _, status, used = os.wait4(child, 0)
        self._child = 0
        ours.close()
        os.close(output)
        cpu = used.ru_utime + used.ru_stime
        reason = ended_by or _reason(told, token, cpu, seconds)
        if reason == "crashed":
            tail += f"\n{_how_it_ended(status)}".encode()
        return {
            "reason": reason,
            "detail": tail[-KEPT_OUTPUT:].decode(errors="replace"),
            "seconds": cpu,
            "clean": reason != "lost" and self._changed() == self._folder_changed and not os.listdir(),  # noqa: PTH208
        }

    def _become(self, server: int, channel: socket.socket, output: int, seconds: float, memory_mib: int) -> None:
        """Give up, in the fork, all that the program must not have."""
        sandbox_kernel.control(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._rules is not None:
            sandbox_kernel.restrict(self._rules)
        silence, _ = os.pipe()  # its other end is closed below: reading finds the end of the file
        for target, source in ((0, silence), (1, output), (2, output)):
            os.dup2(source, target)
        most = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        place = random.SystemRandom().randrange(OPEN_FILES, most)
        hidden = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, place)
        channel.detach()
        os.closerange(3, hidden)
        os.closerange(hidden + 1, most)
        socket.socket.__init__(channel, fileno=hidden)
        limits = {
            resource.RLIMIT_CPU: math.ceil(seconds) + 1,  # the server looks, too, and more closely
            resource.RLIMIT_AS: memory_mib * MIB,
            resource.RLIMIT_FSIZE: FILE_BYTES,
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        steps = self._filter
        if self._outside:
            reading = not sandbox_kernel.rules_writing(self._landlock)
            steps = sandbox_kernel.system_call_filter(platform.machine(), os.getpid(), reading=reading)
        else:
            limits[resource.RLIMIT_NPROC] = THREADS  # outside, it would count all processes of the user
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        sandbox_kernel.install(steps)

    def _changed(self) -> int:
        """When anything was last made, removed or permitted in the working folder; nanoseconds."""
        return os.fstat(self._folder).st_ctime_ns

    def _end(self, *_: object) -> None:
        """The owner has ended."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._child:
            with suppress(OSError):
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
        remove_folder(os.getcwd())  # noqa: PTH109
        os._exit(1)

    def _read(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            chunk = os.read(self._requests, count - len(data))
            if not chunk:
                return None
            data += chunk
        return data

    def _send(self, answer: dict[str, typing.Any]) -> None:
        data = json.dumps(answer).encode()
        data = len(data).to_bytes(4) + data
        while data:
            data = data[os.write(self._answers, data) :]


def _run_program(program: str, channel: socket.socket) -> typing.NoReturn:
    """Run a program as `__main__`, tell the verdict, end."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    linecache.cache[NAME] = (len(program), None, program.splitlines(keepends=True), NAME)
    os.environ.clear()
    sys.argv = [NAME]
    random.seed(0)
    sys.settrace = lambda _: None  # a traced test can be jumped over
    tell, leave, file = os.write, os._exit, channel.fileno()
    tell(file, b"b")
    token = [channel.recv(16)]
    try:
        # While the program runs, the token is on this frame's stack of values alone, where neither frames nor the
        # garbage collector lead; if it fails, the token is gone.
        ran = (token.pop(), exec(compile(program, NAME, "exec", dont_inherit=True), module.__dict__))  # type: ignore[func-returns-value] # noqa: S102
        _flush()
        tell(file, ran[0])
    except BaseException as error:
        with suppress(BaseException):
            if not isinstance(error, MemoryError):
                trace = error.__traceback__.tb_next if error.__traceback__ else None  # without the line above
                traceback.print_exception(type(error), error, trace, limit=-3)
        _flush()
        with suppress(BaseException):
            tell(file, b"memory" if isinstance(error, MemoryError) else b"failed")
    leave(0)


def _flush() -> None:
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()


def _watch(
    child: int, channel: socket.socket, output: int, seconds: float, deadline: float
) -> tuple[bytes, bytes, str]:
    """What a program tells as its verdict, the end of what it prints, and why it must be ended, if it must."""
    clock = (~child << 3) | 2  # of the process's CPU time, as clock_getcpuclockid(3) says
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(output, select.POLLIN)
    os.set_blocking(output, False)
    tail, total, look = b"", 0, time.monotonic() + _LOOK
    while (left := min(deadline - time.monotonic(), seconds - time.clock_gettime(clock))) > 0:
        ready = [file for file, _ in poll.poll(math.ceil(min(left, _LOOK) * 1000))]
        if time.monotonic() > look:
            if excess := _excess(child):
                return b"", tail, excess
            look = time.monotonic() + _LOOK
        while chunk := _read_some(output):
            total += len(chunk)
            tail = (tail + chunk)[-KEPT_OUTPUT:]
            if total > MOST_OUTPUT:
                return b"", tail, "output"
        if chunk == b"" and output in ready:  # all of its descriptors are closed, and the channel will tell
            poll.unregister(output)
        if channel.fileno() in ready:
            try:
                told = channel.recv(64)
            except OSError:
                told = b""
            while chunk := _read_some(output):
                tail = (tail + chunk)[-KEPT_OUTPUT:]
            return told, tail, ""
    return b"", tail, "timeout"


def _read_some(output: int) -> bytes | None:
    """What a descriptor holds; b"" at its end, None if there is nothing for now."""
    try:
        return os.read(output, 65536)
    except BlockingIOError:
        return None


def _reason(told: bytes, token: bytes, cpu: float, seconds: float) -> str:
    if cpu > seconds:
        return "timeout"
    if told == token:
        return "passed"
    return told.decode() if told in (b"failed", b"memory") else "crashed"


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)} before its last line"


def _excess(child: int) -> str:
    """What a program has taken too much of, beyond what the kernel limits: threads outside of namespaces, files."""
    with suppress(OSError):  # in namespaces there is no /proc, and the kernel counts
        if len(os.listdir(f"/proc/{child}/task")) > THREADS:  # noqa: PTH208
            return "memory"
    entries, size, folders = 0, 0, ["."]
    try:
        while folders:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    size += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entries > SCRATCH_ENTRIES or size > SCRATCH_BYTES:
                        return "output"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    except FileNotFoundError:  # removed in the meantime: another look will come
        return ""
    except OSError:  # too deep, or closed to its owner
        return "output"
    return ""


def remove_folder(folder: str) -> None:
    """Remove a folder and all that is in it, however deep and whatever its permissions; links are not followed."""
    while not _removed(folder):  # a process that is about to end may add something
        here, way = os.open(folder, os.O_DIRECTORY), [""]
        while way:
            step = _deeper(here) or ".."
            if step == "..":
                left = way.pop()
            else:
                os.chmod(step, 0o700, dir_fd=here)
                way.append(step)
            there = os.open(step, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
            if step == ".." and way:
                _removed(left, here)
        os.close(here)


def _deeper(folder: int) -> str | None:
    """Remove what an open folder holds; gives the name of a folder in it that has to be emptied first, if any."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=folder)
        elif not _removed(entry.name, folder):
            return entry.name
    return None


def _removed(name: str, folder: int | None = None) -> bool:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


if __name__ == "__main__":
    Server(0, 1, Outside(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else None).serve()
