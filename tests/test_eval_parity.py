"""Every multiple-choice suite and the fast model agree with lm-evaluation-harness, item by item.

Three things are compared: our prompts with those of the harness's own task files on the same rows, with those that the
harness builds from our task files, and our answers with its `hf` backend's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_phi import make_model

from eval.choice import ask_choice
from eval.model import TorchModel
from eval.rows import read_rows
from eval.suites import ITEMS, Suite, all_suites
from eval.task import ChoiceTask
from primer.sealed import SUFFIX, read_items

Row = dict[str, Any]


def lettered(row: Row, question: str = "question") -> Row:
    """A row with numbered choices in the columns of the hub's data sets."""
    letters = list("ABCDEFGH"[: len(row["choices"])])
    choices = {"text": row["choices"], "label": letters}
    return {"id": row["id"], question: row["question"], "choices": choices, "answerKey": letters[row["label"]]}


def uncapitalised(row: Row) -> Row:
    """A query in the columns that the harness puts it together from."""
    label, _, text = row["query"].partition(": ")
    columns = {"activity_label": label, "ctx_a": text, "ctx_b": "", "endings": row["endings"]}
    return {"id": row["id"], **columns, "label": str(row["label"])}


# A benchmark's task file in the harness, and our rows in the columns that it reads.
HARNESS: dict[str, tuple[str, Callable[[Row], Row]]] = {
    "winogrande": ("winogrande/default.yaml", dict),
    "arc_easy": ("arc/arc_easy.yaml", lettered),
    "arc_challenge": ("arc/arc_challenge.yaml", lettered),
    "boolq": ("super_glue/boolq/default.yaml", dict),
    "social_i_qa": ("siqa/siqa.yaml", dict),
    "piqa": ("piqa/piqa.yaml", dict),
    "hellaswag": ("hellaswag/hellaswag.yaml", uncapitalised),
    "openbookqa": ("openbookqa/openbookqa.yaml", lambda row: lettered(row, "question_stem")),
    "mmlu": ("mmlu/default/mmlu_{subject}.yaml", dict),
    "mmlu_2shot": ("mmlu/default/mmlu_{subject}.yaml", dict),
}
# Where no file holds rows of a form: prompts that are easily got wrong.
AWKWARD: dict[str, list[Row]] = {
    "piqa": [
        {"goal": "To open a {{jar}}", "sol1": "twist it's lid", "sol2": 'eat "it"', "label": 0},
        {"goal": "3", "sol1": "5", "sol2": "[1, 2]", "label": 1},
    ],
    "openbookqa": [
        {"question": "Snow is\n", "choices": ["cold", "it's", '"hot"', "4"], "label": 3},
        {"question": "17", "choices": ["a", "b", "c", "d"], "label": 0},
    ],
    "hellaswag": [
        {"query": "Baking: Mix it. the Cook", "endings": ["stirs.", "a b", "sings", "eats it"], "label": 2},
        {"query": "Rowing: They row", "endings": ["on.", "back.", "there.", "{{x}}"], "label": 0},
    ],
    "mmlu": [
        {"subject": subject, "question": f" {number} or {subject}? ", "choices": ["1", "9.8", "it's", "4"], "answer": 1}
        for number, subject in enumerate(["us_foreign_policy", "anatomy", "anatomy"])
    ],
}
CHOICE_SUITES = [name for name, suite in all_suites().items() if suite.kind == "choice"]
BENCHMARKS = [name for name in CHOICE_SUITES if all_suites()[name].origin == "benchmark"]


def some(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows, from all over."""
    step = max(1, len(rows) // count)
    return list(rows[::step][:count])


def written(rows: Sequence[Row], suite: Suite, path: Path) -> list[Row]:
    """Rows as our suite reads them from a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_rows(path, suite.form, suite.name)


def built_in_rows(suite: Suite, count: int, folder: Path) -> list[Row]:
    """Rows of a built-in suite or of a benchmark's twin; where none is there yet, awkward ones."""
    name = next((own.name for own in all_suites().values() if own.twin == suite.name), suite.name)
    path = ITEMS / f"{name}{SUFFIX}"
    if path.is_file():
        plain = [json.loads(line) for line in read_items(path).splitlines() if line.strip()]
        return written(some(plain, count), suite, folder / f"{suite.name}.jsonl")
    return written(AWKWARD[suite.form], suite, folder / f"{suite.name}.jsonl")


def real_rows(suite: Suite, count: int, data: Path) -> tuple[list[Row], list[Row]] | None:
    """Rows and examples of a benchmark, if its file is there."""
    for split in suite.splits:
        path = data / suite.folder / f"{split}.jsonl"
        if path.is_file():
            shown = data / suite.folder / f"{suite.examples}.jsonl"
            examples = read_rows(shown, suite.form, suite.name) if suite.examples else []
            return some(read_rows(path, suite.form, suite.name), count), examples
    return None


def harness_task(suite: str, subject: str | None, rows: Sequence[Row], examples: Sequence[Row], shots: int) -> Any:
    """The task of the installed harness, from its own file, over some rows."""
    import lm_eval.tasks
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    file, columns = HARNESS[suite]
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / file.format(subject=subject))
    asked, shown = (Dataset.from_list([columns(row) for row in some]) for some in (rows, examples or rows))
    data = {config.get(f"{split}_split") or f"no {split}": asked for split in ("training", "validation", "test")}
    data |= {config["fewshot_split"]: shown} if shots else {}
    config = {key: value for key, value in config.items() if key not in ("tag", "dataset_path", "dataset_name")}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: data, "metadata": {}})


def harness_rows(task: Any, shots: int) -> list[tuple[Any, list[Any]]]:
    """A task's rows, each with the requests that the harness makes of it."""
    documents = list(task.eval_docs)
    return [
        (
            document,
            task.construct_requests(
                document, task.fewshot_context(document, num_fewshot=shots), metadata=(task.config.task, number, 1)
            ),
        )
        for number, document in enumerate(documents)
    ]


def check_prompts(suite: Suite, rows: Sequence[Row], examples: Sequence[Row]) -> list[tuple[Any, Any, list[Any]]]:
    """Our prompts against those of the harness's own task; the latter with its task and row are returned."""
    benchmark = suite.twin or suite.name
    subjects: Sequence[str | None] = list(dict.fromkeys(row.get("subject") for row in rows))
    ours = ChoiceTask(suite, examples)
    theirs: list[tuple[Any, Any, list[Any]]] = []
    for subject in subjects:
        own = [row for row in rows if row.get("subject") == subject]
        shown = [row for row in examples if row.get("subject") == subject]
        task = harness_task(benchmark, subject, own, shown, suite.shots)
        for row, (document, requests) in zip(own, harness_rows(task, suite.shots), strict=True):
            question = ours.question(row)
            assert question.pairs == [request.args for request in requests], suite.name
            if suite.form != "winogrande":
                assert question.lengths == [len(choice) for choice in task.doc_to_choice(document)]
            theirs.append((task, document, requests))
    return theirs


def check_answers(
    suite: Suite,
    rows: Sequence[Row],
    examples: Sequence[Row],
    theirs: Sequence[tuple[Any, Any, list[Any]]],
    ours: TorchModel,
    backend: Any,
) -> float:
    """Our items against the harness's results; returns the largest difference of a log-likelihood."""
    subjects = list(dict.fromkeys(row.get("subject") for row in rows))
    ordered = [row for subject in subjects for row in rows if row.get("subject") == subject]
    items = ask_choice(suite, examples, ordered, ours)
    flat = iter(backend.loglikelihood([request for *_, requests in theirs for request in requests], disable_tqdm=True))
    largest = 0.0
    for item, (task, document, requests) in zip(items, theirs, strict=True):
        results = [next(flat) for _ in requests]
        values = [value for value, _ in results]
        expected = task.process_results(document, results)
        assert item["loglikelihoods"] == pytest.approx(values, abs=1e-4), suite.name
        assert item["choice"] == values.index(max(values)), suite.name
        assert item["acc"] == expected["acc"], suite.name
        if "acc_norm" in expected:
            assert item["acc_norm"] == expected["acc_norm"], suite.name
        largest = max(largest, *(abs(a - b) for a, b in zip(item["loglikelihoods"], values, strict=True)))
    return largest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), context=768)


@pytest.fixture(scope="module")
def ours(folder: Path) -> TorchModel:
    return TorchModel(folder, "cpu")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Any:
    pytest.importorskip("accelerate", reason="lm-eval's hf backend needs accelerate (`pip install accelerate`)")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32")


@pytest.mark.parametrize("name", CHOICE_SUITES)
def test_items_that_come_with_primer_are_answered_as_by_the_harness(
    name: str, ours: TorchModel, backend: Any, tmp_path: Path
):
    suite = all_suites()[name]
    rows = built_in_rows(suite, 6, tmp_path)
    examples = [{**row, "id": f"{row['id']}-{n}", "question": f"{n} of?"} for n in range(5) for row in rows]
    examples = examples if suite.shots else []
    check_answers(suite, rows, examples, check_prompts(suite, rows, examples), ours, backend)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_rows_are_answered_as_by_the_harness(name: str, ours: TorchModel, backend: Any, benchmark_data: Path):
    suite = all_suites()[name]
    found = real_rows(suite, 3, benchmark_data)
    if found is None:
        pytest.skip(f"{benchmark_data} has no {suite.folder}")
    rows, examples = found
    check_answers(suite, rows, examples, check_prompts(suite, rows, examples), ours, backend)


def test_the_harness_builds_the_same_prompts_from_our_task_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lm_eval.tasks import TaskManager

    from eval.suites import TASKS

    wanted: dict[str, list[Any]] = {}
    for name in CHOICE_SUITES:
        suite = all_suites()[name]
        if suite.origin == "built-in" and not (ITEMS / f"{name}{SUFFIX}").is_file():
            continue
        rows = built_in_rows(suite, 3, tmp_path / "own")
        examples = [{**row, "question": f"{n} of?"} for n in range(5) for row in rows] if suite.shots else []
        if suite.origin == "built-in":
            rows = read_rows(ITEMS / f"{name}{SUFFIX}", suite.form, name)[:3]
        else:
            written(rows, suite, tmp_path / suite.folder / f"{suite.splits[0]}.jsonl")
            if examples:
                numbered = [{**row, "id": str(number)} for number, row in enumerate(examples)]
                written(numbered, suite, tmp_path / suite.folder / f"{suite.examples}.jsonl")
        task = ChoiceTask(suite, examples)
        wanted[name] = [task.question(row).pairs for row in rows]
    monkeypatch.setenv("PRIMER_EVAL_DATA", str(tmp_path))
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False).load(list(wanted))["tasks"]
    for name, pairs in wanted.items():
        built = harness_rows(tasks[name], all_suites()[name].shots)
        assert [[request.args for request in requests] for _, requests in built][: len(pairs)] == pairs, name


def requests_of(pairs: Sequence[tuple[Any, ...]], kind: str, task: str | None = "task") -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=pair, idx=0, metadata=(task, 0, 1))  # type: ignore[arg-type]
        for pair in pairs
    ]


UNUSUAL = [
    ("", " hello there"),
    ("", "<|endoftext|>hello"),
    ("A context that ends in spaces   ", "answer"),
    ("<|endoftext|>A context that begins with the end", " of text"),
    ("Ünïcödé – 數學", " 數學"),
    ("tabs\tand\nlines\n", "\n  indented"),
    ("two  spaces\n\n\n\nand 1234\n\n \n\nlines", " 56  7"),
    ("no white space", "between"),
    ("long " * 780, "and then cut from the left"),
]


@pytest.fixture(scope="module")
def adapter(ours: TorchModel) -> Any:
    from eval.harness import PrimerLM

    adapter = PrimerLM.__new__(PrimerLM)
    adapter.model = ours
    return adapter


@pytest.mark.parametrize("one_row", [True, False])
def test_unusual_requests_are_answered_as_by_the_hf_backend(one_row: bool, adapter: Any, backend: Any):
    requests = requests_of(UNUSUAL, "loglikelihood", "task" if one_row else None)
    expected = backend.loglikelihood(requests, disable_tqdm=True)
    for (value, greedy), (right, right_greedy) in zip(adapter.loglikelihood(requests), expected, strict=True):
        assert value == pytest.approx(right, abs=1e-4)
        assert greedy == right_greedy


def test_whole_texts_and_generation_are_as_from_the_hf_backend(adapter: Any, backend: Any):
    rolling = requests_of([("One two three four five six seven eight nine. " * 120,), ("Short.",), ("",)], "rolling")
    expected = backend.loglikelihood_rolling(rolling, disable_tqdm=True)
    assert adapter.loglikelihood_rolling(rolling) == pytest.approx(expected, rel=1e-6)
    first = adapter.generate_until(requests_of([("The", {"until": [], "max_gen_toks": 12})], "generate_until"))[0]
    stop = first[len(first) // 2 :][:3]
    settings: list[Mapping[str, Any]] = [{"until": [stop], "max_gen_toks": 12}, {"until": ["\n\n"], "max_gen_toks": 5}]
    texts = ("The", "A much longer text to go on from")
    requests = requests_of([(text, dict(own)) for text in texts for own in settings], "generate_until")
    assert adapter.generate_until(requests) == backend.generate_until(requests, disable_tqdm=True)
    assert stop not in adapter.generate_until(requests)[0]


def test_the_harness_knows_the_model_by_name(folder: Path):
    from lm_eval.api.registry import get_model

    from eval.harness import PrimerLM

    assert get_model("primer") is PrimerLM
    model = PrimerLM.create_from_arg_string(f"pretrained={folder}", {"batch_size": 1, "device": "cpu"})
    assert model.model.max_length == 768
