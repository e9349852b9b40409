"""The smoke recipe from a topic to a verdict, on real parts, interrupted on the way: `make demo` in small."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eval.item_files import read_items
from primer.documents import SCHEMA, SPLITS
from primer.recipe_file import load_recipe
from primer.run import RunFolder, stage_names

PRIMER = Path(sys.executable).parent / "primer"
RECIPE = "recipes/smoke.yaml"


def primer(repository: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PRIMER_EVAL_DATA")}
    return subprocess.Popen(
        [PRIMER, *arguments], cwd=repository, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=ignore_interrupts,
    )  # fmt: skip


def ignore_interrupts() -> None:
    """What a shell script's `&` does to the programs it starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kill_when(process: subprocess.Popen[str], ready: Path, signal_number: int) -> int:
    """Send a signal to a running process as soon as a path exists; returns its exit status."""
    deadline = time.monotonic() + 240
    while not ready.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{ready} did not appear"
        time.sleep(0.05)
    os.kill(process.pid, signal_number)
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    return process.returncode


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> tuple[Path, str]:
    """A run folder that was killed twice and interrupted once before it was allowed to finish."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    arguments = ("report", RECIPE, "--run", str(folder))
    for ready, number, status in (
        ("journal/replies.jsonl", signal.SIGKILL, -signal.SIGKILL),
        ("tokens/manifest.json", signal.SIGKILL, -signal.SIGKILL),
        ("models/synthetic/manifest.json", signal.SIGINT, 130),
        ("models/web/manifest.json", signal.SIGTERM, 130),
    ):
        assert kill_when(primer(repository, *arguments), folder / ready, number) == status
    process = primer(repository, *arguments)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return folder, output


def test_every_stage_is_complete_and_nothing_half_done_remains(finished: tuple[Path, str], repository: Path):
    folder, output = finished
    run = RunFolder(folder)
    for stage in stage_names(load_recipe(repository / RECIPE)):
        manifest = run.manifest(stage)
        assert manifest is not None, f"{stage} is missing"
        assert manifest.summary in re.sub(r"\s+", " ", output), f"{stage} did not say what it made"
        assert set(manifest.outputs) - {"README.md"} == {
            str(p.relative_to(folder / stage))
            for p in (folder / stage).rglob("*")
            if p.is_file() and p.name not in ("manifest.json", "README.md")  # the card is no result
        }
    assert not list((folder / "partial").iterdir())
    assert str(folder / "report" / "report.html") in output


def test_corpora_are_parquet_that_anyone_reads_with_provenance_and_no_text_twice(finished: tuple[Path, str]):
    folder, _ = finished
    seen: set[str] = set()
    for source in ("web", "code", "synthetic"):
        groups: list[set[str]] = []
        for split in SPLITS:
            table = pq.read_table(folder / "corpus" / source / f"{split}-00000.parquet")
            assert table.schema.equals(SCHEMA)
            rows = table.to_pylist()
            assert rows
            assert not seen & {row["hash"] for row in rows}
            seen |= {row["hash"] for row in rows}
            groups.append({row["group"] for row in rows})
            for row in rows:
                assert (row["provenance"] is not None) == (source == "synthetic")
        assert not groups[0] & groups[1], f"{source}: a topic, article or file is in both splits"
    rows = pq.read_table(folder / "corpus" / "synthetic" / "train-00000.parquet").to_pylist()
    for row in rows:
        assert row["provenance"]["topic"] in row["provenance"]["prompt"]
        assert row["provenance"]["finish_reason"] in ("stop", "length")


def test_the_corpora_are_measured_and_ten_documents_stand_beside_their_prompts(finished: tuple[Path, str]):
    folder, output = finished
    facts = RunFolder(folder).require("corpus/diversity").facts["diversity"]
    assert set(facts) == {"web", "code", "synthetic"}
    assert all(0 < found["vendi"] <= 1 and 0 < found["distinct_4"] <= 1 for found in facts.values())
    assert facts["synthetic"]["near_duplicates"] == 0
    assert (folder / "corpus" / "diversity" / "corpora.html").read_text().count("<article>") == 10
    assert "synthetic documents were left out as duplicates" in re.sub(r"\s+", " ", output)


def test_accepted_tokens_reach_the_recipes_target(finished: tuple[Path, str], repository: Path):
    folder, _ = finished
    facts = RunFolder(folder).require("corpus/synthetic").facts
    assert facts["tokens"] >= load_recipe(repository / RECIPE).synth.tokens
    assert facts["units"] == facts["accepted"] + sum(facts["rejected"].values()) + facts["failed"]


def test_variants_were_trained_on_the_same_budget_and_load_as_hugging_face_models(finished: tuple[Path, str]):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = finished
    run = RunFolder(folder)
    facts = [run.require(f"models/{variant}").facts for variant in ("synthetic", "web", "mixed")]
    assert len({(fact["tokens"], fact["steps"], fact["parameters"]) for fact in facts}) == 1
    for fact in facts:
        assert abs(fact["tokens_by_source"]["code"] / fact["tokens"] - 0.2) < 0.001
    for variant in ("synthetic", "web", "mixed"):
        model = AutoModelForCausalLM.from_pretrained(folder / "models" / variant)
        tokenizer = AutoTokenizer.from_pretrained(folder / "models" / variant)
        ids = tokenizer("A wet towel feels cold because", return_tensors="pt").input_ids
        assert model.generate(ids, max_new_tokens=8, do_sample=False).shape[1] > ids.shape[1]


def test_results_cover_the_same_items_in_every_variant(finished: tuple[Path, str]):
    folder, _ = finished
    items: list[list[tuple[str, str, str]]] = []
    for variant in ("synthetic", "web", "mixed"):
        rows = read_items(folder / "eval" / variant / "items.parquet")
        items.append([(row["kind"], row["suite"], row["item"]) for row in rows])
    assert items[0] == items[1] == items[2]
    suites = {suite for kind, suite, _ in items[0] if kind == "choice"}
    assert {"pronouns", "science", "reading", "social", "physical", "endings", "facts", "science_hard"} <= suites
    assert {kind for kind, *_ in items[0]} == {"choice", "generation", "held_out", "toxicity", "open"}


def test_running_again_repeats_nothing(finished: tuple[Path, str], repository: Path):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}
    process = primer(repository, "report", RECIPE, "--run", str(folder))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("already complete") == len(before)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")} == before
