"""Budgets: never exceeded, a clean end, and a way on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from generation import collect, settings, texts
from mock_endpoint import Faults, running

from primer.errors import PrimerError
from primer.recipe_synth import Budget, EndpointTeacher, Sampling, Synth
from synth.plan import open_journal
from synth.shards import Shard

PRICES = {"price_input": 1.0, "price_output": 10.0}
SHORT = Sampling(max_tokens=100)


def paid(journal: Path) -> tuple[int, int]:
    """Tokens in and out of every reply that the mock's journal holds, counted by hand."""
    replies = [json.loads(line).get("reply") for line in journal.read_text().splitlines()]
    return sum(r["prompt_tokens"] for r in replies if r), sum(r["completion_tokens"] for r in replies if r)


def test_a_budget_in_dollars_is_never_exceeded_and_ends_the_run_cleanly(tmp_path: Path):
    journal = tmp_path / "journal"
    budget = {"budget": Budget(dollars=0.02), "teacher": PRICES, "sampling": SHORT, "tokens": 50_000}
    with running(Faults(delay=0.02)) as endpoint:
        with pytest.raises(PrimerError, match=r"The budget of \$0.02 holds no further request") as error:
            collect(endpoint, journal, **budget)
        asked = endpoint.requests
        tokens_in, tokens_out = paid(journal)
        dollars = (tokens_in * 1.0 + tokens_out * 10.0) / 1e6
        assert 0.015 < dollars <= 0.02
        assert asked == journal.read_text().count('"reply"')  # what was under way was waited for: it is paid
        # What was set aside for the last ones in flight may hold one or two more; the budget still stands.
        for _ in range(3):
            with pytest.raises(PrimerError, match="The budget"):
                collect(endpoint, journal, **budget)
        tokens_in, tokens_out = paid(journal)
        assert (tokens_in * 1.0 + tokens_out * 10.0) / 1e6 <= 0.02
        asked = endpoint.requests
        # The message names a corpus that is paid for already.
        settled = error.value.remedy.split("--set synth.tokens=")[1]
        outcome = collect(endpoint, journal, **(budget | {"tokens": int(settled)}))
        assert endpoint.requests == asked
        assert outcome.tokens == int(settled)
        # A larger budget goes on.
        longer = collect(endpoint, journal, **(budget | {"budget": Budget(dollars=1.0), "tokens": 3000}))
        assert texts(longer)[: len(texts(outcome))] == texts(outcome)


def test_a_budget_in_tokens_counts_what_every_setting_cost(tmp_path: Path):
    journal = tmp_path / "journal"
    with running() as endpoint:
        collect(endpoint, journal, tokens=1000, sampling=SHORT)
        other = Sampling(max_tokens=100, temperature=0.5)
        with pytest.raises(PrimerError, match=r"The budget of 3,000 tokens holds no further request"):
            collect(endpoint, journal, tokens=50_000, sampling=other, budget=Budget(tokens=3000))
    assert 2500 < sum(paid(journal)) <= 3000


def test_a_budget_that_cannot_be_kept_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the teacher's prices are not known"):
        Synth(teacher=EndpointTeacher(kind="openai", model="m"), budget=Budget(dollars=1.0))
    with running(Faults(no_usage=True)) as endpoint, pytest.raises(PrimerError, match="does not say how many tokens"):
        collect(endpoint, tmp_path / "journal", budget=Budget(tokens=50_000))


def test_each_answer_counts_at_the_price_of_its_time(tmp_path: Path):
    journal = tmp_path / "journal"
    with running() as endpoint:
        first = settings(endpoint, teacher=PRICES)
        collect(endpoint, journal, tokens=500, teacher=PRICES)
        before = paid(journal)
        dearer = {"price_input": 2.0, "price_output": 20.0}
        collect(endpoint, journal, tokens=1000, teacher=dearer)
        after = paid(journal)
    with open_journal(journal, first) as opened:
        dollars, tokens = opened.spent()
    added = (after[0] - before[0], after[1] - before[1])
    expected = before[0] * 1 + before[1] * 10 + added[0] * 2 + added[1] * 20
    assert dollars == pytest.approx(expected / 1e6)
    assert tokens == sum(after)


def test_the_batch_price_is_half():
    teacher = {"kind": "openai", "model": "m", **PRICES}
    from synth.teachers import teacher_prices

    assert teacher_prices(EndpointTeacher(**teacher)) == (1.0, 10.0)
    assert teacher_prices(EndpointTeacher(**teacher, batch=True)) == (0.5, 5.0)
    assert teacher_prices(EndpointTeacher(kind="openai", model="m")) is None


@pytest.mark.parametrize("missing", ["price_input", "price_output"])
def test_one_price_is_no_price(missing: str):
    prices = {name: value for name, value in PRICES.items() if name != missing}
    with pytest.raises(ValueError, match="the teacher's prices are not known"):
        Synth(teacher=EndpointTeacher(kind="openai", model="m", **prices), budget=Budget(dollars=1.0))


@pytest.mark.parametrize("concurrency", [1, 16, 64])
def test_a_budget_that_is_enough_is_enough_at_any_concurrency(concurrency: int, tmp_path: Path):
    """What is set aside for requests under way holds others back; it does not end the run."""
    with running(Faults(delay=0.01)) as endpoint:
        outcome = collect(
            endpoint, tmp_path / "journal", tokens=4000, concurrency=concurrency, budget=Budget(tokens=8000)
        )
    assert outcome.tokens >= 4000
    assert sum(paid(tmp_path / "journal")) <= 8000


def test_an_answer_of_unknown_cost_is_kept(tmp_path: Path):
    with running(Faults(no_usage=True)) as endpoint:
        with pytest.raises(PrimerError, match="does not say how many tokens"):
            collect(endpoint, tmp_path / "journal", budget=Budget(tokens=50_000), concurrency=1)
        asked = endpoint.requests
        assert (tmp_path / "journal").read_text().count('"reply"') == asked


def test_shards_divide_the_budget():
    part = Shard(2, 4).budget(Budget(dollars=10.0, tokens=1001))
    assert (part.dollars, part.tokens) == (2.5, 250)
    assert Shard(2, 4).budget(Budget()) == Budget()
