"""Hostile programs, with namespaces and without: each is contained, none passes, and the next program runs as ever."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_programs import CHECKED, PROGRAMS, Hostile
from hostile_verdicts import VERDICTS

import primer.sandbox
from primer.errors import PrimerError
from primer.sandbox import Sandbox

GOOD = "def double(x):\n    return 2 * x\n\nassert double(2) == 4"


@dataclass(frozen=True)
class Place:
    """A sandbox, what is to be kept from it, and the temporary folder around it."""

    sandbox: Sandbox
    canary: Path
    victim: subprocess.Popen[bytes]
    temporary: Path


@pytest.fixture(scope="module", params=["strict", "weak"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    canary = tmp_path_factory.mktemp("home") / "canary.txt"
    canary.write_text("secret", encoding="utf-8")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of folders take a disk seconds
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir=memory) as name,
        subprocess.Popen(["sleep", "1000"]) as victim,
    ):
        temporary = Path(name)
        patch.setenv("PRIMER_TEST_KEY", "secret")
        patch.setattr(primer.sandbox, "_WALL_FACTOR", 1.0)
        patch.setattr(primer.sandbox, "_WALL_MORE", 0.1)
        patch.setattr(tempfile, "tempdir", str(temporary))
        if request.param == "weak":
            patch.setattr(primer.sandbox, "bubblewraps", lambda: iter(()))
        try:
            sandbox = Sandbox(weak=request.param == "weak").__enter__()
        except PrimerError as error:
            victim.kill()
            pytest.skip(f"this machine allows no sandbox: {error.problem}")
        yield Place(sandbox, canary, victim, temporary)
        sandbox.__exit__(None, None, None)
        assert list(temporary.iterdir()) == []
        victim.kill()


@pytest.mark.parametrize("hostile", [*PROGRAMS, *VERDICTS], ids=lambda hostile: hostile.name)
def test_a_hostile_program_is_contained_and_never_passes(place: Place, hostile: Hostile):
    program = hostile.program(str(place.canary), place.victim.pid)
    seconds = 0.2 if "timeout" in hostile.ends else 5.0
    result = place.sandbox.run(program, seconds=seconds, memory_mib=hostile.memory_mib)
    assert result.reason in hostile.ends, result
    assert "ESCAPED" not in result.detail
    if hostile.says is not None or hostile.ends == ("failed",):
        says = CHECKED if hostile.says is None else hostile.says
        assert says in result.detail.rpartition("\n")[2], result
    assert place.sandbox.run(GOOD, seconds=2, memory_mib=256).passed
    assert place.victim.poll() is None
    assert [path.name for path in place.canary.parent.iterdir()] == ["canary.txt"]
    assert place.canary.read_text(encoding="utf-8") == "secret"
    assert len(list(place.temporary.iterdir())) <= 1  # the scratch folder of the server that runs
    assert [list(folder.iterdir()) for folder in place.temporary.iterdir()] in ([], [[]])
    assert len(tasks_of(place.sandbox)) == 0


def tasks_of(sandbox: Sandbox) -> list[int]:
    """Processes below the server of a sandbox, which waits for the next program."""
    assert sandbox._server is not None
    server = sandbox._server._process.pid
    if sandbox._server._scratch is None:
        (server,) = children(server)  # the first is bubblewrap
    return children(server)


def children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()]
