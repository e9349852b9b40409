"""The evaluation stage: whole, the same items in every variant, skipped when complete, continued when killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_phi import make_model
from typer.testing import CliRunner

from eval.measure import summary
from eval.stages import evaluate_variants, say_left_out
from eval.suites import make_plan
from primer.cli import app
from primer.documents import Document, write_corpus
from primer.errors import PrimerError
from primer.recipe import Eval, Recipe
from primer.recipe_file import dump_recipe
from primer.run import Built, RunFolder, Stage
from primer.words import text_hash

SUITES = ["pronouns", "science", "physical", "toxicity", "boundaries"]
VARIANTS = [{"name": "one", "mixture": {"web": 1.0}}, {"name": "two", "mixture": {"code": 1.0}}]


def recipe(**evaluation: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "toy",
            "variants": VARIANTS,
            "model": {"context": 8},
            "train": {"batch_tokens": 8, "tokens": 8, "device": "cpu"},
            "eval": {"limit": 6, **evaluation},
        }
    )


def corpus(folder: Path) -> Built:
    text = f"Some {folder.name} prose about rivers, stones and the Übermut of frogs. "
    rows = [
        Document(id=f"{n}", text=text * (4 * (n % 5) + 1), source="web", hash=text_hash(text), group=f"{n}")
        for n in range(60)
    ]
    return Built("made", dict(write_corpus(folder, rows, 0.2, 0)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with corpora and models, before evaluation."""
    path = tmp_path_factory.mktemp("run") / "run"
    with RunFolder.opened(path, recipe()) as run:
        for source in ("web", "code"):
            run.complete(Stage(f"corpus/{source}", {}, corpus))
        for seed, variant in enumerate(VARIANTS):

            def build(folder: Path, seed: int = seed) -> Built:
                make_model(folder, context=128, seed=seed)
                return Built("trained")

            run.complete(Stage(f"models/{variant['name']}", {}, build))
    return path


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    shutil.copytree(prepared, tmp_path / "run")
    return tmp_path / "run"


def evaluate(folder: Path, settings: Recipe) -> RunFolder:
    with RunFolder.opened(folder, settings) as run:
        evaluate_variants(settings, run)
    return run


def test_results_hold_everything_and_the_report_reads_them(folder: Path, tmp_path: Path, capsys: Any) -> None:
    from eval.compare import compare_subjects
    from eval.subjects import subjects_of_run

    data = tmp_path / "data"
    (data / "boolq").mkdir(parents=True)
    row = {"passage": "p " * 200, "question": "is it", "label": 1}
    (data / "boolq" / "validation.jsonl").write_text(json.dumps(row))
    (data / "hellaswag").mkdir()
    row = {"query": "It", "endings": ["word " * 300, "b", "c", "d"], "label": 1}
    (data / "hellaswag" / "validation.jsonl").write_text(json.dumps(row))
    settings = recipe(data=str(data), suites=[*SUITES, "boolq", "hellaswag", "mmlu", "toxigen_safety"])
    run = evaluate(folder, settings)
    results = [json.loads((folder / "eval" / name / "results.json").read_text()) for name in ("one", "two")]
    for name, result in zip(("one", "two"), results, strict=True):
        assert result["variant"] == name
        suites = {suite["suite"]: suite for suite in result["suites"]}
        assert set(suites) == {"pronouns", "science", "physical", "boolq"}
        assert suites["boolq"]["rows_cut"] == 1
        assert "1 rows cut from the left to the model's context" in suites["boolq"]["protocol"]
        assert suites["boolq"]["protocol"].endswith("validation split; 1 rows")
        assert suites["science"]["protocol"].startswith("0-shot; log-likelihood of each answer; acc raw, acc_norm")
        assert [found["source"] for found in result["held_out"]] == ["web", "code"]
        assert [found["set"] for found in result["toxicity"]] == ["toxicity"]
        skipped = {entry["suite"]: entry["reason"] for entry in result["skipped"]}
        assert "tokens, more than the model's context of 128" in skipped["hellaswag"]
        assert skipped["mmlu"].startswith("there is no mmlu/test.jsonl")
        facts = run.require(f"eval/{name}").facts
        assert facts["rows"] == facts["asked"]
        assert facts["rows"] == sum(s["rows"] for part in ("suites", "toxicity", "open") for s in result[part]) + sum(
            found["documents"] for found in result["held_out"]
        )
        assert {p.name for p in (folder / "eval" / name).iterdir()} == {
            *("results.json", "items.parquet", "manifest.json")
        }
    assert results[0]["held_out"][0]["bits_per_byte"] != results[1]["held_out"][0]["bits_per_byte"]
    assert results[0]["held_out"][0]["bytes"] == results[1]["held_out"][0]["bytes"]
    comparison = compare_subjects(subjects_of_run(settings, run), 0, 100)
    assert {suite.name for suite in comparison.suites} == {"pronouns", "science", "physical", "boolq"}
    printed = " ".join(capsys.readouterr().err.split())
    assert "Left out: mmlu: there is no mmlu/test.jsonl" in printed
    assert "Left out: toxigen_safety: there is no toxigen_safety/test.jsonl" in printed
    assert "over 3 built-in suites, 18 rows; mean accuracy" in printed


def test_asking_for_more_asks_only_what_is_missing(folder: Path) -> None:
    first = evaluate(folder, recipe(suites=["science"])).require("eval/one").facts
    more = evaluate(folder, recipe(suites=["science", "pronouns"], limit=10)).require("eval/one").facts
    held_out = first["asked"] - 6
    assert more["rows"] == 20 + held_out
    assert more["asked"] == 10 + 4  # pronouns, and what a sample of ten has beyond that of six
    fewer = evaluate(folder, recipe(suites=["pronouns"], limit=3)).require("eval/one").facts
    assert (fewer["rows"], fewer["asked"]) == (3 + held_out, 0)


def test_suites_without_data_share_a_line_where_they_share_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    say_left_out(make_plan(Eval(suites=["boolq", "piqa"], hub=False), seed=0))
    assert capsys.readouterr().err == "Left out: boolq, piqa: no folder of benchmark data is named.\n"
    say_left_out(make_plan(Eval(suites=["boolq", "piqa"], hub=False, data=str(tmp_path)), seed=0))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_what_a_part_asked_is_said_where_there_are_no_accuracies() -> None:
    found = {"suites": [], "held_out": [], "toxicity": [{"set": "toxicity", "rows": 8}]}
    assert summary({**found, "open": [{"set": "boundaries", "rows": 1}]}) == (
        "8 sentences of toxicity; 1 answer to boundaries"
    )


def test_complete_evaluations_are_skipped_and_changed_data_is_evaluated_again(folder: Path, tmp_path: Path):
    data = tmp_path / "data"
    (data / "boolq").mkdir(parents=True)
    file = data / "boolq" / "validation.jsonl"
    file.write_text(json.dumps({"passage": "p", "question": "q", "label": 1}))
    settings = recipe(suites=["boolq"], data=str(data))
    manifest = evaluate(folder, settings).require("eval/one")
    assert evaluate(folder, settings).require("eval/one") == manifest
    moved = data.rename(tmp_path / "elsewhere")
    assert evaluate(folder, recipe(suites=["boolq"], data=str(moved))).require("eval/one") == manifest
    (moved / "boolq" / "validation.jsonl").write_text(json.dumps({"passage": "p", "question": "r", "label": 1}))
    assert evaluate(folder, recipe(suites=["boolq"], data=str(moved))).require("eval/one") != manifest


PROGRAM = """
import sys
from pathlib import Path
from eval.stages import evaluate_variants
from primer.recipe_file import load_recipe
from primer.run import RunFolder
recipe = load_recipe(Path(sys.argv[2]))
with RunFolder.opened(Path(sys.argv[1]), recipe) as run:
    evaluate_variants(recipe, run)
"""


def test_a_killed_evaluation_goes_on_where_it_was_and_writes_nothing_elsewhere(folder: Path, tmp_path: Path) -> None:
    settings = recipe(suites=["science", "toxicity"])
    (tmp_path / "toy.yaml").write_text(dump_recipe(settings))
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp", "HF_HOME": tmp_path / "hub"}
    for place in places.values():
        place.mkdir()
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {key: str(place) for key, place in places.items()}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "toy.yaml")]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(folder.glob("scores/*/*/science-*/*.parquet")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    said = process.communicate()[1]
    assert "%|" not in said, "a library's progress bar stands among our own lines"
    written = [path for place in places.values() for path in place.rglob("*") if path.is_file()]
    assert not written, f"files outside the run folder: {written}"
    run = evaluate(folder, settings)
    facts = run.require("eval/one").facts
    assert facts["asked"] <= facts["rows"] - 6, "the answers that were kept are not asked again"
    assert not list((folder / "partial").iterdir())


def test_models_from_anywhere_are_scored_compared_and_not_asked_twice(folder: Path, tmp_path: Path) -> None:
    models = [str(folder / "models" / name) for name in ("one", "two")]
    command = ["eval", *models, "--suite", "science", "--suite", "toxicity", "--limit", "8", "--device", "cpu"]
    command += ["--output", str(tmp_path / "scored"), "--set", "eval.hub=false", "--set", "eval.bootstrap_samples=100"]
    said = []
    for _ in range(2):
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0
        said.append(" ".join(result.output.split()))
    assert "(16 rows asked now)" in said[0]
    assert said[1].count("(0 rows asked now)") == 2
    page = (tmp_path / "scored/report/report.html").read_text()
    assert "one" in page
    assert "two" in page
    results = json.loads((tmp_path / "scored/eval/two/results.json").read_text())
    assert [suite["suite"] for suite in results["suites"]] == ["science"]
    assert len(list((tmp_path / "scored").glob("scores/torch/*/science-*"))) == 2


def test_models_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    from eval.stages import _names

    paths = [tmp_path / name for name in ("a/models/web", "b/models/web", "a/models/code", "web")]
    for path in paths:
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "web")
    names = _names([*paths, tmp_path / "link"])
    assert names == ["a-models-web", "b-models-web", "code", f"{tmp_path.name}-web", "link"]
    with pytest.raises(PrimerError, match="is named twice"):
        _names([paths[0], tmp_path / "a/../a/models/web"])


def test_what_is_no_model_and_what_is_called_alike_are_refused(folder: Path, tmp_path: Path) -> None:
    from eval.stages import evaluate_models

    with pytest.raises(PrimerError, match="no model directory"):
        evaluate_models([tmp_path], recipe(), tmp_path / "out")
    one = folder / "models" / "one"
    wrong = [["eval"], ["eval", str(one), "--run", "x"], ["eval", "a.yaml", "b.yaml"], ["report", "a", "--run", "b"]]
    wrong += [["eval", "a.yaml", "--device", "cpu"], ["eval", "a.yaml", "--output", "b"]]
    wrong += [["eval", str(one), "--device", "tpu", "--output", str(tmp_path / "out")]]
    for command in wrong:
        assert isinstance(CliRunner().invoke(app, command).exception, PrimerError), command
