"""Processes of a training that crash, hang and are interrupted; they train nothing, but take steps and beat."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from primer.errors import PrimerError
from train import supervisor
from train.heartbeat import Heartbeat, read_heartbeats
from train.supervisor import _Pulse, run_ranks

pytestmark = pytest.mark.timeout(60)

# Takes 12 steps, each with the other processes; a file says how many are done, as a checkpoint does. At step 8 one of
# the processes has `trouble`: once, or always.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from train import heartbeat
heartbeat._INTERVAL = 0
folder, trouble, troubled, always = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), "always" in sys.argv
rank, size = (int(os.environ.get(key, default)) for key, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
with (folder / "starts").open("a") as file:
    file.write(repr((rank, os.getpid(), [os.environ.get(key) for key in keys])) + "\\n")
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
beats = heartbeat.Heartbeat.from_environment(rank, "model")
beats.beat(0, "preparing")

def done(number):
    path = folder / f"done-{number}"
    return int(path.read_text() or 0) if path.exists() else 0

def have_trouble():
    print("trouble:", trouble, flush=True)
    (folder / "troubled").touch()
    kind, _, number = trouble.partition("-")
    if kind == "signal":
        os.kill(os.getpid(), int(number))
    elif kind == "exit":
        sys.exit(int(number))
    elif kind == "sleep":
        while True:
            time.sleep(600)
    elif kind == "saving":
        beats.beat(step, "saving")
        time.sleep(1.4)

step = done(rank)
while step < 12:
    beats.beat(step)
    time.sleep(0.02)
    if trouble != "none" and step == 8 and rank == troubled and (always or not (folder / "troubled").exists()):
        have_trouble()
    step += 1
    (folder / f"done-{rank}").write_text(str(step))
    if stop:
        (folder / f"leaving-{rank}").touch()
        time.sleep(0.6 * (rank == 0))  # the first one saves
        (folder / f"stopped-{rank}").touch()
        sys.exit(130)
    while any(done(other) < step and not (folder / f"leaving-{other}").exists() for other in range(size)):
        time.sleep(0.005)  # deaf and silent, as in a collective
"""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setattr(supervisor, "_GRACE_SECONDS", 0.3)
    monkeypatch.setenv("PYTHONPATH", str(repository))


def command(folder: Path, trouble: str, *more: str) -> list[str]:
    return [sys.executable, "-c", CHILD, str(folder), trouble, *more]


def run(
    folder: Path, trouble: str, *more: str, processes: int = 2, restart: bool = True, hang_seconds: float = 20
) -> int:
    """Supervise processes of which the last has trouble."""
    folder.mkdir(exist_ok=True)
    record, troubled = folder / "restarts.jsonl", str(processes - 1)
    asked = command(folder, trouble, troubled, *more)
    return run_ranks(asked, processes, folder / "beats", restart=restart, hang_seconds=hang_seconds, record=record)


def recorded(folder: Path) -> list[dict[str, Any]]:
    path = folder / "restarts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def starts(folder: Path) -> list[tuple[int, int, list[str | None]]]:
    return [eval(line) for line in (folder / "starts").read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_of_one_process_restarts_all_within_a_minute(number: signal.Signals, tmp_path: Path, capsys: Any):
    assert run(tmp_path, f"signal-{number:d}") == 0
    (row,) = recorded(tmp_path)
    assert (row["what"], row["rank"], row["code"], row["step"]) == ("ended", 1, -number, 8)
    assert 0.2 < row["seconds"] < 10  # the deaf one was given its moment
    assert [rank for rank, _, _ in starts(tmp_path)].count(0) == 2
    assert [(tmp_path / f"done-{rank}").read_text() for rank in (0, 1)] == ["12", "12"]
    said = capsys.readouterr().err
    assert f"process 1 was ended by {number.name} after step 8" in said
    assert f"trouble: signal-{number:d}" in said  # the end of its log


def test_a_process_that_hangs_is_killed_and_started_again_within_a_minute(tmp_path: Path):
    started = time.monotonic()
    assert run(tmp_path, f"signal-{signal.SIGSTOP:d}", hang_seconds=1) == 0
    assert time.monotonic() - started < 30
    (row,) = recorded(tmp_path)
    assert (row["what"], row["code"]) == ("silent", None)
    assert 0.9 < row["silence"] < 5
    assert row["seconds"] < 10
    assert not any(alive(pid) for _, pid, _ in starts(tmp_path))


def test_saving_is_no_hang_nor_is_waiting_for_it(tmp_path: Path):
    assert run(tmp_path, "saving", hang_seconds=1) == 0
    assert (tmp_path / "troubled").exists()
    assert recorded(tmp_path) == []
    assert len(starts(tmp_path)) == 2


def test_an_error_that_was_explained_is_passed_on(tmp_path: Path, capsys: Any):
    assert run(tmp_path, "exit-1") == 1
    assert recorded(tmp_path) == []
    assert len(starts(tmp_path)) == 2
    assert "trouble: exit-1" in capsys.readouterr().err
    assert not any(alive(pid) for _, pid, _ in starts(tmp_path))


def test_other_errors_restart_only_where_asked_to(tmp_path: Path):
    assert run(tmp_path / "a", "exit-70", restart=False) == 70
    assert run(tmp_path / "b", "exit-2", processes=1) == 2
    assert run(tmp_path / "d", "signal-9", processes=1, restart=False) == 128 + 9
    assert recorded(tmp_path / "a") == recorded(tmp_path / "b") == recorded(tmp_path / "d") == []
    assert run(tmp_path / "c", "exit-70", processes=1) == 0
    assert [row["code"] for row in recorded(tmp_path / "c")] == [70]


def test_restarts_end_where_they_get_no_further(tmp_path: Path):
    with pytest.raises(PrimerError, match="started again 3 times and got no step further") as error:
        run(tmp_path, "signal-9", "always", processes=1)
    assert "after step 8" in error.value.problem
    assert "restarts.jsonl" in error.value.remedy
    assert len(starts(tmp_path)) == 4
    assert [row["seconds"] is None for row in recorded(tmp_path)] == [False, False, False, True]


def test_processes_know_of_each_other_and_one_alone_of_nobody(tmp_path: Path):
    assert run(tmp_path / "two", "none") == 0
    seen = sorted(values for _, _, values in starts(tmp_path / "two"))
    port = seen[0][-1]
    assert port is not None
    assert seen == [[rank, "2", rank, "2", "127.0.0.1", port] for rank in ("0", "1")]
    assert run(tmp_path / "one", "none", processes=1) == 0
    assert starts(tmp_path / "one")[0][2] == [None] * 6


SUPERVISE = """
import sys
from pathlib import Path
from train.supervisor import run_ranks
folder = Path(sys.argv[1])
sys.exit(run_ranks(sys.argv[2:], 2, folder / "beats", restart=True, hang_seconds=20, record=folder / "restarts.jsonl"))
"""


def supervised(folder: Path, trouble: str = "none") -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own, with two ranks under way."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(folder), *command(folder, trouble, "1")])
    wait_for(lambda: all((folder / f"done-{rank}").exists() for rank in (0, 1)))
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_waited_for(number: signal.Signals, tmp_path: Path):
    process = supervised(tmp_path)
    process.send_signal(number)
    assert process.wait(10) == 130
    if number == signal.SIGTERM:  # the first was slower than the other to save, and was let finish
        assert (tmp_path / "stopped-0").exists()
        assert (tmp_path / "stopped-1").exists()
    assert len(starts(tmp_path)) == 2
    assert recorded(tmp_path) == []
    assert not any(alive(pid) for _, pid, _ in starts(tmp_path))


def test_a_second_signal_kills(tmp_path: Path):
    process = supervised(tmp_path, "sleep")
    wait_for((tmp_path / "troubled").exists)
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 130
    assert not any(alive(pid) for _, pid, _ in starts(tmp_path))


def test_no_process_outlives_a_supervisor_that_was_killed(tmp_path: Path):
    process = supervised(tmp_path)
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for _, pid, _ in starts(tmp_path)))
    assert (tmp_path / "stopped-0").exists()  # told to stop, so a checkpoint was saved


def test_a_heartbeat_is_read_as_written_and_costs_little(tmp_path: Path):
    beats = Heartbeat(tmp_path, 3, "models/web")
    beats.beat(7)
    first = read_heartbeats(tmp_path)[3]
    assert (first.pid, first.work, first.step, first.phase) == (os.getpid(), "models/web", 7, "training")
    assert abs(first.time - time.time()) < 5
    started = time.perf_counter()
    for step in range(8, 10_008):
        beats.beat(step)
    assert time.perf_counter() - started < 0.5
    assert 7 <= read_heartbeats(tmp_path)[3].step < 10_007  # not each of them goes to disk
    beats.beat(10_007, "saving")
    assert read_heartbeats(tmp_path)[3].phase == "saving"
    (tmp_path / "rank-4.json").write_text('{"pid": 1')
    assert list(read_heartbeats(tmp_path)) == [3]


def test_patience_follows_the_pace(tmp_path: Path):
    beats, pulse = Heartbeat(tmp_path, 0), _Pulse()

    def see(step: int, phase: str, at: float) -> float:
        beats.beat(step, phase)
        beats._written = -1.0  # let the next one through
        pulse.see(read_heartbeats(tmp_path)[0], at)
        return pulse.limit(None)

    assert pulse.limit(None) == pulse.limit(5.0) == math.inf  # corpora may be made for days
    assert see(0, "preparing", 10) == see(0, "training", 20) == pulse.limit(5.0) == 1800
    assert see(1, "training", 500) == 60  # compiling is past, and says nothing about the pace
    assert pulse.limit(5.0) == 5
    assert see(2, "training", 520) == 200
    assert see(2, "validating", 530) == 1800
    assert see(2, "training", 900) == 200
    assert see(3, "training", 910) == 200  # validating counts for no step
    assert see(0, "preparing", 1000) == see(0, "training", 1010) == 1800  # the next model
