"""Kept answers: found again, asked anew where anything changed, whole after a kill, mended after damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.measure import measure
from eval.parts import Part
from eval.store import Answers, model_hash

ROWS = [{"id": f"r{number}", "question": f"what is {number}?"} for number in range(200)]


def items_of(rows: Any) -> list[dict[str, Any]]:
    return [
        {"kind": "held_out", "suite": "s", "item": row["id"], "bits": float(row["id"][1:]), "bytes": 7} for row in rows
    ]


def test_answers_are_found_again_by_weights_task_and_row(tmp_path: Path) -> None:
    answers = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    assert answers.missing(ROWS) == ROWS
    answers.keep(ROWS[:50], items_of(ROWS[:50]))
    answers.keep(ROWS[50:60], items_of(ROWS[50:60]))

    again = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    assert again.missing(ROWS) == ROWS[60:]
    assert again.items(ROWS[:60]) == items_of(ROWS[:60])
    for weights, task in (("v" * 64, "t" * 64), ("w" * 64, "u" * 64)):
        assert Answers(tmp_path, weights, "s", task).missing(ROWS) == ROWS


def test_the_whole_hash_counts_not_the_folder_name(tmp_path: Path) -> None:
    answers = Answers(tmp_path, "a" * 16 + "b" * 48, "s", "t" * 64)
    answers.keep(ROWS[:5], items_of(ROWS[:5]))
    assert Answers(tmp_path, "a" * 16 + "c" * 48, "s", "t" * 64).missing(ROWS[:5]) == ROWS[:5]


def test_a_row_that_changed_under_its_name_is_asked_again(tmp_path: Path) -> None:
    answers = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    answers.keep(ROWS[:3], items_of(ROWS[:3]))
    changed = [{**ROWS[0], "question": "what else?"}, *ROWS[1:3]]
    assert answers.missing(changed) == changed[:1]


def test_a_row_without_an_answer_is_not_asked_again(tmp_path: Path) -> None:
    answers = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    answers.keep(ROWS[:3], items_of(ROWS[1:3]))
    again = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    assert again.missing(ROWS[:3]) == []
    assert again.items(ROWS[:3]) == items_of(ROWS[1:3])


def test_many_files_become_one_and_nothing_is_lost(tmp_path: Path) -> None:
    answers = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    for start in range(0, 200, 20):
        answers.keep(ROWS[start : start + 20], items_of(ROWS[start : start + 20]))
    answers.gather()
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert Answers(tmp_path, "w" * 64, "s", "t" * 64).items(ROWS) == items_of(ROWS)


@pytest.mark.parametrize("damage", ["torn", "empty", "foreign"])
def test_a_damaged_file_is_said_set_aside_and_asked_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    answers.keep(ROWS[:10], items_of(ROWS[:10]))
    answers.keep(ROWS[10:20], items_of(ROWS[10:20]))
    first, second = sorted(tmp_path.rglob("*.parquet"))
    data = first.read_bytes()
    first.write_bytes({"torn": data[: len(data) // 2], "empty": b"", "foreign": b"PAR1 not really PAR1"}[damage])

    again = Answers(tmp_path, "w" * 64, "s", "t" * 64)
    assert again.missing(ROWS[:20]) == ROWS[:10]
    said = capsys.readouterr()
    assert "is damaged and set aside" in said.out + said.err
    again.keep(ROWS[:10], items_of(ROWS[:10]))
    assert second.exists()
    assert Answers(tmp_path, "w" * 64, "s", "t" * 64).items(ROWS[:20]) == items_of(ROWS[:20])


def test_the_hash_of_a_model_follows_what_decides_its_answers(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    before = model_hash(tmp_path)
    (tmp_path / "manifest.json").write_text("facts")
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "training.jsonl").write_text("a log")
    assert model_hash(tmp_path) == before
    seen = {before}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("other")
        seen.add(model_hash(tmp_path))
    assert len(seen) == 4


KILLED = """
import time, sys
from pathlib import Path
from eval.measure import measure
from eval.parts import Part
sys.path.insert(0, "tests")
from test_eval_store import ROWS, items_of
def ask(rows, model, progress):
    time.sleep(0.002 * len(rows))
    print(len(rows), flush=True)
    return items_of(rows)
folder = Path(sys.argv[1])
part = Part("held_out", "s", "t" * 64, ROWS * 1, ask, lambda items: {"source": "s", "bits_per_byte": 1.0})
import eval.measure
eval.measure._FIRST = eval.measure._MOST = 16
measure("m", [part], folder / "model", lambda: object(), folder / "scores")
"""


def test_a_killed_evaluation_loses_nothing_that_was_answered(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()

    asked: list[str] = []

    def ask(rows: Any, _model: Any, _progress: Any) -> list[dict[str, Any]]:
        asked.extend(row["id"] for row in rows)
        return items_of(rows)

    part = Part("held_out", "s", "t" * 64, ROWS, ask, lambda items: {"source": "s", "bits_per_byte": float(len(items))})
    measured = measure("m", [part], tmp_path / "model", object, tmp_path / "scores")  # type: ignore[arg-type]
    assert measured.items == items_of(ROWS)
    assert len(ROWS) - 16 * 5 <= len(asked) <= len(ROWS) - 16 * 3
    assert measured.asked == len(asked)

    again = measure("m", [part], tmp_path / "model", object, tmp_path / "scores")  # type: ignore[arg-type]
    assert again.asked == 0
    assert again.items == measured.items
