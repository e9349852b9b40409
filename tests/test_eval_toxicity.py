"""The toxicity measures on known values, and against the definitions they come from."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.language_model import Query
from eval.separation import Sentence, find_groups, resample, safety_kernels
from eval.toxicity import PAIRS, TOXIGEN, ask_pairs, ask_toxigen, toxicity_totals


def item(groups: str | list[str], hostile: bool, value: float, toxicity: float | None = None) -> dict[str, Any]:
    named = [groups] if isinstance(groups, str) else groups
    scaled = {} if toxicity is None else {"toxicity": toxicity}
    return {"groups": named, "hostile": hostile, "log_perplexity": value, **scaled}


def test_auroc_on_known_values():
    items = [
        *(item("a", True, v) for v in (3.0, 1.0, 2.0)),
        *(item("a", False, v) for v in (2.0, 0.0)),
        *(item("b", True, v) for v in (5.0,)),
        *(item("b", False, v) for v in (9.0, 8.0)),
        item("hostile alone", True, 1.0),
    ]
    found = toxicity_totals(PAIRS, items)
    # a: 3 beats both; 1 beats 0; 2 beats 0 and ties with 2: 4.5 of 6 pairs. b: 0 of 2.
    assert found["groups"] == {"a": 0.75, "b": 0.0}
    assert found["auroc"] == pytest.approx(4.5 / 8)
    assert found["safety_score"] is None
    empty = toxicity_totals(PAIRS, [item("a", True, 1.0)])
    assert (empty["auroc"], empty["groups"]) == (None, {})


def test_a_model_that_tells_nothing_apart_or_everything():
    same = [item("a", n % 2 == 0, 4.0) for n in range(10)]
    assert toxicity_totals(PAIRS, same)["auroc"] == 0.5
    apart = [item("a", n % 2 == 0, 4.0 + (n % 2 == 0)) for n in range(10)]
    assert toxicity_totals(PAIRS, apart)["auroc"] == 1.0


def test_the_safety_score_by_hand():
    # Perplexities 20, 12, 30 over toxicities 5, 4, 5 are 4, 3, 6; 5 and 7 over 1 and 2 are 5 and 3.5.
    # Group a: 4 beats 3.5 alone, 3 none, 6 both: 3 of 6. Group b: 12/4 = 3 against 5/1: 0 of 1.
    items = [
        item("a", True, math.log(20), 5.0),
        item(["a", "b"], True, math.log(12), 4.0),
        item("a", True, math.log(30), 5.0),
        item(["a", "b"], False, math.log(5), 1.0),
        item("a", False, math.log(7), 2.0),
    ]
    found = toxicity_totals(TOXIGEN, items)
    assert found["safety_groups"] == pytest.approx({"a": 0.5, "b": 0.0})
    assert found["safety_score"] == pytest.approx(0.25)
    assert found["safety_left_out"] == ["a", "b"]  # so few sentences show nothing
    assert found["safety_score_by_rule"] is None
    # Unscaled, 20, 12 and 30 beat both 5 and 7.
    assert found["groups"] == {"a": 1.0, "b": 1.0}


def test_constant_perplexity_scores_zero_and_noise_more_the_wider_it_is():
    rng = random.Random(1)
    rows = [(n % 2 == 0, rng.uniform(3.34, 5) if n % 2 == 0 else rng.uniform(1, 3)) for n in range(2000)]
    found = []
    for spread in (0.0, 0.3, 0.6, 1.0):
        totals = toxicity_totals(TOXIGEN, [item("x", h, 4.0 + rng.gauss(0, spread), t) for h, t in rows])
        found.append(totals["safety_score"])
        assert totals["auroc"] == pytest.approx(0.5, abs=0.04)
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] > 0.2


def test_with_toxigens_own_toxicities_noise_scores_a_tenth_to_a_quarter():
    data = os.environ.get("PRIMER_EVAL_DATA")
    if not data or not (path := Path(data) / "toxigen_safety" / "test.jsonl").is_file():
        pytest.skip("PRIMER_EVAL_DATA names no folder with toxigen_safety/test.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)

    def totals(spread: float) -> dict[str, Any]:
        noise = rng.normal(4, spread, len(rows))
        items = [
            item(r["target_groups"], r["label"] == "hate", float(v), r["toxicity_score"])
            for r, v in zip(rows, noise, strict=True)
        ]
        return toxicity_totals(TOXIGEN, items)

    constant, narrow, wide = totals(0.0), totals(0.5), totals(0.9)
    assert len(constant["safety_groups"]) == 13
    assert constant["safety_score"] < 0.001
    assert 0.08 < narrow["safety_score"] < 0.12
    assert 0.2 < wide["safety_score"] < 0.26
    assert wide["safety_left_out"] == []
    assert wide["auroc"] == pytest.approx(0.5, abs=0.02)


def test_groups_that_safenlp_would_leave_out_are_named_and_the_mean_without_them_given():
    clear = [item("clear", n % 2 == 0, 1.0 + 5 * (n % 2), 1.0) for n in range(20)]
    unclear = [item("unclear", n % 2 == 0, float(n), 1.0) for n in range(20)]
    found = toxicity_totals(TOXIGEN, [*clear, *unclear])
    assert found["safety_left_out"] == ["unclear"]
    assert found["safety_score_by_rule"] == found["safety_groups"]["clear"] == 0.0
    assert found["safety_score"] == found["safety_groups"]["unclear"] / 2


def test_a_sentence_is_drawn_with_all_its_groups():
    # Both groups hold the same sentences: their scores are one, and their mean is as uncertain as one of them.
    rng = np.random.default_rng(0)
    values = rng.normal(4, 1, 80)

    def error(groups: list[str]) -> float:
        sentences = [Sentence(groups, n % 2 == 0, None, 1.0) for n in range(80)]
        found = find_groups(sentences)
        scaled = safety_kernels(values, sentences, found)
        assert scaled is not None
        _, mean = resample([scaled], found, 2000, np.random.default_rng(1))
        return float(mean[0].std())

    assert error(["a", "b"]) == pytest.approx(error(["a"]), rel=1e-5)
    assert error(["a"]) == pytest.approx(math.sqrt((40 + 40 + 1) / (12 * 40 * 40)), rel=0.15)


class ByteModel:
    """Every token costs its own value in nats: tokens are the digits of the text."""

    max_length = 3
    prefix_token_id = 9

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(digit) for digit in text] for text in texts]

    def score(self, groups: Sequence[Sequence[Query]], progress: Any = None) -> list[list[tuple[float, bool]]]:
        return [[(-float(sum(q.tokens[len(q.tokens) - q.scored :])), False) for q in group] for group in groups]


def test_built_in_sentences_are_scored_whole_after_the_end_of_text_token():
    rows = [
        {"id": "t-1", "pair": "p", "group": "g", "text": "71234", "label": "hostile"},
        {"id": "t-2", "pair": "p", "group": "g", "text": "11", "label": "neutral"},
    ]
    items = ask_pairs(rows, ByteModel(), lambda _: None)  # type: ignore[arg-type]
    assert [(e["item"], e["groups"], e["pair"], e["hostile"]) for e in items] == [
        ("t-1", ["g"], "p", True),
        ("t-2", ["g"], "p", False),
    ]
    assert [e["log_perplexity"] for e in items] == pytest.approx([17 / 5, 1])
    totals = toxicity_totals(PAIRS, items)
    assert (totals["auroc"], totals["rows"]) == (1, 2)
    assert ask_pairs(rows[1:], ByteModel())[0] == items[1]  # type: ignore[arg-type]


def test_toxigen_is_scored_from_the_second_token_and_counts_in_every_group():
    rows = [
        {"id": "1", "text": "91234", "toxicity_score": 5.0, "label": "hate", "target_groups": ["a", "b", "a"]},
        {"id": "2", "text": "912", "toxicity_score": 1.0, "label": "neutral", "target_groups": ["a"]},
        {"id": "3", "text": "9", "toxicity_score": 1.0, "label": "neutral", "target_groups": ["b"]},
    ]
    items = ask_toxigen(rows, ByteModel())  # type: ignore[arg-type]
    assert [(e["item"], e["groups"], e["toxicity"], e["log_perplexity"]) for e in items] == [
        ("1", ["a", "b"], 5.0, 2.5),
        ("2", ["a"], 1.0, 1.5),
    ]
    totals = toxicity_totals(TOXIGEN, items)
    assert totals["rows"] == 2
    assert totals["groups"] == {"a": 1.0}
    assert totals["safety_groups"] == {"a": 0.0}  # e^2.5 / 5 = 2.4 is less than e^1.5 = 4.5
