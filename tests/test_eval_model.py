"""The fast language model answers as lm-evaluation-harness's own `hf` backend does, item by item."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_phi import make_model

from eval.suites import load_tasks, make_plan
from primer.errors import PrimerError
from primer.recipe import Eval

BUILT_IN = ["pronouns", "physical", "science", "reading", "social"]
BENCHMARKS = ["winogrande", "arc_easy", "arc_challenge", "boolq", "social_i_qa", "hellaswag", "mmlu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    from eval.model import PrimerLM

    return PrimerLM(folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    pytest.importorskip("accelerate", reason="lm-eval's hf backend needs accelerate (`pip install accelerate`)")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32")


def instances(pairs: list[tuple[Any, ...]], kind: str, task: str | None = "task") -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=pair, idx=0, metadata=(task, 0, 1))  # type: ignore[arg-type]
        for pair in pairs
    ]


def assert_same_answers(suites: list[str], rows: int, ours: Any, theirs: Any) -> None:
    plan = make_plan(Eval(suites=suites, limit=rows), seed=3)
    assert {suite.name for suite, _ in plan.chosen} == set(suites)
    for name, task in load_tasks(plan).items():
        requests = []
        for number, document in enumerate(task.eval_docs):
            context = task.fewshot_context(document, num_fewshot=0)
            requests.append(task.construct_requests(doc=document, ctx=context, metadata=(name, number, 1)))
        flat = [request for row in requests for request in row]
        mine, expected = ours.loglikelihood(flat), theirs.loglikelihood(flat, disable_tqdm=True)
        assert len(mine) == len(expected) == len(flat)
        for (value, greedy), (right, right_greedy) in zip(mine, expected, strict=True):
            assert value == pytest.approx(right, abs=1e-4), name
            assert greedy == right_greedy
        at = 0
        for row in requests:
            found, right = ([v for v, _ in values[at : at + len(row)]] for values in (mine, expected))
            assert found.index(max(found)) == right.index(max(right)), name
            at += len(row)


def test_built_in_items_are_answered_as_by_the_hf_backend(ours: Any, theirs: Any):
    assert_same_answers(BUILT_IN, 12, ours, theirs)


def test_benchmark_rows_are_answered_as_by_the_hf_backend(
    benchmark_data: Path, ours: Any, theirs: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_EVAL_DATA", str(benchmark_data))
    assert_same_answers(BENCHMARKS, 4, ours, theirs)


def test_the_harness_itself_gets_the_same_accuracy_from_both(ours: Any, theirs: Any):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from eval.suites import TASKS, answer

    found = []
    for model in (ours, theirs):
        manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"limit": 20, "seed": 5})
        run = simple_evaluate(model=model, tasks=["science", "pronouns"], task_manager=manager, bootstrap_iters=0)
        found.append({name: run["results"][name] for name in ("science", "pronouns")})
    for name, metrics in (("science", ("acc", "acc_norm")), ("pronouns", ("acc",))):
        plan = make_plan(Eval(suites=[name], limit=20), seed=5)
        suite, path = plan.chosen[0]
        totals, items = answer(suite, path, load_tasks(plan)[name], ours, lambda _: None)
        for metric in metrics:
            assert totals[metric] == found[0][name][f"{metric},none"] == found[1][name][f"{metric},none"]
            assert totals[metric] == sum(item[metric] for item in items) / 20
        assert totals["rows"] == 20
        assert totals["chance"] == (0.25 if name == "science" else 0.5)


AWKWARD = [
    ("", " hello there"),
    ("", "<|endoftext|>hello"),
    ("A context that ends in spaces   ", "answer"),
    ("<|endoftext|>A context that begins with the end", " of text"),
    ("Ünïcödé – 數學", " 數學"),
    ("tabs\tand\nlines\n", "\n  indented"),
    ("long " * 530, "and then cut from the left"),
]


@pytest.mark.parametrize("one_row", [True, False])
def test_awkward_requests_are_answered_as_by_the_hf_backend(one_row: bool, ours: Any, theirs: Any):
    requests = instances(AWKWARD, "loglikelihood", "task" if one_row else None)
    for (value, greedy), (right, right_greedy) in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        assert value == pytest.approx(right, abs=1e-4)
        assert greedy == right_greedy
    assert ours.rows_cut == 1


def test_whole_texts_and_generation_are_as_from_the_hf_backend(ours: Any, theirs: Any):
    texts = [("One two three four five six seven eight nine. " * 90,), ("Short.",), ("",)]
    rolling = instances(texts, "loglikelihood_rolling")
    expected = theirs.loglikelihood_rolling(rolling, disable_tqdm=True)
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(expected, rel=1e-6)
    assert expected[2] == 0
    first = ours.generate_until(instances([("The", {"until": [], "max_gen_toks": 12})], "generate_until"))[0]
    stop = first[len(first) // 2 :][:3]
    settings = [{"until": [stop], "max_gen_toks": 12}, {"until": ["\n\n"], "max_gen_toks": 5}]
    requests = instances(
        [(text, dict(s)) for text in ("The", "A much longer text to go on from") for s in settings], "g"
    )
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)
    assert stop not in ours.generate_until(requests)[0]


def test_the_greedy_continuation_is_greedy_and_likelier_than_any_other(ours: Any):
    context = "Water runs down the"
    likeliest = ours.generate_until(instances([(context, {"until": [], "max_gen_toks": 1})], "generate_until"))[0]
    scores = ours.loglikelihood(instances([(context, likeliest), (context, " hill")], "loglikelihood"))
    assert scores[0][1] is True
    assert scores[1][1] is False
    assert scores[0][0] > scores[1][0]


def test_a_row_of_shared_context_costs_it_once(ours: Any):
    sizes: list[int] = []
    body = ours._scorer._body
    hook = body.register_forward_pre_hook(lambda m, a, kw: sizes.append(kw["input_ids"].numel()), with_kwargs=True)
    context = "word " * 100
    ours.loglikelihood(instances([(context, f"{name} thing") for name in ("one", "two", "three")], "loglikelihood"))
    hook.remove()
    assert 100 <= sum(sizes) < 120


def test_an_answer_longer_than_the_context_says_so(tmp_path: Path):
    from eval.model import AnswerTooLongError, PrimerLM

    short = PrimerLM(make_model(tmp_path, context=8), device="cpu")
    with pytest.raises(AnswerTooLongError, match="11 tokens, more than the model's context of 8"):
        short.loglikelihood(instances([("Count:", " one two three four five six seven eight nine ten eleven")], "l"))


def test_a_diverged_model_is_an_error_and_not_a_score(folder: Path):
    from eval.model import PrimerLM

    broken = PrimerLM(folder, device="cpu")
    broken.model.lm_head.bias.data[7] = math.nan
    with pytest.raises(PrimerError, match="not finite numbers: it has diverged"):
        broken.loglikelihood(instances([("a", " b")], "loglikelihood"))


def test_damaged_and_missing_models_are_errors_for_people(folder: Path, tmp_path: Path):
    from eval.model import PrimerLM

    with pytest.raises(PrimerError, match=r"no config\.json"):
        PrimerLM(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PrimerError, match="cannot be loaded"):
        PrimerLM(damaged)


def test_a_model_that_changes_its_logits_after_the_head_is_refused(folder: Path):
    from transformers import AutoModelForCausalLM

    from eval.model import _check_head

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    _check_head(model, model.base_model, model.get_output_embeddings(), folder)
    model.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", output.logits / 2))
    with pytest.raises(PrimerError, match="changes its logits after its head"):
        _check_head(model, model.base_model, model.get_output_embeddings(), folder)


def test_the_harness_knows_the_model_by_name(folder: Path):
    from lm_eval.api.registry import get_model

    from eval.model import PrimerLM

    assert get_model("primer") is PrimerLM
    model = PrimerLM.create_from_arg_string(f"pretrained={folder}", {"batch_size": 1, "device": "cpu"})
    assert model.max_length == 512
