"""Python exercises: read out of a teacher's reply, looked at, and kept only if the solution passes its tests.

As phi-1's CodeExercises (arXiv 2306.11644, section 2.2), a document is one function: a docstring that asks, and the
body that answers. The tests are run and stay outside of it.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from primer.sandbox import Sandbox

# Why a reply is no exercise, in the order in which that is found out.
REASONS = (
    "no_code",
    "does_not_compile",
    "no_docstring",
    "more_than_functions",
    "no_tests",
    "tests_too_weak",
    "failed_tests",
    "timeout",
    "memory",
    "output",
    "crashed",
    "lost",
)

_LEAST_ASSERTS = 3
_LEAST_DOCSTRING_WORDS = 4

# What a body is replaced by to see whether the tests notice, and how the run then ends if they do. A test may wait for
# an answer that never comes; one that ends otherwise says nothing about the asserts.
EMPTY_BODIES = {"pass": ("failed", "timeout"), "raise NotImplementedError": ("failed",)}

# A fence may be indented, have more than three marks, and lack its end where the reply was cut short. What is taken is
# not given back (`*+`): the time is linear in the reply's length whatever it holds.
_FENCE = re.compile(
    r"^[ \t]*+(`{3,20}+|~{3,20}+)[ \t]*+([\w+-]{0,30}+)[^\n]*+\n(.*?)(?:^[ \t]*+\1[ \t]*+$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = {"", "python", "python3", "py"}
_CODE_BEGINS = re.compile(r"^(?:from|import|def|class|@)\b|^@", re.MULTILINE)


class NoExerciseError(Exception):
    """A reply cannot be used, for one of `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Exercise:
    """An exercise with its solution.

    Attributes:
        text: Imports, and functions, the exercise's among them: the document.
        tests: What is run after it.
        function: The exercise's.
    """

    text: str
    tests: str
    function: str

    @property
    def program(self) -> str:
        """The solution and its tests."""
        return f"{self.text}\n\n\n{self.tests}\n"

    def emptied(self, body: str) -> str:
        """The same program with a function in the solution's place that has this body."""
        return f"{self.text}\n\n\ndef {self.function}(*_, **__):\n    {body}\n\n\n{self.tests}\n"


def read_exercise(reply: str) -> Exercise:
    """The exercise in a reply: in two blocks of code as asked for, or in one, or with words around them.

    Raises:
        NoExerciseError: If there is none that is worth running.
    """
    text, tests = _solution_and_tests(_code_blocks(reply))
    tree = _parsed(text)
    documented = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_documented(node)]
    if not documented:
        raise NoExerciseError("no_docstring")
    if not all(_only_defines(node) for node in tree.body):
        raise NoExerciseError("more_than_functions")
    tested = _parsed(tests)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tested)):
        raise NoExerciseError("no_tests")
    asserts = [node for node in _run_parts(tested) if isinstance(node, ast.Assert)]
    calls = {name: sum(_calls(node, name) for node in asserts) for name in documented}
    function = max(calls, key=lambda name: calls[name])
    if calls[function] < _LEAST_ASSERTS:
        raise NoExerciseError("tests_too_weak")
    return Exercise(text, tests, function)


def try_exercise(sandbox: Sandbox, exercise: Exercise, seconds: float, memory_mib: int) -> str | None:
    """Run an exercise, with its solution and without.

    Args:
        sandbox: Where.
        exercise: The exercise.
        seconds: CPU seconds that each run may take.
        memory_mib: Memory that it may take, in MiB.

    Returns:
        None if the solution passes the tests and they fail without it; else which of `REASONS` speaks against it.

    Raises:
        PrimerError: If the sandbox cannot go on.
    """
    result = sandbox.run(exercise.program, seconds=seconds, memory_mib=memory_mib)
    if not result.passed:
        return "failed_tests" if result.reason == "failed" else result.reason
    for body, noticed in EMPTY_BODIES.items():
        result = sandbox.run(exercise.emptied(body), seconds=seconds, memory_mib=memory_mib)
        if result.reason not in noticed:
            return "lost" if result.reason == "lost" else "tests_too_weak"
    return None


def _code_blocks(reply: str) -> list[str]:
    reply = reply.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    fenced = list(_FENCE.finditer(reply))
    blocks = [match[3] for match in fenced if match[2].lower() in _PYTHON]
    if not fenced and (begin := _CODE_BEGINS.search(reply)):
        blocks = [reply[begin.start() :]]
    return [tidied for block in blocks if (tidied := _tidy(textwrap.dedent(block)))]


def _solution_and_tests(blocks: Sequence[str]) -> tuple[str, str]:
    """The first block that defines something, up to its last definition, and the tests that come after."""
    text, tests = "", []
    for block in blocks:
        if not text and "def " not in block:
            continue
        code, rest = _divide(block)
        if not text:
            text = code
        elif _defined(text).isdisjoint(_defined(code)):
            rest = f"{code}\n{rest}"  # helpers of the tests
        tests.append(rest.strip())
    if not text:
        raise NoExerciseError("no_code")
    joined = "\n\n".join(filter(None, tests))
    return text, "\n".join([joined, *_test_calls(joined)]).strip()


def _divide(block: str) -> tuple[str, str]:
    """A block up to the end of its last definition that is no test, and the rest."""
    last = 0
    for node in _parsed(block).body:
        if _is_test(node):
            break
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            last = node.end_lineno or last
    lines = block.split("\n")  # what Python takes for an end of a line, and not what Unicode does
    return "\n".join(lines[:last]), "\n".join(lines[last:])


def _is_test(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name.lower().startswith("test")
    return isinstance(node, ast.Assert)


def _test_calls(tests: str) -> Iterator[str]:
    """Calls of the test functions, and of the methods of plain test classes: pytest would make them."""
    for node in _parsed(tests).body:
        if isinstance(node, ast.FunctionDef) and _is_test(node) and _needed(node) == 0:
            yield f"{node.name}()"
        if isinstance(node, ast.ClassDef) and _is_test(node) and not node.bases:
            for method in _methods(node):
                if _is_test(method) and _needed(method) == 1:
                    yield f"{node.name}().{method.name}()"


def _needed(node: ast.FunctionDef) -> int:
    """How many arguments a function cannot do without."""
    named = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    return named + node.args.kw_defaults.count(None)


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef)]


def _run_parts(tests: ast.Module) -> list[ast.AST]:
    """All that is run of some tests: what stands outside of functions, and the functions that are called from there."""
    functions: dict[str, list[ast.FunctionDef]] = {}
    for statement in tests.body:
        for function in _methods(statement) if isinstance(statement, ast.ClassDef) else [statement]:
            if isinstance(function, ast.FunctionDef):
                functions.setdefault(function.name, []).append(function)
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(tests.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        found.append(node)
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            waiting.extend(part for function in functions.pop(name, []) for part in function.body)
    return found


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is one that a file of functions has; an assignment may call, such as `re.compile`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)


def _is_documented(node: ast.FunctionDef) -> bool:
    return len((ast.get_docstring(node) or "").split()) >= _LEAST_DOCSTRING_WORDS


def _defined(code: str) -> set[str]:
    return {node.name for node in _parsed(code).body if isinstance(node, ast.FunctionDef)}


def _calls(node: ast.AST, function: str) -> bool:
    return any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == function
        for part in ast.walk(node)
    )


def _parsed(code: str) -> ast.Module:
    """The syntax tree of some code, which need not be anything of the kind.

    Raises:
        NoExerciseError: If it is not.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that is none, such as "\\d"
            compile(code, "reply", "exec", dont_inherit=True)
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NoExerciseError("does_not_compile") from None


def _tidy(code: str) -> str:
    """No spaces at the ends of lines, two empty lines at most, none around."""
    lines = "\n".join(line.rstrip() for line in code.split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", lines).strip()
