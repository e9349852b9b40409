"""Prompts and choices out of task files: fields, examples, and what a malformed file or row is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eval.suites import Suite, all_suites
from eval.task import ChoiceTask, few_shot, prompt_text
from primer.errors import PrimerError

ROW = {"id": "r1", "question": "What is 2 + 2?\n", "choices": ["3", "4"], "label": 1}


def suite(shots: int = 0, examples: str | None = None, **task: Any) -> Suite:
    fields = {"doc_to_text": "Q: {{question.strip()}}\nA:", "doc_to_choice": "choices", "doc_to_target": "label"}
    kind = "choice" if task.get("doc_to_choice", "") is not None else "generation"
    return Suite("sample", kind, "", "benchmark", "", "", "sample", examples=examples, shots=shots, task=fields | task)  # type: ignore[arg-type]


def test_a_choice_follows_the_text_and_its_length_leaves_out_the_delimiter():
    question = ChoiceTask(suite()).question(ROW)
    assert question.pairs == [("Q: What is 2 + 2?\nA:", " 3"), ("Q: What is 2 + 2?\nA:", " 4")]
    assert (question.gold, question.lengths) == (1, [1, 1])
    joined = ChoiceTask(suite(target_delimiter="")).question({**ROW, "choices": [" three", " four"]})
    assert joined.pairs[0] == ("Q: What is 2 + 2?\nA:", " three")
    assert joined.lengths == [6, 5]


def test_a_text_that_is_a_number_makes_the_choices_contexts():
    row = {"id": "w", "sentence": "Ann beat Bo as _ 's better; 5_6.", "option1": "Ann", "option2": "Bo", "answer": "2"}
    question = ChoiceTask(all_suites()["winogrande"]).question(row)
    assert question.pairs == [("Ann beat Bo as Ann", " 's better; 5_6."), ("Ann beat Bo as Bo", " 's better; 5_6.")]
    assert (question.gold, question.lengths) == (1, [15, 15])


def test_a_target_may_be_the_answer_itself():
    assert (
        ChoiceTask(suite(doc_to_target="{{choices[1]}} apples"))
        .question({**ROW, "choices": ["3 apples", "4", "4 apples"]})
        .gold
        == 2
    )
    yes_or_no = suite(doc_to_choice=["no", "yes"], doc_to_target="{{'yes' if label else 'no'}}")
    assert ChoiceTask(yes_or_no).question(ROW).gold == 1


def test_examples_are_the_first_of_the_rows_own_subject():
    examples = [
        {"id": f"{subject}{number}", "subject": subject, "question": f"{subject} {number}?", "choices": ["a", "b"],
         "label": number % 2}
        for number in range(3)
        for subject in ("art", "law")
    ]  # fmt: skip
    task = suite(2, "dev", description="About {{subject}}.\n\n", fewshot_delimiter="\n---\n")
    row = {**ROW, "subject": "law"}
    expected = "About law.\n\nQ: law 0?\nA: a\n---\nQ: law 1?\nA: b\n---\nQ: What is 2 + 2?\nA:"
    assert ChoiceTask(task, examples).question(row).pairs[0] == (expected, " 3")
    assert [example["id"] for example in few_shot(task, row, examples)] == ["law0", "law1"]
    assert few_shot(suite(0), row, examples) == []
    with pytest.raises(PrimerError, match=r"num_fewshot is 4, but there are 3 examples of the subject 'law'"):
        ChoiceTask(replace(task, shots=4), examples).question(row)


def test_a_generation_prompt_has_examples_written_in_a_way_of_their_own():
    config = {"doc_to_target": "{{answer|upper}}", "target_delimiter": " => "}
    task = suite(1, "train", doc_to_choice=None, doc_to_target="answer", fewshot_config=config)
    row = {"id": "g", "question": "17", "answer": "yes"}
    assert prompt_text(task, row, [{"id": "e", "question": "5", "answer": "no"}]) == "Q: 5\nA: => NO\n\nQ: 17\nA:"
    assert prompt_text(suite(doc_to_choice=None, doc_to_text="{{question}}\n"), row) == "17\n"


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        ({"doc_to_choice": None}, {}, "sample.yaml: doc_to_choice is missing"),
        ({"gen_prefix": "Answer:"}, {}, "sample.yaml: gen_prefix is set, and is not supported"),
        (
            {"doc_to_text": "{{nothing}}"},
            {},
            "doc_to_text cannot be filled in for the row 'r1': 'nothing' is undefined",
        ),
        ({"doc_to_text": "{{ if"}, {}, "sample.yaml: doc_to_text cannot be filled in"),
        ({"doc_to_choice": "{{question}}"}, {}, "sample.yaml: doc_to_choice gives no list of texts for the row 'r1'"),
        ({}, {"label": 2}, "sample: the right answer of row 'r1' is 2; it has 2"),
        ({"doc_to_target": "five"}, {}, "the right answer of row 'r1' is 'five'"),
    ],
)
def test_what_does_not_fit_is_said(task: dict[str, Any], row: dict[str, Any], words: str):
    with pytest.raises(PrimerError) as error:
        ChoiceTask(suite(**task)).question({**ROW, **row})
    assert words in error.value.problem
