"""GSM8K's numbers: which one of a text counts, and functions that return it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.arithmetic import gold_number, judge, last_number, process_code, program
from eval.programs import try_program
from eval.rows import read_rows
from eval.suites import TASKS, read_task
from primer.sandbox import Sandbox

EIGHTEEN = {"answer": "9 * 2 = 18\n#### 18"}
TEXTS = [
    "She makes 9 * 2 = $18.",
    "#### 1,234.",
    "It is 3.50 dollars",
    "-7 and then\n#### -12",
    "#### 18\n\nThen 20 more.",
    "The answer is 5.,",
    "no number at all",
    "### 3 #### x",
    "$$$ ...",
    "1.000.000",
    "",
    "1,000.00",
    "It is 1e3",
    "½ of 36 is １８",
    "from 16-18",
    "−12",
    "18 kg/m2",
]


def test_numbers_are_those_that_the_harness_extracts():
    """Its own filters and its own comparison, with the patterns of our task."""
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    compare = pytest.importorskip("lm_eval.api.metrics").exact_match_hf_evaluate
    task = read_task(TASKS / "gsm8k_words.yaml")
    metric = task["metric_list"][0]
    options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    (settings,) = [f["filter"][0] for f in task["filter_list"] if f["name"] == "flexible-extract"]
    settings = {key: value for key, value in settings.items() if key != "function"}
    found = extraction.RegexFilter(**settings).apply([[text] for text in TEXTS], [{}] * len(TEXTS))
    for text, (theirs,) in zip(TEXTS, found, strict=True):
        for gold in ("18", "1234", "3.50", "-12", "20", "5", "1.000.000", "1000", "12", "2", "-18"):
            same = compare(predictions=[theirs], references=[f"so it is\n#### {gold}"], **options)["exact_match"]
            assert same == (last_number(text) == gold), (text, gold)


def test_the_last_number_is_compared_and_a_judgement_names_both():
    assert judge(EIGHTEEN, " She makes 16 - 7 = 9, and 9 * 2 = $18.00? No, $18.") == ""
    assert judge(EIGHTEEN, " 18 or 19") == "19, not 18"
    assert judge(EIGHTEEN, " eighteen") == "no number"
    assert gold_number({"answer": "A sum of $2,000.\n#### $2,000"}) == "2000"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    eggs = 16 - 3 - 4\n    return eggs * 2", ""),
        ("    return '18'", ""),
        ("    return 6 * 3.0000001", ""),
        ("    return 20", "failed: AssertionError: 20"),
        ("    return float('nan')", "failed: AssertionError: nan"),
        ("    print(18)", "failed: TypeError"),
        ("    import os; os._exit(0)", "crashed"),
        ("    raise SystemExit(0)", "failed: SystemExit: 0"),
        ("    global gold\n    gold = 0\n    return 0", "failed: AssertionError: 0"),
        ("    return True", "failed: AssertionError: True"),
        ("    return 10 ** 400", "failed: OverflowError"),
        ("    return '$18'", "failed: ValueError"),
        ("Nine times two.", "failed: IndentationError"),
    ],
)
def test_what_a_function_returns_is_compared_in_the_sandbox(sandbox: Sandbox, body: str, reason: str):
    found = try_program(sandbox, program(EIGHTEEN, body))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_our_worked_examples_are_right_in_words_and_as_code(sandbox: Sandbox):
    examples = read_task(TASKS / "gsm8k_words.yaml")["fewshot_config"]["samples"]
    assert len(examples) == 5
    for row in examples:
        assert judge(row, row["answer"]) == ""
        assert try_program(sandbox, program(row, row["code"])) == ""
    assert process_code(EIGHTEEN, ["    return 18", "    return 17"]) == {"exact_match": 0.5}


@pytest.mark.skipif("PRIMER_EVAL_DATA" not in os.environ, reason="PRIMER_EVAL_DATA names no folder of benchmark data")
def test_solutions_of_the_real_data_are_right():
    path = Path(os.environ["PRIMER_EVAL_DATA"]) / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip("there is no gsm8k/test.jsonl in PRIMER_EVAL_DATA")
    rows = read_rows(path, "gsm8k", "gsm8k")
    assert [row["id"] for row in rows if judge(row, row["answer"])] == []
