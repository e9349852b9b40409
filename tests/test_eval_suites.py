"""The suites: prompts equal to lm-evaluation-harness's own, rows checked, missing data named, the stage whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eval.rows import FORMS, read_rows, sample_rows
from eval.suites import ITEMS, all_suites, load_tasks, make_plan
from primer.errors import PrimerError
from primer.recipe import Eval

# Rows in the columns of the hub's data sets, as the harness's own tasks read them.
HUB_ROWS: dict[str, list[dict[str, Any]]] = {
    "winogrande": [
        {"sentence": "Ann beat Bo because _ 's the better.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        {"sentence": "The \"cup\" fell as the _ was wet; 5", "option1": "cup", "option2": "table's", "answer": "2"},
    ],
    "piqa": [{"goal": "To open a jar", "sol1": "twist it's lid", "sol2": "eat the {{lid}}", "label": 0}],
    "arc_easy": [
        {"id": "A", "question": "W", "choices": {"text": ["a", "b'", "\"c\""], "label": list("ABC")}, "answerKey": "B"},
        {"id": "B", "question": "3", "choices": {"text": list("xyzwv"), "label": list("12345")}, "answerKey": "5"},
    ],
    "boolq": [{"passage": "Snow -- it's cold.", "question": "is snow cold", "label": 1}],
    "social_iqa": [
        {"context": "Al fell.", "question": "Why?", "answerA": "ice", "answerB": "it's", "answerC": "no", "label": "3"}
    ],
    "hellaswag": [
        {
            "activity_label": "Baking", "ctx_a": "[header] How to bake [title] Mix it.", "ctx_b": "the Cook",
            "endings": ["[step] stirs.", "a  b", "sings", "eats [x] it"], "label": "2", "ind": 4, "source_id": "w",
        }
    ],
    "mmlu_high_school_physics": [
        {"subject": "high_school_physics", "question": " What is g? ", "choices": ["1", "9.8", "3", "4"], "answer": 1}
    ],
}  # fmt: skip
# Ours, the harness's task, its file.
PROTOCOLS = [
    ("winogrande", "winogrande", "winogrande/default.yaml"),
    ("pronouns", "winogrande", "winogrande/default.yaml"),
    ("physical", "piqa", "piqa/piqa.yaml"),
    ("science", "arc_easy", "arc/arc_easy.yaml"),
    ("arc_easy", "arc_easy", "arc/arc_easy.yaml"),
    ("arc_challenge", "arc_easy", "arc/arc_challenge.yaml"),
    ("boolq", "boolq", "super_glue/boolq/default.yaml"),
    ("reading", "boolq", "super_glue/boolq/default.yaml"),
    ("social_i_qa", "social_iqa", "siqa/siqa.yaml"),
    ("social", "social_iqa", "siqa/siqa.yaml"),
    ("hellaswag", "hellaswag", "hellaswag/hellaswag.yaml"),
    ("mmlu", "mmlu_high_school_physics", "mmlu/default/mmlu_high_school_physics.yaml"),
]


def harness_task(file: str, rows: list[dict[str, Any]]) -> Any:
    """A task of the installed harness, from its own file, over some rows."""
    import lm_eval.tasks
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.tasks.__file__).parent / file)
    splits = {config.get(f"{split}_split") or f"no {split}" for split in ("training", "validation", "test")}
    splits |= {config.get("fewshot_split", "dev")}
    data = {split: Dataset.from_list(rows) for split in splits}
    config = {key: value for key, value in config.items() if key not in ("tag", "dataset_path", "dataset_name")}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: data, "metadata": {}})


def our_task(name: str, rows: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our task of a name over some rows in a file."""
    suite = all_suites()[name]
    place = folder / (f"{name}.jsonl" if suite.origin == "built-in" else f"{name}/{(suite.splits or ('',))[0]}.jsonl")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("eval.suites.ITEMS", folder)
    monkeypatch.setenv("PRIMER_EVAL_DATA", str(folder))
    return load_tasks(make_plan(Eval(suites=[name]), seed=0))[name]


def requests(task: Any) -> list[list[tuple[str, str]]]:
    rows = []
    for doc in task.eval_docs:
        context = task.fewshot_context(doc, num_fewshot=0)
        rows.append([request.args for request in task.construct_requests(doc, context, metadata=("t", 0, 1))])
    return rows


@pytest.mark.parametrize(("name", "harness", "file"), PROTOCOLS)
def test_every_request_is_the_harnesss_own(
    name: str, harness: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = HUB_ROWS[harness]
    theirs, ours = harness_task(file, rows), our_task(name, rows, tmp_path, monkeypatch)
    assert requests(ours) == requests(theirs)
    for number, (mine, right) in enumerate(zip(ours.eval_docs, theirs.eval_docs, strict=True)):
        choices = len(requests(ours)[number])
        for best in range(choices):
            answers = [(-1.0 if choice == best else -2.0, False) for choice in range(choices)]
            assert ours.process_results(mine, answers)["acc"] == theirs.process_results(right, answers)["acc"]


def test_every_subject_of_mmlu_has_the_harnesss_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import lm_eval.tasks
    from lm_eval.utils import apply_template

    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    ours = our_task("mmlu", HUB_ROWS["mmlu_high_school_physics"], tmp_path, monkeypatch)
    files = sorted(folder.glob("mmlu_*.yaml"))
    assert len(files) == 57
    for path in files:
        theirs = harness_task(f"mmlu/default/{path.name}", HUB_ROWS["mmlu_high_school_physics"]).config.description
        subject = path.stem.removeprefix("mmlu_")
        assert apply_template(ours.config.description, {"subject": subject}) == apply_template(theirs, {})


@pytest.mark.parametrize("name", [name for name, suite in all_suites().items() if suite.origin == "built-in"])
def test_built_in_items_are_valid(name: str):
    rows = read_rows(ITEMS / f"{name}.jsonl", all_suites()[name].form, name)
    assert len(rows) == (130 if name == "toxicity" else 60)
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
    golds = Counter(str(row.get("answer", row.get("label"))) for row in rows)
    assert max(golds.values()) - min(golds.values()) <= 4, f"the right answer stands unevenly: {golds}"
    for row in rows:
        if "sentence" in row:
            assert row["sentence"].count("_") == 1
            assert row["sentence"].split("_")[1].strip()
        keys = ("option1", "option2", "sol1", "sol2", "answerA", "answerB", "answerC")
        choices = row.get("choices") or [row[key] for key in keys if key in row]
        assert len(set(choices)) == len(choices)


DAMAGED = [
    ('{"sentence": "a _ b", "option1": "x"', "line 2: not JSON"),
    ('["a list"]', "line 2: holds no table"),
    ('{"sentence": "no blank", "option1": "x", "option2": "y", "answer": "1"}', 'line 2: sentence is "no blank"'),
    ('{"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "3"}', 'line 2: answer is "3"'),
    ('{"sentence": "a _ b", "option1": "x", "answer": "1"}', "line 2: option2 is missing"),
    ('{"sentence": "a _ b", "option1": "", "option2": "y", "answer": "1"}', 'line 2: option1 is ""'),
    ('{"sentence": null, "option1": "x", "option2": "y", "answer": "1"}', "line 2: sentence is null"),
    ('{"id": "w-1", "sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"}', "stands on line 1 already"),
]


@pytest.mark.parametrize(("line", "message"), DAMAGED)
def test_a_damaged_line_is_named(line: str, message: str, tmp_path: Path):
    good = '{"id": "w-1", "sentence": "a _ b\u2028", "option1": "x", "option2": "y", "answer": "1"}'
    path = tmp_path / "validation.jsonl"
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(PrimerError) as caught:
        read_rows(path, "winogrande", "winogrande")
    assert str(path) in caught.value.problem
    assert message in caught.value.problem


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("arc", {"question": "q", "choices": ["a", "b"], "label": 2}, "label is 2, but there are 2 choices"),
        ("arc", {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}, "expected one of"),
        ("boolq", {"passage": "p", "question": "q", "label": 2}, "label is 2"),
        ("mmlu", {"subject": "s", "question": "q", "choices": ["a"] * 3, "answer": 0}, "choices is"),
        ("toxigen", {"text": "t", "toxicity_score": 0, "label": "hate", "target_groups": ["x"]}, "toxicity_score is 0"),
    ],
)
def test_impossible_values_are_named(form: str, row: dict[str, Any], message: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(PrimerError, match=message):
        read_rows(path, form, form)


def test_empty_and_unreadable_files_are_errors(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    for name in ("empty", "latin", "absent"):
        with pytest.raises(PrimerError, match=name):
            read_rows(tmp_path / f"{name}.jsonl", "piqa", "piqa")
    assert set(FORMS) >= {suite.form for suite in all_suites().values()}


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


def test_an_unknown_suite_is_an_error_with_close_names():
    with pytest.raises(PrimerError, match="there is no such suite") as caught:
        make_plan(Eval(suites=["sciense"]), seed=0)
    assert "Did you mean science" in caught.value.remedy


def test_missing_data_is_recorded_and_the_rest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    plan = make_plan(Eval(), seed=0)
    assert [suite.origin for suite, _ in plan.chosen] == ["built-in"] * 6
    assert {skipped["suite"] for skipped in plan.skipped} >= {"boolq", "mmlu", "toxigen_safety"}
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "validation.jsonl").write_text(json.dumps(HUB_ROWS["boolq"][0]))
    named = make_plan(Eval(suites=["boolq", "mmlu"], data=str(tmp_path)), seed=0)
    assert [suite.name for suite, _ in named.chosen] == ["boolq"]
    assert named.skipped[0]["reason"].startswith("there is no mmlu/test.jsonl or mmlu/validation.jsonl")
    before = named.material
    (tmp_path / "boolq" / "validation.jsonl").write_text(json.dumps({**HUB_ROWS["boolq"][0], "label": 0}))
    assert make_plan(Eval(suites=["boolq", "mmlu"], data=str(tmp_path)), seed=0).material != before
    with pytest.raises(PrimerError, match=r"eval\.data names"):
        make_plan(Eval(data=str(tmp_path / "nowhere")), seed=0)
