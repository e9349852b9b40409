"""What runs inside the sandbox: a server that forks once for every program (:mod:`primer.sandbox` starts it).

It is handed to a bare Python as text, so it imports the standard library alone. A program runs in the fork, after the
fork has given up everything but one socket to tell its verdict through. That verdict is the hash of a token which
waits in the socket until the program has come to its end: ending early, printing, and writing into whatever is open
are no proof.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import datetime
import errno
import fcntl
import functools
import gc
import hashlib
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
import struct
import sys
import time
import traceback
import types
import typing
from contextlib import suppress

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

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF, linux/bpf_common.h
_ALLOW, _KILL, _FAIL_WITH = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data, low half of the argument
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_NOT_BEGUN = 71  # how a fork ends that could not be closed in: EX_OSERR of sysexits.h

# System calls that no exercise needs: new processes and programs, other processes' memory, memory outside the limits
# (shared segments, queues, anonymous files, timers, buffers of sockets), sockets, priorities and processors, which can
# be set for the server too, and what has let programs out of sandboxes before.
# Numbers by architecture: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
_CALLS = {
    "x86_64": {
        "audit": 0xC000003E, "clone": 56, "clone3": 435, "prlimit64": 302,
        "denied": {
            "socket": 41, "setsockopt": 54, "shmget": 29, "shmat": 30, "fork": 57, "vfork": 58, "execve": 59,
            "semget": 64, "msgget": 68, "ptrace": 101, "personality": 135, "setpriority": 141, "sched_setparam": 142,
            "sched_setscheduler": 144, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166,
            "sched_setaffinity": 203, "timer_create": 222, "mq_open": 240, "add_key": 248, "request_key": 249,
            "keyctl": 250, "ioprio_set": 251, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304,
            "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "sched_setattr": 314,
            "memfd_create": 319, "bpf": 321, "execveat": 322, "userfaultfd": 323, "io_uring_setup": 425,
            "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_getfd": 438, "memfd_secret": 447,
        },
    },
    "aarch64": {
        "audit": 0xC00000B7, "clone": 220, "clone3": 435, "prlimit64": 261,
        "denied": {
            "ioprio_set": 30, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "personality": 92,
            "unshare": 97, "timer_create": 107, "ptrace": 117, "sched_setparam": 118, "sched_setscheduler": 119,
            "sched_setaffinity": 122, "setpriority": 140, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194,
            "shmat": 196, "socket": 198, "setsockopt": 208, "add_key": 217, "request_key": 218, "keyctl": 219,
            "execve": 221, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
            "process_vm_writev": 271, "kcmp": 272, "sched_setattr": 274, "memfd_create": 279, "bpf": 280,
            "execveat": 281, "userfaultfd": 282, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429,
            "fsopen": 430, "pidfd_getfd": 438, "memfd_secret": 447,
        },
    },
}  # fmt: skip


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def system_call_filter(machine: str) -> bytes:
    """A seccomp filter: no system call of `_CALLS`, of limits only the program's own, of new tasks only threads.

    Raises:
        KeyError: If the architecture is not known here.
    """
    calls: dict[str, typing.Any] = _CALLS[machine]
    refused = (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, calls["audit"]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),  # the same calls by other numbers
        refused,
        (_EQUAL, 0, 1, calls["clone3"]),  # its flags are out of a filter's sight; the C library then uses clone
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),
    ]
    for number in calls["denied"].values():
        steps += [(_EQUAL, 0, 1, number), refused]
    steps += [
        (_EQUAL, 0, 3, calls["prlimit64"]),  # the server has the same user: its limits would be every later program's
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 1, 0, 0),
        refused,
        (_LOAD, 0, 0, _NUMBER_AT),
        (_EQUAL, 0, 3, calls["clone"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        refused,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


class Server:
    """Answers requests on two descriptors until the first is closed.

    A message is four bytes that say its length, and JSON.
    """

    def __init__(self, requests: int, answers: int) -> None:
        if os.getpid() != 1 or socket.gethostname() != "sandbox":
            sys.exit("This program runs inside a sandbox alone: primer.sandbox starts it.")
        if platform.machine() not in _CALLS:
            sys.exit(f"Which system calls to refuse is not known for {platform.machine()}.")
        self._requests, self._answers = requests, answers
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._steps = system_call_filter(platform.machine())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # no other signal from inside reaches the first process
        # A program has the same user: this keeps it from the server's memory and descriptors.
        self._control(_PR_SET_DUMPABLE, 0)
        self._control(_PR_SET_NO_NEW_PRIVS, 1)
        self._folder_changed = _changed()

    def serve(self) -> None:
        """Say that all is ready, then answer."""
        # Objects of the server are never freed: a fork need not copy their pages to find that out.
        gc.freeze()
        self._send({"ready": True})
        while (length := self._read(4)) is not None:
            request = json.loads(self._read(int.from_bytes(length)) or b"{}")
            self._send(self._run(**request))

    def _run(self, program: str, seconds: float, memory_mib: int, wall: float) -> dict[str, typing.Any]:
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                self._become(theirs, their_output, seconds, memory_mib)
            except BaseException:  # nothing runs unprotected, and what happened is not the program's verdict
                os._exit(_NOT_BEGUN)
            _run_program(program, theirs)
        theirs.close()
        os.close(their_output)
        token = os.urandom(16)
        with suppress(OSError):
            ours.send(token)
        told, tail, ended_by = _watch(child, ours, output, seconds, started + wall)
        os.kill(child, signal.SIGKILL)  # with its threads; it could start no process
        _, status, used = os.wait4(child, 0)
        ours.close()
        os.close(output)
        cpu = used.ru_utime + used.ru_stime
        reason = ended_by or _reason(told, token, cpu, seconds)
        if reason == "crashed" and os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NOT_BEGUN:
            reason = "lost"
        if reason == "crashed":
            tail += f"\n{_how_it_ended(status)}".encode()
        return {
            "reason": reason,
            "detail": tail[-KEPT_OUTPUT:].decode(errors="replace"),
            "seconds": cpu,
            "clean": reason != "lost" and _changed() == self._folder_changed,
        }

    def _become(self, channel: socket.socket, output: int, seconds: float, memory_mib: int) -> None:
        """Give up, in the fork, all that the program must not have."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
            resource.RLIMIT_NPROC: THREADS,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        self._control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Filter(len(self._steps) // 8, self._steps)))

    def _control(self, what: int, *arguments: typing.Any) -> None:
        """Call prctl(2).

        Raises:
            OSError: If it fails; nothing runs unprotected.
        """
        if self._libc.prctl(what, *arguments, *(0,) * (4 - len(arguments))) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), f"prctl({what})")

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
    digest, leave = hashlib.sha256, os._exit
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    linecache.cache[NAME] = (len(program), None, program.splitlines(keepends=True), NAME)
    os.environ.clear()
    sys.argv = [NAME]
    random.seed(0)
    try:
        exec(compile(program, NAME, "exec"), module.__dict__)  # noqa: S102
        verdict = digest(channel.recv(16)).digest()
    except MemoryError:
        verdict = b"memory"
    except BaseException as error:
        verdict = b"failed"
        with suppress(BaseException):
            trace = error.__traceback__.tb_next if error.__traceback__ else None  # without the line above
            traceback.print_exception(type(error), error, trace, limit=-3)
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    with suppress(BaseException):
        channel.send(verdict)
    leave(0)


def _watch(
    child: int, channel: socket.socket, output: int, seconds: float, deadline: float
) -> tuple[bytes, bytes, str]:
    """What a program tells as its verdict, the end of what it prints, and why it must be ended, if it must."""
    clock = (~child << 3) | 2  # of the process's CPU time, as clock_getcpuclockid(3) says
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(output, select.POLLIN)
    os.set_blocking(output, False)
    tail, total = b"", 0
    while (left := min(deadline - time.monotonic(), seconds - time.clock_gettime(clock))) > 0:
        ready = [file for file, _ in poll.poll(math.ceil(left * 1000))]
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
    if told == hashlib.sha256(token).digest():
        return "passed"
    return told.decode() if told in (b"failed", b"memory") else "crashed"


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)} before its last line"


def _changed() -> int:
    """When anything was last made, removed or permitted in the working folder; nanoseconds."""
    return os.stat(".").st_ctime_ns  # noqa: PTH116


if __name__ == "__main__":
    Server(0, 1).serve()
