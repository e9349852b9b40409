"""The benchmark of training on a GPU: on a CPU it checks and measures all but what takes a GPU."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.attention import attention_mask


@pytest.fixture(autouse=True)
def _bench(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its files import one another as scripts do."""
    monkeypatch.syspath_prepend(str(repository / "bench"))
    yield
    for name in [name for name in sys.modules if name.startswith(("gpu_train", "random_tokens"))]:
        del sys.modules[name]


def place(folder: Path) -> Any:
    gpu_train = importlib.import_module("gpu_train")
    run = importlib.import_module("gpu_train_run")
    return run.make_place(torch.device("cpu"), "CPU", gpu_train.TINY, 8, 0.0, None, folder)


def test_without_a_gpu_it_checks_measures_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gpu_train = importlib.import_module("gpu_train")
    assert gpu_train.main(["--device", "cpu", "--output", str(tmp_path), "--only", "whole", "documents"]) == 0
    found = json.loads((tmp_path / "gpu-train-cpu.json").read_text(encoding="utf-8"))
    assert list(found["paces"]) == ["whole", "documents"]
    assert all(check["passed"] for check in found["checks"].values())
    assert "No GPU is used" in capsys.readouterr().out
    # A later call adds to the file what had no time before.
    assert gpu_train.main(["--device", "cpu", "--output", str(tmp_path), "--only", "fp16"]) == 0
    found = json.loads((tmp_path / "gpu-train-cpu.json").read_text(encoding="utf-8"))
    assert list(found["paces"]) == ["whole", "documents", "fp16"]


def test_what_has_no_time_left_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gpu_train = importlib.import_module("gpu_train")
    gpu_train.main(["--device", "cpu", "--minutes", "0", "--only", "whole", "plain head"])
    assert "No time was left for: whole, plain head." in capsys.readouterr().out


def test_switching_a_technique_off_changes_no_result(tmp_path: Path):
    cases, run = importlib.import_module("gpu_train_cases"), importlib.import_module("gpu_train_run")
    runner = run.Runner(place(tmp_path))
    losses = {
        case.name: runner.measure(replace(case, compiled=False, precision="fp32"), 8).loss
        for case in cases.CASES
        if case.name not in ("cuDNN attention", "documents")
    }
    assert len(losses) > 8
    for name, loss in losses.items():
        assert math.isclose(loss, losses["whole"], rel_tol=1e-5), name


def test_attention_that_sees_other_documents_fails_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checks = importlib.import_module("gpu_train_checks")

    def blind(tokens: torch.Tensor, _: torch.Tensor | None, window: int | None, **options: Any) -> Any:
        return attention_mask(tokens, None, window, **options)

    monkeypatch.setattr("train.model.attention_mask", blind)
    failed = [check.name for check in checks.checks(place(tmp_path), compiled=False) if not check.passed]
    assert failed == ["masked documents beside documents apart"]


def test_a_failing_configuration_does_not_cost_the_others(tmp_path: Path):
    gpu_train, cases = importlib.import_module("gpu_train"), importlib.import_module("gpu_train_cases")

    def broken(*_: Any) -> None:
        raise RuntimeError("no kernel image")

    bad = replace(cases.WHOLE, name="bad", compiled=False, model_patch=cases._patch("train.model.head_loss", broken))
    good = replace(cases.WHOLE, compiled=False)
    run = importlib.import_module("gpu_train_run")
    here = place(tmp_path)
    report = gpu_train.opened(None, gpu_train.heading(here), 1.0)
    gpu_train.run_cases(here, report, run.Runner(here), [bad, good], 8)
    assert list(report.content["paces"]) == ["whole"]
    assert "no kernel image" in report.content["failed"]["bad"]
