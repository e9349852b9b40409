"""What a program in the sandbox may ask of the kernel: a seccomp filter, Landlock rules, no capabilities.

Part of what is handed to a bare Python as text (:mod:`primer.sandbox`), so it imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF, linux/bpf_common.h
_ALLOW, _KILL, _FAIL_WITH = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data; arguments of 8 bytes, low half first
_X32 = 0x40000000
_CLONE_THREAD = 0x10000
_NOT_A_STREAM = 0xE  # in the types of sockets but SOCK_STREAM, 1

# What sends signals to processes of one's choice: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE of fcntl(2).
_FCNTL_REFUSED = (8, 10, 15, 1024)
# All that Python asks of ioctl(2): TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others send signals, or
# change attributes of files that are open for reading.
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_PR_SET_PDEATHSIG = 1
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_Numbers = dict[str, int]

# Numbers of system calls by architecture: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
# of Linux. Those that all architectures share came after 424.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# System calls that no exercise needs: new processes and programs, other processes' memory, memory outside the limits
# (shared segments, queues, anonymous files, timers, buffers of sockets), sockets, priorities and processors, which can
# be set for the server too, and what has let programs out of sandboxes before.
_DENIED: dict[str, _Numbers] = {
    "x86_64": {
        "socket": 41, "connect": 42, "bind": 49, "listen": 50, "setsockopt": 54, "shmget": 29, "shmat": 30, "fork": 57,
        "vfork": 58, "execve": 59, "semget": 64, "msgget": 68, "ptrace": 101, "personality": 135, "setpriority": 141,
        "sched_setparam": 142, "sched_setscheduler": 144, "pivot_root": 155, "chroot": 161, "mount": 165,
        "umount2": 166, "sched_setaffinity": 203, "timer_create": 222, "mq_open": 240, "add_key": 248,
        "request_key": 249, "keyctl": 250, "ioprio_set": 251, "unshare": 272, "perf_event_open": 298,
        "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "sched_setattr": 314, "memfd_create": 319, "bpf": 321, "execveat": 322, "userfaultfd": 323,
    },
    "aarch64": {
        "ioprio_set": 30, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "personality": 92, "unshare": 97,
        "timer_create": 107, "ptrace": 117, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122,
        "setpriority": 140, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "shmat": 196, "socket": 198,
        "bind": 200, "listen": 201, "connect": 203, "setsockopt": 208, "add_key": 217, "request_key": 218,
        "keyctl": 219, "execve": 221, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "sched_setattr": 274, "memfd_create": 279,
        "bpf": 280, "execveat": 281, "userfaultfd": 282,
    },
}  # fmt: skip
_DENIED_SHARED: _Numbers = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_getfd": 438, "memfd_secret": 447,
}  # fmt: skip

# Without namespaces also what reaches other processes and their queues, and what Landlock does not rule: permissions,
# owners, times and attributes of files.
_DENIED_WEAK: dict[str, _Numbers] = {
    "x86_64": {
        "shmctl": 31, "semop": 65, "semctl": 66, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "semtimedop": 220,
        "mq_unlink": 241, "tkill": 200, "setpgid": 109, "setsid": 112, "migrate_pages": 256, "move_pages": 279,
        "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "fchmodat": 268,
        "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
        "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
        "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88, "tkill": 130, "setpgid": 154,
        "setsid": 157, "mq_unlink": 181, "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semctl": 191, "semtimedop": 192,
        "semop": 193, "shmctl": 195, "migrate_pages": 238, "move_pages": 239,
    },
}  # fmt: skip
_DENIED_WEAK_SHARED: _Numbers = {
    "pidfd_send_signal": 424, "process_madvise": 440, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
    "file_setattr": 469,
}  # fmt: skip

# Where Landlock does not rule writing, nothing is written.
_DENIED_READING: dict[str, _Numbers] = {
    "x86_64": {
        "truncate": 76, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
        "mknod": 133, "mkdirat": 258, "mknodat": 259, "unlinkat": 263, "renameat": 264, "linkat": 265,
        "symlinkat": 266, "renameat2": 316, "openat2": 437,
    },
    "aarch64": {
        "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45,
        "renameat2": 276, "openat2": 437,
    },
}  # fmt: skip

# Those that are refused by their arguments.
_JUDGED: dict[str, _Numbers] = {
    "x86_64": {
        "open": 2, "ioctl": 16, "socketpair": 53, "clone": 56, "kill": 62, "fcntl": 72, "rt_sigqueueinfo": 129,
        "prctl": 157, "tgkill": 234, "openat": 257, "rt_tgsigqueueinfo": 297, "prlimit64": 302, "clone3": 435,
    },
    "aarch64": {
        "fcntl": 25, "ioctl": 29, "openat": 56, "kill": 129, "tgkill": 131, "rt_sigqueueinfo": 138, "prctl": 167,
        "socketpair": 199, "clone": 220, "rt_tgsigqueueinfo": 240, "prlimit64": 261, "clone3": 435,
    },
}  # fmt: skip

_Step = tuple[int, int, int, int]
_REFUSED: _Step = (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM)


def system_call_filter(machine: str, process: int | None = None, *, reading: bool = False) -> bytes:
    """A seccomp filter: the calls above are refused, limits can be set of the program alone, new tasks are threads.

    Args:
        machine: The architecture, as `platform.machine` has it.
        process: Of a program without namespaces its own id: it may send signals to itself alone.
        reading: Whether no file may be written or made.

    Raises:
        KeyError: If the architecture is not known here.
    """
    judged = _JUDGED[machine]
    denied = [_DENIED[machine], _DENIED_SHARED]
    rules = [
        *_refused_with_any_bit(judged["socketpair"], 1, _NOT_A_STREAM),  # a datagram may be sent to any address
        *_refused_unless(judged["ioctl"], 1, *_IOCTL_ALLOWED),
        *_refused_unless(judged["prlimit64"], 0, 0),  # the server has the same user: its limits are every program's
    ]
    if process is not None:
        denied += [_DENIED_WEAK[machine], _DENIED_WEAK_SHARED]
        for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
            rules += _refused_unless(judged[name], 0, process)
        rules += _refused_if(judged["fcntl"], 1, _FCNTL_REFUSED)
        rules += _refused_if(judged["prctl"], 0, (_PR_SET_PDEATHSIG,))
    if reading:
        denied.append(_DENIED_READING[machine])
        rules += _refused_with_any_bit(judged["openat"], 2, _WRITING)
        if "open" in judged:
            rules += _refused_with_any_bit(judged["open"], 1, _WRITING)
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),  # the same calls by other numbers
        _REFUSED,
        (_EQUAL, 0, 1, judged["clone3"]),  # its flags are out of a filter's sight; the C library then uses clone
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),
    ]
    for numbers in denied:
        for number in numbers.values():
            steps += [(_EQUAL, 0, 1, number), _REFUSED]
    steps += [
        *rules,
        *_judged(judged["clone"], 0, [(_ANY_BIT, 1, 0, _CLONE_THREAD), _REFUSED]),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _judged(number: int, argument: int, tests: Sequence[_Step]) -> list[_Step]:
    """Tests of one argument (its low half) of one system call; the number is loaded again afterwards."""
    load = (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)
    return [(_EQUAL, 0, len(tests) + 2, number), load, *tests, (_LOAD, 0, 0, _NUMBER_AT)]


def _refused_unless(number: int, argument: int, *values: int) -> list[_Step]:
    allowed = [(_EQUAL, left, 0, value) for left, value in zip(range(len(values), 0, -1), values, strict=True)]
    return _judged(number, argument, [*allowed, _REFUSED])


def _refused_if(number: int, argument: int, values: Iterable[int]) -> list[_Step]:
    return _judged(number, argument, [step for value in values for step in ((_EQUAL, 0, 1, value), _REFUSED)])


def _refused_with_any_bit(number: int, argument: int, bits: int) -> list[_Step]:
    return _judged(number, argument, [(_ANY_BIT, 0, 1, bits), _REFUSED])


_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def control(what: int, *arguments: object) -> None:
    """Call prctl(2).

    Raises:
        OSError: If it fails; nothing runs unprotected.
    """
    _check(_libc.prctl(what, *arguments, *(0,) * (4 - len(arguments))), f"prctl({what})")


def install(steps: bytes) -> None:
    """Put this process under a seccomp filter, for ever."""
    control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Filter(len(steps) // 8, steps)))


def drop_capabilities() -> None:
    """Leave root no more than its own files and processes (capset(2), the header's version 3)."""
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(_libc.capset(header, none), "capset")


# Landlock: numbers of calls and rights from linux/landlock.h. Rights by the version of its interface that brought them.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_ON_FILES = 1 << 1 | _READ_FILE | 1 << 14  # write, read, truncate
# Besides: remove folders and files; make folders, files, pipes and symbolic links; move between folders.
_IN_SCRATCH = _ON_FILES | _READ_FOLDER | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 13
_BIND_AND_CONNECT, _SOCKETS_AND_SIGNALS = 3, 3
_ABI_OF_TRUNCATE, _ABI_OF_NETWORK, _ABI_OF_SCOPES = 3, 4, 6


def landlock_version() -> int:
    """Version of the kernel's Landlock interface; 0 if it has none."""
    version: int = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    return max(0, version)


def rules_writing(version: int) -> bool:
    """Whether this Landlock keeps a program from every file: before version 3 it could be cut to nothing."""
    return version >= _ABI_OF_TRUNCATE


def landlock_rules(version: int, readable: Sequence[str], scratch: str) -> int:
    """A descriptor of rules for :func:`restrict`: some paths can be read, one folder written, and no other file.

    Raises:
        OSError: If the kernel refuses them, or a path cannot be opened.
    """
    rights = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    network = _BIND_AND_CONNECT if version >= _ABI_OF_NETWORK else 0
    scopes = _SOCKETS_AND_SIGNALS if version >= _ABI_OF_SCOPES else 0
    # Older kernels take a longer structure than theirs if the rest of it is zero.
    rules: int = _libc.syscall(_CREATE_RULESET, struct.pack("QQQ", rights, network, scopes), 24, 0)
    _check(rules, "landlock_create_ruleset")
    wanted = {path: _READ_FILE | _READ_FOLDER if Path(path).is_dir() else _READ_FILE for path in readable}
    for path, allowed in {**wanted, scratch: _IN_SCRATCH}.items():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed & rights, place)
        _check(_libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"landlock_add_rule({path})")
        os.close(place)
    return rules


def restrict(rules: int) -> None:
    """Put this process under Landlock's rules, for ever."""
    _check(_libc.syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)
