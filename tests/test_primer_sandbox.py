"""The sandbox: what a program can see, what it can take, and what it cannot claim."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import primer.sandbox
from primer.errors import PrimerError
from primer.sandbox import Result, Sandbox, bubblewraps
from primer.sandbox_kernel import system_call_filter

PASSING = "def double(x):\n    return 2 * x\n\nassert double(2) == 4"


def run(sandbox: Sandbox, program: str, seconds: float = 2.0, memory_mib: int = 256) -> Result:
    return sandbox.run(textwrap.dedent(program), seconds=seconds, memory_mib=memory_mib)


def server_of(sandbox: Sandbox) -> int:
    assert sandbox._server is not None
    return sandbox._server._process.pid


def test_a_program_passes_if_it_comes_to_its_end(sandbox: Sandbox):
    assert run(sandbox, PASSING).passed
    wrong = run(sandbox, PASSING.replace("2 * x", "3 * x"))
    assert (wrong.passed, wrong.reason) == (False, "failed")
    assert "assert double(2) == 4" in wrong.detail
    assert wrong.detail.endswith("AssertionError")
    assert run(sandbox, "def f(:").reason == "failed"
    assert run(sandbox, "\0").reason == "failed"
    assert run(sandbox, "text = '\ud800'").reason == "failed"  # half of a pair of UTF-16 is no text
    assert run(sandbox, "").passed


def test_programs_are_ordinary_ones(sandbox: Sandbox):
    """Dataclasses look their module up, pickles look classes up, threads and coroutines run, strings are UTF-8."""
    program = """
        from __future__ import annotations
        import asyncio, dataclasses, pickle, sys, threading, tempfile, zoneinfo
        from typing import get_type_hints

        @dataclasses.dataclass
        class Point:
            x: int = 0

        assert __name__ == "__main__"
        assert pickle.loads(pickle.dumps(Point(3))) == Point(3)
        assert get_type_hints(Point) == {"x": int}
        seen = []
        thread = threading.Thread(target=seen.append, args=(1,))
        thread.start()
        thread.join()
        assert seen == [1]
        async def answer():
            await asyncio.sleep(0.001)
            return 42
        assert asyncio.run(answer()) == 42
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            file.write("größer")
            file.seek(0)
            assert file.read() == "größer"
        print("größer", flush=True)
        try:
            input()
        except EOFError:
            print("no input")
    """
    result = run(sandbox, program)
    assert result.passed, result.detail
    assert result.detail == "größer\nno input"


def test_verdicts_do_not_hang_on_chance(sandbox: Sandbox):
    program = "import random\nprint(random.random(), hash('word'), list({'a', 'b', 'c', 'd'}))"
    first = run(sandbox, program)
    with Sandbox() as another:
        assert run(another, program).detail == first.detail == run(sandbox, program).detail


def test_the_server_is_out_of_reach(sandbox: Sandbox):
    """It is the first process of its namespace, which signals from inside do not reach, and its memory is closed."""
    before = server_of(sandbox)
    program = """
        import ctypes, os, signal
        assert os.getppid() == 1
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV):
            try:
                os.kill(1, number)
            except PermissionError:
                pass
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.ptrace(16, 1, 0, 0) == -1  # PTRACE_ATTACH
        assert libc.syscall(438, os.pidfd_open(1), 0, 0) == -1  # pidfd_getfd
        assert not os.path.exists("/proc")
    """
    result = run(sandbox, program)
    assert result.passed, result.detail
    assert server_of(sandbox) == before
    assert run(sandbox, PASSING).passed


@pytest.mark.parametrize(
    "attempt",
    [
        "resource.prlimit(1, resource.RLIMIT_FSIZE, (0, 0))",  # the next fork could not be closed in
        "resource.prlimit(1, resource.RLIMIT_DATA, (1 << 20, 1 << 20))",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
        "os.setpriority(os.PRIO_PROCESS, 1, 19)",
        "os.sched_setaffinity(1, {min(os.sched_getaffinity(0))})",
        "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
    ],
)
def test_a_program_cannot_set_anything_for_the_server(sandbox: Sandbox, attempt: str):
    before = server_of(sandbox)
    poison = run(sandbox, f"import os, resource\n{attempt}")
    assert (poison.reason, "PermissionError" in poison.detail) == ("failed", True), poison
    state = "import os, resource\nprint(os.getpriority(0, 0), os.sched_getscheduler(0), len(os.sched_getaffinity(0)))"
    after = run(sandbox, state)
    with Sandbox() as fresh:
        assert after == Result("passed", run(fresh, state).detail, after.seconds)
    assert run(sandbox, PASSING).passed
    assert server_of(sandbox) == before
    own = run(sandbox, "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\nresource.prlimit(0, 7)")
    assert own.passed, own.detail


def test_a_program_that_could_not_be_closed_in_has_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = primer.sandbox._SERVER.read_text(encoding="utf-8")
    broken = tmp_path / "server.py"
    begins = "        silence, _ = os.pipe()"
    assert begins in source
    broken.write_text(source.replace(begins, f"        raise MemoryError\n{begins}"), encoding="utf-8")
    monkeypatch.setattr(primer.sandbox, "_SERVER", broken)
    try:
        opened = Sandbox().__enter__()
    except PrimerError as error:
        pytest.skip(f"this machine allows no sandbox: {error.problem}")
    assert run(opened, PASSING).reason == "lost"
    opened._server = primer.sandbox._start()
    monkeypatch.undo()
    assert run(opened, PASSING).passed  # in the second sandbox
    opened.__exit__(None, None, None)


def test_a_program_sees_neither_environment_nor_files_of_the_machine(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_TEST_KEY", "sk-secret")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    program = f"""
        import os
        assert dict(os.environ) == {{}}, os.environ
        for path in ({str(tmp_path / "secret.txt")!r}, "/etc/passwd", "/proc/self/environ", "/sys", "/dev", "/home",
                     "/var", "/bin/sh", "/usr/bin/env", {str(Path(__file__))!r}, {str(Path.cwd())!r}):
            assert not os.path.exists(path), path
        assert os.listdir("/tmp") == os.listdir(".") == []
        assert os.path.exists(os.__file__)
    """
    with Sandbox() as fresh:  # started after the key was set
        for each in (fresh, sandbox):
            result = run(each, program)
            assert result.passed, result.detail


def test_nothing_can_be_written_but_a_little_that_the_next_program_does_not_see(sandbox: Sandbox):
    program = """
        import os
        for path in ("/x", os.path.dirname(os.__file__) + "/x.py", "/usr/lib/x", os.__file__):
            for attempt in (lambda: open(path, "a"), lambda: os.chmod(path, 0o777), lambda: os.unlink(path)):
                try:
                    attempt()
                except OSError:
                    continue
                raise SystemExit(path)
        open("/tmp/left.txt", "w").write("left")
        try:
            open("/tmp/large", "wb").write(b"x" * (9 << 20))
        except OSError as error:
            print(error)
    """
    result = run(sandbox, program)
    assert result.passed, result.detail
    assert "File too large" in result.detail
    after = run(sandbox, "import os\nprint(os.listdir('/tmp'))")
    assert after.detail == "[]"
    assert not Path("/tmp/left.txt").exists()
    full = """
        import os
        for number in range(4):
            open(f"/tmp/{number}", "wb").write(b"x" * (8 << 20))
    """
    assert "No space left" in run(sandbox, full).detail


def test_there_is_no_network(sandbox: Sandbox):
    program = """
        import ctypes, socket, urllib.request
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 40):  # 40: AF_VSOCK
            try:
                socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue
            raise SystemExit(family)
        try:
            urllib.request.urlopen("http://127.0.0.1/", timeout=1)
        except OSError as error:
            print(error)
    """
    result = run(sandbox, program)
    assert result.passed, result.detail
    assert "not permitted" in result.detail


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls on x86-64")
def test_system_calls_by_their_other_numbers_are_refused(sandbox: Sandbox):
    program = """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        for number in (57, 58, 56, 0x40000000 + 57, 435):  # fork, vfork, clone, fork of x32, clone3
            assert libc.syscall(number, 0, 0, 0, 0, 0) == -1
            assert ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
    """
    result = run(sandbox, program)
    assert result.passed, result.detail


def test_a_program_has_limits(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(primer.sandbox, "_WALL_MORE", 0.5)
    started = time.monotonic()
    assert run(sandbox, "while True: pass", seconds=0.3).reason == "timeout"
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run(sandbox, ignoring, seconds=0.3).reason == "timeout"
    waiting = run(sandbox, "import time\ntime.sleep(60)", seconds=0.2)
    assert (waiting.reason, waiting.seconds < 0.2) == ("timeout", True)
    quick = "import time\nwhile time.process_time() < 0.4: pass"
    assert run(sandbox, quick, seconds=0.3).reason == "timeout"  # kernels count whole seconds
    assert time.monotonic() - started < 20
    assert run(sandbox, "x = bytearray(1 << 30)").reason == "memory"
    assert run(sandbox, "x = []\nwhile True: x.append('x' * 100_000)").reason == "memory"
    assert run(sandbox, "x = bytearray(100 << 20)", memory_mib=64).reason == "memory"
    assert run(sandbox, "x = bytearray(100 << 20)", memory_mib=512).passed
    assert run(sandbox, "while True: print('x' * 1000)").reason == "output"
    assert run(sandbox, "for n in range(5000): print(n)").detail.endswith("4998\n4999")
    assert run(sandbox, "def f(): f()\nf()").reason == "failed"
    files = "import os\nopened = [os.dup(1) for _ in range(1000)]"
    assert "Too many open files" in run(sandbox, files).detail


def test_a_server_that_ends_is_started_again_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    assert sandbox._server is not None
    sandbox._server._process.kill()
    assert run(sandbox, PASSING).passed

    def asked_in_vain(server: primer.sandbox._Server, *_: object) -> None:
        server._process.kill()

    monkeypatch.setattr(primer.sandbox._Server, "ask", asked_in_vain)
    assert run(sandbox, PASSING).reason == "lost"
    monkeypatch.undo()
    assert run(sandbox, PASSING).passed


def test_nothing_is_left_behind_even_if_the_owner_is_killed(tmp_path: Path):
    program = """
        import os, sys
        from primer.sandbox import Sandbox
        with Sandbox() as sandbox:
            print(sandbox._server._process.pid, flush=True)
            sandbox.run("import time\\ntime.sleep(600)", seconds=200, memory_mib=64)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        if not line:
            pytest.skip("this machine allows no sandbox")
        group = {int(line)}
        time.sleep(0.5)
        while (larger := group | children(group)) != group:
            group = larger
        assert len(group) >= 3  # bubblewrap, the server, the program
        owner.kill()
    until = time.monotonic() + 10
    while alive(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(group)


def children(parents: set[int]) -> set[int]:
    every = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    return {process for process in every if (fields := stat(process)) and int(fields[1]) in parents}


def stat(process: int) -> list[str]:
    """State, parent and so on of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return []


def alive(processes: set[int]) -> set[int]:
    return {process for process in processes if (fields := stat(process)) and fields[0] != "Z"}


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter(()))
    with pytest.raises(PrimerError, match="there is no bubblewrap") as error, Sandbox():
        pass
    assert "code.exercises=null" in error.value.remedy
    assert "eval.weak_isolation=true" in error.value.remedy
    forbidden = tmp_path / "bwrap"
    forbidden.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter((str(forbidden),)))
    with pytest.raises(PrimerError, match="No permissions to create new namespace"), Sandbox():
        pass


def test_the_server_refuses_to_run_outside():
    server = Path(primer.sandbox.__file__).with_name("sandbox_server.py")
    ended = subprocess.run([sys.executable, server], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "inside a sandbox alone" in ended.stderr


def test_the_filter_is_made_for_both_architectures():
    for machine in ("x86_64", "aarch64"):
        for process, reading in ((None, False), (7, False), (7, True)):
            assert len(system_call_filter(machine, process, reading=reading)) % 8 == 0
    with pytest.raises(KeyError):
        system_call_filter("pdp11")


def test_bubblewrap_comes_with_the_package_or_the_system():
    for path in bubblewraps():
        assert os.access(path, os.X_OK)
