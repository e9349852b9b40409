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

from eval.stages import evaluate_variants
from primer.documents import Document, write_corpus
from primer.recipe import Recipe
from primer.recipe_file import dump_recipe
from primer.run import Built, RunFolder, Stage
from primer.words import text_hash

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


def test_results_hold_everything_and_the_report_reads_them(folder: Path, tmp_path: Path, capsys: Any):
    from eval.scored_items import read_scores

    data = tmp_path / "data"
    (data / "boolq").mkdir(parents=True)
    row = {"passage": "p " * 200, "question": "is it", "label": 1}
    (data / "boolq" / "validation.jsonl").write_text(json.dumps(row))
    (data / "hellaswag").mkdir()
    row = {"query": "It", "endings": ["word " * 300, "b", "c", "d"], "label": 1}
    (data / "hellaswag" / "validation.jsonl").write_text(json.dumps(row))
    run = evaluate(folder, recipe(data=str(data)))
    results = [json.loads((folder / "eval" / name / "results.json").read_text()) for name in ("one", "two")]
    for name, result in zip(("one", "two"), results, strict=True):
        assert result["variant"] == name
        suites = {suite["suite"]: suite for suite in result["suites"]}
        assert list(suites) == ["physical", "pronouns", "reading", "science", "social", "boolq"]
        assert suites["boolq"]["rows_cut"] == 1
        assert "1 rows, 1 of them cut from the left to the context of 128 tokens" in suites["boolq"]["protocol"]
        assert suites["science"]["protocol"].startswith("0-shot; log-likelihood of each answer; acc raw, acc_norm")
        assert [found["source"] for found in result["held_out"]] == ["web", "code"]
        assert [found["set"] for found in result["toxicity"]] == ["built-in"]
        skipped = {entry["suite"]: entry["reason"] for entry in result["skipped"]}
        assert "tokens, more than the model's context of 128" in skipped["hellaswag"]
        assert skipped["mmlu"].startswith("there is no mmlu/test.jsonl")
        facts = run.require(f"eval/{name}").facts
        assert facts["rows"] == sum(s["rows"] for s in [*result["suites"], *result["toxicity"]]) + sum(
            found["documents"] for found in result["held_out"]
        )
        assert {p.name for p in (folder / "eval" / name).iterdir()} == {"results.json", "items.jsonl", "manifest.json"}
    assert results[0]["held_out"][0]["bits_per_byte"] != results[1]["held_out"][0]["bits_per_byte"]
    assert results[0]["held_out"][0]["bytes"] == results[1]["held_out"][0]["bytes"]
    read_scores({name: folder / "eval" / name for name in ("one", "two")})
    printed = " ".join(capsys.readouterr().err.split())
    assert "Left out, for want of data: winogrande" in printed or "Left out, for want of data: arc_challenge" in printed
    assert "over 5 built-in suites, 30 rows; mean accuracy" in printed


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


def test_a_killed_evaluation_goes_on_where_it_was_and_writes_nothing_elsewhere(folder: Path, tmp_path: Path):
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
    while not (first := list(folder.glob("partial/eval-one-*/parts/suites-science.json"))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    said = process.communicate()[1]
    assert "%|" not in said, "a library's progress bar stands among our own lines"
    written = [path for place in places.values() for path in place.rglob("*") if path.is_file()]
    assert not written, f"files outside the run folder: {written}"
    # What was kept is taken as it is: a mark in it comes out at the end.
    kept = json.loads(first[0].read_text())
    kept["totals"]["title"] = "kept from the first run"
    first[0].write_text(json.dumps(kept))
    evaluate(folder, settings)
    results = json.loads((folder / "eval" / "one" / "results.json").read_text())
    assert results["suites"][0]["title"] == "kept from the first run"
    assert not list((folder / "partial").iterdir())
