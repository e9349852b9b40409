from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from primer.errors import PrimerError
from train import checkpoint, tensor_file
from train.checkpoint import STATE, TENSORS, CheckpointStore


def _tensors(step: int, count: int = 200) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {f"{kind}.w": torch.randn(count, generator=generator) for kind in ("model", "exp_avg", "exp_avg_sq")}


def _saved(folder: Path, *steps: int, keep_last: int = 2, keep_every: int | None = None) -> CheckpointStore:
    """A store in which these steps were saved one after the other."""
    store = CheckpointStore(folder, keep_last, keep_every)
    for step in steps:
        store.save(step, _tensors(step), {"seconds": step / 3, "nested": {"name": "ü", "none": None}})
    store.wait()
    return store


def _assert_is(found: checkpoint.Checkpoint | None, step: int) -> None:
    assert found is not None
    assert found.step == step
    assert found.state == {"seconds": step / 3, "nested": {"name": "ü", "none": None}}
    expected = _tensors(step)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], expected[name]) for name in expected)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path):
    tensors = {
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).bfloat16(),
        "weight": torch.nn.Parameter(torch.randn(7, 2)),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 4),
        "turned": torch.arange(6).reshape(2, 3).T,
    }
    state = {"loss": 1e-300 / 3, "not finite": [float("inf")], "text": "line\u2028\ud800", "big": 2**80}
    store = CheckpointStore(tmp_path, 2, None)
    store.save(12, tensors, state)
    found = store.load()
    assert found is not None
    assert found.path == tmp_path / "checkpoints/step-000000012"
    assert (found.step, found.state) == (12, state)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    with safe_open(found.path / TENSORS, framework="np") as file:  # any reader of the format can open it
        assert file.get_slice("weight").get_shape() == [7, 2]


def test_loaded_tensors_outlive_their_file_and_belong_to_the_caller(tmp_path: Path):
    store = _saved(tmp_path, 1)
    found = store.load()
    assert found is not None
    data = (found.path / TENSORS).read_bytes()
    found.tensors["model.w"].mul_(2)
    assert (found.path / TENSORS).read_bytes() == data
    store.remove()
    assert not (tmp_path / "checkpoints").exists()
    assert torch.equal(found.tensors["model.w"], 2 * _tensors(1)["model.w"])
    assert torch.equal(found.tensors["exp_avg.w"], _tensors(1)["exp_avg.w"])


def test_saving_copies_no_tensor():
    tensors = _tensors(0)
    _, *data = tensor_file.pieces(tensors)
    addresses = {np.frombuffer(piece, np.uint8).ctypes.data for piece in data}
    assert addresses == {tensor.data_ptr() for tensor in tensors.values()}


def test_writing_goes_on_in_the_background_and_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    go, honest, running = threading.Event(), checkpoint.content_hash, list[int]()

    def held(path: Path, **options: Any) -> str:
        assert go.wait(20)
        running.append(sum(thread.name == "checkpoint" for thread in threading.enumerate()))
        return honest(path, **options)

    monkeypatch.setattr(checkpoint, "content_hash", held)
    store = CheckpointStore(tmp_path, 5, None)
    state = {"list": [1]}
    store.save(1, _tensors(1), state)
    state["list"].append(2)  # the caller's again
    assert store.steps() == []
    go.set()
    store.save(2, _tensors(2), state)
    store.wait()
    assert running == [1, 1]
    assert store.steps() == [1, 2]
    first = store.load(1)
    assert first is not None
    assert first.state == {"list": [1]}


def test_the_thread_runs_python_and_its_library_alone(tmp_path: Path):
    """Code of C++ or Rust that comes back for the GIL while the interpreter ends aborts the process (signal 6)."""
    rooms: set[str] = set()

    def note(frame: FrameType, event: str, function: Any) -> None:
        rooms.add(str(frame.f_globals.get("__name__")).split(".")[0])
        if event == "c_call":
            rooms.add(str(function.__module__ or type(function.__self__).__module__).split(".")[0])

    threading.setprofile(note)
    try:
        _saved(tmp_path, 1, 2, 3)
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    assert {"train", "posix"} <= rooms
    assert not {"torch", "safetensors", "numpy"} & rooms


def test_the_newest_and_every_so_many_steps_are_kept(tmp_path: Path):
    store = _saved(tmp_path, 0, 5, 10, 14, 20, 25, 31, keep_last=2, keep_every=10)
    assert store.steps() == [10, 20, 25, 31]
    _assert_is(store.load(), 31)
    _assert_is(store.load(24), 20)
    store.remove()
    assert _names(tmp_path) == ["step-000000010", "step-000000020"]


def test_going_back_removes_the_course_given_up(tmp_path: Path):
    store = _saved(tmp_path, 10, 15, 20, 22, keep_last=3, keep_every=10)
    _assert_is(store.load(15), 15)
    store.save(18, _tensors(18), {})
    store.wait()
    assert store.steps() == [10, 15, 18]


def test_a_step_reached_again_takes_the_place_of_the_first(tmp_path: Path):
    store = _saved(tmp_path, 3, 4)
    store.save(4, _tensors(9), {"again": True})
    found = store.load()
    assert found is not None
    assert found.state == {"again": True}
    assert _names(tmp_path) == ["step-000000003", "step-000000004"]


def test_what_a_killed_run_left_goes_with_the_next_checkpoint(tmp_path: Path):
    _saved(tmp_path, 1)
    stale = tmp_path / "checkpoints/.step-000000002.tmp"
    stale.mkdir()
    (stale / TENSORS).write_bytes(b"half")
    _assert_is(CheckpointStore(tmp_path, 2, None).load(), 1)
    _saved(tmp_path, 3)
    assert _names(tmp_path) == ["step-000000001", "step-000000003"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    _saved(folder, 1, 2)
    return folder


def _flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_every_flipped_bit_is_found(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = random.Random(5)
    for number in range(200):
        folder = shutil.copytree(two, tmp_path / str(number))
        file = folder / "checkpoints/step-000000002" / (STATE, TENSORS)[number % 2]
        _flip(file, rng.randrange(8 * file.stat().st_size))
        _assert_is(CheckpointStore(folder, 2, None).load(), 1)
        assert _names(folder) == ["step-000000001", "step-000000002.damaged"]
        (line,) = capsys.readouterr().err.splitlines()
        assert "step-000000002 is damaged" in line
        assert "set aside as step-000000002.damaged" in line
        assert file.name in line
        assert "that of step 1 is used" in line


def _truncate(folder: Path, name: str, share: float) -> None:
    os.truncate(folder / name, int((folder / name).stat().st_size * share))


def _swap(folder: Path, name: str) -> None:
    shutil.copy(folder.with_name("step-000000001") / name, folder / name)


def _rename(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000000001"), folder)


_DAMAGES: dict[str, Callable[[Path], Any]] = {
    **{
        f"{name} cut to {share}": lambda p, n=name, s=share: _truncate(p, n, s)
        for name in (STATE, TENSORS)
        for share in (0, 0.3, 0.99)
    },
    **{f"no {name}": lambda p, n=name: (p / n).unlink() for name in (STATE, TENSORS)},
    **{
        f"a folder in the place of {name}": lambda p, n=name: ((p / n).unlink(), (p / n).mkdir())
        for name in (STATE, TENSORS)
    },
    **{f"{name} of another": lambda p, n=name: _swap(p, n) for name in (STATE, TENSORS)},
    "longer tensors": lambda p: (p / TENSORS).open("ab").write(b"\0"),
    "zeros": lambda p: (p / TENSORS).write_bytes(bytes((p / TENSORS).stat().st_size)),
    "no JSON object": lambda p: (p / STATE).write_text("[]\n"),
    "empty": lambda p: [(p / name).unlink() for name in (STATE, TENSORS)],
    "another under its name": _rename,
    "a file in the place of the folder": lambda p: (shutil.rmtree(p), p.write_text("")),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_every_other_damage_is_found(two: Path, tmp_path: Path, damage: str):
    folder = shutil.copytree(two, tmp_path / "run")
    _DAMAGES[damage](folder / "checkpoints/step-000000002")
    _assert_is(CheckpointStore(folder, 2, None).load(), 1)
    assert _names(folder) == ["step-000000001", "step-000000002.damaged"]
    _saved(folder, 2)  # training comes to the same step again
    _assert_is(CheckpointStore(folder, 2, None).load(), 2)


def test_of_damaged_checkpoints_the_newest_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = _saved(tmp_path, 1, 2, 3, keep_last=3)
    for step in (2, 3):
        _flip(tmp_path / f"checkpoints/step-00000000{step}" / TENSORS, 4000)
    _assert_is(store.load(), 1)
    assert _names(tmp_path) == ["step-000000001", "step-000000003.damaged"]
    assert capsys.readouterr().err.count("that of step 1 is used") == 2
    store = _saved(tmp_path, 2)
    _flip(tmp_path / "checkpoints/step-000000002" / TENSORS, 4000)
    _assert_is(store.load(), 1)
    assert _names(tmp_path) == ["step-000000001", "step-000000002.damaged"]
    store.remove()
    assert not (tmp_path / "checkpoints").exists()


def test_training_starts_anew_only_where_there_never_was_a_checkpoint(tmp_path: Path):
    store = CheckpointStore(tmp_path, 2, None)
    assert store.load() is None
    assert store.steps() == []
    store.remove()
    _saved(tmp_path, 6, 7)
    with pytest.raises(PrimerError, match="no checkpoint of step 5 or before; the earliest is of 6"):
        store.load(5)
    for step in (6, 7):
        _flip(tmp_path / f"checkpoints/step-00000000{step}" / STATE, 100)
    for _ in range(2):  # the second time too: nothing was moved or removed
        with pytest.raises(PrimerError, match=r"can be used .*7: state.json .*; .*6: state.json") as caught:
            store.load()
        assert f"Delete {tmp_path / 'checkpoints'}" in caught.value.remedy
        assert "starts anew" in caught.value.remedy
    shutil.rmtree(tmp_path / "checkpoints/step-000000006")
    (tmp_path / "checkpoints/step-000000007").rename(tmp_path / "checkpoints/step-000000007.damaged")
    with pytest.raises(PrimerError, match="only a damaged checkpoint"):
        store.load()


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = _saved(tmp_path, 1, 2)

    def refused(path: Path, **_: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(checkpoint, "content_hash", refused)
    with pytest.raises(PrimerError, match=r"tensors.safetensors cannot be read: Permission denied"):
        store.load()
    assert store.steps() == [1, 2]


def test_a_kill_at_any_moment_leaves_the_newest_complete_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk as a kill would leave it is copied before and after every call that changes it."""
    store, moments, busy = CheckpointStore(tmp_path / "run", 1, None), list[tuple[int, Path]](), False
    renamed: list[str] = []  # published so far

    def remember() -> None:
        nonlocal busy
        if not busy and (tmp_path / "run").exists():
            busy = True
            moments.append((len(renamed), shutil.copytree(tmp_path / "run", tmp_path / f"moment-{len(moments)}")))
            busy = False

    def watched(honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            remember()
            result = honest(*args, **options)
            if honest.__name__ == "rename" and str(args[0]).endswith(".tmp"):
                renamed.append(str(args[1]))
            remember()
            return result

        return call

    def strides(data: Sequence[memoryview]) -> Iterator[memoryview]:
        for piece in data:
            for start in range(0, piece.nbytes, 700):
                yield piece[start : start + 700]
                remember()

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, watched(getattr(os, name)))
        patch.setattr(tensor_file, "_strides", strides)
        for step in (1, 2, 2, 3):
            store.save(step, _tensors(step), {"seconds": step / 3, "nested": {"name": "ü", "none": None}})
            store.wait()
    assert len(moments) > 100
    order = [None, 1, 2, 2, 3]
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing is killed from here on
    assert {count for count, _ in moments} == {0, 1, 2, 3, 4}
    for count, folder in moments:
        again = CheckpointStore(folder, 1, None)
        assert all({STATE, TENSORS} == {file.name for file in path.iterdir()} for path in again._complete())
        if count == 0:
            assert again.load() is None
            continue
        _assert_is(again.load(), order[count] or 0)
        again.save(4, _tensors(4), {"seconds": 4 / 3, "nested": {"name": "ü", "none": None}})
        _assert_is(again.load(), 4)
        assert _names(folder) == ["step-000000004"]


def _full_on_write(path: Path, data: Sequence[memoryview]) -> tuple[int, str]:
    path.write_bytes(bytes(data[1])[:300])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fails(code: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("target", "fault", "problem"),
    [
        ("train.checkpoint.write_pieces", _full_on_write, "is full; the checkpoint of step 3 was not written"),
        ("os.fsync", _fails(errno.ENOSPC), "is full; the checkpoint of step 3 was not written"),  # where it is late
        ("os.fsync", _fails(errno.EDQUOT), "is full"),
        ("os.fsync", _fails(errno.EIO), "step 3 could not be written to .*: Input/output error"),
        ("os.mkdir", _fails(errno.EROFS), "step 3 could not be written to .*: Read-only file system"),
    ],
)
def test_a_disk_that_takes_no_more_costs_that_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, fault: Callable[..., Any], problem: str
):
    store = _saved(tmp_path, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(target, fault)
        store.save(3, _tensors(3), {})
        with pytest.raises(PrimerError, match=problem) as caught:
            store.save(4, _tensors(4), {})
    assert "run the same command again" in caught.value.remedy
    store.wait()  # said once
    assert _names(tmp_path) == ["step-000000001", "step-000000002"]
    _assert_is(store.load(), 2)
    store.save(5, _tensors(5), {})
    store.wait()
    assert store.steps() == [2, 5]


def test_what_the_disk_did_not_keep_is_noticed_before_older_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = _saved(tmp_path, 1, keep_last=1)
    honest = checkpoint.content_hash

    def rotten(path: Path, *, from_disk: bool = False) -> str:
        _flip(path, 5000)
        return honest(path, from_disk=from_disk)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "content_hash", rotten)
        store.save(2, _tensors(2), {})
        with pytest.raises(PrimerError, match="what was read back is not what was written"):
            store.wait()
    assert _names(tmp_path) == ["step-000000001"]
    _assert_is(store.load(), 1)


# First a disk of one megabyte, where this system lets one be mounted; then an end in the middle of writing, by several
# threads again and again, so that some want the GIL while the interpreter goes down.
_FULL_DISK_AND_SUDDEN_END = """
import os, subprocess, sys, threading, time
from pathlib import Path
import torch
from primer.errors import PrimerError
from train.checkpoint import CheckpointStore
from train.tensor_file import pieces
folder = Path(sys.argv[1])
store = CheckpointStore(folder, 2, None)
if sys.argv[2] == "mounted":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    store.save(1, {"w": torch.ones(50_000)}, {})
    store.save(2, {"w": torch.ones(300_000)}, {})
    try:
        store.wait()
    except PrimerError as error:
        print(error.problem)
    print([path.name for path in sorted(folder.rglob("*"))], store.load().step)
    subprocess.run(["umount", folder], check=True)
os.fsync = lambda _: None
def save_for_ever(store, data):
    while True:
        store._run(1, data, {})
for number in range(4):
    arguments = CheckpointStore(folder / str(number), 2, None), pieces({"w": torch.ones(100_000)})
    threading.Thread(target=save_for_ever, args=arguments, daemon=True).start()
time.sleep(0.1)
sys.exit(2)
"""

_SAVE_UNTIL_KILLED = """
import sys
from pathlib import Path
import torch
from train.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), 2, None)
for step in range(1, 100_000):
    store.save(step, {"w": torch.full((500_000,), float(step))}, {"step": step})
    store.wait()
    print(step, flush=True)
"""

_MOUNTING = ["unshare", "--user", "--map-root-user", "--mount"]


@dataclass(frozen=True)
class Children:
    """Two processes that use a store, started together, since each takes seconds to import torch."""

    killed: subprocess.Popen[str]
    ending: subprocess.Popen[str]
    folder: Path
    mounted: bool


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Children]:
    folder = tmp_path_factory.mktemp("children")
    for name in ("probe", "killed", "ending"):
        (folder / name).mkdir()
    probe = [*_MOUNTING, "mount", "-t", "tmpfs", "tmpfs", str(folder / "probe")]
    mounted = shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0

    def start(program: str, name: str, *words: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
            return subprocess.Popen(
                [*prefix, sys.executable, "-c", program, str(folder / name), *words],
                env={**os.environ, "PYTHONPATH": str(repository)},
                stdout=out,
                stderr=err,
                text=True,
            )

    how = "mounted" if mounted else "plain"
    found = Children(
        start(_SAVE_UNTIL_KILLED, "killed"),
        start(_FULL_DISK_AND_SUDDEN_END, "ending", how, prefix=_MOUNTING if mounted else ()),
        folder,
        mounted,
    )
    yield found
    for process in (found.killed, found.ending):
        process.kill()
        process.wait()


def test_a_process_killed_while_it_saves_loses_nothing_that_was_saved(children: Children):
    said, deadline = children.folder / "killed.out", time.monotonic() + 60
    while not said.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.3))
    children.killed.kill()
    children.killed.wait()
    done = int(said.read_text().splitlines()[-1])
    found = CheckpointStore(children.folder / "killed", 2, None).load()
    assert found is not None
    assert found.step in (done, done + 1)
    assert found.state == {"step": found.step}
    assert torch.equal(found.tensors["w"], torch.full((500_000,), float(found.step)))
    assert not list((children.folder / "killed/checkpoints").glob("*.damaged"))


def test_a_process_that_ends_while_it_saves_ends_at_once_with_its_own_code(children: Children):
    assert children.ending.wait(timeout=60) == 2
    assert (children.folder / "ending.err").read_text() == ""


def test_a_disk_that_is_really_full_is_an_error_and_keeps_what_it_has(children: Children):
    if not children.mounted:
        pytest.skip("this system lets nobody mount a disk of their own")
    children.ending.wait(timeout=60)
    said, left = (children.folder / "ending.out").read_text().splitlines()
    folder = children.folder / "ending/checkpoints"
    assert said == f"The disk of {folder} is full; the checkpoint of step 2 was not written."
    assert left == "['checkpoints', 'step-000000001', 'state.json', 'tensors.safetensors'] 1"
