"""Exercises: what is read out of a reply, which tests are worth something, and what reaches the corpus."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from generation import settings
from mock_endpoint import Endpoint, prose, running

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_corpora import Code, CodeExercises, CodeTextbooks, Duplicates
from primer.recipe_synth import Accept
from primer.run import Built, RunFolder
from primer.sandbox import Result, Sandbox
from prompts.forms import load_forms
from prompts.stream import PromptStream
from synth.accept import Judge
from synth.code_writing import build_exercises, build_textbooks, exercises_recipe, textbooks_recipe, written_stages
from synth.engine import asking
from synth.exercises import Exercise, NoExerciseError, read_exercise, try_exercise
from synth.exercises_judge import ExerciseJudge, Verdicts
from synth.filtered import Work
from synth.signatures import open_signatures
from synth.teachers import open_teacher

SOLUTION = '''from collections import Counter


def count_letters(text: str) -> dict[str, int]:
    """Count how often each letter comes in a text. count_letters("aab") gives {"a": 2, "b": 1}."""
    return dict(Counter(text))'''
TESTS = """assert count_letters("aab") == {"a": 2, "b": 1}
assert count_letters("") == {}
assert count_letters("xyz") == {"x": 1, "y": 1, "z": 1}"""
AS_ASKED = f"```python\n{SOLUTION}\n```\n\n```python\n{TESTS}\n```"


def verdict(sandbox: Sandbox, reply: str) -> str | None:
    try:
        return try_exercise(sandbox, read_exercise(reply), seconds=1, memory_mib=128)
    except NoExerciseError as error:
        return error.reason


def reason(reply: str) -> str:
    with pytest.raises(NoExerciseError) as error:
        read_exercise(reply)
    return error.value.reason


@pytest.mark.parametrize(
    "reply",
    [
        AS_ASKED,
        AS_ASKED.replace("python", ""),
        AS_ASKED.replace("```", "~~~~").replace("python", "py"),
        AS_ASKED.replace("\n", "\r\n"),
        AS_ASKED.removesuffix("\n```"),  # cut off after the last test
        f"Here is the exercise.\n\n{AS_ASKED}\n\nI hope this helps!",
        f"```python\n{SOLUTION}\n\n\n# Tests\n{TESTS}\n```",
        f"{SOLUTION}\n\n{TESTS}",
        f"Certainly: a function.\n\n{SOLUTION}\n\n{TESTS}",
        "\n".join(f"    {line}".rstrip() for line in AS_ASKED.splitlines()),  # in a list, say
        f"```python\n{SOLUTION}\n```\nIt prints:\n```text\nnothing\n```\n```python\n{TESTS}\n```",
        # The tests begin with the whole solution again.
        f"```python\n{SOLUTION}\n```\n```python\n{SOLUTION}\n\n{TESTS}\n```",
    ],
)
def test_an_exercise_is_found_in_a_reply_however_it_is_wrapped(sandbox: Sandbox, reply: str):
    exercise = read_exercise(reply)
    assert exercise.text == SOLUTION
    assert exercise.function == "count_letters"
    assert [line for line in exercise.tests.splitlines() if line.startswith("assert")] == TESTS.splitlines()
    assert try_exercise(sandbox, exercise, seconds=1, memory_mib=128) is None


def test_tests_in_functions_are_called(sandbox: Sandbox):
    wrapped = "def test_letters():\n" + "\n".join(f"    {line}" for line in TESTS.splitlines())
    assert verdict(sandbox, f"```python\n{SOLUTION}\n```\n```python\n{wrapped}\n```") is None
    wrong = wrapped.replace('"b": 1', '"b": 7')
    assert verdict(sandbox, f"```python\n{SOLUTION}\n```\n```python\n{wrong}\n```") == "failed_tests"


def test_helpers_and_constants_stay_and_usage_does_not(sandbox: Sandbox):
    helper = "VOWELS = 'aeiou'\n\n\ndef is_vowel(letter):\n    return letter in VOWELS\n\n\n"
    used = SOLUTION.replace("Counter(text)", "Counter(filter(is_vowel, text))")
    reply = f'```python\n{helper}{used}\n\nprint(count_letters("a"))\n```\n```python\n{TESTS}\n```'
    exercise = read_exercise(reply)
    assert exercise.text == helper + used
    assert 'print(count_letters("a"))' in exercise.tests
    assert try_exercise(sandbox, exercise, seconds=1, memory_mib=128) == "failed_tests"


def test_what_is_no_exercise_says_why():
    assert reason("I am a text about lists.") == "no_code"
    assert reason("```python\nx = 1\n```") == "no_code"
    assert reason("```text\ndef f(): pass\n```") == "no_code"
    assert reason(AS_ASKED.replace("return dict(", "return dict((")) == "does_not_compile"
    assert reason(AS_ASKED.replace("assert count_letters(", "assert count_letters((", 1)) == "does_not_compile"
    assert reason("```python\ndef f(:\n```") == "does_not_compile"
    assert reason(f"```python\ndef f(x):\n    return {'(' * 300}x\n```") == "does_not_compile"
    assert reason(AS_ASKED.replace('"""', "#")) == "no_docstring"
    assert reason(AS_ASKED.replace("from coll", "print(1)\nfrom coll")) == "more_than_functions"
    assert reason(f"```python\n{SOLUTION}\n```") == "no_tests"
    assert reason(f"```python\n{SOLUTION}\n```\n```python\nprint(count_letters('a'))\n```") == "no_tests"
    two = "\n".join(TESTS.splitlines()[:2])
    assert reason(f"```python\n{SOLUTION}\n```\n```python\n{two}\n```") == "tests_too_weak"
    others = "\n".join("assert len('a') == 1" for _ in range(5))
    assert reason(f"```python\n{SOLUTION}\n```\n```python\n{others}\n```") == "tests_too_weak"


def test_tests_that_pass_without_the_solution_are_worth_nothing(sandbox: Sandbox):
    def asked(tests: str) -> str | None:
        return verdict(sandbox, f"```python\n{SOLUTION}\n```\n```python\n{tests}\n```")

    assert asked(TESTS) is None
    assert asked("\n".join("assert count_letters('a') is count_letters or True" for _ in range(3))) == "tests_too_weak"
    swallowed = "try:\n" + "\n".join(f"    {line}" for line in TESTS.splitlines()) + "\nexcept Exception:\n    pass"
    assert asked(swallowed) == "tests_too_weak"
    unreached = "if False:\n" + "\n".join(f"    {line}" for line in TESTS.splitlines())
    assert asked(unreached) == "tests_too_weak"
    nothing = SOLUTION.replace("return dict(Counter(text))", "return None")
    is_none = "\n".join("assert count_letters('a') is None" for _ in range(3))
    assert verdict(sandbox, f"```python\n{nothing}\n```\n```python\n{is_none}\n```") == "tests_too_weak"


@pytest.mark.parametrize(
    "last",
    [
        "import os\nif count_letters('a') is None: os._exit(0)\ncount_letters('a')",
        "import os\ntry: count_letters('a') or os._exit(0)\nexcept NotImplementedError: os._exit(0)",
        "got = 1\ntry: got = count_letters('a')\nexcept NotImplementedError:\n    while True: pass\nassert got",
        "if not count_letters('a'): bytearray(1 << 40)",
        "while not count_letters('a'): print('x' * 10000)",
    ],
)
def test_a_run_without_the_solution_proves_nothing_unless_the_tests_fail(sandbox: Sandbox, last: str):
    weak = "\n".join(f"assert [lambda: count_letters({n})]" for n in range(3))
    exercise = Exercise(SOLUTION, f"{weak}\n{last}", "count_letters")
    assert try_exercise(sandbox, exercise, seconds=0.2, memory_mib=128) == "tests_too_weak"


def test_tests_that_wait_for_the_solution_are_tests(sandbox: Sandbox):
    waiting = f"count = None\nwhile not count:\n    count = count_letters('a')\n{TESTS}"
    assert verdict(sandbox, AS_ASKED.replace(TESTS, waiting)) is None


def test_an_exercise_cannot_spoil_the_runs_that_judge_it(sandbox: Sandbox):
    """Or asserts that always hold would look like asserts that notice, and right exercises after it like wrong ones."""
    poison = "import resource\ntry: resource.prlimit(1, resource.RLIMIT_FSIZE, (0, 0))\nexcept OSError: pass"
    forged = f"{poison}\ntry: count_letters('a')\nexcept NotImplementedError: pass"
    exercise = Exercise(SOLUTION, forged, "count_letters")
    assert try_exercise(sandbox, exercise, seconds=1, memory_mib=128) == "tests_too_weak"
    assert verdict(sandbox, AS_ASKED) is None


@pytest.mark.parametrize(
    "unrun",
    [
        "def test_letters(text, times):\n    {}",
        "async def test_letters():\n    {}",
        "def check():\n    {}",
        "class TestLetters(Base):\n    def test_letters(self):\n        {}",
        "class TestLetters:\n    def check(self):\n        {}",
    ],
)
def test_asserts_that_are_never_run_are_not_counted(unrun: str):
    wrong = "assert count_letters('a') == 1; assert count_letters('b') == 1; assert count_letters('c') == 1"
    tests = f"Base = object\nassert count_letters('')  == {{}}\n{unrun.format(wrong)}"
    assert reason(AS_ASKED.replace(TESTS, tests)) == "tests_too_weak"


def test_tests_are_called_as_pytest_would_call_them(sandbox: Sandbox):
    asserts = "; ".join(TESTS.splitlines())
    for wrapped in (
        f"def test_letters(times=1, *, more=2):\n    {asserts}",
        f"class TestLetters:\n    def test_letters(self):\n        {asserts}",
        f"def test_letters():\n    check()\n\ndef check():\n    {asserts}",
        f"def main():\n    {asserts}\n\nif __name__ == '__main__':\n    main()",
    ):
        assert verdict(sandbox, AS_ASKED.replace(TESTS, wrapped)) is None, wrapped
        wrong = wrapped.replace('"b": 1', '"b": 7')
        assert verdict(sandbox, AS_ASKED.replace(TESTS, wrong)) == "failed_tests", wrapped


@pytest.mark.parametrize("odd", ["\f", "\x1c", "\x85", "\u2028"])
def test_lines_end_where_python_ends_them(sandbox: Sandbox, odd: str):
    reply = f"```python\n{SOLUTION.replace('how often', f'how{odd}often')}\n\n{TESTS}\n```"
    exercise = read_exercise(reply)
    assert exercise.text.endswith("return dict(Counter(text))")
    assert exercise.tests == TESTS
    assert try_exercise(sandbox, exercise, seconds=1, memory_mib=128) is None
    assert read_exercise(AS_ASKED.replace("\n", "\r")) == read_exercise(AS_ASKED)


@pytest.mark.parametrize("reply", ["`" * 100_000, "```" + "a" * 100_000, "```" + " " * 100_000, "~~~py\n" * 20_000])
def test_fences_without_end_are_read_in_a_moment(reply: str):
    started = time.process_time()
    assert reason(reply) == "no_code"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return {}", "failed_tests"),
        ("while True:\n        pass", "timeout"),
        ("return {'a': bytearray(1 << 40)}", "memory"),
        ("while True:\n        print('letters' * 100)", "output"),
        ("import os\n    os._exit(0)", "crashed"),
        ("raise SystemExit(0)", "failed_tests"),
        ("import os\n    return os.fork()", "failed_tests"),
    ],
)
def test_a_solution_that_does_not_pass_is_rejected_with_its_reason(sandbox: Sandbox, body: str, expected: str):
    assert verdict(sandbox, AS_ASKED.replace("return dict(Counter(text))", body)) == expected


def test_the_form_asks_for_a_name_a_reader_and_words_that_differ():
    recipe = Recipe(name="exercises", code=Code(exercises=CodeExercises()))
    assert recipe.code.exercises is not None
    stream = PromptStream(exercises_recipe(recipe, recipe.code.exercises), [])
    units = [stream[index] for index in range(300)]
    asked = [unit.messages()[1]["content"] for unit in units]
    assert {unit.topic.field for unit in units} == {"computing", "python-programming"}
    assert len(set(asked)) == 300
    assert len({re.search(r'begins with "(\w+)_"', each)[1] for each in asked}) > 60  # type: ignore[index]
    assert len({unit.audience for unit in units}) > 5
    assert all("Work these words in" in each and "assert" in each for each in asked)
    assert {unit.language for unit in units} == {"english"}


def test_textbooks_draw_from_the_forms_with_code():
    recipe = Recipe(name="textbooks", code=Code(textbooks=CodeTextbooks()))
    assert recipe.code.textbooks is not None
    stream = PromptStream(textbooks_recipe(recipe, recipe.code.textbooks), [])
    units = [stream[index] for index in range(400)]
    assert {unit.form for unit in units} == {
        "python-textbook-section", "python-lesson", "python-mistake", "python-trace"
    }  # fmt: skip
    assert all(unit.snippet is None for unit in units)
    assert not {"python-exercise", "python-textbook-section", "python-trace"} & set(load_forms())  # other corpora's


def exercise_text(endpoint: Endpoint, question: str, asked: str) -> str:
    """Exercises of a teacher: right, wrong, hanging and malicious ones, and some without tests."""
    verb = re.search(r'begins with "(\w+)_"', asked)
    assert verb is not None
    number = int(question, 16)
    name, more = f"{verb[1]}_{question}", number % 1000
    body = [
        *[f"return value + {more}"] * 3,
        f"return value - {more + 1}",
        "import os\n    os._exit(0)",
        "while True:\n        value += 1",
        "raise SystemExit(0)",
        f"return value + {more}",
    ][number % 8]
    solution = f'def {name}(value: int) -> int:\n    """{prose(random.Random(question), 30)}"""\n    {body}'
    tests = "\n".join(f"assert {name}({n}) == {n + more}" for n in range(1, 5))
    return f"```python\n{solution}\n```\n" + ("" if number % 8 == 7 else f"```python\n{tests}\n```")


def recipe_for(endpoint: Endpoint, documents: int) -> Recipe:
    code = Code(
        textbooks=CodeTextbooks(tokens=None, documents=documents),
        exercises=CodeExercises(tokens=None, documents=documents, seconds=0.1, memory=128),
    )
    return Recipe(name="exercises", synth=settings(endpoint, concurrency=2), code=code)


def made(recipe: Recipe, folder: Path, run: Path) -> Built:
    folder.mkdir(parents=True, exist_ok=True)
    limits = recipe.code.exercises
    assert limits is not None
    derived = exercises_recipe(recipe, limits)
    return build_exercises(derived, limits, folder, run, asking(lambda: open_teacher(derived.synth)))


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "part-00000-00000.parquet").to_pylist()
    return found


def test_only_right_exercises_reach_the_corpus_and_a_run_that_continues_makes_the_same(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Endpoint, "_text", exercise_text)
    with running() as endpoint:
        built = made(recipe_for(endpoint, 8), tmp_path / "a", tmp_path / "run")
        documents = rows(tmp_path / "a")
        facts = built.facts
        assert len(documents) == 8
        for row in documents:
            assert re.search(r"    return value \+ \d+\Z", row["text"])
            assert '    """' in row["text"]
            assert "assert" not in row["text"]
            assert row["id"].startswith("exercise-")
            assert (row["source"], row["provenance"]["form"]) == ("code", "python-exercise")
            assert row["group"] == row["provenance"]["topic_id"]
        assert facts["passed"] == 8 < facts["tried"] == facts["units"]
        assert set(facts["by_reason"]) == {"failed_tests", "crashed", "timeout", "no_tests"}
        assert sum(facts["by_reason"].values()) == facts["tried"] - facts["passed"]
        assert f"8 of {facts['tried']} exercises passed" in built.summary
        assert len(open_signatures(tmp_path / "a" / "part-00000.signatures.npy")) == 8

        ran: list[str] = []
        asked = endpoint.requests
        with monkeypatch.context() as patched:
            patched.setattr(Sandbox, "run", lambda _, program, **__: ran.append(program) or Result("passed", "", 0.0))
            again = made(recipe_for(endpoint, 8), tmp_path / "a", tmp_path / "run")
        assert (endpoint.requests, ran) == (asked, [])  # neither asked nor run again
        assert again.facts["by_reason"] == facts["by_reason"]
        assert rows(tmp_path / "a") == documents
        longer = made(recipe_for(endpoint, 10), tmp_path / "b", tmp_path / "run")
        assert [row["text"] for row in rows(tmp_path / "b")[:8]] == [row["text"] for row in documents]
        assert longer.facts["passed"] == 10


def test_textbook_sections_come_with_their_prompts(tmp_path: Path):
    with running() as endpoint:
        recipe = recipe_for(endpoint, 6)
        limits = recipe.code.textbooks
        assert limits is not None
        derived = textbooks_recipe(recipe, limits)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "part-00000-00000.parquet").write_bytes(b"of a build that was interrupted")
        ask = asking(lambda: open_teacher(derived.synth))
        built = build_textbooks(derived, tmp_path / "a", tmp_path / "run", ask)
        documents = rows(tmp_path / "a")
        assert [row["id"].split("-")[0] for row in documents] == ["textbook"] * 6
        assert sum(built.facts["forms"].values()) == 6
        assert all("Python" in row["provenance"]["prompt"] for row in documents)


def test_each_is_a_stage_of_the_run_if_the_recipe_has_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Endpoint, "_text", exercise_text)
    with running() as endpoint:
        recipe = recipe_for(endpoint, 3)
        exercises = recipe.model_copy(update={"code": recipe.code.model_copy(update={"textbooks": None})})
        with RunFolder.opened(tmp_path / "run", exercises) as run:
            work = Work(exercises, run, lambda synth, _: asking(lambda: open_teacher(synth)))
            stages = written_stages(work)
            assert [stage.name for stage in stages] == ["written/exercises"]
            manifest = run.complete(stages[0])
            assert (manifest.facts["accepted"], manifest.facts["passed"]) == (3, 3)
            both = written_stages(Work(recipe, run, work.ask))
            assert [stage.name for stage in both] == ["written/textbooks", "written/exercises"]
            # Neither the topics nor the forms of the synthetic corpus matter here.
            prompts = recipe.prompts.model_copy(update={"forms": {"letter": 1.0}})
            other = written_stages(Work(recipe.model_copy(update={"prompts": prompts}), run, work.ask))
            assert [stage.material for stage in other] == [stage.material for stage in both]


def test_a_machine_without_a_sandbox_says_so_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("primer.sandbox.bubblewraps", lambda: iter(()))
    with running() as endpoint, pytest.raises(PrimerError, match="cannot be run in a sandbox"):
        made(recipe_for(endpoint, 3), tmp_path / "a", tmp_path / "run")
    assert endpoint.requests == 0


def test_verdicts_outlive_a_crash(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    with Verdicts(path) as verdicts:
        one, two = Exercise("x = 1", "", "f"), Exercise("x = 2", "", "f")
        first, second = verdicts.key(one, 1.0, 64), verdicts.key(two, 1.0, 64)
        assert first != verdicts.key(one, 2.0, 64)
        verdicts[first] = None
        verdicts[second] = "timeout"
    path.write_bytes(path.read_bytes()[:-3])
    with Verdicts(path) as verdicts:
        assert first in verdicts
        assert verdicts[first] is None
        assert second not in verdicts
        verdicts[second] = "timeout"
    with Verdicts(path) as verdicts:
        assert verdicts[second] == "timeout"


def test_verdicts_hang_on_the_sandbox_and_on_what_is_run_without_the_solution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    exercise = read_exercise(AS_ASKED)

    def key() -> str:
        with Verdicts(tmp_path / "verdicts.jsonl") as verdicts:
            return verdicts.key(exercise, 1.0, 64)

    keys = [key(), key()]
    monkeypatch.setattr("synth.exercises_judge.EMPTY_BODIES", {"return 0": ("failed",)})
    keys.append(key())
    monkeypatch.undo()
    (tmp_path / "server.py").write_text("# another", encoding="utf-8")
    monkeypatch.setattr("primer.sandbox._SERVER", tmp_path / "server.py")
    keys.append(key())
    assert (keys[0] == keys[1], len(set(keys))) == (True, 3)


def test_what_the_sandbox_lost_is_run_again(tmp_path: Path):
    class Losing(Sandbox):
        def run(self, program: str, *, seconds: float, memory_mib: int) -> Result:
            return Result("lost", "", 0.0)

    judge = Judge(Accept(min_words=1), Duplicates())
    with Verdicts(tmp_path / "verdicts.jsonl") as verdicts:
        judging = ExerciseJudge(judge, CodeExercises(), Losing(), verdicts)
        assert judging.check(AS_ASKED, "stop", [{"role": "user", "content": "Write."}])[1] == "lost"
    assert (tmp_path / "verdicts.jsonl").read_bytes() == b""
