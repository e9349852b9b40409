"""Generated answers: batches equal to one by one, prompts that fit, graders on right, wrong and hostile answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import primer.sandbox
from eval.generation import ask_generation, generation_totals
from eval.language_model import CannotAskError, Pair, Progress, Query, RowScores, Score, Writing
from eval.suites import TASKS, Suite, all_suites
from eval.task import prompt_text
from primer.errors import PrimerError
from primer.recipe import Eval
from primer.sandbox import Sandbox

PROMPTS = [
    "The cat",
    "",
    "Once upon a time there was a",
    "x = 1\ndef f(",
    "A much longer prompt than the others, so that there is padding. " * 3,
    "The cat",
]
SHARED = ["Question: what is a shared beginning?\nAnswer: this one.\n\n" * 3 + prompt for prompt in PROMPTS]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    import torch
    from tiny_phi import make_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_model(tmp_path_factory.mktemp("models") / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


class Canned:
    """A language model that gives the answers it was given, and remembers what it was asked. A token is a word."""

    prefix_token_id = 0

    def __init__(self, *answers: Sequence[str], max_length: int = 2048) -> None:
        self.max_length = max_length
        self._answers = answers
        self.prompts: list[str] = []
        self.writing = Writing(0)

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        return [[0] * len(text.split()) for text in texts]

    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        raise NotImplementedError

    def ask(self, rows: Sequence[Sequence[Pair]], progress: Progress | None = None) -> list[RowScores]:
        raise NotImplementedError

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        self.prompts, self.writing = list(prompts), writing
        if progress is not None:
            progress(1.0)
        return [list(answers) for answers in self._answers]


def suite_named(name: str) -> Suite:
    return all_suites()[name]


def own_examples(suite: Suite) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = suite.task["fewshot_config"]["samples"]
    return found


def ask(name: str, rows: Sequence[Mapping[str, Any]], model: Canned, **settings: Any) -> list[dict[str, Any]]:
    suite = suite_named(name)
    examples = own_examples(suite) if suite.shots else []
    return ask_generation(suite, examples, rows, model, Eval(**settings), seed=3)


# --- writing in batches


@pytest.mark.parametrize("prompts", [PROMPTS, SHARED], ids=["apart", "shared"])
@pytest.mark.parametrize("stops", [(), (" the", "e", "\n")], ids=["to the end", "stops"])
def test_a_batch_writes_what_one_prompt_alone_does(tiny: tuple[Any, Any], prompts: list[str], stops: tuple[str, ...]):
    from eval.batched import generate

    writing = Writing(20, stops)
    together = generate(*tiny, prompts, writing, 512)
    assert together == [generate(*tiny, [prompt], writing, 512)[0] for prompt in prompts]
    assert all(stop not in text for (text,) in together for stop in stops)
    assert len({text for (text,) in together}) > 1


def test_greedy_answers_are_those_of_transformers(tiny: tuple[Any, Any]):
    import torch

    from eval.batched import generate

    model, tokenizer = tiny
    for prompt, (text,) in zip(SHARED, generate(*tiny, SHARED, Writing(20), 512), strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        assert text == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_small_phi_writes_what_transformers_does(tiny: tuple[Any, Any]):
    import torch

    from eval.batched import generate
    from eval.phi import load_phi

    model, tokenizer = tiny
    small = load_phi(Path(model.config._name_or_path), torch.device("cpu"))
    assert small is not None
    for writing in (Writing(12, (" the",)), Writing(6, samples=2, temperature=0.8, top_p=0.9)):
        assert generate(small, tokenizer, SHARED, writing, 512) == generate(model, tokenizer, SHARED, writing, 512)


def test_draws_depend_on_seed_prompt_and_sample_alone(tiny: tuple[Any, Any]):
    from eval.batched import generate

    prompts = [*PROMPTS[:2], PROMPTS[0]]
    writing = Writing(6, samples=3, temperature=0.8, top_p=0.95, seed=1)
    together = generate(*tiny, prompts, writing, 512)
    assert together[0] == together[2]
    assert together == [generate(*tiny, [prompt], writing, 512)[0] for prompt in prompts]
    assert all(len(set(answers)) == 3 for answers in together)
    assert together != generate(*tiny, prompts, Writing(6, samples=3, temperature=0.8, top_p=0.95, seed=2), 512)
    fewer = generate(*tiny, prompts, Writing(6, samples=2, temperature=0.8, top_p=0.95, seed=1), 512)
    assert fewer == [answers[:2] for answers in together]


def test_more_samples_than_a_batch_holds_are_written_in_several(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch):
    from eval import batched

    writing = Writing(6, samples=5, temperature=1.0, seed=1)
    whole, shares = batched.generate(*tiny, PROMPTS[:3], writing, 512), []
    monkeypatch.setitem(batched._BATCH_ROWS, "cpu", 2)
    assert batched.generate(*tiny, PROMPTS[:3], writing, 512, shares.append) == whole
    assert shares == pytest.approx([n / 15 for n in range(1, 16)])
    monkeypatch.setitem(batched._BATCH_TOKENS, "cpu", 1)
    assert batched.generate(*tiny, PROMPTS[:3], writing, 512) == whole


def test_too_little_memory_makes_batches_smaller(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch):
    import torch

    from eval import batched

    writing, sizes = Writing(6, samples=2, temperature=1.0, seed=1), []
    whole, real = batched.generate(*tiny, PROMPTS, writing, 512), batched._Writer._forward
    most = 3

    def forward(self: Any, ids: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > most:
            raise torch.OutOfMemoryError
        return real(self, ids, *rest)

    monkeypatch.setattr(batched._Writer, "_forward", forward)
    shares: list[float] = []
    assert batched.generate(*tiny, PROMPTS, writing, 512, shares.append) == whole
    assert max(sizes) > most
    assert shares == pytest.approx([n / 12 for n in range(1, 13)])
    most = 0
    with pytest.raises(PrimerError, match="does not hold one prompt of"):
        batched.generate(*tiny, PROMPTS, writing, 512)


@pytest.mark.parametrize("tries", [0, 1, 8])
def test_draws_follow_the_probabilities_and_the_nucleus_cuts_the_rest(tries: int):
    import torch

    from eval.batched import _draw

    rows = 20_000
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log().expand(rows, 4)
    uniform = torch.rand(rows, tries + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shares(top_p: float) -> list[float]:
        return (torch.bincount(_draw(logits, top_p, uniform), minlength=4) / rows).tolist()

    assert shares(1.0) == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.02)
    # 0.5 and 0.25 are less than 0.8, so 0.15 belongs to the smallest set, and 0.1 does not.
    assert shares(0.8) == pytest.approx([0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9], abs=0.02)
    assert shares(0.8)[0] == 0.0
    assert shares(0.3) == [0.0, 1.0, 0.0, 0.0]


def test_an_end_token_ends_an_answer_and_a_long_prompt_keeps_its_end(tiny: tuple[Any, Any]):
    from eval.batched import generate

    model, tokenizer = tiny
    words = tokenizer.decode(tokenizer("one two three four five six")["input_ids"] * 20)
    (whole,) = generate(model, tokenizer, [words], Writing(8), 40)[0]
    shorter = tokenizer.decode(tokenizer(words)["input_ids"][-32:])
    assert [whole] == generate(model, tokenizer, [shorter], Writing(8), 40)[0]
    first = tokenizer(whole)["input_ids"][0]
    model.generation_config.eos_token_id = [first, 50_256]
    try:
        (ended,) = generate(model, tokenizer, [words], Writing(8), 40)[0]
    finally:
        model.generation_config.eos_token_id = 50_256
    assert ended == tokenizer.decode([first])
    for tokens, context in ((8, 8), (0, 1)):
        with pytest.raises(
            PrimerError, match=f"{tokens} tokens are to be written, but the model's context is {context}"
        ):
            generate(model, tokenizer, ["a"], Writing(tokens), context)


def test_a_model_that_has_diverged_is_named(tiny: tuple[Any, Any]):
    import torch

    from eval.batched import generate

    model, tokenizer = tiny
    bias = model.lm_head.bias
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.fill_(float("nan"))
        with pytest.raises(PrimerError, match="not finite numbers"):
            generate(model, tokenizer, ["a"], Writing(2), 512)
    finally:
        with torch.no_grad():
            bias.copy_(kept)


# --- asking and grading

SUM = {"id": "s", "question": "What is 9 * 2?", "answer": "9 * 2 = 18\n#### 18"}
PASSAGE = {"id": "p", "context": "Storks nest on roofs.", "question": "Where?", "answers": ["on roofs", "the roofs"]}
FUNCTION = {
    "id": "f",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}
TASK = {
    "id": "t",
    "text": "Write a function that doubles.",
    "code": "def double(x):\n    return 2 * x",
    "test_list": ["assert double(2) == 4", "assert double(3) == 6"],
    "test_setup_code": "",
}
SECOND = {"id": "u"}


@pytest.mark.parametrize(
    ("name", "row", "right", "wrong", "reason"),
    [
        ("squad", PASSAGE, " The roofs.", " roofs and trees", "not the marked answer"),
        ("gsm8k_words", SUM, " 9 * 2 = 18.\n#### 18\n\n", " It is 20.", "20, not 18"),
        ("gsm8k_code", SUM, "    return 9 * 2\n", "    import os\n    os._exit(0)\n", "crashed"),
        ("humaneval", FUNCTION, "    return x + x\n", "    print('passed')\n    exit(0)\n", "failed"),
        ("mbpp", TASK, "def double(x):\n    return x + x\n", "import sys\nsys.exit(0)\n", "failed: SystemExit: 0"),
    ],
)
def test_every_suite_grades_right_and_wrong_answers(
    sandbox: Sandbox, name: str, row: dict[str, Any], right: str, wrong: str, reason: str
):
    items = ask(name, [row, {**row, **SECOND}], Canned([right], [wrong]))
    assert [item["item"] for item in items] == [row["id"], "u"]
    assert [(item["acc"], item["correct"], item["samples"]) for item in items] == [(1.0, 1, 1), (0.0, 0, 1)]
    assert items[0]["reasons"] == [""]
    assert items[1]["reasons"][0].startswith(reason)
    assert items[1]["answers"] == [wrong]
    totals = generation_totals(suite_named(name), items)
    assert totals["acc"] == 0.5
    assert totals["metric"] == ("pass@1" if name in ("humaneval", "mbpp") else "exact_match")
    assert f"{suite_named(name).shots}-shot" in totals["protocol"]
    assert "greedy" in totals["protocol"]
    assert "shortened" not in totals["protocol"]


def test_samples_are_drawn_for_programs_alone_and_pass_at_k_is_estimated(sandbox: Sandbox):
    right, wrong = "    return 2 * x\n", "    return x\n"
    model = Canned([right] * 3 + [wrong] * 9, [wrong] * 12)
    items = ask("humaneval", [FUNCTION, {**FUNCTION, **SECOND}], model, samples=12, temperature=0.4)
    assert (model.writing.samples, model.writing.temperature) == (12, 0.4)
    assert (model.writing.top_p, model.writing.seed) == (0.95, 3)
    assert [item["correct"] for item in items] == [3, 0]
    totals = generation_totals(suite_named("humaneval"), items, 0.4)
    assert totals["acc"] == 0.125
    # 10 of 12 drawn, and only 9 are wrong: at least one is right.
    assert totals["pass_at"] == {"1": pytest.approx(0.125), "10": 0.5}
    assert "12 at temperature 0.4, top-p 0.95" in totals["protocol"]
    model = Canned([" 18"])
    ask("gsm8k_words", [SUM], model, samples=12, temperature=0.4)
    assert (model.writing.samples, model.writing.temperature, model.writing.top_p) == (1, 0.0, 1.0)


def test_examples_that_do_not_fit_are_left_out_and_it_is_said():
    suite = suite_named("gsm8k_words")
    examples, long = own_examples(suite), {**SUM, **SECOND, "question": "word " * 500}
    model = Canned(["18"], ["18"], max_length=400)
    items = ask("gsm8k_words", [SUM, long], model)
    assert model.writing.tokens == 200
    assert model.prompts[0].count("Question:") == 3  # 200 words hold two of the five examples beside the row
    assert model.prompts[0].startswith(f"Question: {examples[0]['question']}\nAnswer: {examples[0]['answer']}\n\n")
    assert model.prompts[0].endswith("\n\nQuestion: What is 9 * 2?\nAnswer:")
    assert model.prompts[1] == f"Question: {long['question']}\nAnswer:"
    assert [item["cut"] for item in items] == [True, True]
    assert "2 prompts shortened to fit, by examples first" in generation_totals(suite, items)["protocol"]
    roomy = Canned(["18"], ["18"])
    assert [item["cut"] for item in ask("gsm8k_words", [SUM, long], roomy)] == [False, False]
    assert roomy.prompts[0] == prompt_text(suite, SUM, examples)


def test_equal_programs_are_run_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    from eval import programs

    run: list[str] = []
    real = programs.try_program
    monkeypatch.setattr(programs, "try_program", lambda box, text: run.append(text) or real(box, text))
    (item,) = ask(
        "humaneval", [FUNCTION], Canned(["    return x"] * 4 + ["    return 2 * x"]), samples=5, temperature=1
    )
    assert (item["acc"], len(run)) == (0.2, 2)


def test_without_a_sandbox_programs_are_not_asked_for_and_words_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(primer.sandbox, "bubblewraps", lambda: iter(()))
    model = Canned(["    return x"])
    with pytest.raises(CannotAskError, match="cannot be run in a sandbox"):
        ask("humaneval", [FUNCTION], model)
    assert model.prompts == []
    assert ask("gsm8k_words", [SUM], Canned(["18"]))[0]["acc"] == 1.0


def test_progress_reaches_the_end_and_never_goes_back(sandbox: Sandbox):
    shares: list[float] = []
    rows = [{**FUNCTION, "id": str(n)} for n in range(3)]
    suite, model = suite_named("humaneval"), Canned(*[["    return x"]] * 3)
    ask_generation(suite, [], rows, model, Eval(), 0, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def generation_tasks() -> Iterator[str]:
    for path in sorted(TASKS.glob("*.yaml")):
        if "grader:" in path.read_text(encoding="utf-8"):
            yield path.stem


def test_the_harness_asks_and_grades_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox):
    """Its own reading of our task files: prompts, and grades of a right and a wrong answer."""
    pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    rows = {"squad": PASSAGE, "gsm8k_words": SUM, "gsm8k_code": SUM, "humaneval": FUNCTION, "mbpp": TASK}
    right = {
        "squad": "On roofs!",
        "gsm8k_words": "18",
        "gsm8k_code": "    return 18",
        "humaneval": "    return x + x",
        "mbpp": TASK["code"],
    }
    for name, row in rows.items():
        suite = suite_named(name)
        path = tmp_path / suite.folder / f"{suite.splits[0]}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setenv("PRIMER_EVAL_DATA", str(tmp_path))
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False).load(list(rows))["tasks"]
    for name, task in tasks.items():
        suite = suite_named(name)
        (row,) = task.eval_docs
        prompt = task.fewshot_context(row, num_fewshot=suite.shots)
        assert prompt == prompt_text(suite, row, own_examples(suite) if suite.shots else [])
        for answer, score in ((right[name], 1.0), ("    19", 0.0)):
            assert next(iter(task.process_results(row, [answer]).values())) == score
        model = Canned([right[name]], ["    19"])
        assert [item["acc"] for item in ask(name, [row, {**row, **SECOND}], model)] == [1.0, 0.0]


@pytest.mark.parametrize("name", list(generation_tasks()))
def test_a_twin_is_asked_as_its_benchmark_is(name: str):
    suite = suite_named(name)
    assert suite.kind == "generation"
    if suite.origin == "built-in":
        assert suite.twin is not None
        twin = suite_named(suite.twin)
        own = ("task", "metadata", "dataset_kwargs")
        assert {key: suite.task[key] for key in suite.task if key not in own} == {
            key: twin.task[key] for key in twin.task if key not in own
        }
        assert (suite.form, suite.protocol, suite.shots) == (twin.form, twin.protocol, twin.shots)
        assert suite.task["metadata"]["grader"] == twin.task["metadata"]["grader"]
