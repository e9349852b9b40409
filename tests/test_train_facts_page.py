from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from train_samples import recipe

from primer import recipe_train as recipes
from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.recipe_plan import Planning
from primer.run import Built, RunFolder, Stage
from train import facts_page as page
from train.estimate import estimate_training, training_disk
from train.facts_page import Surroundings, TrainingFacts, derive, facts_line, schedule_in_words
from train.hardware import Hardware
from train.memory import place_bytes, training_memory
from train.model import Phi
from train.optimizer import learning_rate
from train.portions import mixed_portions
from train.shape import Shape, parameter_count

_H200 = Hardware(torch.device("cuda", 0), "fp16", "NVIDIA H200", 989.4e12)
_CPU = Hardware(torch.device("cpu"), "fp32", "CPU", None)
_NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
_AROUND = Surroundings(141 * 10**9, 10**12, _NOW)
_RECIPES = Path(__file__).parent.parent / "recipes"


def _facts(asked: Recipe, hardware: Hardware = _CPU, **changes: Any) -> TrainingFacts:
    available = dict.fromkeys(asked.used_sources(), 20 * 10**9)
    shape = Shape.of(asked.model, asked.tokenizer.vocabulary_size)
    given: dict[str, Any] = {"ranks": 1, "micro_batch": 4, "measured": None, "around": _AROUND, **changes}
    parts = mixed_portions(asked, available)[asked.variants[0].name]
    return derive(asked, asked.variants[0], parts, shape, hardware, **given)


def _phi(*settings: str) -> TrainingFacts:
    asked = load_recipe(_RECIPES / "phi-1.5.yaml", ["train.engine=deepspeed", "train.keep_every=1000", *settings])
    return _facts(asked, _H200, ranks=8, micro_batch=16, measured=480_000.0)


def _shown(facts: TrainingFacts, monkeypatch: pytest.MonkeyPatch, width: int = 100, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, soft_wrap=True, force_terminal=terminal)
    monkeypatch.setattr(page, "console", console)
    page.facts_page(facts)
    return out.getvalue()


def test_the_facts_of_phi_are_the_papers(monkeypatch: pytest.MonkeyPatch):
    facts = _phi()
    assert (facts.steps, facts.sequences, facts.passes) == (35_762, 2048, 16)
    assert facts.utilisation == pytest.approx(480_000 * 9.085e9 / (8 * 989.4e12), rel=1e-3)
    assert facts.ends == _NOW + timedelta(seconds=35_762 * 4_194_304 / 480_000)
    assert facts.disk.checkpoint == 12 * 1_418_270_720
    assert facts.disk.for_good == 35
    told = " ".join(_shown(facts, monkeypatch).split())
    for fact in (
        "24 layers, 32 heads of 64, width 2,048, MLP 8,192, context 2,048",
        "1,418,270,720 parameters, 209,766,400 of them embedding and head of 51,200 tokens",
        "9.085 GFLOP a token with attention over the full square, 8.481 over its causal half",
        "80.00% synthetic: 119,997,360,128 from 20,000,000,000 tokens, 6.00 x",
        "2,048 sequences = 16 a pass x 16 passes x 8 devices",
        "constant 0.0002 from the first step",
        "8 x NVIDIA H200, fp16, DeepSpeed, ZeRO stage 2",
        "of 141.0 GB a device",
        "17.0 GB each; the newest 2 are kept, and for good every 1,000 steps: 35 x",
        "1.0 TB free",
        "3 d 14 h, until Thu 26 Nov 2026, 02:48",
        "measured in a trial pass",
        "55.1% of the peak by the full square",
    ):
        assert fact in told


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_page_fits_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch):
    lines = _shown(_phi("train.schedule=wsd", "train.warmup_steps=2000"), monkeypatch, width).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width


def test_a_page_in_a_pipe_has_no_colours_and_warns_in_words_of_numbers(monkeypatch: pytest.MonkeyPatch):
    facts = replace(_phi(), around=Surroundings(10**9, 10**9, _NOW))
    assert "\x1b" not in _shown(facts, monkeypatch)
    coloured = _shown(facts, monkeypatch, terminal=True)
    assert coloured.count("\x1b[33m") >= 2  # memory and disk
    assert "\x1b[33m" not in _shown(_phi("train.max_epochs=10"), monkeypatch, terminal=True)


def test_without_a_trial_the_time_is_what_the_plan_assumes(monkeypatch: pytest.MonkeyPatch):
    asked = recipe(plan=Planning(cpu_gflops=10.0))
    facts = _facts(asked)
    planned = estimate_training(asked, RunFolder(Path("nowhere")), dict.fromkeys(asked.used_sources(), 1e6))
    assert facts.tokens_per_second == pytest.approx(planned.variants[0].tokens_per_second)
    assert "assumed: plan.cpu_gflops 10 on 1 core(s)" in _shown(facts, monkeypatch)
    on_gpu = _facts(recipe(plan=Planning(training_utilisation={"h200": 0.3})), _H200, ranks=2)
    assert on_gpu.utilisation == pytest.approx(0.3)
    assert "(assumed: plan.training_utilisation, 30.0% of the peak" in _shown(on_gpu, monkeypatch)
    unknown = _facts(recipe(), Hardware(torch.device("cuda", 0), "bf16", "NVIDIA New", None))
    assert unknown.ends is None
    assert "not known: nothing is known of this GPU" in _shown(unknown, monkeypatch)


def test_what_is_done_already_takes_no_time():
    whole, half = (_facts(recipe(), measured=100.0, done=done) for done in (0, 10))
    assert whole.seconds == 2 * (half.seconds or 0) == 32 * 8 * 20 / 100


def test_a_variant_after_the_first_takes_a_line(capsys: pytest.CaptureFixture[str]):
    facts_line(_facts(recipe(), measured=100.0))
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "models/mixed: 50.00% synthetic (0.00 passes), 30.00% web" in told
    assert "20 steps; 51 s, until Sun 22 Nov 2026, 12:00" in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "constant"}, "constant 0.003 from the first step"),
        ({"schedule": "constant", "warmup_steps": 5}, "linear to 0.003 over 5 steps, then constant"),
        ({"schedule": "linear", "final_share": 0.0}, "from 0.003 linear to 0 at step 20"),
        (
            {"schedule": "cosine", "warmup_steps": 5},
            "linear to 0.003 over 5 steps, then along a cosine to 0.0003 at step 20",
        ),
        ({"schedule": "wsd"}, "constant 0.003 to step 16, then linear to 0.0003 at step 20"),
    ],
)
def test_the_schedule_in_words_is_what_the_optimiser_does(settings: dict[str, Any], words: str):
    train = recipe(train=settings).train
    assert schedule_in_words(train, 20) == words
    rates = [learning_rate(train, step, 20) for step in range(20)]
    assert max(rates) == pytest.approx(train.learning_rate)
    if "at step 20" in words:
        assert rates[-1] == pytest.approx(train.learning_rate * train.final_share)
    if "to step 16" in words:
        assert rates[15] == rates[0] > rates[17]


@pytest.mark.parametrize("half", [False, True])
def test_the_memory_of_a_pass_is_near_what_autograd_keeps(half: bool):
    # A long context: on a CPU short ones keep attention's probabilities, which GPUs do not.
    shape = Shape.of(recipes.Model(layers=3, heads=4, head_dimension=16, rotary_dimension=8, context=1024), 600)
    model = Phi(shape)
    model.initialize(0)
    fixed = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    copies = {2 * p.numel() for p in model.parameters()}  # of the weights, which autocast makes
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed and not (half and storage.nbytes() in copies):
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(0, 600, (1, 1025))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        found = sum(storage.nbytes() for storage in kept.values()) / 1024
    assert place_bytes(shape, 2 if half else 4, "cuda") == pytest.approx(found, rel=0.2)
    del loss


def test_zero_divides_what_it_says_among_the_devices():
    shape = Shape.of(load_recipe(_RECIPES / "phi-1.5.yaml").model, 51_200)
    number = parameter_count(shape)
    common: dict[str, Any] = {"precision": "bf16", "device": "cuda", "micro_batch": 8}
    alone = training_memory(shape, engine="torch", ranks=8, **common)
    divided = training_memory(shape, engine="deepspeed", ranks=8, **common)
    assert (alone.weights, alone.gradients, alone.moments) == (6 * number, 4 * number, 8 * number)
    assert (divided.gradients, divided.moments) == (number // 2, number)
    assert divided.weights == 2 * number + number // 2
    assert divided.activations == alone.activations
    twice = training_memory(shape, engine="torch", ranks=8, **{**common, "micro_batch": 16})
    assert twice.activations == 2 * alone.activations
    assert twice.logits == alone.logits  # a chunk of places at a time


def test_the_plan_counts_every_checkpoint_and_measured_devices_one_by_one(tmp_path: Path):
    asked = recipe(
        train={"keep_checkpoints": 3, "keep_every": 6}, plan=Planning(training_device="h200", training_gpus=2)
    )
    disk = training_disk(asked, 1000, {"web": 10})
    assert disk["checkpoints (one variant at a time)"] == 4 * 12_000  # three, and the one that is being written
    assert disk["models"] == 4000 + 3 * 12_000  # steps 6, 12 and 18
    shape = Shape.of(asked.model, asked.tokenizer.vocabulary_size)
    measured = {
        "parameters": parameter_count(shape),
        "device": "NVIDIA H200",
        "tokens_per_second": 800.0,
        "processes": 8,
    }
    with RunFolder.opened(tmp_path / "run", asked) as run:
        run.complete(Stage("models/mixed", {}, lambda folder: Built("sample", measured)))
        found = estimate_training(asked, run, dict.fromkeys(asked.used_sources(), 1e6))
    assert found.variants[0].tokens_per_second == 200.0


def test_what_is_around_is_looked_up(tmp_path: Path):
    around = Surroundings.look(_CPU, tmp_path)
    assert around.memory > 2**28
    assert around.disk > 0
    assert around.now.tzinfo is not None
