"""Rows of the suites with generated answers, and of OpenBookQA: the hub's columns, ours, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eval.rows import FORMS, read_rows
from primer.errors import PrimerError

OPENBOOKQA = {
    "id": "7-980", "question_stem": "Water freezes at", "answerKey": "D ",
    "choices": {"text": ["1", "2", "3", "zero"], "label": list("ABCD")},
}  # fmt: skip
SQUAD = {
    "id": "56be", "title": "Storks", "context": "Storks nest on roofs.", "question": "Where do storks nest?",
    "answers": {"text": ["on roofs", "roofs"], "answer_start": [12, 15]},
}  # fmt: skip
GSM8K = {"question": "What is 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
HUMANEVAL = {
    "task_id": "HumanEval/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n",
    "test": "def check(candidate):\n    assert candidate(1) == 1\n", "entry_point": "f",
}  # fmt: skip
MBPP = {
    "task_id": 11, "text": "Write it.", "code": "def f(): pass", "test_setup_code": "", "test_list": ["assert f"],
    "challenge_test_list": [],
}  # fmt: skip
SANITIZED = {
    "task_id": 11, "prompt": "Write it.", "code": "def f(): pass", "test_imports": ["import math", "import re"],
    "test_list": ["assert f"], "source_file": "x",
}  # fmt: skip


def read(folder: Path, form: str, *rows: Any) -> list[dict[str, Any]]:
    path = folder / f"{form}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_rows(path, form, "made")


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        (
            "openbookqa",
            OPENBOOKQA,
            {"id": "7-980", "question": "Water freezes at", "choices": ["1", "2", "3", "zero"], "label": 3},
        ),
        (
            "openbookqa",
            {"question": "Ice is", "choices": ["cold", "hot"], "label": 0},
            {"id": "made-00001", "question": "Ice is", "choices": ["cold", "hot"], "label": 0},
        ),
        (
            "squad",
            SQUAD,
            {key: SQUAD[key] for key in ("id", "context", "question")} | {"answers": ["on roofs", "roofs"]},
        ),
        ("gsm8k", GSM8K, {"id": "made-00001", **GSM8K}),
        ("humaneval", HUMANEVAL, {"id": "HumanEval/0", **{key: HUMANEVAL[key] for key in list(HUMANEVAL)[1:]}}),
        (
            "mbpp",
            MBPP,
            {"id": "11", "text": "Write it.", "code": MBPP["code"], "test_list": ["assert f"], "test_setup_code": ""},
        ),
        (
            "mbpp",
            SANITIZED,
            {
                "id": "11", "text": "Write it.", "code": MBPP["code"], "test_list": ["assert f"],
                "test_setup_code": "import math\nimport re",
            },
        ),
    ],
)  # fmt: skip
def test_rows_are_read_from_the_hubs_columns_and_from_ours(
    tmp_path: Path, form: str, row: dict[str, Any], expected: dict[str, Any]
):
    assert read(tmp_path, form, row) == [expected]
    ours = read(tmp_path, form, expected)
    assert ours == [expected]


@pytest.mark.parametrize(
    ("form", "row", "complaint"),
    [
        ("openbookqa", {**OPENBOOKQA, "answerKey": "E"}, "answerKey is 'E'; expected one of"),
        ("openbookqa", {**OPENBOOKQA, "choices": ["a", "b"]}, "label is missing"),
        ("squad", {**SQUAD, "answers": {"text": []}}, "answers is []; list should have at least 1 item"),
        ("squad", {**SQUAD, "answers": {}}, "answers is null"),
        ("squad", {**SQUAD, "answers": [3]}, "answers.0 is 3"),
        ("gsm8k", {**GSM8K, "answer": "It is 4."}, 'answer is "It is 4."'),
        ("gsm8k", {**GSM8K, "answer": "#### four"}, 'answer is "#### four"'),
        ("humaneval", {**HUMANEVAL, "entry_point": "g"}, "prompt defines no g, which entry_point names"),
        ("humaneval", {**HUMANEVAL, "entry_point": "f()"}, 'entry_point is "f()"'),
        ("humaneval", {**HUMANEVAL, "test": "assert f(1) == 1"}, "test is"),
        (
            "humaneval",
            {**HUMANEVAL, "test": "def check(candidate):\n    assert candidate(1 == 1"},
            "test is no Python: '(' was never closed",
        ),
        ("humaneval", {**HUMANEVAL, "task_id": ""}, 'id is ""'),
        ("humaneval", {**HUMANEVAL, "task_id": "\ud800"}, "id is"),
        ("mbpp", {**MBPP, "test_list": ["assert f", "assert f =="]}, "test_list.1 is no Python: invalid syntax"),
        ("mbpp", {**MBPP, "test_setup_code": "root = Node("}, "test_setup_code is no Python"),
        ("mbpp", {**MBPP, "test_list": []}, "test_list is []"),
        ("mbpp", {key: MBPP[key] for key in ("task_id", "code", "test_list")}, "text is missing"),
        ("mbpp", {**SANITIZED, "test_list": "assert f"}, "test_list is"),
    ],
)
def test_a_damaged_row_is_refused_by_file_line_and_key(tmp_path: Path, form: str, row: dict[str, Any], complaint: str):
    with pytest.raises(PrimerError) as caught:
        read(tmp_path, form, row)
    assert str(caught.value).startswith(f"{tmp_path / form}.jsonl, line 1: {complaint}")


def test_two_rows_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(PrimerError, match="line 2: the id 'HumanEval/0' stands on line 1 already"):
        read(tmp_path, "humaneval", HUMANEVAL, HUMANEVAL)


def test_every_form_names_its_rows():
    assert all("id" in form.model_fields for form in FORMS.values())


@pytest.mark.skipif("PRIMER_EVAL_DATA" not in os.environ, reason="PRIMER_EVAL_DATA names no folder of benchmark data")
@pytest.mark.parametrize(
    ("file", "form", "count"),
    [
        ("squad_v1/validation", "squad", 2000),
        ("gsm8k/test", "gsm8k", 1319),
        ("humaneval/test", "humaneval", 164),
        ("mbpp/test", "mbpp", 500),
        ("mbpp/sanitized_test", "mbpp", 257),
    ],
)
def test_real_data_is_read_whole(file: str, form: str, count: int):
    path = Path(os.environ["PRIMER_EVAL_DATA"]) / f"{file}.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {file}.jsonl in PRIMER_EVAL_DATA")
    assert len(read_rows(path, form, form)) >= min(count, 100)
