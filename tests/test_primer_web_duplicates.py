"""`primer web duplicates`: pairs beside each other, told apart by their words, and errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from primer.documents import write_corpus
from primer.errors import PrimerError
from primer.run import Manifest
from primer.web_duplicates_cli import compared, duplicates
from synth.removed import RemovedWriter

KEPT = "The river was high in spring, and the ferry did not run for eleven days."


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "corpus" / "web"
    folder.mkdir(parents=True)
    rows = [
        {"id": f"web-{n:06d}", "text": f"{KEPT} {n}", "source": "web", "hash": str(n), "group": str(n)}
        for n in range(40)
    ]
    write_corpus(folder, rows, 0.2, 0)  # type: ignore[arg-type]
    manifest = Manifest("corpus/web", "", {}, {}, "", "", {}, {}, "", 0.0)
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    with RemovedWriter(folder) as removed:
        for number, kind in enumerate(["near", "exact", "near"]):
            removed.add(
                {
                    "kind": kind,  # type: ignore[typeddict-item]
                    "similarity": 0.8125,
                    "title": "Ferries\x1b[31m",
                    "origin": "https://example.org/ferry",
                    "text": f"{KEPT} {number}".replace("eleven", "twelve"),
                    "kept": f"web-{number:06d}",
                    "kept_corpus": "web",
                }
            )
    (tmp_path / "recipe.yaml").write_text("name: run\n")
    return tmp_path


def shown(folder: Path, *options: str) -> str:
    app = typer.Typer()
    app.command()(duplicates)
    place = ["--run", str(folder / "run")]
    result = CliRunner().invoke(app, [str(folder / "recipe.yaml"), *place, *options], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_pair_is_shown_with_its_differences_and_no_control_codes(run: Path):
    text = shown(run, "--number", "1")
    assert "removed document 1 of 3: near duplicate, similarity 0.81" in text
    assert "did not run for [-twelve-] days. 0" in text
    assert "did not run for {+eleven+} days. 0" in text
    assert "web-000000 in corpus/web" in text
    assert "\x1b" not in text


def test_kinds_and_numbers_choose_the_pairs(run: Path):
    assert shown(run).count("removed document") == 3
    near = shown(run, "--kind", "near")
    assert "document 1 of 3" in near
    assert "document 3 of 3" in near
    assert "document 2 of 3" not in near
    exact = shown(run, "--kind", "exact")
    assert "exact duplicate\n" in exact
    assert "(equal but for case and white space)" in exact
    assert f"{KEPT} 1" in exact


def test_a_number_counts_within_its_kind_and_begins_as_many_as_are_asked_for(run: Path):
    second = shown(run, "--kind", "near", "--number", "2")
    assert "document 3 of 3: near" in second
    assert second.count("removed document") == 1
    assert "document 2 of 3: exact" in shown(run, "--kind", "exact", "--number", "1")
    both = shown(run, "--number", "2", "-n", "5")
    assert "document 2 of 3" in both
    assert both.count("removed document") == 2
    with pytest.raises(PrimerError, match="--number is 3, but 2 near duplicates were removed") as caught:
        shown(run, "--kind", "near", "--number", "3")
    assert caught.value.remedy == "Give a number from 1 to 2."


def test_what_cannot_be_shown_is_said_with_what_to_do(run: Path):
    with pytest.raises(PrimerError, match="--number is 9, but 3 documents were removed"):
        shown(run, "--number", "9")
    with pytest.raises(PrimerError, match="corpus/code is not there yet"):
        shown(run, "--corpus", "code")
    with RemovedWriter(run / "run" / "corpus" / "web"):
        pass
    with pytest.raises(PrimerError, match="No duplicate was removed from corpus/web"):
        shown(run)
    (run / "run" / "corpus" / "web" / "duplicates" / "removed.parquet").unlink()
    with pytest.raises(PrimerError, match="has no list of removed documents"):
        shown(run)


def test_long_texts_are_compared_in_part_and_case_is_no_difference():
    words = " ".join(f"word{n}" for n in range(4000))
    removed = {"kind": "near", "similarity": 0.9, "title": None, "origin": None, "text": words.upper(), "kept": "a"}
    ours, theirs, note = compared({**removed, "kept_corpus": "web"}, {"text": words})  # type: ignore[typeddict-item]
    assert note == "(3,000 more words are not compared here)"
    assert all(shared for _, shared in [*ours, *theirs])
