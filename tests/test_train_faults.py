"""Faults while a model is trained: what is lost is time alone."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from train_samples import fill_corpora, recipe

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_file import dump_recipe
from primer.run import RunFolder
from train import guard, loop, tensor_file
from train.batches import Pass
from train.build_tokens import HELD_OUT
from train.checkpoint import CheckpointStore
from train.engine import Outcome
from train.guard import Incidents
from train.hardware import Hardware
from train.heartbeat import read_heartbeats
from train.mixture import Mixture
from train.model import Phi
from train.shape import Shape
from train.shards import Shard
from train.stages import complete_tokens, train_variants
from train.supervisor import run_ranks
from train.tokenizer import load_tokenizer, tokenizer_hash
from train.training_log import read_log
from train.validation import Validation
from train.watch import Watch

# The corpora of these tests are no recipe's, so the stages are gone through without `primer synth`.
_PROGRAM = """
import sys
from pathlib import Path
from primer.recipe_file import load_recipe
from primer.run import RunFolder
from train.supervisor import run_ranks
from train.stages import train_variants
recipe = load_recipe(Path(sys.argv[1]))
with RunFolder.opened(Path(sys.argv[2]), recipe) as run:
    train_variants(recipe, run)
"""

STEPS = 80
ASKED = recipe(train={"tokens": 32 * 8 * STEPS, "checkpoint_seconds": 0.05, "hang_seconds": 3.0})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with RunFolder.opened(path, ASKED) as run:
        fill_corpora(run)
        train_variants(ASKED, run)
    return path


def _trainer(whole: Path, folder: Path, asked: Recipe = ASKED) -> loop.Trainer:
    """A training on the run's web text, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    tokens = whole / "tokens"
    tokenizer = load_tokenizer(tokens)
    mark = tokenizer_hash(tokenizer)
    model = Phi(Shape.of(asked.model, 300))
    model.initialize(0)
    mixture = Mixture({"web": Shard(tokens, "web", mark)}, {"web": 8 * STEPS}, asked.model.context, 0)
    hardware = Hardware(torch.device("cpu"), "fp32", "CPU", None)
    validation = Validation({"web": Shard(tokens / HELD_OUT, "web", mark)}, asked.model.context, 1000)
    watch = Watch(asked, "models/test", folder, tokenizer, validation, hardware)
    return loop.Trainer(asked, "models/test", model, mixture, hardware, folder, watch=watch)


def _run(trainer: loop.Trainer) -> loop.Trained:
    trainer.prepare()
    return trainer.run()


def _weights(trainer: loop.Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _spoil(monkeypatch: pytest.MonkeyPatch, trainer: loop.Trainer, spoil: Callable[[int, float], float]) -> None:
    """Change the loss, and with it the gradient, of some batches: a function of (batch, loss)."""
    honest, passes = Phi.loss, trainer.batches.passes
    current = {"batch": -1}

    def passing(batch: int, micro_batch: int) -> Iterator[Pass]:
        current["batch"] = batch
        yield from passes(batch, micro_batch)
        current["batch"] = -1

    def loss(model: Phi, *arguments: torch.Tensor | None) -> torch.Tensor:
        found = honest(model, *arguments)  # type: ignore[arg-type]
        return found * spoil(current["batch"], float(found.detach()))

    monkeypatch.setattr(trainer.batches, "passes", passing)
    monkeypatch.setattr(Phi, "loss", loss)


def _strike(folder: Path) -> None:
    """Kill the trainer at some step, and stop the one that is started in its place at a later one."""
    before = None
    for steps, number in ((range(2, 30), signal.SIGKILL), (range(35, 60), signal.SIGSTOP)):
        step = random.choice(steps)
        while True:
            time.sleep(0.002)
            beat = read_heartbeats(folder).get(0)
            if beat is None or beat.pid == before or beat.step < step:
                continue
            os.kill(beat.pid, number)
            training = read_heartbeats(folder)[0].phase == "training"
            if number == signal.SIGKILL or (training and _ended(beat.pid)):
                break
            # While it saves, or before its supervisor has seen two steps of it, it may be silent for long.
            os.kill(beat.pid, signal.SIGCONT)
            step = beat.step + 1
        before = beat.pid


def _ended(process: int) -> bool:
    """Whether a process is gone within twice the silence that is a hang."""
    for _ in range(60):
        time.sleep(0.1)
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
    return False


def test_killed_and_hung_under_a_supervisor_the_weights_are_the_same_to_the_bit(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path, file, record = tmp_path / "run", tmp_path / "recipe.yaml", tmp_path / "restarts.jsonl"
    file.write_text(dump_recipe(ASKED), encoding="utf-8")
    with RunFolder.opened(path, ASKED) as run:
        fill_corpora(run)
        complete_tokens(ASKED, run)
    threading.Thread(target=_strike, args=(tmp_path / "processes",), daemon=True).start()
    command = [sys.executable, "-c", _PROGRAM, str(file), str(path)]
    processes = tmp_path / "processes"
    assert run_ranks(command, 1, processes, restart=True, hang_seconds=ASKED.train.hang_seconds, record=record) == 0
    said = capfd.readouterr().err
    assert "was ended by SIGKILL" in said
    assert "gave no sign of life" in said
    restarts = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [row["what"] for row in restarts] == ["ended", "silent"]
    assert all(row["seconds"] < 60 for row in restarts)
    model = "models/mixed/model.safetensors"
    assert (path / model).read_bytes() == (whole / model).read_bytes()
    rows = [read_log(each / "models/mixed") for each in (path, whole)]
    for row in (*rows[0], *rows[1]):
        del row["tokens_per_second"]
    assert rows[0] == rows[1]
    assert not list(path.glob("partial/*"))


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    reference = _trainer(whole, tmp_path / "reference")
    _run(reference)
    stopped = _trainer(whole, tmp_path / "stopped")
    take_step = stopped._take_step
    stopped._take_step = lambda *places: take_step(*places) if stopped.step < 40 else 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        _run(stopped)
    stopped.store.wait()
    (before, newest) = stopped.store.steps()
    tensors = tmp_path / f"stopped/checkpoints/step-{newest:09d}/tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    again = _trainer(whole, tmp_path / "stopped")
    again.prepare()
    assert again.step == before
    assert "does not match its hash" in " ".join(capsys.readouterr().err.split())
    again.run()
    assert _equal(_weights(again), _weights(reference))


def test_a_full_disk_leaves_the_last_good_checkpoint(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer, write = _trainer(whole, tmp_path / "model"), tensor_file.write_pieces
    written: list[Path] = []

    def full(path: Path, data: list[memoryview]) -> tuple[int, str]:
        written.append(path)
        if len(written) > 10:
            path.write_bytes(bytes(data[0])[:100])
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr("train.checkpoint.write_pieces", full)
    with pytest.raises(PrimerError, match="is full; the checkpoint of step") as caught:
        _run(trainer)
    assert "training goes on from the checkpoint before" in caught.value.remedy
    monkeypatch.undo()
    again = _trainer(whole, tmp_path / "model")
    again.prepare()
    assert [again.step] == again.store.steps()[-1:]
    assert 0 < again.step < STEPS
    again.run()
    reference = _trainer(whole, tmp_path / "reference")
    _run(reference)
    assert _equal(_weights(again), _weights(reference))


def test_a_gradient_that_is_not_finite_skips_its_step(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = _trainer(whole, tmp_path / "model")
    _spoil(monkeypatch, trainer, lambda batch, _: math.nan if batch in (20, 40) else 1.0)
    seen: list[torch.Tensor] = []
    take_step = trainer._take_step

    def watched(batch: int, rate: float) -> Outcome:
        seen.append(trainer.model.head.weight.detach().clone())
        return take_step(batch, rate)

    monkeypatch.setattr(trainer, "_take_step", watched)
    trained = _run(trainer)
    assert (trained.skipped, trained.rollbacks) == (2, 0)
    rows = read_log(tmp_path / "model")
    assert [row["step"] for row in rows if not row["taken"]] == [21, 41]
    assert [row["step"] for row in rows if row["loss"] is None] == [21, 41]
    assert torch.equal(seen[20], seen[21])
    assert not torch.equal(seen[21], seen[22])


@pytest.mark.parametrize("spoilt", ["not finite", "spike"])
def test_what_persists_is_rolled_back_and_its_data_left_out(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
):
    trainer = _trainer(whole, tmp_path / "model")
    bad = range(50, 53 if spoilt == "not finite" else 52)
    _spoil(monkeypatch, trainer, lambda b, _: (math.nan if spoilt == "not finite" else 30.0) if b in bad else 1.0)
    trained = _run(trainer)
    assert trained.rollbacks >= 1
    incidents = Incidents(tmp_path / "model").all
    assert incidents[0].kind == spoilt
    left_out = {batch for gap in Incidents(tmp_path / "model").left_out() for batch in gap}
    assert left_out >= {50, 51}
    assert len(left_out) <= 8
    rows = read_log(tmp_path / "model")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert not {row["batch"] for row in rows if row["taken"] and row["loss"] > 10}
    assert not {row["batch"] for row in rows} & left_out
    # The same weights as a training that never saw that data.
    clean = _trainer(whole, tmp_path / "clean")
    clean.left_out = Incidents(tmp_path / "model").left_out()
    monkeypatch.undo()
    _run(clean)
    assert _equal(_weights(trainer), _weights(clean))


def test_killed_in_the_midst_of_a_rollback_it_goes_the_same_way(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The record is on disk before the rollback acts; a checkpoint of the course that was given up is not taken."""
    reference = _trainer(whole, tmp_path / "reference")
    _spoil(monkeypatch, reference, lambda batch, _: math.nan if batch in range(50, 53) else 1.0)
    _run(reference)
    monkeypatch.undo()
    killed = _trainer(whole, tmp_path / "killed")
    _spoil(monkeypatch, killed, lambda batch, _: math.nan if batch in range(50, 53) else 1.0)
    record = Incidents.record

    def record_and_die(*arguments: object) -> None:
        record(*arguments)  # type: ignore[arg-type]
        raise ZeroDivisionError

    monkeypatch.setattr(guard.Incidents, "record", record_and_die)
    with pytest.raises(ZeroDivisionError):
        _run(killed)
    monkeypatch.undo()
    again = _trainer(whole, tmp_path / "killed")
    again.prepare()
    assert again.step <= Incidents(tmp_path / "killed").all[-1].returned_to
    again.run()
    assert _equal(_weights(again), _weights(reference))


def test_weights_that_cannot_be_mended_end_the_training(whole: Path, tmp_path: Path):
    trainer = _trainer(whole, tmp_path / "model")
    trainer.model.final_norm.weight.data.fill_(math.inf)
    with pytest.raises(PrimerError, match="without getting past step 0") as caught:
        _run(trainer)
    assert "train.learning_rate" in caught.value.remedy
    assert "incidents.jsonl" in caught.value.remedy


def test_a_second_trainer_in_the_same_folder_is_refused(whole: Path):
    with RunFolder.opened(whole, ASKED):
        command = [sys.executable, "-m", "primer.cli", "train", str(whole / "recipe.yaml"), "--run", str(whole)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "Another process" in found.stderr


def test_looking_on_changes_nothing(whole: Path, tmp_path: Path):
    quiet = ASKED.model_copy(update={"train": ASKED.train.model_copy(update={"validations": 0, "trackers": []})})
    busy = ASKED.model_copy(update={"train": ASKED.train.model_copy(update={"validations": 7})})
    weights = []
    for number, asked in enumerate((quiet, busy)):
        trainer = _trainer(whole, tmp_path / str(number), asked)
        _run(trainer)
        weights.append(_weights(trainer))
    assert _equal(*weights)
    rows = read_log(tmp_path / "1", "validation.jsonl")
    assert [row["step"] for row in rows] == [12, 23, 35, 46, 58, 69, 80]
    assert rows[-1]["losses"]["web"] < rows[0]["losses"]["web"]
    assert len(read_log(tmp_path / "1", "completions.jsonl")) == 7
    assert list((tmp_path / "1/tensorboard").glob("events*"))
    assert not (tmp_path / "0/tensorboard").exists()


def test_tokens_are_counted_of_both_splits(whole: Path):
    with RunFolder.opened(whole, ASKED) as run:
        facts = complete_tokens(ASKED, run).facts["sources"]
    assert all(source["held_out_tokens"] > 100 for source in facts.values())
    assert CheckpointStore(whole / "models/mixed", 2, None).steps() == []
