"""Sealed items: what goes in comes out, nothing of it can be read in between, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from primer.benchmarks import BUILT_IN_ITEMS, read_benchmarks
from primer.cli import app
from primer.errors import PrimerError
from primer.sealed import CANARY, SUFFIX, read_items, seal, unseal


@pytest.mark.parametrize("text", ["", "a", "caf\u00e9 \U0001f600\u2028 \n" * 500, "x" * 100_000])
def test_what_is_sealed_comes_out_again(text: str) -> None:
    assert unseal(seal(text)) == text


def test_a_sealed_text_shows_no_word_of_it_and_carries_the_canary() -> None:
    sealed = seal("The heron stands in shallow water.\n" * 3)
    assert CANARY in sealed.splitlines()[0]
    assert "heron" not in sealed
    assert not any(word in sealed for word in ("shallow", "water"))


def test_damage_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / f"x{SUFFIX}"
    sealed = seal("some items")
    for damaged in (sealed[:-8], "no header\n" + sealed, sealed.replace("\n", "\n!!", 1), sealed[: len(sealed) // 2]):
        path.write_text(damaged)
        with pytest.raises(PrimerError, match=r"x\.sealed cannot be read"):
            read_items(path)


def test_every_file_of_items_lies_sealed_and_holds_rows() -> None:
    assert not list(BUILT_IN_ITEMS.glob("*.jsonl"))
    suites = read_benchmarks(BUILT_IN_ITEMS)
    assert len(suites) >= 6
    assert all(len(questions) >= 60 for questions in suites.values())


def test_the_command_shows_and_seals_items(tmp_path: Path) -> None:
    run = CliRunner().invoke
    listed = run(app, ["items", "list"])
    assert "social" in listed.output
    shown = run(app, ["items", "show", "social"])
    first = json.loads(shown.output.splitlines()[0])
    assert {"context", "question", "answerA", "label"} <= set(first)
    plain, sealed = tmp_path / "a.jsonl", tmp_path / f"a{SUFFIX}"
    plain.write_text(shown.output, encoding="utf-8")
    assert run(app, ["items", "seal", str(plain), str(sealed)]).exit_code == 0
    assert read_items(sealed) == shown.output


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"id": 1}\n[2]\n', encoding="utf-8")
    run = CliRunner().invoke
    assert "line 2" in run(app, ["items", "seal", str(broken), str(tmp_path / "b.sealed")]).exception.problem
    assert not (tmp_path / "b.sealed").exists()
    assert (
        "does not end in .sealed" in run(app, ["items", "seal", str(broken), str(tmp_path / "b.x")]).exception.problem
    )
    assert "social" in run(app, ["items", "show", "socal"]).exception.remedy
