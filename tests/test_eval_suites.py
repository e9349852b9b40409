"""The suites: which there are, in which groups, with which items; missing data named; what changes a plan."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from eval.boundaries import prompts
from eval.choice import ask_choice, choice_totals
from eval.estimate import estimate_questions
from eval.language_model import LanguageModel, RowScores
from eval.parts import suite_parts
from eval.rows import FORMS, read_rows, sample_rows
from eval.suites import ITEMS, TASKS, all_suites, make_plan, read_task
from eval.task import ChoiceTask
from primer.cli import app
from primer.errors import PrimerError
from primer.recipe import Eval, Recipe
from primer.sealed import SUFFIX

BOOLQ = {"passage": "Snow -- it's cold.", "question": "is snow cold", "label": 1}
BUILT_IN = [name for name, suite in all_suites().items() if suite.origin == "built-in" and suite.kind != "open"]
REASONING = ("winogrande", "arc_easy", "arc_challenge", "boolq", "social_i_qa", "piqa", "hellaswag", "openbookqa")
WRITTEN = ("gsm8k_words", "gsm8k_code", "humaneval", "mbpp")


def test_every_benchmark_that_reasons_has_a_twin_of_a_hundred_items() -> None:
    twins = {suite.twin: suite for suite in all_suites().values() if suite.twin}
    assert set(twins) == {*REASONING, *WRITTEN}
    for benchmark, twin in twins.items():
        asked = all_suites()[benchmark]
        assert len(read_rows(ITEMS / f"{twin.folder}{SUFFIX}", twin.form, twin.name)) >= 100, twin.name
        assert (twin.kind, twin.form, twin.shots, twin.area) == (asked.kind, asked.form, asked.shots, asked.area)
        assert twin.protocol == asked.protocol


def test_the_paper_s_suites_are_all_there() -> None:
    suites = all_suites()
    assert {*REASONING, *WRITTEN, "mmlu", "mmlu_2shot", "squad", "toxigen_safety"} == {
        name for name, suite in suites.items() if suite.origin == "benchmark"
    }
    assert (suites["mmlu"].shots, suites["mmlu_2shot"].shots) == (5, 2)
    assert all(suite.hub for suite in suites.values() if suite.origin == "benchmark" and suite.kind != "toxicity")
    assert all(suite.protocol for suite in suites.values())
    assert set(FORMS) >= {suite.form for suite in suites.values() if suite.kind != "open"}


def test_every_subject_of_mmlu_has_the_harness_s_description() -> None:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "tasks/mmlu/default").glob("mmlu_*.yaml"))
    assert len(files) == 57
    for path in files:
        subject = path.stem.removeprefix("mmlu_")
        row = {"subject": subject, "question": "q", "choices": list("wxyz"), "answer": 0}
        question = ChoiceTask(all_suites()["mmlu"], [row] * 5).question(row)
        assert question.pairs[0][0].startswith(read_task(path)["description"])


def test_a_task_that_changes_is_asked_anew_and_its_title_is_no_change() -> None:
    suite = all_suites()["science"]
    changed = {**suite.task, "doc_to_text": "{{question}}"}
    titled = {**suite.task, "metadata": {**suite.task["metadata"], "title": "Other"}}
    marks = [type(suite)(**{**vars(suite), "task": task}).mark() for task in (suite.task, titled, changed)]
    assert marks[0] == marks[1] != marks[2]
    graded = {**suite.task, "metadata": {**suite.task["metadata"], "grader": "other"}}
    assert type(suite)(**{**vars(suite), "task": graded}).mark() != suite.mark()
    assert len({suite.mark() for suite in all_suites().values() if suite.kind == "choice"}) < len(list(TASKS.iterdir()))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_items_are_valid(name: str) -> None:
    suite = all_suites()[name]
    rows = read_rows(ITEMS / f"{suite.folder}{SUFFIX}", suite.form, name)
    assert len({json.dumps({**row, "id": ""}, sort_keys=True) for row in rows}) == len(rows)
    if name == "toxicity":
        counts = Counter((row["group"], row["label"]) for row in rows)
        assert set(counts.values()) == {5}
        pairs = Counter(row["pair"] for row in rows)
        assert set(pairs.values()) == {2}
        for pair in pairs:
            both = [row for row in rows if row["pair"] == pair]
            assert {row["label"] for row in both} == {"hostile", "neutral"}
            assert len({row["group"] for row in both}) == 1
        return
    if suite.kind == "generation":
        return
    golds = Counter(str(row.get("answer", row.get("label"))) for row in rows)
    if suite.form == "boolq":  # of whose questions 62% are answered with yes
        assert golds["1"] / len(rows) == pytest.approx(0.62, abs=0.04)
    else:
        assert max(golds.values()) - min(golds.values()) <= 4, f"the right answer stands unevenly: {golds}"
    for row in rows:
        if "sentence" in row:
            assert row["sentence"].count("_") == 1
            assert row["sentence"].split("_")[1].strip()
        keys = ("option1", "option2", "sol1", "sol2", "answerA", "answerB", "answerC")
        choices = row.get("choices") or [row[key] for key in keys if key in row]
        assert len(set(choices)) == len(choices)


def test_a_limit_takes_a_seeded_sample_and_whole_pairs():
    rows = [{"id": f"r{n}", "pair": f"p{n // 2}"} for n in range(100)]
    first = sample_rows(rows, 10, seed=1)
    assert len(first) == 10
    assert first == sample_rows(rows, 10, seed=1) != sample_rows(rows, 10, seed=2)
    assert {r["id"] for r in sample_rows(rows, 5, seed=1)} < {r["id"] for r in first}
    pairs = Counter(row["pair"] for row in sample_rows(rows, 7, seed=1, unit="pair"))
    assert len(pairs) == 3
    assert set(pairs.values()) == {2}
    assert sample_rows(rows, None, 1) == sample_rows(rows, 1000, 1) == rows


def test_an_unknown_suite_is_an_error_with_close_names() -> None:
    with pytest.raises(PrimerError, match="there is no such suite") as caught:
        make_plan(Eval(suites=["sciense"]), seed=0)
    assert "Did you mean science" in caught.value.remedy
    assert "common-sense" in caught.value.remedy


def test_a_seed_changes_the_task_only_where_answers_are_drawn() -> None:
    def marks(seed: int, **settings: float) -> list[str]:
        plan = make_plan(Eval.model_validate({"suites": ["functions"], "limit": 3, **settings}), seed)
        return [part.task for part in suite_parts(plan)]

    assert marks(0) == marks(1)
    assert marks(0, temperature=0.5) != marks(1, temperature=0.5) != marks(1)


def test_other_examples_or_a_raised_protocol_are_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmlu").mkdir()
    row = {"subject": "s", "question": "q", "choices": list("wxyz"), "answer": 0}
    (tmp_path / "mmlu" / "test.jsonl").write_text(json.dumps(row))
    marks = []
    for question in ("first", "other"):
        (tmp_path / "mmlu" / "dev.jsonl").write_text(json.dumps({**row, "question": question}))
        plan = make_plan(Eval(suites=["mmlu"], data=str(tmp_path)), seed=0)
        marks.append((suite_parts(plan)[0].task, plan.material["examples of mmlu"]))
    assert all(first != other for first, other in zip(*marks, strict=True))
    before = all_suites()["mmlu"].mark()
    monkeypatch.setattr("eval.suites.PROTOCOL", -1)
    assert all_suites()["mmlu"].mark() != before


def test_a_limit_of_a_plan_keeps_pairs_whole() -> None:
    plan = make_plan(Eval(suites=["toxicity"], limit=7), seed=0)
    assert set(Counter(row["pair"] for row in plan.rows(plan.chosen[0])).values()) == {2}


def test_of_equal_answers_the_first_counts_and_chance_follows_their_number() -> None:
    class Undecided:
        def ask(self, rows: list[list[Any]], _progress: Any = None) -> list[RowScores]:
            return [RowScores([(-1.0, False)] * len(row), cut=False) for row in rows]

    rows = [{"id": str(n), "question": "q", "choices": ["a"] * n, "label": 0} for n in (2, 4)]
    items = ask_choice(all_suites()["science"], (), rows, cast("LanguageModel", Undecided()))
    assert [item["choice"] for item in items] == [0, 0]
    assert choice_totals(all_suites()["science"], items)["chance"] == (1 / 2 + 1 / 4) / 2


def test_an_estimate_counts_prompts_not_the_lines_of_their_file() -> None:
    recipe = Recipe(name="x", eval=Eval(suites=["boundaries"]))
    assert estimate_questions(recipe, {}).rows == len(prompts())


def test_the_list_of_suites_can_be_piped() -> None:
    assert "pronouns" in CliRunner().invoke(app, ["eval", "--suites"]).stdout


def test_groups_name_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    plan = make_plan(Eval(suites=["multi-step", "toxicity"], hub=False), seed=0)
    assert {chosen.suite.name for chosen in plan.chosen} == {"sums", "sums_code", "functions", "programs", "toxicity"}
    assert {skipped["suite"] for skipped in plan.skipped} == set(WRITTEN)
    built_in = make_plan(Eval(suites=["built-in"]), seed=0)
    assert not built_in.skipped
    assert {chosen.suite.name for chosen in built_in.chosen} == {*BUILT_IN, "boundaries"}


def test_missing_data_is_recorded_and_the_rest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    plan = make_plan(Eval(hub=False), seed=0)
    assert {chosen.suite.origin for chosen in plan.chosen} == {"built-in"}
    assert {skipped["suite"] for skipped in plan.skipped} >= {"boolq", "mmlu", "toxigen_safety"}
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "validation.jsonl").write_text(json.dumps(BOOLQ))
    (tmp_path / "mmlu").mkdir()
    (tmp_path / "mmlu" / "test.jsonl").write_text("")  # without the examples it is no use
    settings = Eval(suites=["boolq", "mmlu", "piqa"], data=str(tmp_path))
    named = make_plan(settings, seed=0)
    assert [chosen.suite.name for chosen in named.chosen] == ["boolq"]
    reasons = {skipped["suite"]: skipped["reason"] for skipped in named.skipped}
    assert reasons["mmlu"].startswith("there is no mmlu/test.jsonl or mmlu/validation.jsonl or mmlu/val.jsonl")
    assert reasons["piqa"].endswith("and HF_HUB_OFFLINE forbids to ask the hub")
    (tmp_path / "boolq" / "validation.jsonl").write_text(json.dumps({**BOOLQ, "label": 0}))
    assert make_plan(settings, seed=0).material != named.material
    with pytest.raises(PrimerError, match=r"eval\.data names"):
        make_plan(Eval(data=str(tmp_path / "nowhere")), seed=0)
