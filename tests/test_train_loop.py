from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_samples import fill_corpora, recipe

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.run import RunFolder
from train import loop
from train.checkpoint import CheckpointStore
from train.dry_run import dry_run
from train.engine import Outcome, TorchEngine
from train.hardware import Hardware, choose_hardware, cpu_bytes, even_split, first_micro_batch
from train.mixture import Mixture
from train.model import Phi
from train.optimizer import learning_rate, make_optimizer
from train.shape import Shape
from train.shards import Shard
from train.stages import train_variants
from train.tokenizer import load_tokenizer, tokenizer_hash
from train.training_log import read_log
from train.validation import Validation
from train.watch import Watch
from train.world import join_world


def _train(path: Path, asked: Recipe) -> Path:
    """Corpora, tokens and models of a recipe; returns the folder of its first model."""
    with RunFolder.opened(path, asked) as run:
        fill_corpora(run)
        train_variants(asked, run)
        return run.folder(f"models/{asked.variants[0].name}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tmp_path_factory.mktemp("whole") / "run", recipe())


def test_a_model_is_trained_and_described(uninterrupted: Path):
    manifest = json.loads((uninterrupted / "manifest.json").read_text())
    facts = manifest["facts"]
    rows = read_log(uninterrupted)
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert rows[-1]["tokens"] == facts["tokens"] == 20 * 256
    assert rows[0]["loss"] == pytest.approx(math.log(300), abs=0.1)
    assert facts["final_loss"] < rows[0]["loss"] - 0.5
    assert facts["final_loss"] == pytest.approx(sum(row["loss"] for row in rows[-2:]) / 2, abs=1e-4)
    assert set(rows[0]) == {
        *("step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "batch", "taken")
    }
    assert [row["batch"] for row in rows] == list(range(20))
    assert sum(facts["tokens_by_source"].values()) == facts["tokens"]
    assert facts["tokens_by_source"]["synthetic"] == facts["tokens"] / 2
    assert set(facts["epochs"]) == {"synthetic", "web", "code"}
    assert facts["parameters"] == sum(t.numel() for t in load_file(uninterrupted / "model.safetensors").values())
    assert (facts["device"], facts["precision"], facts["mfu"]) == ("CPU", "fp32", None)
    assert not list(uninterrupted.rglob("*checkpoint*"))
    assert not list(uninterrupted.parents[1].glob("partial/*"))
    tokens = json.loads((uninterrupted.parents[1] / "tokens/manifest.json").read_text())["facts"]
    assert tokens["kind"] == "trained"
    assert tokens["vocabulary_size"] == 300
    assert all(source["train_bytes"] > source["train_tokens"] for source in tokens["sources"].values())


def test_running_again_does_nothing(uninterrupted: Path):
    before = (uninterrupted / "manifest.json").stat().st_mtime_ns
    assert _train(uninterrupted.parents[1], recipe()) == uninterrupted
    assert (uninterrupted / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint(uninterrupted: Path, tmp_path: Path, number: signal.Signals):
    path, asked = tmp_path / "run", recipe(train={"checkpoint_seconds": 1e6})
    with RunFolder.opened(path, asked) as run:
        fill_corpora(run)
        take_step, taken = loop.Trainer._take_step, []

        def interrupted(trainer: loop.Trainer, batch: int, rate: float) -> Outcome:
            taken.append(rate)
            if len(taken) == 7:
                os.kill(os.getpid(), number)
            return take_step(trainer, batch, rate)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.Trainer, "_take_step", interrupted)
            handler = signal.getsignal(number)
            with pytest.raises(KeyboardInterrupt):
                train_variants(asked, run)
            assert signal.getsignal(number) is handler
        assert len(taken) == 7
    model = _train(path, asked)
    assert (model / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()


def test_a_model_whose_stage_was_killed_after_training_is_not_trained_again(uninterrupted: Path, tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", recipe()) as run, pytest.MonkeyPatch.context() as patch:
        fill_corpora(run)
        patch.setattr(CheckpointStore, "remove", lambda store: 1 / 0)  # the last thing a build does
        with pytest.raises(ZeroDivisionError):
            train_variants(recipe(), run)
        patch.undo()
        patch.setattr(loop.Trainer, "run", lambda self: pytest.fail("trained again"))
        train_variants(recipe(), run)
        found = run.folder("models/mixed") / "model.safetensors"
        assert found.read_bytes() == (uninterrupted / "model.safetensors").read_bytes()


def test_dividing_a_step_into_passes_changes_nothing_but_rounding(uninterrupted: Path, tmp_path: Path):
    model = _train(tmp_path / "run", recipe(train={"micro_batch": 3}))  # 8 sequences as 3, 3 and 2
    expected = load_file(uninterrupted / "model.safetensors")
    for name, tensor in load_file(model / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-3, rtol=0)
    losses = [[row["loss"] for row in read_log(folder)] for folder in (model, uninterrupted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_variants_start_from_the_same_weights_and_differ_in_data_alone(tmp_path: Path):
    variants = [{"name": "a", "mixture": {"web": 1.0}}, {"name": "b", "mixture": {"code": 1.0}}]
    asked = recipe(variants=variants, train={"tokens": 32 * 8, "learning_rate": 1e-12})
    first = _train(tmp_path / "run", asked)
    states = [load_file(first.parent / name / "model.safetensors") for name in ("a", "b")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], atol=1e-9, rtol=0)
    assert read_log(first)[0]["loss"] != read_log(first.parent / "b")[0]["loss"]


def test_further_seeds_are_models_of_their_own_that_share_weights_and_order_among_variants(tmp_path: Path):
    variants = [{"name": "a", "mixture": {"web": 1.0}}, {"name": "b", "mixture": {"code": 1.0}}]
    settings = {"tokens": 32 * 8, "learning_rate": 1e-12}
    asked = recipe(variants=variants, train={**settings, "seeds": 2})
    models = _train(tmp_path / "run", asked).parent
    states = {name: load_file(models / name / "model.safetensors") for name in ("a", "b", "a-seed2", "b-seed2")}
    for one, other, same in (("a", "b", True), ("a-seed2", "b-seed2", True), ("a", "a-seed2", False)):
        gap = max(float((states[one][name] - states[other][name]).abs().max()) for name in states[one])
        assert (gap < 1e-9) == same, (one, other)
    first = (models / "a/model.safetensors").read_bytes()
    alone = _train(tmp_path / "alone", recipe(variants=variants, train=settings))
    assert (alone / "model.safetensors").read_bytes() == first


def test_a_source_seen_too_often_is_a_warning_and_no_variant_gets_less_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    variants = [{"name": "a", "mixture": {"web": 0.9, "code": 0.1}}, {"name": "b", "mixture": {"code": 1.0}}]
    asked = recipe(variants=variants, train={"tokens": 5200, "learning_rate": 1e-9, "max_epochs": 0.28})
    first = _train(tmp_path / "run", asked)
    out = capsys.readouterr().err
    lines = [line.split() for line in out.splitlines()]
    heading = lines.index(["variant", "source", "asked", "will", "be", "tokens", "there", "are", "passes"])
    assert lines[heading + 1][:5] == ["a", "web", "90%", "90.00%", "4,608"]  # 5,200 tokens in whole batches are 5,120
    assert lines[heading + 2][:4] == ["code", "10%", "10.00%", "512"]
    assert lines[heading + 3][:5] == ["b", "code", "100%", "100.00%", "5,120"]
    assert out.count("there are") == 1  # of all variants, once
    facts = {
        name: json.loads((first.parent / name / "manifest.json").read_text(encoding="utf-8"))["facts"] for name in "ab"
    }
    (warning,) = facts["b"]["warnings"]
    assert "code is seen" in warning
    assert out.count(f"b: {warning}") == 1
    assert facts["a"]["warnings"] == []
    for name, fact in facts.items():
        assert (fact["tokens"], fact["steps"], sum(fact["tokens_by_source"].values())) == (5120, 20, 5120)
        assert len(read_log(first.parent / name)) == 20


def test_a_source_shorter_than_a_sequence_stops_before_training(tmp_path: Path):
    variants = [{"name": "a", "mixture": {"web": 1.0}}, {"name": "b", "mixture": {"code": 1.0}}]
    asked = recipe(variants=variants, model={"context": 40_000}, train={"tokens": 40_000, "batch_tokens": 40_000})
    with pytest.raises(PrimerError, match="fewer than one sequence of 40,001"):
        _train(tmp_path / "run", asked)
    assert not (tmp_path / "run/models").exists()


def test_missing_corpora_name_the_command_that_makes_them(tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", recipe()) as run, pytest.raises(PrimerError, match="corpus") as caught:
        train_variants(recipe(), run)
    assert "primer synth" in caught.value.remedy


def _trainer(tmp_path: Path, asked: Recipe, uninterrupted: Path, precision: str = "fp32") -> loop.Trainer:
    tokens = uninterrupted.parents[1] / "tokens"
    tokenizer = load_tokenizer(tokens)
    shards = {"web": Shard(tokens, "web", tokenizer_hash(tokenizer))}
    model = Phi(Shape.of(asked.model, 300))
    model.initialize(0)
    mixture = Mixture(shards, {"web": 1000}, asked.model.context, 0)
    hardware = Hardware(torch.device("cpu"), precision, "CPU", None)
    watch = Watch(asked, "models/test", tmp_path, tokenizer, Validation({}, 32, 1), hardware)
    return loop.Trainer(asked, "models/test", model, mixture, hardware, tmp_path, watch=watch)


def _trained(trainer: loop.Trainer) -> loop.Trained:
    trainer.prepare()
    return trainer.run()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bit_training_follows_full_precision_and_resumes(uninterrupted: Path, tmp_path: Path, precision: str):
    """What a GPU does by default, done slowly on the CPU: autocast, the loss scale, its checkpoint."""

    def losses(name: str, precision: str, stop: int | None = None) -> list[float]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        trainer = _trainer(folder, recipe(), uninterrupted, precision)
        if stop is not None:
            take_step = trainer._take_step
            trainer._take_step = lambda *places: take_step(*places) if trainer.step < stop else 1 / 0  # type: ignore[assignment]
            trainer.train = trainer.train.model_copy(update={"checkpoint_seconds": 1e-6})
            with pytest.raises(ZeroDivisionError):
                _trained(trainer)
            trainer.store.wait()
        else:
            _trained(trainer)
            assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
            _, state = trainer.engine.snapshot()
            assert state["scaler"] == ({"scale": 65_536.0, "growth_tracker": 20} if precision == "fp16" else None)
        return [row["loss"] for row in read_log(folder)]

    expected, found = losses("full", "fp32"), losses("half", precision)
    assert found == pytest.approx(expected, rel=2e-2)
    assert found != expected
    losses("stopped", precision, stop=9)
    assert losses("stopped", precision) == found


def test_clipping_limits_the_step_by_the_norm(uninterrupted: Path, tmp_path: Path):
    asked = recipe(train={"gradient_clip": 1e-3, "epsilon": 1.0})  # so large an epsilon makes AdamW feel the scale
    free = recipe(train={"epsilon": 1.0})
    moved = []
    for number, each in enumerate((asked, free)):
        folder = tmp_path / str(number)
        folder.mkdir()
        trainer = _trainer(folder, each, uninterrupted)
        before = [p.detach().clone() for p in trainer.model.parameters()]
        _trained(trainer)
        moved.append(
            sum(
                float((p.detach() - b).norm())
                for p, b in zip(trainer.model.parameters(), before, strict=True)
                if p.dim() == 1
            )
        )
        norms = [row["gradient_norm"] for row in read_log(folder)]
        assert min(norms) > 1e-2  # the norm before clipping is what is logged
    assert moved[0] < moved[1] / 5


def test_learning_rate_over_the_steps():
    constant = recipe(train={"warmup_steps": 4, "learning_rate": 1.0}).train
    assert [learning_rate(constant, step, 20) for step in (0, 3, 4, 19)] == [0.25, 1.0, 1.0, 1.0]
    cosine = recipe(train={"warmup_steps": 4, "learning_rate": 1.0, "schedule": "cosine"}).train
    rates = [learning_rate(cosine, step, 21) for step in range(21)]
    assert rates[3] == rates[4] == 1.0
    assert rates[12] == pytest.approx(0.55)
    assert rates[20] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_decay_applies_to_matrices_only():
    model = Phi(Shape.of(recipe().model, 300))
    groups = make_optimizer(model, recipe().train).param_groups
    assert [(g["weight_decay"], {p.dim() for p in g["params"]}) for g in groups] == [(0.1, {2}), (0.0, {1})]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert groups[0]["betas"] == (0.9, 0.98)
    assert groups[0]["eps"] == 1e-7


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bits_on_a_cpu_are_refused(precision: str):
    with pytest.raises(PrimerError, match=f"train.precision is {precision}"):
        choose_hardware(recipe(train={"precision": precision}).train)


def test_a_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrimerError, match="sees no CUDA device"):
        choose_hardware(recipe(train={"device": "cuda"}).train)


def test_sequences_of_a_pass_follow_from_memory(monkeypatch: pytest.MonkeyPatch):
    asked = recipe()
    hardware, shape = choose_hardware(asked.train), Shape.of(asked.model, 300)
    fixed, each = cpu_bytes(shape)
    monkeypatch.setattr("train.hardware.available_memory", lambda: fixed + 2 * each * 3)
    assert first_micro_batch(shape, 8, hardware) == 3
    monkeypatch.setattr("train.hardware.available_memory", lambda: fixed)
    with pytest.raises(PrimerError, match="needs about"):
        first_micro_batch(shape, 8, hardware)
    assert [even_split(8, 5), even_split(7, 4), even_split(2048, 64), even_split(3, 10)] == [4, 4, 64, 3]


@pytest.mark.parametrize(("room", "asked", "found"), [(5, None, 4), (100, None, 8), (1, None, 1), (3, 3, 3)])
def test_a_gpu_gets_as_many_sequences_a_pass_as_fit(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, asked: int | None, found: int
):
    trainer = _trainer(tmp_path, recipe(train={"micro_batch": asked}), uninterrupted)
    trainer.device = torch.device("cuda")  # only to be looked at: the pass itself is replaced
    trainer.hardware = Hardware(trainer.device, "fp16", "a GPU", None)
    monkeypatch.setattr(trainer, "_try_pass", lambda sequences: sequences <= room)
    trainer._find_micro_batch()
    assert trainer.micro_batch == found


@pytest.mark.parametrize(("asked", "remedy"), [(4, "micro_batch"), (None, "smaller model")])
def test_a_gpu_too_small_is_an_error(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, remedy: str
):
    trainer = _trainer(tmp_path, recipe(train={"micro_batch": asked}), uninterrupted)
    trainer.device = torch.device("cuda")
    trainer.hardware = Hardware(trainer.device, "fp16", "a GPU", None)
    monkeypatch.setattr(trainer, "_try_pass", lambda sequences: False)
    with pytest.raises(PrimerError, match="do not fit into the memory of a GPU") as caught:
        trainer._find_micro_batch()
    assert remedy in caught.value.remedy


def test_a_pass_that_does_not_fit_leaves_no_trace(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = _trainer(tmp_path, recipe(), uninterrupted)
    first = next(trainer.model.parameters())

    def full(engine: TorchEngine, *tensors: torch.Tensor) -> torch.Tensor:
        first.grad = torch.ones_like(first)
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(TorchEngine, "trial", full)
    assert not trainer._try_pass(4)
    monkeypatch.undo()
    assert trainer._try_pass(4)
    assert all(p.grad is None for p in trainer.model.parameters())
    assert trainer.engine.snapshot()[1]["optimizer_steps"] == 0


def test_the_trial_is_as_full_and_as_connected_as_a_step(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trainer = _trainer(tmp_path, recipe(), uninterrupted)
    accumulate, seen = TorchEngine.accumulate, []

    def looked_at(engine: TorchEngine, *tensors: torch.Tensor, last: bool) -> torch.Tensor:
        seen.append((all(p.grad is not None for p in engine.parameters.values()), last))
        return accumulate(engine, *tensors, last=last)

    monkeypatch.setattr(TorchEngine, "accumulate", looked_at)
    trainer.prepare()
    assert seen[0] == (True, False)  # whether it fits: beside the gradients of the passes before, all by itself
    assert seen[-1][1]  # how fast: processes exchange gradients, DDP for the first time


def test_a_dry_run_shows_the_page_of_what_this_machine_cannot_train(capsys: pytest.CaptureFixture[str]):
    available = dict.fromkeys(recipe().used_sources(), 10_000)
    with pytest.raises(PrimerError, match="precision is fp16"):
        dry_run(recipe(train={"precision": "fp16"}), available, 1)
    assert "what is about to be trained" in capsys.readouterr().err
    with pytest.raises(PrimerError, match=r"8 sequences .* among 3 processes"):
        dry_run(recipe(), available, 3)
    assert not capsys.readouterr().err


def test_processes_beyond_the_gpus_join_and_are_told_so_later(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    for rank in range(2):
        for key, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
            monkeypatch.setenv(key, str(value))
        assert join_world().rank == rank
    assert taken == [0]
    with pytest.raises(PrimerError, match="process 2 on this machine, which has 1 GPU"):
        choose_hardware(recipe(train={"device": "cuda"}).train, 1)
