"""The engines compute the same training: plain PyTorch on one process and on two, DeepSpeed on one and on two.

Processes that import DeepSpeed are slow to start: one launch of `engine_processes` does all that needs two of them.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import engine_processes
import pytest
import torch
from engine_processes import (
    CLIP,
    EXPERTS,
    HALF,
    PRECISIONS,
    SEQUENCES,
    STEPS,
    VOCABULARY,
    Snapshot,
    load,
    model_and_engine,
    reference,
    take_steps,
    work,
)
from torch import distributed, nn

from primer.errors import PrimerError
from train import deepspeed_engine
from train.world import World


@dataclass(frozen=True)
class Found:
    """What the launch left.

    Attributes:
        folder: With the snapshots.
        reference: Outcomes of plain PyTorch on one process, by precision.
        results: What each process found, by its world's size and its rank.
        said: What each process printed.
    """

    folder: Path
    reference: dict[str, list[dict[str, Any]]]
    results: dict[tuple[int, int], dict[str, Any]]
    said: list[str]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two launched processes found, and this one alone."""
    folder = tmp_path_factory.mktemp("engines")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, engine_processes.__file__, str(folder)]
    processes = [
        Popen(command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=PIPE, stderr=STDOUT, text=True)
        for rank in ("0", "1")
    ]
    threads = torch.get_num_threads()
    try:
        curves = {precision: reference(precision, folder) for precision in PRECISIONS}
        (folder / "ready").touch()
        work(folder)
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
        torch.set_num_threads(threads)
        distributed.destroy_process_group()  # the one that DeepSpeed wanted
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    results = {
        (size, rank): json.loads((folder / f"found-{size}-{rank}.json").read_text(encoding="utf-8"))
        for size, rank in ((2, 0), (2, 1), (1, 0))
    }
    return Found(folder, curves, results, said)


WORLDS = pytest.mark.parametrize(("kind", "size"), [("torch", 2), ("deepspeed", 2), ("deepspeed", 1)])
PRECISION = pytest.mark.parametrize("precision", PRECISIONS)


def assert_same_curve(
    outcomes: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], precision: str
) -> None:
    """Within what another order of sums does to float32, or 16-bit weights in the place of autocast to 16 bits."""
    loss, norm = (1e-5, 1e-4) if precision == "fp32" else (1e-3, 2e-2)
    for outcome, expected in zip(outcomes, wanted, strict=True):
        assert outcome["loss"] == pytest.approx(expected["loss"], rel=loss)
        assert outcome["norm"] == pytest.approx(expected["norm"], rel=norm)
        assert (outcome["taken"], outcome["scale"]) == (True, expected["scale"])


def assert_equal(one: Snapshot, other: Snapshot) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert [name for name, tensor in one[0].items() if not tensor.equal(other[0][name])] == []


def test_plain_pytorch_learns_here_and_clips_every_step(found: Found) -> None:
    curve = found.reference["fp32"]
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.1
    assert all(outcome["norm"] > CLIP for outcome in curve)


@WORLDS
@PRECISION
def test_every_engine_follows_the_curve_of_plain_pytorch(kind: str, size: int, precision: str, found: Found) -> None:
    outcomes = found.results[size, 0][f"{kind} {precision}"]
    assert_same_curve(outcomes["first"] + outcomes["second"], found.reference[precision], precision)


@WORLDS
@PRECISION
def test_every_engine_starts_from_the_same_float32_weights(kind: str, size: int, precision: str, found: Found) -> None:
    begun = load(found.folder / f"{kind}-{precision}-{size}-begun")
    assert_equal(begun, load(found.folder / f"torch-{precision}-1-begun"))
    model, _ = model_and_engine("torch", "fp32", World())
    for name, p in model.named_parameters():
        assert begun[0][f"model.{name}"].equal(p)
        assert not begun[0][f"exp_avg.{name}"].any()


@WORLDS
@PRECISION
def test_snapshots_are_the_same_for_every_engine(kind: str, size: int, precision: str, found: Found) -> None:
    tensors, state = load(found.folder / f"{kind}-{precision}-{size}-end")
    wanted, wanted_state = load(found.folder / f"torch-{precision}-1-end")
    assert state == wanted_state
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():  # the moments tell whether gradients were clipped alike
        assert tensor.dtype == torch.float32
        error, largest = (tensor - wanted[name]).abs().max(), wanted[name].abs().max()
        rounded = 0.2 if name.startswith("model.") else 0.05  # AdamW moves a weight by its rate, however small a cause
        assert error <= (1e-4 if precision == "fp32" else rounded) * largest, name


@WORLDS
@PRECISION
def test_an_engine_goes_on_from_its_own_snapshot_bit_for_bit(
    kind: str, size: int, precision: str, found: Found
) -> None:
    name = f"{kind}-{precision}-{size}"
    outcomes = found.results[size, 0][f"{kind} {precision}"]
    assert outcomes[f"after {name}"] == outcomes["second"]
    assert_equal(load(found.folder / f"{name}-after-{name}"), load(found.folder / f"{name}-end"))


@WORLDS
@PRECISION
def test_snapshots_move_between_engines_and_numbers_of_processes(
    kind: str, size: int, precision: str, found: Found
) -> None:
    rest = found.reference[precision][HALF:]
    assert_same_curve(found.results[size, 0][f"{kind} {precision}"][f"after torch-{precision}-1"], rest, precision)
    _, engine = model_and_engine("torch", precision, World())
    engine.restore(*load(found.folder / f"{kind}-{precision}-{size}-middle"))
    assert_same_curve(take_steps(engine, HALF, STEPS, World()), rest, precision)


@WORLDS
@PRECISION
def test_no_process_takes_a_step_that_is_not_finite_on_one(kind: str, size: int, precision: str, found: Found) -> None:
    for rank in range(size):
        result = found.results[size, rank][f"{kind} {precision} nan"]
        assert math.isnan(result["both"]["loss"])
        assert math.isnan(result["loss"]["loss"])
        assert math.isfinite(result["gradient"]["loss"])
        assert not math.isfinite(result["gradient"]["norm"])
        for spoilt_part in engine_processes.SPOILT:
            assert not result[spoilt_part]["taken"]
            assert result[f"{spoilt_part} changed"] == []
            before, after = result[f"{spoilt_part} steps"]
            assert before == after
        assert_same_curve(
            [result["after"]], [{**found.reference[precision][1], "scale": result["after"]["scale"]}], precision
        )
        scales = [result[key]["scale"] for key in ("before", "both", "gradient")]
        assert scales == ([65536, 32768, 16384] if precision == "fp16" else [1, 1, 1])


@pytest.mark.parametrize("kind", ["torch", "deepspeed"])
def test_every_process_hears_what_one_computed_and_was_asked(kind: str, found: Found) -> None:
    first, second = (found.results[2, rank] for rank in (0, 1))
    assert first[f"{kind} stop"]["stop"]
    assert not first[f"{kind} fp32"]["first"][0]["stop"]
    assert {key: value for key, value in first.items() if key.endswith(("32", "16", "stop"))} == {
        key: value for key, value in second.items() if key.endswith(("32", "16", "stop"))
    }


@WORLDS
def test_experts_are_trained_alike_though_processes_choose_others(kind: str, size: int, found: Found) -> None:
    _, engine = model_and_engine("torch", "fp32", World(), **EXPERTS)
    curve = take_steps(engine, 0, HALF, World())
    assert_same_curve(found.results[size, 0][f"{kind} experts"], curve, "fp32")


@pytest.mark.parametrize("size", [1, 2])
def test_trials_on_one_process_alone_leave_nothing(size: int, found: Found) -> None:
    result = found.results[size, 0]["trial"]
    assert result["trial"] == pytest.approx(math.log(VOCABULARY) * 2 / SEQUENCES, rel=0.05)
    assert result["steps"] == found.results[size, 0]["deepspeed bf16"]["first"]


@pytest.mark.parametrize("size", [1, 2])
def test_a_finished_model_has_its_float32_weights_and_deepspeed_is_gone(size: int, found: Found) -> None:
    for rank in range(size):
        result = found.results[size, rank]["trial"]
        assert result["unlike the snapshot"] == []
        assert result["dtypes"] == ["torch.float32"]
        assert result["released"]


def test_deepspeed_prints_nothing(found: Found) -> None:
    assert "eepspeed" not in "".join(found.said)


def test_the_loss_scale_grows_and_falls_as_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed_engine, "_GROWTH_INTERVAL", 3)
    ours = deepspeed_engine.LossScale(True)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for finite in [True] * 4 + [False] + [True] * 7 + [False, False, True]:
        theirs.scale(weight * (1.0 if finite else math.inf)).backward()  # type: ignore[no-untyped-call]
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.follow(finite)
        told = theirs.state_dict()
        assert ours.state() == {"scale": told["scale"], "growth_tracker": told["_growth_tracker"]}


def test_without_deepspeed_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(PrimerError, match=r"primer-lab\[deepspeed\]"):
        model_and_engine("deepspeed", "fp32", World())
