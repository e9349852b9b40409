"""Programs that models wrote: what passes, what does not, and pass@k."""

from __future__ import annotations

import os
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest

from eval.programs import (
    asserts_program,
    explain,
    function_program,
    pass_at_k,
    process_asserts,
    process_function,
    try_program,
)
from eval.rows import read_rows
from primer.sandbox import Result, Sandbox

FUNCTION = {
    "prompt": 'import math\n\n\ndef double(x):\n    """Twice x."""\n',
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('a') == 'aa'\n",
    "entry_point": "double",
}
ASSERTS = {
    "test_list": ["assert double(2) == 4", "assert double(one) == 2"],
    "test_setup_code": "one = Number(1).value",
}
NUMBER = "class Number:\n    def __init__(self, value):\n        self.value = value\n"


@pytest.mark.parametrize("samples", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_all_choices_that_hold_a_right_sample(samples: int):
    for correct in range(samples + 1):
        right = [number < correct for number in range(samples)]
        for k in range(1, samples + 1):
            chosen = [any(choice) for choice in combinations(right, k)]
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(chosen) / len(chosen))


def test_pass_at_k_holds_for_many_samples():
    for samples, correct, k in [(1000, 1, 100), (1000, 3, 10), (200, 199, 1), (1000, 900, 100)]:
        exact = 1 - comb(samples - correct, k) / comb(samples, k)  # whole numbers of any size
        assert pass_at_k(samples, correct, k) == pytest.approx(exact, rel=1e-12)
    assert pass_at_k(1000, 250, 1) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="pass@10 cannot be estimated from 5 samples"):
        pass_at_k(5, 5, 10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("    return 2 * x\n", ""),
        ("    return 2 * x", ""),
        ("    return x + x + x\n", "failed: AssertionError"),
        ("    return doubled", "failed: NameError"),
        ("  return 2 * x\n   pass", "failed: IndentationError"),
        ("    print('all tests passed')\n    raise SystemExit(0)\n", "failed: SystemExit: 0"),
        ("    import os\n    os._exit(0)\n", "crashed: ended with status 0"),
        ("    while True: pass\n", "timeout"),
        ("", "failed: AssertionError"),
    ],
)
def test_a_completed_function_must_come_through_its_tests(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, answer: str, reason: str
):
    monkeypatch.setattr("eval.programs.SECONDS", 0.3)
    found = try_program(sandbox, function_program(FUNCTION, answer))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


JUMP = """\
import sys
def jump(frame, event, argument):
    if frame.f_code.co_name == 'check' and event == 'line':
        try: frame.f_lineno += 1
        except ValueError: pass
    return jump
sys.settrace(jump)
"""
EQUAL = """\
class Equal:
    def __eq__(self, other): return True
    def __lt__(self, other): return True
    def __abs__(self): return self
    def __sub__(self, other): return self
"""
LESS = EQUAL.replace("__eq__", "__le__")
# Answers that go on after the function; what is told of them, and a test of their own if it takes one.
CHEATS = {
    "a decorator of the tests": ("    pass\n@(lambda test: lambda function: None)\n", "SyntaxError"),
    "a docstring that is not closed": ('    pass\n"""', "SyntaxError"),
    "a backslash": ("    pass\nif False: pass\\", "SyntaxError"),
    "a condition": ("    pass\nif False:\n", "IndentationError"),
    "an open bracket": ("    pass\nx = (", "SyntaxError"),
    "a trace that jumps": (f"    return x\n{JUMP}", "AssertionError"),
    "a check of its own": ("    pass\ndef check(candidate): pass", "AssertionError"),
    "another AssertionError": ("    pass\nimport builtins\nbuiltins.AssertionError = StopIteration", "AssertionError"),
    "hooks for errors": ("    pass\nimport sys\nsys.excepthook = lambda *_: None", "AssertionError"),
    "what equals everything": (f"    return Equal()\n{EQUAL}", "AssertionError: a value that compares"),
    "what is less than everything": (f"    return Equal()\n{LESS}", "AssertionError"),
    "a type that equals everything": (
        "    return kind\nkind = type('', (type,), {'__eq__': lambda *_: 1 == 1})('', (), {})",
        "AssertionError: a value that compares",
    ),
    "the library's own": ("    from unittest.mock import ANY\n    return ANY", "AssertionError: a value that compares"),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_tests_that_are_taken_in_or_jumped_over_or_cannot_fail_are_not_passed(sandbox: Sandbox, cheat: str):
    answer, reason = CHEATS[cheat]
    assert try_program(sandbox, function_program(FUNCTION, answer)).startswith(f"failed: {reason}")
    row = {"test_list": ["assert 4 == double(2)"], "test_setup_code": ""}
    assert try_program(sandbox, asserts_program(row, f"def double(x):\n{answer}"))
    close = {**FUNCTION, "test": "def check(candidate):\n    assert abs(candidate(2) - 4) < 1e-6\n    return None\n"}
    assert try_program(sandbox, function_program(close, answer))


def test_values_of_an_answers_own_classes_are_compared_as_they_say(sandbox: Sandbox):
    pair = """\
class Pair:
    def __init__(self, a): self.a = a
    def __eq__(self, other): return self.a == other.a
    def __lt__(self, other): return self.a < other.a
"""
    row = {"test_list": ["assert Pair(1) == Pair(1)", "assert Pair(1) < Pair(2)"], "test_setup_code": ""}
    assert try_program(sandbox, asserts_program(row, pair)) == ""
    row["test_list"].append("assert Pair(1) == Pair(2)")
    assert try_program(sandbox, asserts_program(row, pair)) == "failed: AssertionError"


def test_asserts_may_use_the_answers_classes(sandbox: Sandbox):
    answer = f"{NUMBER}\r\ndef double(x):\r\n    return 2 * x"
    assert try_program(sandbox, asserts_program(ASSERTS, answer)) == ""
    wrong = try_program(sandbox, asserts_program(ASSERTS, answer.replace("2 * x", "x ** 2")))
    assert wrong == "failed: AssertionError"
    assert try_program(sandbox, asserts_program(ASSERTS, "double = abs")).startswith("failed: NameError")


def test_the_harness_is_told_shares(sandbox: Sandbox):
    assert process_function(FUNCTION, [["    return 2 * x", "    return x"]]) == {"pass@1": 0.5}
    assert process_asserts(ASSERTS, [f"{NUMBER}\ndouble = lambda x: 2 * x"]) == {"pass@1": 1.0}


def test_a_reason_is_one_short_line():
    assert explain(Result("passed", "noise", 0.0)) == ""
    assert explain(Result("memory", "", 0.0)) == "memory"
    assert explain(Result("failed", f"a\nb\nValueError: {'x' * 999}", 0.0)).startswith("failed: ValueError: xxx")
    assert len(explain(Result("failed", "x" * 999, 0.0))) == 200


def real_rows(name: str, form: str) -> list[dict[str, Any]]:
    path = Path(os.environ.get("PRIMER_EVAL_DATA", "")) / f"{name}.jsonl"
    if "PRIMER_EVAL_DATA" not in os.environ or not path.is_file():
        pytest.skip(f"PRIMER_EVAL_DATA names no folder with {name}.jsonl")
    return read_rows(path, form, form)


def test_real_solutions_of_humaneval_pass_and_those_of_other_tasks_do_not(sandbox: Sandbox):
    rows = real_rows("humaneval/test", "humaneval")[::8]
    found = [try_program(sandbox, function_program(row, row["canonical_solution"])) for row in rows]
    assert found == [""] * len(rows)
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        assert try_program(sandbox, function_program(row, other["canonical_solution"]))


@pytest.mark.parametrize("split", ["test", "sanitized_test", "prompt"])
def test_real_solutions_of_mbpp_pass_and_those_of_other_tasks_do_not(sandbox: Sandbox, split: str):
    rows = real_rows(f"mbpp/{split}", "mbpp")
    rows = rows[:: len(rows) // 10] + [row for row in rows if row["test_setup_code"]][:3]
    found = [try_program(sandbox, asserts_program(row, row["code"])) for row in rows]
    assert found == [""] * len(rows)
    assert all(try_program(sandbox, asserts_program(row, rows[0]["code"])) for row in rows[1:-3])
