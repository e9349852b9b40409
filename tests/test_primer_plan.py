"""`primer plan`: estimates against what was measured, by hand where that is possible, and nothing started."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from primer.errors import PrimerError
from primer.fingerprint import FIELDS, NEVER, stage_settings
from primer.plan_cli import make_plan, plan_command
from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.recipe_plan import Planning
from primer.run import Built, RunFolder, Stage
from prompts.rubrics import load_rubric
from synth.estimate import Work, budget_sentence, endpoint_cost, estimate_work
from synth.estimate_measured import Measured, measured
from synth.estimate_speed import embedded_bound, endpoint_bounds, gpu_table, teacher_size
from synth.journal import answer_tag
from synth.teachers import teacher_identity

RECIPES = Path(__file__).parent.parent / "recipes"
FEW_TOPICS = "topics.fields=[algebra, chemistry]"
ENDPOINT = (
    "prompts.snippet_share=0",
    'synth.teacher={kind: openai, model: m, base_url: "http://127.0.0.1:9/v1", price_input: 0.15, price_output: 0.6}',
)

# A round piece of work: a thousand requests of 300 tokens in and 500 out.
WORK = Work(1000, 1000, 800, 400_000, 300_000, 500_000, 0.8, 1, 0.0)


def plan(recipe: Recipe, folder: Path) -> dict:
    return make_plan(recipe, RunFolder(folder / "run"))


def shipped(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", overrides)


def endpoint(*overrides: str) -> Recipe:
    return load_recipe(None, [*ENDPOINT, FEW_TOPICS, *overrides])


def command(*arguments: str, columns: int = 100) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(plan_command)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns), "PRIMER_EVAL_DATA": ""})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_demo_comes_out_as_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # docs/LOG.md and the manifests of that run: two cores, 313 units, 320 requests, 606 s of generating, 62 s of
    # training. Evaluating took 29 s of another run, on the same cores.
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    found = plan(shipped("demo", "synth.teacher.threads=2", "train.threads=2"), tmp_path)
    work = found["generation"]["work"]
    assert work["units"] == pytest.approx(313, rel=0.2)
    assert work["prompt_tokens"] / work["requests"] == pytest.approx(200.5, rel=0.05)
    assert work["completion_tokens"] / work["requests"] == pytest.approx(201.7, rel=0.2)
    assert work["tokens"] == pytest.approx(50_104, rel=0.01)
    assert found["generation"]["seconds"] == pytest.approx(606, rel=0.15)
    assert sum(variant["seconds"] for variant in found["training"]["variants"]) == pytest.approx(62, rel=0.1)
    assert found["training"]["parameters"] == 3_680_256
    assert found["evaluation"]["seconds"] == pytest.approx(29, rel=0.3)
    assert found["evaluation"]["rows"] == 1098
    assert found["training"]["device"]["gpu"] is None
    assert found["totals"]["dollars"] == 0
    assert found["disk"]["models"] == pytest.approx(3 * 14_724_408, rel=0.01)


def test_phi_takes_84_days_on_one_a100_at_60_per_cent(tmp_path: Path):
    overrides = ("plan.training_device=a100-80gb", "plan.training_utilisation.a100-80gb=0.6", FEW_TOPICS)
    found = plan(shipped("phi-1.5", *overrides), tmp_path)["training"]
    assert found["parameters"] == 1_418_270_720
    assert found["flops_per_token"] == pytest.approx(9.085e9, rel=1e-4)
    for variant in found["variants"]:
        assert variant["flops"] == pytest.approx(150e9 * 9.085e9, rel=1e-3)
        assert variant["seconds"] / 86_400 == pytest.approx(84.3, abs=0.2)
        assert variant["gpu_hours"] * 1.3 == pytest.approx(variant["dollars"])
    eight = plan(shipped("phi-1.5", *overrides, "plan.training_gpus=8"), tmp_path)["training"]["variants"][0]
    assert eight["seconds"] * 8 == pytest.approx(found["variants"][0]["seconds"])
    assert eight["gpu_hours"] == pytest.approx(found["variants"][0]["gpu_hours"])


def test_an_endpoint_costs_its_prices_and_a_batch_half_of_them(tmp_path: Path):
    recipe = endpoint("synth.tokens=1000000")
    found = plan(recipe, tmp_path)["generation"]
    work = found["work"]
    by_hand = work["prompt_tokens"] / 1e6 * 0.15 + work["completion_tokens"] / 1e6 * 0.6
    assert found["dollars"] == pytest.approx(by_hand)
    assert 0.6 < found["dollars"] < 1.2  # a million tokens out, a quarter more for what is rejected, and the prompts
    teacher = endpoint("synth.teacher.batch=true").synth.teacher
    assert endpoint_cost(teacher, WORK).dollars == pytest.approx(0.5 * (0.3 * 0.15 + 0.5 * 0.6))
    bare = endpoint("synth.teacher.price_input=null", "synth.teacher.price_output=null")
    assert endpoint_cost(bare.synth.teacher, WORK).dollars is None
    assert plan(bare, tmp_path)["totals"]["without"] == [
        "the teacher's price (synth.teacher.price_input, price_output)"
    ]


FURTHER = (
    "web.quality={samples: 1000, repeated: 200, words: 300, teacher: {kind: openai, model: judge, base_url: "
    '"http://127.0.0.1:9/v1", price_input: 1.0, price_output: 2.0}}',
    "code.textbooks.tokens=100000",
    "code.exercises.tokens=20000",
)


def test_labels_and_what_is_written_for_code_are_foretold_beside_the_textbooks(tmp_path: Path):
    recipe = endpoint("synth.tokens=100000", *FURTHER)
    found = plan(recipe, tmp_path)
    stages = {part["stage"]: part for part in found["further"]}
    assert list(stages) == ["labels/web", "written/textbooks", "written/exercises"]
    work = stages["labels/web"]["work"]
    assert work["requests"] == work["units"] == 1200
    rubric = len(load_rubric("education").messages("", 300)[0]["content"])
    assert work["prompt_tokens"] == pytest.approx(1200 * (rubric / 4 + 300 * 1.3), rel=0.001)
    by_hand = work["prompt_tokens"] / 1e6 * 1.0 + work["completion_tokens"] / 1e6 * 2.0
    assert stages["labels/web"]["dollars"] == pytest.approx(by_hand)
    assert work["completion_tokens"] <= 1200 * recipe.web.quality.sampling.max_tokens
    assert stages["written/textbooks"]["work"]["tokens"] == pytest.approx(100_000, rel=0.02)
    assert stages["written/exercises"]["teacher"] == "m"
    parts = [found["generation"], *found["further"]]
    parts_of_training = [variant["dollars"] or 0 for variant in found["training"]["variants"]]
    total = sum(part["dollars"] for part in parts) + sum(parts_of_training) + (found["evaluation"]["dollars"] or 0)
    assert found["totals"]["dollars"] == pytest.approx(total)
    # What is written for the code corpus is there to train on.
    bare = plan(endpoint("synth.tokens=100000", "code.textbooks=null", "code.exercises=null"), tmp_path)
    assert bare["further"] == []
    passes = [each["training"]["variants"][0]["epochs"]["code"] for each in (bare, found)]
    characters = recipe.code.characters
    written = 4 * sum(stages[f"written/{kind}"]["work"]["tokens"] for kind in ("textbooks", "exercises"))
    assert passes[0] / passes[1] == pytest.approx((characters + written) / characters, rel=0.01)


def test_a_budget_is_for_all_that_teachers_are_asked(tmp_path: Path):
    found = plan(endpoint("synth.tokens=100000", "synth.budget.tokens=1000000", *FURTHER), tmp_path)
    tokens = sum(
        part["work"]["prompt_tokens"] + part["work"]["completion_tokens"]
        for part in (found["generation"], *found["further"])
    )
    assert f"(estimate: {tokens:,} in and out)" in found["budget"]


def test_a_filter_that_is_trained_already_asks_nobody(tmp_path: Path):
    trained = ("web.quality.trained=filter", "code.textbooks=null", "code.exercises=null")
    assert plan(endpoint(*trained), tmp_path)["further"] == []


def test_the_budget_is_held_against_the_estimate():
    half = endpoint("synth.budget.dollars=2").synth
    assert budget_sentence(half, 800_000, 4.0) == (
        "The budget of $2.00 ends the run at about 50% of the tokens (estimate: $4.00)."
    )
    assert budget_sentence(half, 800_000, 1.0) == "The budget of $2.00 is enough: the estimate is $1.00, 50% of it."
    tokens = endpoint("synth.budget={dollars: 100, tokens: 200000}").synth
    assert "200,000 tokens ends the run at about 25%" in (budget_sentence(tokens, 800_000, 1.0) or "")
    assert budget_sentence(endpoint().synth, 800_000, 1.0) is None


def test_json_holds_what_the_screens_are_made_of_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(RECIPES / "mini-gpu.yaml"), "--set", FEW_TOPICS]
    found = json.loads(command(*arguments, "--json"))
    assert found == json.loads(json.dumps(plan(shipped("mini-gpu", FEW_TOPICS), tmp_path) | {"run": found["run"]}))
    assert found["assumptions"]["accepted"] == 0.8
    rows = {row["gpu"]: row for row in found["generation"]["gpus"]}
    assert found["generation"]["dollars"] == rows["h100"]["dollars"]
    parts = [found["generation"]["dollars"], found["evaluation"]["dollars"]]
    parts += [variant["dollars"] for variant in found["training"]["variants"]]
    assert found["totals"]["dollars"] == pytest.approx(sum(parts))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [80, 100])
def test_the_screens_fit_their_width(columns: int):
    further = [part for setting in FURTHER for part in ("--set", setting)]
    text = command(str(RECIPES / "mini-gpu.yaml"), "--set", FEW_TOPICS, *further, columns=columns)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    for word in ("Nothing is started", "units to ask", "plan.writing_batch", "RTX 4090", "GFLOP a token", "Together"):
        assert word in text


def test_a_book_is_asked_step_by_step_and_needs_every_reply():
    book = ("prompts.forms={book: 1.0}", "prompts.lengths={usual: 1.0}")
    work = estimate_work(endpoint(*book), Measured())
    assert work.most_steps == 5
    assert work.requests / work.units == pytest.approx(1 + 0.8 + 0.8**2 + 0.8**3 + 0.8**4, rel=0.01)
    assert work.accepted == pytest.approx(0.8**5)
    # Kept: three chapters of 350 words and exercises of 250, not the outline.
    assert work.tokens / work.documents == pytest.approx(1300 * 1.3, rel=0.01)
    certain = estimate_work(endpoint(*book, "plan.accepted=1"), Measured())
    assert certain.requests == 5 * certain.units
    assert certain.documents == certain.units
    # Later prompts carry the chapters before them: 0 + outline + (1 + 2 + 3) chapters of 350 words, at least.
    assert certain.prompt_tokens / certain.units > 6 * 350 * 1.3
    retried = estimate_work(endpoint(*book, "synth.accept.retries=1"), Measured())
    assert retried.accepted == pytest.approx(0.96**5)


def test_a_passage_lengthens_the_prompts_by_its_words():
    with_passage = ["prompts.snippet_share=1", "prompts.snippet_words=200", "prompts.forms={lecture: 1.0}"]
    bare = estimate_work(endpoint("prompts.forms={lecture: 1.0}"), Measured())
    carrying = estimate_work(endpoint(*with_passage), Measured())
    assert (bare.passages, carrying.passages) == (0.0, 1.0)
    longer = carrying.prompt_tokens / carrying.requests - bare.prompt_tokens / bare.requests
    assert 200 * 1.3 < longer < 200 * 1.3 + 80  # and the lines about it


def test_the_first_of_two_targets_ends_the_corpus():
    assert estimate_work(endpoint("synth.tokens=null", "synth.documents=40"), Measured()).documents == 40
    assert estimate_work(endpoint("synth.tokens=1000", "synth.documents=40"), Measured()).documents < 10


@pytest.mark.parametrize(
    ("overrides", "name", "seconds"),
    [
        (["synth.teacher.requests_per_minute=10"], "requests_per_minute: 10", 6000),
        (["synth.teacher.tokens_per_minute=8000"], "tokens_per_minute: 8,000", 6000),
        (["synth.concurrency=2"], "synth.concurrency: 2 at a time, 10.0 s a reply", 5000),
        (["plan.reply_tokens_per_second=1e6"], "Primer's process: 260 requests/s", 1000 / 260),
        (
            ['synth.teacher.base_url=["http://a/v1", "http://b/v1"]', "synth.teacher.requests_per_minute=10"],
            "requests_per_minute: 20",
            3000,
        ),
        (
            ["synth.teacher.batch=true", "synth.teacher.requests_per_minute=1"],
            "the Batch API: a day at most",
            86_400,
        ),
    ],
)
def test_the_slowest_limit_is_the_bottleneck(overrides: list[str], name: str, seconds: float):
    recipe = endpoint(*overrides)
    first = endpoint_bounds(recipe, recipe.synth.teacher, WORK)[0]
    assert first.name == name
    assert first.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("model", "parameters", "active"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 47e9, 13e9),
        ("Qwen/Qwen3-4B-Instruct-2507", 4e9, 4e9),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30e9, 3e9),
        ("smollm2-135m-instruct", 0.135e9, 0.135e9),
        ("meta-llama/Llama-3.1-70B-Instruct", 70e9, 70e9),
    ],
)
def test_a_models_name_says_how_large_it_is(model: str, parameters: float, active: float):
    size = teacher_size(model, Planning())
    assert size is not None
    assert (size.parameters, size.active) == pytest.approx((parameters, active))


def test_a_nameless_size_is_asked_for_and_given():
    recipe = load_recipe(None, ["synth.teacher={kind: vllm, model: acme/teacher}"])
    with pytest.raises(PrimerError, match=r"(?s)'acme/teacher'.*plan\.teacher_parameters"):
        gpu_table(recipe, recipe.synth.teacher, WORK)
    told = teacher_size("acme/teacher-7b", Planning(teacher_parameters=9, teacher_active=2))
    assert told is not None
    assert (told.parameters, told.active) == (9e9, 2e9)


def test_a_teacher_takes_the_gpus_that_hold_it():
    recipe = shipped("phi-1.5")
    rows = {row.gpu: row for row in gpu_table(recipe, recipe.synth.teacher, WORK)}
    # 94 GB of weights, 113 GB with a cache, at 0.9 of 80, 141, 48 and 24 GB.
    assert {name: row.fits for name, row in rows.items()} == {
        "a100-80gb": 2,
        "h100": 2,
        "h200": 1,
        "l40s": 4,
        "rtx-4090": 8,
    }
    # By hand: 16 x 3350 GB/s / 26 GB written a second, 40% of 989.4 TFLOPS / 26 GFLOP read, on two GPUs.
    seconds = (500_000 / (16 * 3350e9 / 26e9) + 300_000 / (0.4 * 989.4e12 / 26e9)) / 2
    assert rows["h100"].seconds == pytest.approx(seconds)
    assert rows["h100"].dollars == pytest.approx(seconds * 2 / 3600 * 2.95)
    large = shipped("phi-1.5", "synth.teacher.model=acme/teacher-405b")
    rows = {row.gpu: row for row in gpu_table(large, large.synth.teacher, WORK)}
    assert rows["h100"].fits is None
    assert rows["h200"].fits == 8


def test_more_copies_of_a_teacher_share_the_replies_in_flight():
    recipe = shipped("phi-1.5", "plan.teacher_gpus=8", "synth.concurrency=20")
    row = next(row for row in gpu_table(recipe, recipe.synth.teacher, WORK) if row.gpu == "h100")
    assert (row.fits, row.gpus, row.bound) == (2, 8, "synth.concurrency")
    odd = shipped("phi-1.5", "plan.teacher_gpus=3")
    with pytest.raises(PrimerError, match=r"(?s)plan\.teacher_gpus is 3.*multiple of 2"):
        gpu_table(odd, odd.synth.teacher, WORK)


def test_what_does_not_fit_is_named_in_the_sums(tmp_path: Path):
    huge = shipped("mini-gpu", FEW_TOPICS, "synth.teacher.model=acme/teacher-405b")
    found = plan(huge, tmp_path)
    assert found["generation"]["seconds"] is None
    assert found["totals"]["without"] == ["generation (the teacher does not fit on plan.teacher_gpu)"]


def write_run(folder: Path, recipe: Recipe, *, corpus: bool) -> RunFolder:
    """A run folder as a generation leaves it: 100 units, 50 documents of 300 tokens; 120 answers, 90 s."""
    with RunFolder.opened(folder, recipe) as run:
        journal = folder / "journal" / "replies.jsonl"
        journal.parent.mkdir(exist_ok=True)
        reply = {"text": "x", "finish_reason": "stop", "prompt_tokens": 111, "completion_tokens": 222, "seconds": 1.0}
        tag = answer_tag(teacher_identity(recipe.synth.teacher), recipe.synth.sampling)
        lines = [{"key": f"{number:064x}", "tag": tag, "reply": reply} for number in range(120)]
        lines += [{"tag": tag, "elapsed": 90.0}]
        lines += [{"key": f"{999:064x}", "tag": "scores", "reply": reply | {"completion_tokens": 9}}]  # of a filter
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"tag": "new', encoding="utf-8")
        if corpus:
            facts = {"units": 100, "accepted": 50, "tokens": 15_000}
            settings = stage_settings(recipe, "corpus/synthetic")
            run.complete(Stage("corpus/synthetic", settings, lambda _: Built("a corpus", facts)))
        return run


def test_what_a_run_folder_measured_takes_the_place_of_assumptions(tmp_path: Path):
    small, large = (shipped("demo", FEW_TOPICS, f"synth.tokens={tokens}") for tokens in (15_000, 150_000))
    run = write_run(tmp_path / "run", small, corpus=True)
    work = estimate_work(large, measured(large, run))
    assert (work.documents, work.units, work.accepted) == (500, 1000, 0.5)
    assert work.prompt_tokens == work.requests * 111
    assert work.completion_tokens == work.requests * 222
    assert set(work.origin.values()) == {"measured here"}
    assert work.answered == 120
    bound, _ = embedded_bound(large, large.synth.teacher, work, measured(large, run))
    assert bound.seconds == pytest.approx(work.requests * 90 / 120)
    found = make_plan(large, run)
    assert any("120 answers already" in note for note in found["notes"])
    assert "measured here" in command(
        str(RECIPES / "demo.yaml"), "--set", FEW_TOPICS, "--set", "synth.tokens=15000", "--run", str(run.path)
    )


def test_a_journal_alone_tells_the_length_of_replies_but_not_what_was_accepted(tmp_path: Path):
    recipe = shipped("demo", FEW_TOPICS)
    work = estimate_work(recipe, measured(recipe, write_run(tmp_path / "run", recipe, corpus=False)))
    assert work.origin == {
        "accepted": "assumed",
        "prompt_tokens": "measured here",
        "completion_tokens": "measured here",
        "document_tokens": "measured here",
    }
    assert work.tokens / work.documents == pytest.approx(222, rel=0.01)


def test_answers_to_other_settings_are_not_taken_over(tmp_path: Path):
    recipe = shipped("demo", FEW_TOPICS)
    run = write_run(tmp_path / "run", recipe, corpus=True)
    known = measured(shipped("demo", FEW_TOPICS, "synth.sampling.temperature=0.1"), run)
    assert (known.answers, known.judged) == (None, None)
    assert "synth.sampling.temperature" in known.note


def test_a_changed_plan_repeats_no_work_and_says_so_in_never():
    plain, changed = Recipe(name="x"), Recipe(name="x", plan=Planning(accepted=0.5, teacher_gpus=4))
    assert "plan" in NEVER
    for room in FIELDS:
        assert stage_settings(plain, room) == stage_settings(changed, room)


def test_a_table_of_prices_names_only_what_differs():
    recipe = shipped("demo", "plan.price_per_gpu_hour.rtx-4090=0.4")
    assert recipe.plan.price_per_gpu_hour == Planning().price_per_gpu_hour | {"rtx-4090": 0.4}
    with pytest.raises(PrimerError, match=r"plan\.price_per_gpu_hour"):
        shipped("demo", "plan.price_per_gpu_hour.tpu=1")


def test_a_source_that_would_be_seen_too_often_is_said_before_it_is_made(tmp_path: Path):
    notes = plan(shipped("demo", FEW_TOPICS, "synth.tokens=5000"), tmp_path)["notes"]
    warnings = [note for note in notes if "train.max_epochs (5)" in note]
    assert [warning.split(", by estimate: ")[0] for warning in warnings] == ["synthetic", "mixed"]
    # 0.8 x 204,800 tokens out of 0.8 x 5,000 and what the last document has beyond; half of that in the mixture.
    for warning, expected in zip(warnings, (41, 20.5), strict=True):
        times = re.search(r"synthetic is seen ([0-9.]+) times", warning)
        assert times
        assert float(times[1]) == pytest.approx(expected, rel=0.1)


def test_no_pytorch_no_network_and_no_key_are_needed(tmp_path: Path):
    code = (
        "import sys, socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path\n"
        "from primer.plan_cli import make_plan\n"
        "from primer.recipe_file import load_recipe\n"
        "from primer.run import RunFolder\n"
        f"recipe = load_recipe(Path({str(RECIPES / 'mini-gpu.yaml')!r}), [{FEW_TOPICS!r}])\n"
        f"make_plan(recipe, RunFolder(Path({str(tmp_path / 'none')!r})))\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'openai', 'vllm') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=RECIPES.parent)
    assert done.stdout.strip() == "[]", done.stderr
    assert not (tmp_path / "none").exists()


def test_held_out_text_is_counted_as_it_is_chosen():
    from eval import estimate
    from eval.held_out import LARGEST_BYTES

    assert estimate._HELD_OUT_BYTES == LARGEST_BYTES
