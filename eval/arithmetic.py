"""GSM8K: the number at which an answer arrives, in words or as a Python function.

In words the last number counts, as it is spelled (18.00 is not 18): `flexible-extract` of lm-evaluation-harness. By
code the model writes the function `solution`, as phi-1.5 was asked (arXiv 2309.05463, section 3), and what it returns
counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eval.programs import share_passed, tested

# The harness's own pattern (its task gsm8k, version 3).
_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")

# How far from the answer what a function returns may be: rounding, and no more.
_TOLERANCE = 1e-3


def last_number(answer: str) -> str | None:
    """The last number of a text, without commas, dollars and a full stop; None if there is none."""
    found = [match.group() for match in _NUMBER.finditer(answer)]
    return _bare(found[-1]) if found else None


def gold_number(row: Mapping[str, Any]) -> str:
    """The number at the end of a row's own solution."""
    return _bare(row["answer"].rpartition("####")[2].strip())


def judge(row: Mapping[str, Any], answer: str) -> str:
    """Why an answer in words is wrong; empty if it is right."""
    found, gold = last_number(answer), gold_number(row)
    if found == gold:
        return ""
    return f"{found}, not {gold}" if found is not None else "no number"


def program(row: Mapping[str, Any], answer: str) -> str:
    """The program that passes if the body which a model wrote for `solution` returns the right number."""
    gold = float(gold_number(row))
    return tested(
        f"def solution():\n{answer}", f"assert abs(float(found := solution()) - {gold!r}) <= {_TOLERANCE}, found"
    )


def process_code(row: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """The share of right functions, for lm-evaluation-harness."""
    return {"exact_match": share_passed(program, row, results)}


def _bare(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")
