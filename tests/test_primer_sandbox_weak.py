"""Programs where a system allows no namespaces: refused, or run with what the kernel offers without them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import primer.sandbox
from primer.sandbox import Sandbox
from primer.sandbox_kernel import landlock_version
from primer.sandbox_server import remove_folder

GOOD = "def double(x):\n    return 2 * x\n\nassert double(2) == 4"


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without bubblewrap; gives the folder for temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter(()))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    primer.sandbox._say_what_is_weaker.cache_clear()
    yield temporary
    assert list(temporary.iterdir()) == []


def run(sandbox: Sandbox, program: str, seconds: float = 3.0) -> str:
    result = sandbox.run(textwrap.dedent(program), seconds=seconds, memory_mib=256)
    return result.detail if result.passed else f"{result.reason}: {result.detail}"


def test_weaker_isolation_is_said_once_and_only_where_there_are_no_namespaces(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert sandbox.run(GOOD, seconds=1, memory_mib=64).passed
    said: list[str] = []
    monkeypatch.setattr(primer.sandbox, "say", said.append)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Sandbox(weak=True) as allowed:
        assert allowed.run("import os\nassert os.getppid() == 1", seconds=1, memory_mib=64).passed
    assert said == []
    monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter(("/bin/false",)))
    primer.sandbox._say_what_is_weaker.cache_clear()
    for _ in range(2):
        with Sandbox(weak=True) as weak:
            assert weak.run("import os\nassert os.getppid() != 1", seconds=1, memory_mib=64).passed
    (line,) = said
    assert "no namespaces here (/bin/false: it does not answer)" in line
    assert "\n" not in line


def test_programs_are_ordinary_ones_without_namespaces_too(no_namespaces: Path):
    program = """
        import asyncio, decimal, os, sys, tempfile, threading, zoneinfo
        assert dict(os.environ) == {} and sys.stdin.read() == ""
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/x.txt", "w", encoding="utf-8") as file: file.write("größer")
            os.rename(folder + "/x.txt", "y.txt")
            assert open("y.txt", encoding="utf-8").read() == "größer"
        seen = []
        thread = threading.Thread(target=seen.append, args=(1,))
        thread.start(); thread.join()
        async def answer(): return 42
        print(asyncio.run(answer()), seen, hash("word"))
    """
    with Sandbox(weak=True) as weak:
        first = run(weak, program)
        assert first.startswith("42 [1] ")
        assert run(weak, "import os\nprint(os.listdir('.'))") == "[]"  # another folder
        assert run(weak, program) == first


def test_where_landlock_is_missing_nothing_can_be_written(
    no_namespaces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    said: list[str] = []
    monkeypatch.setattr(primer.sandbox, "say", said.append)
    source = primer.sandbox._KERNEL.read_text(encoding="utf-8")
    for version in (0, min(1, landlock_version())):
        begins = "    return max(0, version)"
        assert begins in source
        (tmp_path / "kernel.py").write_text(source.replace(begins, f"    return {version}"), encoding="utf-8")
        monkeypatch.setattr(primer.sandbox, "_KERNEL", tmp_path / "kernel.py")
        canary = tmp_path / "canary.txt"
        canary.write_text("mine", encoding="utf-8")
        program = f"""
            import ctypes, os
            libc = ctypes.CDLL(None)
            attempts = [lambda flags=flags, path=path: os.open(path, flags)
                for path in ("x", {str(canary)!r}) for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)]
            attempts += [lambda: os.mkdir("x"), lambda: os.unlink({str(canary)!r}), lambda: os.mkfifo("x"),
                lambda: os.truncate({str(canary)!r}, 0), lambda: os.rename({str(canary)!r}, "x"),
                lambda: os.symlink("x", "y"), lambda: os.link({str(canary)!r}, "y"), lambda: os.kill(os.getppid(), 9)]
            for attempt in attempts:
                try: attempt()
                except OSError: continue
                raise SystemExit("ESCAPED")
            assert libc.syscall(437, -100, b"x", ctypes.create_string_buffer(bytes(24), 24), 24) == -1  # openat2
            try: print(open({str(canary)!r}).read())
            except PermissionError: print("closed")
            try: print(open(f"/proc/{{os.getppid()}}/environ").read(), open(f"/proc/{os.getpid()}/environ").read())
            except PermissionError: print("closed")
        """
        with Sandbox(weak=True) as weak:
            assert run(weak, program) == ("mine\nclosed" if version == 0 else "closed\nclosed")
            assert run(weak, GOOD) == ""
        assert canary.read_text(encoding="utf-8") == "mine"
        assert ctypes.CDLL(None).prctl(3) == (0 if version == 0 else 1)  # PR_GET_DUMPABLE
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    assert ("every file" in said[0], len(said), "write none" in said[0]) == (True, 1 + bool(landlock_version()), True)


@pytest.mark.parametrize("busy", [True, False])
def test_nothing_is_left_if_the_owner_is_killed(tmp_path: Path, busy: bool):
    program = f"""
        import time, primer.sandbox
        primer.sandbox.bubblewraps = lambda: iter(())
        with primer.sandbox.Sandbox(weak=True) as sandbox:
            print(sandbox._server._process.pid, flush=True)
            program = "import os, time\\nos.makedirs('a/b')\\nprint(1, flush=True)\\ntime.sleep(600)"
            sandbox.run(program, seconds=200, memory_mib=64) if {busy} else time.sleep(600)
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        until = time.monotonic() + 20
        while busy and not list(tmp_path.glob("*/a/b")) and time.monotonic() < until:
            time.sleep(0.02)
        group = [server, *(int(child) for child in Path(f"/proc/{server}/task/{server}/children").read_text().split())]
        assert len(group) == 1 + busy
        owner.kill()
    while (list(tmp_path.iterdir()) or any(map(alive, group))) and time.monotonic() < until:
        time.sleep(0.02)
    assert (list(tmp_path.iterdir()), [process for process in group if alive(process)]) == ([], [])


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where thousands of folders do not take seconds."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def test_a_folder_is_removed_however_deep_and_its_links_are_not_followed(memory: Path):
    kept = memory / "kept"
    kept.mkdir()
    (kept / "file.txt").write_text("kept", encoding="utf-8")
    folder = memory / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(kept)
    (folder / "empty" / "er").mkdir(parents=True)
    here = os.open(".", os.O_PATH)
    try:
        os.chdir(folder)
        for _ in range(1100):  # beyond Python's recursion, and the longest path of the kernel
            Path("name").mkdir()
            os.chdir("name")
        Path("leaf").symlink_to(kept)
        Path("closed").mkdir(0)
    finally:
        os.chdir(here)
        os.close(here)
    remove_folder(str(folder))
    assert sorted(memory.rglob("*")) == [kept, kept / "file.txt"]


@pytest.mark.parametrize("weak", [False, True])
def test_the_token_of_the_verdict_is_on_no_frame_in_no_container_and_no_descriptor(
    sandbox: Sandbox, weak: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """It is a known one here, and everything that Python's own means lead to is searched for it."""
    assert sandbox.run(GOOD, seconds=1, memory_mib=64).passed
    source = primer.sandbox._SERVER.read_text(encoding="utf-8")
    assert "os.urandom(16)" in source
    (tmp_path / "server.py").write_text(source.replace("os.urandom(16)", "bytes(range(80, 96))"), encoding="utf-8")
    monkeypatch.setattr(primer.sandbox, "_SERVER", tmp_path / "server.py")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if weak:
        monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter(()))
    program = """
        import gc, os, sys
        frame, found = sys._getframe(), []
        while frame:
            found += [frame, frame.f_locals, frame.f_globals]
            frame = frame.f_back
        found += gc.get_objects() + list(sys._current_frames().values())
        seen = {}
        while found:
            thing = found.pop()
            if id(thing) in seen: continue
            seen[id(thing)] = thing
            found += gc.get_referents(thing)
        assert len(seen) > 10_000
        secret = bytes(number + 1 for number in range(79, 95))
        print(sum(type(thing) is bytes and secret in thing for thing in seen.values() if thing is not secret))
        for file in range(3, 1024):
            try:
                os.set_blocking(file, False)
                print(os.read(file, 100))
            except OSError: pass
    """
    with Sandbox(weak=weak) as known:
        assert run(known, program) == "0"
