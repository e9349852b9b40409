"""Programs that want out of the sandbox; those that want a verdict they have not earned are in `hostile_verdicts`.

Each is followed by a check that fails, so that none may pass. One that only tries what must be refused comes to that
check, and says so with its last line; an attempt that succeeds raises `SystemExit("ESCAPED ...")` before.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

CHECK = "\n\nraise AssertionError('the check')\n"
CHECKED = "AssertionError: the check"

_PRELUDE = """\
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def refused(attempt, *arguments, errors=OSError):
    try:
        found = attempt(*arguments)
    except errors:
        return
    if type(attempt).__name__ == "_FuncPtr" and found == -1:
        return
    raise SystemExit(f"ESCAPED {attempt} {arguments} {str(found)[:99]}")
"""


@dataclass(frozen=True)
class Hostile:
    """A program and what must hold of it.

    Attributes:
        name: What it does.
        source: `{canary}` stands for a file of the machine, `{victim}` for a process of the same user, `{home}` for
            that user's folder.
        ends: The reasons with which it may end. "failed" alone means at the check, unless `says` is given.
        says: What its last line must hold, if not the check's error.
        memory_mib: Its limit.
    """

    name: str
    source: str
    ends: tuple[str, ...] = ("failed",)
    says: str | None = None
    memory_mib: int = 256

    def program(self, canary: str, victim: int) -> str:
        """The program with its check."""
        places = {"{canary}": canary, "{victim}": str(victim), "{home}": str(Path.home())}
        source = textwrap.dedent(self.source)
        for name, place in places.items():
            source = source.replace(name, place)
        return (_PRELUDE + source if "refused(" in source else source) + CHECK


_LIMITS = (
    Hostile("computes for ever", "while True: pass", ("timeout",)),
    Hostile("waits for ever", "import time\ntime.sleep(1000)", ("timeout",)),
    Hostile("waits in many threads", """
        import threading, time
        for _ in range(8): threading.Thread(target=time.sleep, args=(1000,)).start()
        time.sleep(1000)
    """, ("timeout",), memory_mib=2048),
    Hostile("ends with daemon threads computing", """
        import threading
        def spin():
            while True: pass
        for _ in range(8): threading.Thread(target=spin, daemon=True).start()
    """, ("failed", "timeout")),
    Hostile("ignores every signal and computes", """
        import signal
        for number in signal.valid_signals():
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
    """, ("timeout",)),
    Hostile("blocks every signal and waits", """
        import signal, time
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)
    """, ("timeout",)),
    Hostile("starts threads without end", """
        import threading, time
        threading.stack_size(32768)
        while True:
            try: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
            except RuntimeError: time.sleep(0.01)
    """, ("memory", "timeout", "crashed", "failed")),
    Hostile("takes memory at once", "x = bytearray(1 << 40)", ("memory",)),
    Hostile("takes memory bit by bit", "x = []\nwhile True: x.append(bytearray(1 << 20))", ("memory",)),
    Hostile("takes memory and catches the error", """
        x = []
        while True:
            try: x.append(bytearray(1 << 20))
            except MemoryError: pass
    """, ("timeout",)),
    Hostile("maps memory", """
        import mmap
        refused(mmap.mmap, -1, 1 << 32, errors=(OSError, MemoryError))
        x = []
        while True: x.append(mmap.mmap(-1, 1 << 22))
    """, ("failed", "memory"), says="Cannot allocate memory"),
    Hostile("locks memory", "refused(libc.syscall, 149, ctypes.create_string_buffer(1 << 20), 1 << 20)"),
    Hostile("a number of a million digits", "x = 9 ** 9 ** 8\nprint(x % 10)", ("timeout", "memory")),
    Hostile("a string beyond memory", "x = 'ab' * (1 << 38)", ("memory",)),
    Hostile("an infinite generator in a list", "import itertools\nx = list(itertools.count())", ("timeout", "memory")),
    Hostile("a regular expression that never ends", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", ("timeout",)),
    Hostile("recursion without end", "def f(): return f()\nf()", says="RecursionError"),
    Hostile("recursion without a limit", """
        import sys
        sys.setrecursionlimit(10 ** 9)
        class A:
            def __getattr__(self, name): return getattr(self, name)
        A().x
    """, ("crashed", "memory", "failed", "timeout"), says="ended"),
    Hostile("brackets nested without end", "eval('[' * 100000)", ("failed", "memory"), says=""),
    Hostile("a gzip bomb", """
        import zlib
        squeeze = zlib.compressobj(1)
        data = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(128)) + squeeze.flush()
        x = [zlib.decompress(data) for _ in range(100)]
    """, ("memory", "timeout")),
    Hostile("a zip bomb", """
        import io, zipfile
        archive = zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        for number in range(8): archive.writestr(f"{number}.txt", bytes(6 << 20))
        archive.close()
        zipfile.ZipFile(file).extractall(".")
    """, ("failed", "output", "timeout"), says=""),
    Hostile("prints without end", "while True: print('passed' * 1000)", ("output",)),
    Hostile("prints to the descriptor without end", "import os\nwhile True: os.write(1, b'x' * 65536)", ("output",)),
    Hostile("an error of giant size", "raise ValueError('x' * (50 << 20))", ("output", "memory")),
    Hostile("a traceback of giant size", """
        class Deep(Exception):
            def __str__(self): return "line\\n" * 10 ** 6
        raise ExceptionGroup("many", [Deep() for _ in range(50)])
    """, ("failed", "output", "timeout", "memory"), says=""),
    Hostile("raises its limits", """
        import resource
        for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
            refused(resource.setrlimit, limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
                    errors=(ValueError, OSError))
    """),
    Hostile("sets limits of its parent", """
        import resource
        refused(resource.prlimit, os.getppid(), resource.RLIMIT_FSIZE, (0, 0))
        refused(os.setpriority, os.PRIO_PROCESS, os.getppid(), 19)
    """),
)  # fmt: skip

_FILES = (
    Hostile("fills the disk", """
        number = 0
        while True:
            number += 1
            try:
                with open(str(number), "wb") as file: file.write(bytes(4 << 20))
            except OSError: pass
    """, ("output", "timeout")),
    Hostile("makes thousands of files", """
        number = 0
        while True:
            number += 1
            open(str(number), "w").close()
    """, ("output",)),
    Hostile("makes folders within folders", """
        import os
        while True:
            os.mkdir("d", 0)
            os.chmod("d", 0o700)
            os.chdir("d")
    """, ("output", "failed"), says=""),
    Hostile("makes folders within folders without rights", """
        import os
        os.umask(0o077)
        while True:
            os.mkdir("d")
            os.chdir("d")
    """, ("output", "failed"), says=""),
    Hostile("closes its folder", "import os\nos.chmod('.', 0)", ("failed",), says=""),
    Hostile("leaves a folder nobody can enter", """
        import os
        os.makedirs("a/b/c")
        os.symlink("/", "a/root")
        os.symlink("{canary}", "a/b/canary")
        os.mkfifo("a/pipe")
        os.mkdir("a/closed", 0)
    """),
    Hostile("writes a file of gigabytes", "open('x', 'wb').write(bytes(100 << 20))", says="File too large"),
    Hostile("a sparse file of terabytes", "with open('x', 'wb') as file: file.truncate(1 << 40)", says="too large"),
    Hostile("writes outside", """
        for path in ("/x", "/usr/lib/x", "/lib/x", "/etc/passwd", "{home}/x", os.__file__, "{canary}", "{canary}.new",
                     "/dev/null", "/dev/shm/x", "/var/tmp/x", "../x", "../../x", "/proc/self/comm"):
            for flags in (os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
                refused(os.open, path, flags)
            refused(os.truncate, path, 0)
            refused(os.unlink, path)
            refused(os.rename, path, path + "y")
            refused(os.mkdir, path + ".folder")
            refused(os.symlink, "x", path + ".link")
            refused(os.mkfifo, path + ".pipe")
    """),
    Hostile("changes permissions outside", """
        for path in ("{canary}", os.__file__, "/usr/lib", "/tmp/..", "/"):
            refused(os.chmod, path, 0o777)
            refused(os.chown, path, 1, 1)
            refused(os.utime, path, (1, 1))
            refused(os.setxattr, path, "user.x", b"x")
        import fcntl, struct
        for path in (os.__file__, "/usr/lib", "."):
            file = os.open(path, os.O_RDONLY)
            for number, size in ((0x40086602, 8), (0x401c5820, 28)): refused(fcntl.ioctl, file, number, bytes(size))
    """),
    Hostile("reads secrets", """
        home = os.path.dirname("{canary}")
        for path in ("{canary}", "/etc/passwd", "/etc/shadow", "/proc/1/environ", f"/proc/{os.getppid()}/environ",
                     f"/proc/{os.getppid()}/mem", "/proc/{victim}/environ", "/proc/self/environ", "{home}/.bashrc",
                     "/dev/mem", "/sys/kernel/notes", "/proc/kallsyms", "/dev/urandom"):
            refused(open, path)
        for folder in (home, "/home", "/proc", "/dev", "/var"): refused(os.listdir, folder)
        if any("secret" in value for value in os.environ.values()): raise SystemExit("ESCAPED")
    """),
    Hostile("reads secrets through symbolic links", """
        os.symlink("{canary}", "link")
        os.symlink("/", "root")
        refused(open, "link")
        refused(open, "link", "w")
        refused(open, "root{canary}")
        refused(open, "root/etc/passwd")
    """),
    Hostile("reads secrets through hard links", """
        refused(os.link, "{canary}", "hard")
        refused(os.link, os.__file__, "library.py")
        refused(os.rename, "{canary}", "moved")
    """),
    Hostile("opens files by handle", "refused(libc.syscall, 304, -100, ctypes.create_string_buffer(64), 0)"),
    Hostile("mounts", """
        for number in (155, 161, 165, 166, 428, 429, 430): refused(libc.syscall, number, b"/", b"/", b"tmpfs", 0, 0)
    """),
    Hostile("makes devices", """
        refused(os.mknod, "disk", 0o60666, os.makedev(254, 0))
        refused(os.mknod, "mem", 0o20666, os.makedev(1, 1))
    """),
)  # fmt: skip

_PROCESSES = (
    Hostile("a fork bomb", """
        refused(os.fork)
        for number in (56, 57, 58, 435): refused(libc.syscall, number, 0, 0, 0, 0, 0)
    """),
    Hostile("a bomb of subprocesses", """
        import subprocess
        while True:
            try: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
            except OSError: break
        refused(os.system, "true") if os.system("true") == 0 else None
    """),
    Hostile("multiprocessing", "import multiprocessing\nmultiprocessing.Process(target=print).start()", says="Error"),
    Hostile("becomes another program", """
        for path in ("/bin/sh", sys.executable, "/usr/bin/env"): refused(os.execv, path, [path])
        refused(os.posix_spawn, "/bin/true", ["true"], {})
    """),
    Hostile("ends its parent", """
        import signal
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGHUP):
            if os.getppid() != 1: refused(os.kill, os.getppid(), number)
            else:
                try: os.kill(1, number)
                except OSError: pass
    """),
    Hostile("signals every process", """
        import signal
        if os.getppid() != 1:  # in a namespace those are itself
            for process in (0, -1, -os.getpgid(0), {victim}, -{victim}): refused(os.kill, process, signal.SIGTERM)
        for process in range(1, 4000):
            if process != os.getpid():
                try: os.kill(process, signal.SIGKILL)
                except OSError: pass
    """),
    Hostile("signals by other calls", """
        for process in (os.getppid(), {victim}):
            calls = [(200, process, 9), (234, process, process, 9),
                     (129, process, 9, ctypes.create_string_buffer(128)),
                     (297, process, process, 9, ctypes.create_string_buffer(128))]
            try: handle = os.pidfd_open(process)
            except OSError: handle = 99
            refused(libc.syscall, 438, handle, 0, 0)
            for call in (*calls, (424, handle, 9, None, 0)):
                # The first process of a namespace does not even notice.
                libc.syscall(*call) if process == 1 else refused(libc.syscall, *call)
    """),
    Hostile("has the kernel signal for it", """
        import fcntl, socket
        ours, theirs = socket.socketpair()
        for process in ({victim}, -{victim}):
            refused(fcntl.fcntl, ours, fcntl.F_SETOWN, process)
            refused(fcntl.ioctl, ours, 0x8901, ctypes.string_at(ctypes.byref(ctypes.c_int(process)), 4))
    """),
    Hostile("outlives its server", """
        refused(os.setsid) if os.getppid() != 1 else None
        import time
        if os.getppid() != 1: refused(libc.syscall, 157, 1, 0, 0, 0, 0)
        time.sleep(1000)
    """, ("timeout",)),
    Hostile("traces its parent", """
        for process in (os.getppid(), {victim}):
            refused(libc.syscall, 101, 16, process, 0, 0)
            refused(libc.syscall, 310, process, None, 0, None, 0, 0)
            refused(libc.syscall, 311, process, None, 0, None, 0, 0)
        refused(libc.syscall, 101, 0, 0, 0, 0)
    """),
    Hostile("makes namespaces", """
        for flags in (0x10000000, 0x00020000, 0x40000000, 0x20000000): refused(libc.syscall, 272, flags)
        refused(libc.syscall, 308, 3, 0)
    """),
    Hostile("keyrings", "for number in (248, 249, 250): refused(libc.syscall, number, 0, 0, 0, 0, 0)"),
    Hostile("io_uring, bpf, userfaultfd, perf", """
        for number in (425, 321, 323, 298): refused(libc.syscall, number, 8, ctypes.create_string_buffer(256), 0, 0, 0)
    """),
    Hostile("shared memory and queues", """
        for number in (29, 64, 68, 240): refused(libc.syscall, number, 0, 4096, 0o1600, 0)
        refused(os.memfd_create, "x")
        refused(libc.syscall, 447, 0)
        if os.getppid() != 1:
            for number in (31, 66, 71): refused(libc.syscall, number, 0, 0, 0, 0)
        from multiprocessing import shared_memory
        refused(shared_memory.SharedMemory, None, True, 4096)
    """),
    Hostile("timers", """
        import signal, time
        refused(libc.syscall, 222, 0, None, ctypes.byref(ctypes.c_void_p()))
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        time.sleep(0.05)
    """),
    Hostile("system calls by their other numbers", """
        for number in (57, 59, 41): refused(libc.syscall, 1 << 30 | number)
    """),
    Hostile("a filter of its own", """
        refused(libc.syscall, 317, 0, 0, None)
        refused(libc.prctl, 22, 1, 0, 0, 0)
    """),
    Hostile("a broken pointer", "import ctypes\nctypes.string_at(0)", ("crashed",), says="SIGSEGV"),
)  # fmt: skip

_NETWORK = (
    Hostile("sockets", """
        import socket
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40, 38):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW): refused(socket.socket, family, kind)
        refused(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
        ours, theirs = socket.socketpair()
        refused(ours.connect, "/run/systemd/journal/stdout")
        refused(ours.bind, "\\0name")
        refused(ours.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    """),
    Hostile("names and pages", """
        import socket, urllib.request
        refused(socket.getaddrinfo, "example.com", 80)
        refused(socket.gethostbyname, "example.com")
        refused(urllib.request.urlopen, "http://127.0.0.1/")
        refused(socket.create_connection, ("127.0.0.1", 22))
    """),
    Hostile("listens", "import http.server\nrefused(http.server.HTTPServer, ('127.0.0.1', 0), None)"),
)  # fmt: skip

PROGRAMS: tuple[Hostile, ...] = (*_LIMITS, *_FILES, *_PROCESSES, *_NETWORK)
