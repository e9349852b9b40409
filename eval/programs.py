"""Programs that a model wrote: what is run to test them, how, and pass@k.

Nothing is run but in `primer.sandbox`. A program passes if it comes to its end; printing, exiting and `os._exit(0)` are
no proof of that. An answer is compiled apart from its tests, so that no end of it takes them in, and a value that is
equal to everything passes none of them.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from primer.sandbox import Result, Sandbox

# CPU seconds and MiB that a program may take. HumanEval's own harness allows 3 s by the clock, and says that a slower
# machine needs more.
SECONDS = 5.0
MEMORY_MIB = 1024

_LONGEST_REASON = 200
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt|Iteration)\b")

# Before every value that a test compares. Written here, run in the sandbox.
_LOOK = """\
def _look(value):
    for name in ("__eq__", "__lt__"):
        try:
            always = getattr(type(value), name)(value, object()) is True
        except Exception:  # it wants another of its kind
            always = False
        assert not always, "a value that compares to everything"
    return value
"""

# Makes the program to run out of a row and an answer.
Compose = Callable[[Mapping[str, Any], str], str]


def tested(text: str, tests: str) -> str:
    """The program that runs a text, and then tests of it."""
    return f"exec(compile({text!r}, 'answer.py', 'exec'))\n{_LOOK}{_looking(tests)}\n"


def function_program(row: Mapping[str, Any], answer: str) -> str:
    """HumanEval: the prompt, its completion, the tests, and a call of them."""
    return tested(f"{row['prompt']}{answer}", f"{row['test']}\ncheck({row['entry_point']})")


def asserts_program(row: Mapping[str, Any], answer: str) -> str:
    """MBPP: the answer, what prepares the tests (it may use the answer's classes), and the asserts."""
    return tested(answer, "\n".join([row["test_setup_code"], *row["test_list"]]))


def try_program(sandbox: Sandbox, text: str) -> str:
    """Run a program; returns why it does not pass, empty if it does."""
    return explain(sandbox.run(text, seconds=SECONDS, memory_mib=MEMORY_MIB))


def explain(result: Result) -> str:
    """In one line, why a program did not pass; empty if it did."""
    if result.passed:
        return ""
    # What a program printed may stand after its traceback.
    lines = result.detail.strip().splitlines()
    last = next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1] if lines else "")
    return f"{result.reason}: {last}"[:_LONGEST_REASON] if last else result.reason


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that at least one of `k` samples passes, estimated without bias from more of them.

    1 - C(n - c, k) / C(n, k), as a product in which nothing overflows (Chen et al. 2021, arXiv 2107.03374, equation 1).

    Args:
        samples: Samples that were drawn, n.
        correct: Samples among them that passed, c.
        k: Samples that the chance is asked for.

    Raises:
        ValueError: If there are fewer samples than `k`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} samples")
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / number for number in range(samples - correct + 1, samples + 1))


def share_passed(compose: Compose, row: Mapping[str, Any], answers: Sequence[Any]) -> float:
    """The share of answers that pass; lm-evaluation-harness hands over several samples as one list."""
    texts = [text for answer in answers for text in ([answer] if isinstance(answer, str) else answer)]
    with Sandbox() as sandbox:
        return sum(not try_program(sandbox, compose(row, text)) for text in texts) / len(texts)


def process_function(row: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """HumanEval's score of a row, for lm-evaluation-harness."""
    return {"pass@1": share_passed(function_program, row, results)}


def process_asserts(row: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """MBPP's score of a row, for lm-evaluation-harness."""
    return {"pass@1": share_passed(asserts_program, row, results)}


@functools.cache  # samples of one row have the same tests
def _looking(tests: str) -> str:
    return ast.unparse(_Looking().visit(ast.parse(tests)))


class _Looking(ast.NodeTransformer):
    """Has `_look` called with each side of a comparison."""

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        sides = (node.left, *node.comparators)
        looked: list[ast.expr] = [ast.Call(ast.Name("_look", ast.Load()), [side], []) for side in sides]
        node.left, node.comparators = looked[0], looked[1:]
        return node
