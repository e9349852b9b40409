from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from primer.errors import PrimerError
from train import trackers
from train.trackers import Trackers, check_trackers

_SETTINGS = {
    "name": "sample",
    "train": {"tokens": 5},
    "synth": {"teacher": {"base_url": "http://user:hidden@h", "api_key_env": "HIDDEN_KEY"}},
    "web": {"source": {"path": "/hidden"}},
}


def _read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return found.Reload()


def _curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _read(folder).Scalars(name)]


def test_tensorboard_reads_values_texts_and_settings(tmp_path: Path):
    with Trackers(tmp_path, ["tensorboard"], "models/mixed", _SETTINGS, 0) as opened:
        opened.scalars(1, {"train/loss": 2.5, "train/rate": 0.5})
        opened.scalars(2, {"train/loss": 2.25})
        opened.text(2, "completion/0", "# not a heading\n*as* it is")
    assert _curve(tmp_path, "train/loss") == [(1, 2.5), (2, 2.25)]
    assert _curve(tmp_path, "train/rate") == [(1, 0.5)]
    found = _read(tmp_path)
    (text,) = found.Tensors("completion/0")
    assert (text.step, text.tensor_proto.string_val[0]) == (2, b"    # not a heading\n    *as* it is")
    assert found.PluginTagToContent("text").keys() == {"settings", "completion/0"}
    settings = json.loads(found.Tensors("settings")[0].tensor_proto.string_val[0])
    assert settings == {"name": "sample", "train": {"tokens": 5}}


def test_a_curve_does_not_double_back_after_a_kill(tmp_path: Path):
    killed = Trackers(tmp_path, ["tensorboard"], "models/mixed", _SETTINGS, 0)
    for step in range(1, 11):
        killed.scalars(step, {"loss": float(step)})  # on disk without being closed
    # Again within the same second, and then torn in the middle of a record.
    for begin in (6, 4):
        going_on = Trackers(tmp_path, ["tensorboard"], "models/mixed", _SETTINGS, begin)
        for step in range(begin + 1, 9):
            going_on.scalars(step, {"loss": 100.0 * begin + step})
    with sorted((tmp_path / "tensorboard").iterdir())[1].open("r+b") as file:
        file.truncate(file.seek(0, 2) - 3)
    assert _curve(tmp_path, "loss") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 405), (6, 406), (7, 407), (8, 408)]


def test_a_full_disk_costs_the_curves_and_not_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    opened = Trackers(tmp_path, ["tensorboard"], "models/mixed", _SETTINGS, 0)
    (tracker,) = opened._trackers
    full = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
    tracker._file.close()  # type: ignore[attr-defined]
    tracker._records._writer = full  # type: ignore[attr-defined]
    opened.scalars(1, {"loss": 1.0})
    opened.scalars(2, {"loss": 1.0})
    opened.close()
    full.close()
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("The tracker tensorboard is off") == 1
    assert "No space left on device" in told


def test_a_folder_that_cannot_be_made_costs_the_curves_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "tensorboard").write_text("a file is in the way")
    with Trackers(tmp_path, ["tensorboard"], "models/mixed", _SETTINGS, 0) as opened:
        opened.scalars(1, {"loss": 1.0})
    assert "tensorboard is off" in capsys.readouterr().err


class _FakeRun:
    """What `wandb.init` gives, as far as it is used; signatures are those of wandb 0.31."""

    def __init__(self, calls: list[tuple[str, Any]], step: int) -> None:
        self.calls, self.step, self.broken, self.slow = calls, step, False, threading.Event()
        self.slow.set()

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        if self.broken:
            raise ConnectionError("no [network]\nhere")
        assert step is not None
        self.step = step
        self.calls.append(("log", (step, data)))

    def finish(self, exit_code: int | None = None) -> None:
        self.slow.wait()
        self.calls.append(("finish", exit_code))


class _FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.run = _FakeRun(self.calls, 0)

    def init(self, **arguments: Any) -> _FakeRun:
        known = {"project", "name", "id", "resume", "dir", "config", "settings"}
        assert arguments.keys() <= known
        self.calls.append(("init", arguments))
        return self.run

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings

    def Html(self, data: str, inject: bool = True) -> str:  # noqa: N802
        return data


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> _FakeWandb:
    fake = _FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases_continues_the_same_run(tmp_path: Path, wandb: _FakeWandb):
    with Trackers(tmp_path, ["wandb"], "models/mixed", _SETTINGS, 0) as opened:
        for step in (1, 2, 3):
            opened.scalars(step, {"loss": 1.0 / step})
        opened.text(3, "completion/0", "<b> & c")
    # The next process begins again after step 1: what the service has of steps 2 and 3 it keeps.
    with Trackers(tmp_path, ["wandb"], "models/mixed", _SETTINGS, 1) as opened:
        for step in (2, 3, 4):
            opened.scalars(step, {"loss": 1.0 / step})
    first, second = (arguments for name, arguments in wandb.calls if name == "init")
    assert first["id"] == second["id"] == (tmp_path / "wandb-id.txt").read_text()
    assert first["resume"] == "allow"
    assert (first["project"], first["name"], first["dir"]) == ("primer", "sample/models/mixed", str(tmp_path))
    logged = [value for name, value in wandb.calls if name == "log"]
    assert [step for step, _ in logged] == [1, 2, 3, 3, 3, 4]
    assert logged[3] == (3, {"completion/0": "<pre>&lt;b&gt; &amp; c</pre>"})
    assert [name for name, _ in wandb.calls].count("finish") == 2


def test_no_address_key_or_path_of_this_machine_is_recorded(
    tmp_path: Path, wandb: _FakeWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HIDDEN_KEY", "hidden-too")
    with Trackers(tmp_path, ["tensorboard", "wandb"], "models/mixed", _SETTINGS, 0):
        pass
    assert wandb.calls[0][1]["config"] == {"name": "sample", "train": {"tokens": 5}}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hidden" in path.read_bytes().lower()]


def test_a_network_that_is_gone_is_told_once_and_the_other_tracker_goes_on(
    tmp_path: Path, wandb: _FakeWandb, capsys: pytest.CaptureFixture[str]
):
    with Trackers(tmp_path, ["wandb", "tensorboard"], "models/mixed", _SETTINGS, 0) as opened:
        opened.scalars(1, {"loss": 3.0})
        wandb.run.broken = True
        opened.scalars(2, {"loss": 2.0})
        opened.scalars(3, {"loss": 1.0})
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("The tracker wandb is off from here on; the training goes on. It said: no [network] here") == 1
    assert _curve(tmp_path, "loss") == [(1, 3), (2, 2), (3, 1)]


def test_an_upload_that_hangs_does_not_keep_the_end_waiting(
    tmp_path: Path, wandb: _FakeWandb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trackers, "_WANDB_PATIENCE", 0.05)
    wandb.run.slow.clear()
    with Trackers(tmp_path, ["wandb"], "models/mixed", _SETTINGS, 0):
        pass
    wandb.run.slow.set()
    assert "wandb sync" in capsys.readouterr().err


def test_a_tracker_that_is_not_installed_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PrimerError, match=r"train\.trackers.*wandb") as raised:
        check_trackers(["tensorboard", "wandb"])
    assert "primer-lab[wandb]" in raised.value.remedy
    with pytest.raises(PrimerError):
        Trackers(tmp_path, ["wandb"], "models/mixed", _SETTINGS, 0)
    Trackers(tmp_path, [], "models/mixed", _SETTINGS, 0).scalars(1, {"loss": 1.0})
