from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from primer.errors import PrimerError
from train.training_log import COMPLETIONS, TRAINING, VALIDATION, TrainingLog, final_loss, read_log


def _logged(folder: Path, steps: range, name: str = TRAINING) -> Path:
    log = TrainingLog(folder, 0, name)
    for step in steps:
        log.append({"step": step, "loss": None if step == 7 else float(step)})
    log.close()
    return folder / name


def _steps(folder: Path, name: str = TRAINING) -> list[int]:
    return [row["step"] for row in read_log(folder, name)]


@pytest.mark.parametrize("torn", [b'{"step": 8, "lo', b"\0" * 50, b'{"step": 8, "text": "\xc3', b"8"])
def test_a_log_is_cut_back_to_the_checkpoint_and_a_torn_line_is_dropped(
    tmp_path: Path, torn: bytes, capsys: pytest.CaptureFixture[str]
):
    path = _logged(tmp_path, range(1, 8))
    with path.open("ab") as file:
        file.write(torn)
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    log = TrainingLog(tmp_path, 5)
    log.append({"step": 6, "loss": 1.0})
    log.close()
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert final_loss(tmp_path) == 1.0
    assert capsys.readouterr().err == ""  # it happens to every run that is killed


def test_the_logs_of_a_training_do_not_touch_each_other(tmp_path: Path):
    for name in (TRAINING, VALIDATION, COMPLETIONS):
        _logged(tmp_path, range(2, 6, 2), name)
    log = TrainingLog(tmp_path, 2, COMPLETIONS)
    rows = [{"step": 4, "prompt": prompt, "text": "a\u2028b\nc\r\x85 ü"} for prompt in ("one", "two")]
    for row in rows:
        log.append(row)
    log.close()
    assert read_log(tmp_path, COMPLETIONS)[1:] == rows
    assert _steps(tmp_path) == _steps(tmp_path, VALIDATION) == [2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([TRAINING, VALIDATION, COMPLETIONS])


def test_a_line_lost_in_the_middle_is_said_and_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = _logged(tmp_path, range(1, 7))
    path.write_bytes(path.read_bytes().replace(b'"step": 3', b'"st\xffp": 3'))
    TrainingLog(tmp_path, 5).close()
    assert _steps(tmp_path) == [1, 2, 4, 5]
    said = capsys.readouterr().err
    assert f"{path}: 1 lines cannot be read" in said
    assert "line 3" in said


def test_a_kill_while_a_log_is_cut_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _logged(tmp_path, range(1, 8))
    before = path.read_bytes()

    def killed(_: int) -> None:
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        TrainingLog(tmp_path, 3)
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = TrainingLog(tmp_path, 0)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for action in (log.flush, log.close, lambda: TrainingLog(tmp_path, 0)):
            with pytest.raises(PrimerError, match=r"training.jsonl cannot be written: the disk is full") as caught:
                action()
    assert "run the same command again" in caught.value.remedy


def test_a_folder_without_a_log_has_no_rows(tmp_path: Path):
    assert read_log(tmp_path / "nowhere") == []
    assert final_loss(tmp_path / "nowhere") is None
