"""SQuAD's measures: what counts as the same answer, and how far another one is off."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from eval.reading import exact_match, f1, judge, normalise, process_results
from eval.rows import read_rows

# From the definition: case, punctuation, articles and white space do not count; everything else does.
SAME = [
    ("The Eiffel Tower.", "eiffel  tower"),
    ("an apple, a pear", "apple pear"),
    ("U.S.", "us"),
    ("14-16", "1416"),
    ("\tA\nB ", "b"),
    ("“quoted”", "“quoted”"),
]
DIFFERENT = [("theatre", "atre"), ("10,5", "10 5"), ("Anna", "na"), ("two towers", "towers"), ("“quoted”", "quoted")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_case_punctuation_articles_and_spaces_do_not_count(one: str, other: str):
    assert normalise(one) == normalise(other)
    assert exact_match(one, ["something else", other])
    assert f1(one, [other]) == (1.0 if normalise(one) else 0.0)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_everything_else_counts(one: str, other: str):
    assert not exact_match(one, [other])


def test_f1_is_of_words_and_of_the_best_marked_answer():
    # 2 of 3 words right, 2 of 2 found: precision 2/3, recall 1.
    assert f1("big red house", ["red house"]) == pytest.approx(0.8)
    assert f1("big red house", ["garden", "red house", "a red"]) == pytest.approx(0.8)
    assert f1("red red", ["red"]) == pytest.approx(2 / 3)  # a word counts as often as it is there
    assert f1("green", ["red house"]) == 0.0


def test_a_judgement_says_what_was_wrong():
    row = {"answers": ["Red House", "the house"]}
    assert judge(row, " a red house!") == ""
    assert judge(row, "red") == "not the marked answer, F1 0.67"
    assert judge(row, "  ") == "no answer"
    assert process_results(row, ["red"]) == {"exact_match": 0.0, "f1": pytest.approx(2 / 3)}


@pytest.mark.skipif("PRIMER_EVAL_DATA" not in os.environ, reason="PRIMER_EVAL_DATA names no folder of benchmark data")
def test_marked_answers_of_the_real_data_are_right_and_those_of_the_next_question_mostly_wrong():
    path = Path(os.environ["PRIMER_EVAL_DATA"]) / "squad_v1" / "validation.jsonl"
    if not path.is_file():
        pytest.skip("there is no squad_v1/validation.jsonl in PRIMER_EVAL_DATA")
    rows = read_rows(path, "squad", "squad")[:300]
    assert all(judge(row, f" {answer.upper()}.") == "" for row in rows for answer in row["answers"])
    shifted = [judge(row, other["answers"][0]) for row, other in pairwise(rows)]
    assert shifted.count("") < 30
    assert json.loads(path.open(encoding="utf-8").readline())["answers"]["text"] == rows[0]["answers"]
