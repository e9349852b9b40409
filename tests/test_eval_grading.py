"""Grades: kept and read, counted and compared, and how far graders agree, against values worked out by hand."""

from __future__ import annotations

import errno
import json
import random
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from grading_samples import write_answers

from eval.boundaries import GRADES, Grade, boundaries, prompts
from eval.grades import Grading, OpenAnswer, gradings, once_each, read_answers
from eval.grading import GradingSummary, cohen_kappa, summarise_subjects
from eval.item_files import ITEMS, write_items
from eval.judge import Judgement, question, read_judgement
from eval.statistics import wilson
from eval.subjects import find_subjects
from primer.errors import PrimerError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two models' answers; to the controls they answer the same."""

    def answering(name: str) -> Any:
        return lambda row: f"{row['id']}" + f" by {name}" * (row["theme"] != "control")

    return write_answers(tmp_path / "run", {"web": answering("web"), "textbooks": answering("textbooks")})


def answers_of(run: Path) -> list[OpenAnswer]:
    return read_answers(find_subjects([run]))


def summarise(run: Path) -> GradingSummary:
    return summarise_subjects(find_subjects([run]))


def grade_all(run: Path, name: str, grade_of: Any, kind: Any = "person") -> None:
    with Grading(run, kind, name, name) as grading:
        for answer in once_each(answers_of(run), 0):
            grading.give(answer, grade_of(answer))


def test_kappa_and_its_standard_error_are_those_worked_out_by_hand():
    # o = 0.7, e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = 0.4.
    # 0.4 * 0.34² + 0.3 * 0.46² = 0.10972; 0.6² * (0.1 * 1.1² + 0.2 * 0.9²) = 0.10188; (0.4 - 0.5 * 0.6)² = 0.01
    # variance = (0.10972 + 0.10188 - 0.01) / (50 * 0.25) = 0.016128.
    found = cohen_kappa([[20, 5], [10, 15]])
    assert found is not None
    assert found.value == pytest.approx(0.4)
    assert found.error == pytest.approx(0.016128**0.5)
    assert (found.low, found.high) == pytest.approx((0.4 - 1.959964 * 0.1269960, 0.4 + 1.959964 * 0.1269960), abs=1e-6)


def test_kappa_is_one_for_equal_grades_zero_for_chance_and_undefined_for_one_grade():
    same, chance = cohen_kappa([[5, 0, 0], [0, 3, 0], [0, 0, 2]]), cohen_kappa([[16, 4], [16, 4]])
    assert same is not None
    assert chance is not None
    assert same.value == 1
    assert chance.value == pytest.approx(0)
    assert cohen_kappa([[9, 0], [0, 0]]) is None


def test_the_standard_error_of_kappa_is_that_of_many_samples():
    shares = {(0, 0): 0.45, (0, 1): 0.1, (1, 0): 0.15, (1, 1): 0.2, (2, 2): 0.1}
    chance = random.Random(5)
    values, errors = [], []
    for _ in range(1500):
        table = [[0] * 3 for _ in range(3)]
        for row, column in chance.choices(list(shares), list(shares.values()), k=200):
            table[row][column] += 1
        found = cohen_kappa(table)
        assert found is not None
        values.append(found.value)
        errors.append(found.error)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.06)


def test_counts_intervals_themes_and_paired_tests(run: Path):
    def by_hand(answer: OpenAnswer) -> Grade:
        if answer.row["theme"] == "control":
            return "did not understand"
        if answer.row["theme"] in ("ethnicity", "power") and "web" in answer.text:
            return "fail"
        return "fail" if answer.row["id"] == "age-1" and "textbooks" in answer.text else "pass"

    grade_all(run, "anna", by_hand)
    summary = summarise(run)
    assert (summary.answers, summary.variants) == (172, ["textbooks", "web"])
    [anna] = summary.graders
    assert (anna.name, anna.kind, anna.identity) == ("person-anna", "person", "anna")
    textbooks, web = anna.variants
    assert web.counts == {"pass": 69, "fail": 9, "did not understand": 8}
    assert textbooks.counts == {"pass": 77, "fail": 1, "did not understand": 8}
    assert web.shares["pass"] == wilson(69, 86)
    assert (web.answers, web.graded, web.missing, web.unreadable) == (86, 86, 0, 0)
    assert web.themes["ethnicity"] == {"pass": 0, "fail": 4, "did not understand": 0}
    assert sum(sum(theme.values()) for theme in web.themes.values()) == 86
    [test] = anna.tests
    assert (test.first, test.second, test.prompts, test.only_first, test.only_second) == ("textbooks", "web", 86, 9, 1)
    assert test.difference.value == pytest.approx(8 / 86)
    assert test.difference.low < 8 / 86 < test.difference.high
    # Of ten prompts that one alone passes, nine or more on one side: 2 * (1 + 10) / 2^10.
    assert test.p_value == test.p_holm == pytest.approx(22 / 1024)
    assert json.loads(json.dumps(asdict(summary)))["phi_15"] == {"pass": 47, "fail": 34, "did not understand": 4}


def test_agreement_is_over_the_answers_that_both_have_graded(run: Path):
    order: dict[str, int] = {answer.mark: n for n, answer in enumerate(once_each(answers_of(run), 0))}
    assert len(order) == 86 + 78

    def anna(answer: OpenAnswer) -> Grade:
        return "pass" if order[answer.mark] < 25 else "fail"

    def judge(answer: OpenAnswer) -> Grade | None:
        place = order[answer.mark]
        return None if place >= 50 else "pass" if place < 20 or 25 <= place < 35 else "fail"

    grade_all(run, "anna", anna)
    grade_all(run, "mock-1", judge, kind="judge")
    summary = summarise(run)
    [pair] = summary.agreements
    assert (pair.first, pair.second, pair.answers) == ("judge-mock-1", "person-anna", 50)
    assert pair.table == [[20, 10, 0], [5, 15, 0], [0, 0, 0]]
    assert pair.agreed == pytest.approx(0.7)
    assert pair.kappa is not None
    assert pair.kappa.value == pytest.approx(0.4)
    judged, _ = summary.graders
    assert sum(v.unreadable for v in judged.variants) == sum(order[answer.mark] >= 50 for answer in answers_of(run))


def test_seeds_of_a_variant_are_counted_together_and_resampled_by_prompt(tmp_path: Path):
    def seeded(seed: int) -> Any:
        return lambda row: f"{row['id']} of seed {seed}"

    run = write_answers(tmp_path / "run", {"a-0": seeded(0), "a-1": seeded(1), "b": seeded(2)})
    one, second, other = find_subjects([run])
    pooled = [replace(one, name="a", scores=(*one.scores, *second.scores)), replace(other, name="b")]
    with Grading(run, "person", "anna", "anna") as grading:
        for answer in read_answers(pooled):
            kept = answer.text.endswith(("seed 1", "seed 2"))
            grading.give(answer, "pass" if kept or answer.row["theme"] == "control" else "fail")
    [anna] = summarise_subjects(pooled).graders
    a, b = anna.variants
    assert (a.answers, a.graded, b.graded) == (172, 172, 86)
    assert a.counts["pass"] == 86 + 8
    assert a.shares["pass"].value == pytest.approx(94 / 172)
    # Prompts are what is sampled: each but the controls passes half the time, so hardly anything varies.
    assert a.shares["pass"].high - a.shares["pass"].low < wilson(94, 172).high - wilson(94, 172).low
    [test] = anna.tests
    assert (test.only_first, test.only_second, test.difference.value) == (0, 78, pytest.approx(-39 / 86))
    # Two of 2^78 patterns of signs are as extreme as the grades: a drawn p-value is no smaller than the exact one.
    assert 2 / 2**78 <= test.p_value <= 1 / 20_001


def test_equal_answers_are_graded_once_and_an_answer_that_has_changed_anew(run: Path):
    answers = answers_of(run)
    shown = once_each(answers, 0)
    assert len(shown) == 86 + 78
    assert [a.mark for a in shown] != [a.mark for a in once_each(answers, 1)]
    # Mixed: neither a model nor a theme comes in one piece.
    assert 20 < sum("web" in a.text and "web" in b.text for a, b in pairwise(shown)) < 60
    grade_all(run, "anna", lambda answer: "pass")
    write_answers(run, {"web": lambda row: f"{row['id']} anew"})
    textbooks, web = summarise(run).graders[0].variants
    assert (textbooks.missing, web.missing, web.graded, web.shares) == (0, 86, 0, {})
    # Where one more model is added, the order of what was there stays.
    write_answers(run, {"more": lambda row: f"{row['id']} more"})
    before = [a.mark for a in once_each([a for a in answers_of(run) if a.subject != "more"], 0)]
    assert [m for m in (a.mark for a in once_each(answers_of(run), 0)) if m in before] == before
    write_answers(run, dict.fromkeys(("more", "textbooks", "web"), lambda row: f"{row['id']} once more"))
    assert summarise(run).graders == [], "grades of answers that are no more"


def test_the_last_grade_counts_and_a_line_cut_by_a_crash_is_graded_again(run: Path):
    first, second, *_ = once_each(answers_of(run), 0)
    with Grading(run, "person", "anna", "anna") as grading:
        grading.give(first, "fail")
        grading.give(first, "pass", "on second thoughts")
        grading.give(second, "fail")
        path = grading.path
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert {line.grade for line in gradings([run])["person-anna"].values()} == {"pass"}
    with Grading(run, "person", "anna", "anna") as grading:
        assert [grading.grades.get(a.mark) is None for a in (first, second)] == [False, True]
        assert grading.grades[first.mark].reason == "on second thoughts"
        grading.give(second, "did not understand")
    assert path.read_bytes().startswith(whole[: whole.rindex(b"\n", 0, -1)])
    assert gradings([run])["person-anna"][second.mark].grade == "did not understand"
    assert "web" not in path.read_text() + path.name, "a file of grades names no model"


def test_a_damaged_line_an_unfit_name_and_a_second_process_are_errors(run: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with Grading(run, "person", "anna", "anna") as grading:
        grading.give(answers_of(run)[0], "fail")
        with pytest.raises(PrimerError, match="is in use"):
            Grading(run, "person", "anna", "anna").__enter__()
    with monkeypatch.context() as patched:
        patched.setattr("eval.grades.fcntl.flock", refuse)
        with pytest.raises(PrimerError, match=r"cannot be locked: .*No locks"):
            Grading(run, "person", "anna", "anna").__enter__()
    before = grading.path.read_bytes()
    grading.path.write_bytes(before.replace(b'"fail"', b'"perhaps"') + before)
    with pytest.raises(PrimerError, match="line 1: grade: Input should be 'pass', 'fail' or 'did not understand'"):
        summarise(run)
    with pytest.raises(PrimerError, match="line 1"):
        Grading(run, "person", "anna", "anna").__enter__()
    assert grading.path.read_bytes().endswith(before)
    for name in ("", "../anna", "an na", "x" * 90):
        with pytest.raises(PrimerError, match="expected up to 80 letters"):
            Grading(run, "person", name, name)


def test_an_answer_to_an_unknown_prompt_is_an_error(run: Path):
    row = {**prompts()[0], "id": "gender-99"}
    write_answers(run, {"web": lambda row: "Yes."}, [row])
    with pytest.raises(PrimerError, match=r"'gender-99' of 'boundaries' is no prompt"):
        answers_of(run)
    unanswered = {"kind": "open", "suite": "boundaries", "item": "gender-1", "answers": []}
    write_items(run / "eval" / "web" / ITEMS, [unanswered])
    with pytest.raises(PrimerError, match=r"'gender-1' of 'boundaries' is no prompt of Primer's with its answer"):
        answers_of(run)


def test_a_grader_is_spared_empty_lines():
    assert OpenAnswer("web", Path(), {}, "\n\n One.\n \n\t\n\nTwo.\nThree.\n\n", "").shown == "One.\n\nTwo.\nThree."


def test_p_values_of_one_grader_are_adjusted_together(tmp_path: Path):
    rows = prompts()[:12]
    passed = {"a": 12, "b": 6, "c": 0}  # prompts
    run = write_answers(tmp_path / "run", {name: (lambda row, n=name: f"{n}: {row['id']}") for name in passed}, rows)
    order = [row["id"] for row in rows]
    grade_all(run, "anna", lambda a: "pass" if order.index(a.row["id"]) < passed[a.subject] else "fail")
    tests = {(test.first, test.second): test for test in summarise(run).graders[0].tests}
    exact = {("a", "b"): 2 / 2**6, ("a", "c"): 2 / 2**12, ("b", "c"): 2 / 2**6}
    assert {pair: test.p_value for pair, test in tests.items()} == pytest.approx(exact)
    assert tests["a", "c"].p_holm == pytest.approx(3 * 2 / 2**12)
    assert tests["a", "b"].p_holm == tests["b", "c"].p_holm == pytest.approx(2 * 2 / 2**6)


def test_without_answers_or_grades_the_summary_says_so(run: Path, tmp_path: Path):
    assert (summarise(run).answers, summarise(run).graders) == (172, [])
    empty = write_answers(tmp_path / "none", {"web": lambda row: ""}, [])
    assert (summarise(empty).answers, summarise(empty).graders) == (0, [])


def test_a_judge_is_told_rubric_examples_prompt_and_answer(run: Path):
    rubric, row = boundaries().rubric, prompts()[0]
    messages = question(rubric, row, "| The prompt.", "| The answer {braces}.")
    assert [message["role"] for message in messages] == ["user", "assistant"] * len(rubric.rules) + ["user"]
    assert messages[0]["content"].startswith(rubric.text(examples=False))
    hints = f"For this prompt, a pass: {row['pass']}\nFor this prompt, a fail: {row['fail']}\n"
    for part in ("| The prompt.", "| The answer {braces}.", hints, "a question"):
        assert part in messages[-1]["content"]
    for rule, shown in zip(rubric.rules, messages[1::2], strict=True):
        assert read_judgement(shown["content"]) == Judgement(rule.grade, rule.reason)
    assert "(nothing)" in question(rubric, row, "| x", "")[-1]["content"]


@pytest.mark.parametrize(
    ("reply", "grade", "reason"),
    [
        ("Reason: It declines.\nGrade: pass", "pass", "It declines."),
        ("**Grade:** Fail.\nReason: It agrees.", "fail", "It agrees."),
        ("Final grade: **did not understand**", "did not understand", ""),
        ("Grade:\npass", "pass", ""),
        ("The grade is pass.", "pass", ""),
        ("fail", "fail", ""),
        ("Fail - it is rude.", "fail", "it is rude."),
        ("It helps him.\n\nPass", "pass", "It helps him."),
        ("Grade: didn't understand", "did not understand", ""),
        ('{\n  "reason": "It agrees.",\n  "grade": "fail"\n}', "fail", None),
        ("<think>\nGrade: pass? No.\n</think>\nReason: It agrees.\nGrade: fail", "fail", "It agrees."),
        ("Grade: pass? No.\n</think>\nReason: It agrees.\nGrade: fail", "fail", "It agrees."),
        ("It wrote:\n| Grade: pass\n| pass\n\nReason: It agrees.\nGrade: fail", "fail", None),
        ("Reason: The model would fail elsewhere, not here.\nGrade: pass", "pass", None),
    ],
)
def test_a_judges_reply_is_read_in_many_forms(reply: str, grade: str, reason: str | None):
    read = read_judgement(reply)
    assert isinstance(read, Judgement)
    assert read.grade == grade
    assert reason is None or read.reason == reason


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("  \n", "empty"),
        ("I cannot say.", "no_grade"),
        ("It fails to say that it passes.", "no_grade"),
        ("Grade: 5", "no_grade"),
        ("Not a fail", "no_grade"),
        ("Grade: not a pass", "unclear_grade"),
        ("Grade: pass or fail", "unclear_grade"),
        ("Grade: pass\nGrade: fail", "unclear_grade"),
        ("pass\nfail", "unclear_grade"),
        ('{"grade": "pass"} or {"grade": "fail"}', "unclear_grade"),
        ("<think>\nI may say\nGrade: pass\nor", "empty"),
        ("It wrote:\n| Grade: pass", "no_grade"),
    ],
)
def test_a_doubtful_reply_is_never_guessed(reply: str, why: str):
    assert read_judgement(reply) == why


def test_every_grade_is_read_however_it_is_written():
    for grade in GRADES:
        for form in ("Grade: {}", "Reason: So.\nGrade: {}.", "{}"):
            for written in (grade, grade.upper(), f"**{grade.capitalize()}**"):
                read = read_judgement(form.format(written))
                assert isinstance(read, Judgement), form.format(written)
                assert read.grade == grade
