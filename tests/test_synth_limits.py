"""How fast a backend is asked: rates, a number in flight that follows the answers, breaks; and which one is asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generation import collect, texts
from mock_endpoint import Faults, running

from primer.errors import PrimerError
from primer.recipe_synth import Sampling
from synth.backend import RequestError, Trouble
from synth.journal import Failure, Reply
from synth.limits import Bucket, Lane
from synth.pool import Pool

MESSAGES = [{"role": "user", "content": "x" * 400}]


def lane(most: int = 100, timeout: float | None = 60.0, rpm: int | None = None, tpm: int | None = None) -> Lane:
    return Lane(most, timeout, 600.0, rpm, tpm, random.Random(0))


def reply(seconds: float = 1.0, written: int = 50) -> Reply:
    return Reply("text", "stop", 100, written, seconds)


def error(trouble: Trouble, retry_after: float | None = None) -> RequestError:
    return RequestError(trouble, Failure(None, trouble, False), retry_after)


def answer(to: Lane, times: int = 1, seconds: float = 1.0) -> None:
    for _ in range(times):
        to.answered(reply(seconds), to.enter(MESSAGES, Sampling()))


def fail(to: Lane, trouble: Trouble, times: int = 1, now: float = 0.0, retry_after: float | None = None) -> None:
    for _ in range(times):
        to.failed(error(trouble, retry_after), to.enter(MESSAGES, Sampling()), now)


def test_a_bucket_keeps_the_rate_of_any_minute():
    bucket, taken, now = Bucket(120), [], 0.0
    while now < 300:
        wait = bucket.wait(now)
        if wait == 0:
            bucket.take(1)
            taken.append(now)
        now += max(wait, 0.001)
    busiest = max(sum(start <= at < start + 60 for at in taken) for start in range(240))
    assert 118 <= busiest <= 123


def test_tokens_are_set_aside_by_what_answers_take_and_corrected_by_what_they_took():
    limited = lane(tpm=60_000)
    reserved = limited.enter(MESSAGES, Sampling(max_tokens=1000))
    assert reserved == pytest.approx(1000 + 104)  # nothing is known yet: the most it can be
    limited.answered(reply(written=50), reserved)
    assert limited.enter(MESSAGES, Sampling(max_tokens=1000)) == pytest.approx(50 + 104)
    assert limited.wait(0.0) == 0  # 1,000 a second, and 150 + 154 taken


def test_the_number_in_flight_follows_refusals_and_grows_back():
    limited = lane(100)
    fail(limited, "rate_limit", 100)
    assert 50 <= limited.limit < 60
    for _ in range(20):
        fail(limited, "rate_limit", max(10, int(limited.limit)))
    assert limited.limit < 2
    answer(limited, 3000)
    assert limited.limit == 100


@pytest.mark.parametrize("trouble", ["rate_limit", "server"])
def test_a_few_stray_errors_cost_nothing(trouble: Trouble):
    limited, generator = lane(256), random.Random(1)
    for _ in range(5000):
        fail(limited, trouble) if generator.random() < 0.03 else answer(limited)
    assert limited.limit > 200
    assert limited.wait(0.0) == 0


def test_slow_answers_are_a_sign_of_strain_and_quick_ones_are_not():
    slow, quick = lane(100, timeout=60.0), lane(100, timeout=60.0)
    answer(slow, 500, seconds=40.0)
    answer(quick, 500, seconds=20.0)
    assert slow.limit < 30
    assert quick.limit == 100


def test_retry_after_holds_a_strained_backend_and_not_for_one_unlucky_request():
    limited = lane(100)
    answer(limited, 50)
    fail(limited, "rate_limit", 1, now=10.0, retry_after=30.0)
    assert limited.wait(10.0) == 0
    fail(limited, "rate_limit", 20, now=10.0, retry_after=30.0)
    assert limited.wait(10.0) == pytest.approx(30.0)
    assert limited.wait(40.1) == 0


def test_the_breaker_opens_tries_one_request_at_a_time_and_closes():
    broken = lane(100)
    fail(broken, "connection", 5)
    assert broken.broken
    first = broken.wait(0.0)
    assert first is not None
    assert 0.7 < first < 1.3
    later = first + 0.01
    assert broken.wait(later) == 0
    reserved = broken.enter(MESSAGES, Sampling())
    assert broken.wait(later) is None  # one at a time
    broken.failed(error("connection"), reserved, later)
    second = broken.wait(later)
    assert second is not None
    assert 1.5 <= second <= 2.5  # twice as long
    broken.answered(reply(), broken.enter(MESSAGES, Sampling()))
    assert not broken.broken
    assert broken.wait(later + 3) == 0


def test_what_one_request_did_wrong_breaks_nothing():
    fine = lane(100)
    fail(fine, "request", 50)
    assert not fine.broken
    assert fine.limit == 100


class Scripted:
    """A backend that does what it is told."""

    def __init__(self, name: str, script: list[Trouble | float], after: Trouble | float = 0.01) -> None:
        self.name, self.script, self.after = name, list(script), after
        self.asked = 0

    async def check(self) -> None:
        if self.script == ["authentication"]:
            raise error("authentication")

    async def complete(self, messages: Any, sampling: Sampling, seed: int) -> Reply:
        self.asked += 1
        act = self.script.pop(0) if self.script else self.after
        if isinstance(act, str):
            raise error(act)
        await asyncio.sleep(act)
        return Reply(self.name, "stop", 1, 1, act)

    def explain(self, error: RequestError) -> PrimerError:
        return PrimerError(f"{self.name}: {error.failure.reason}", "")


def ask(
    backends: list[Scripted], requests: int, concurrency: int = 8, patience: float = 5.0
) -> list[Reply | RequestError]:
    async def asked() -> list[Reply | RequestError]:
        pool = Pool(backends, concurrency=concurrency, timeout=10.0, patience=patience)
        places = asyncio.Semaphore(concurrency)

        async def one(seed: int) -> Reply | RequestError:
            async with places:
                try:
                    return await pool.complete(MESSAGES, Sampling(), seed)
                except RequestError as failed:
                    return failed

        return list(await asyncio.gather(*map(one, range(requests))))

    return asyncio.run(asked())


def test_the_least_loaded_backend_is_asked():
    fast, slow = Scripted("fast", [], 0.01), Scripted("slow", [], 0.05)
    assert len(ask([fast, slow], 120)) == 120
    assert 2 * slow.asked < fast.asked


def test_a_backend_that_dies_is_left_and_no_request_is_lost():
    sound, dead = Scripted("sound", [], 0.01), Scripted("dead", [0.01] * 5, "connection")
    replies = ask([sound, dead], 200)
    assert all(isinstance(r, Reply) for r in replies)
    assert dead.asked < 30


def test_a_backend_that_comes_back_is_asked_again():
    returning = Scripted("returning", ["connection"] * 5, 0.01)
    sound = Scripted("sound", [], 0.05)
    replies = ask([sound, returning], 400, concurrency=8)
    assert all(isinstance(r, Reply) for r in replies)
    assert Counter(r.text for r in replies if isinstance(r, Reply))["returning"] > 20


def test_trouble_that_passes_costs_no_row_and_trouble_that_stays_costs_one():
    assert all(isinstance(r, Reply) for r in ask([Scripted("a", [0.01, "rate_limit", "server", "garbage"])], 20))
    failed = [r for r in ask([Scripted("a", [0.01, "request"])], 20) if isinstance(r, RequestError)]
    assert [f.trouble for f in failed] == ["request"]


def test_an_outage_is_waited_for_and_costs_no_row():
    outage = Scripted("a", [0.01, *["server"] * 12], 0.01)
    started = time.monotonic()
    assert all(isinstance(r, Reply) for r in ask([outage], 20, patience=60.0))
    assert time.monotonic() - started > 1  # the breaker was open


@pytest.mark.parametrize("trouble", ["quota", "authentication"])
def test_trouble_that_no_try_can_mend_stops_at_once(trouble: Trouble):
    backend = Scripted("a", [0.01, 0.01], trouble)
    with pytest.raises(PrimerError, match=f"a: {trouble}"):
        ask([backend], 3, concurrency=1)
    assert backend.asked == 3


def test_patience_ends():
    started = time.monotonic()
    with pytest.raises(PrimerError, match="a: server"):
        ask([Scripted("a", [0.01], "server")], 20, patience=1.5)
    assert 1.5 < time.monotonic() - started < 8


def test_a_wrong_key_at_one_of_several_addresses_is_an_error():
    async def check() -> None:
        backends = [Scripted("a", []), Scripted("b", ["authentication"])]
        await Pool(backends, concurrency=4, timeout=None, patience=5).check()

    with pytest.raises(PrimerError, match="b: authentication"):
        asyncio.run(check())


def test_several_addresses_share_the_work_and_survive_the_loss_of_one(tmp_path: Path):
    with running() as whole:
        expected = collect(whole, tmp_path / "one", tokens=8000)
    with running(Faults(delay=0.02)) as first, running(Faults(delay=0.02)) as second:
        both = {"base_url": [first.address, second.address], "service": "fleet"}
        outcome = collect(first, tmp_path / "both", tokens=4000, teacher=both)
        assert min(first.requests, second.requests) > 10
        second.faults.broken = True
        asked = first.requests
        longer = collect(first, tmp_path / "both", tokens=8000, teacher=both)
        assert first.requests > asked
    assert texts(longer)[: len(texts(outcome))] == texts(outcome)
    assert texts(longer) == texts(expected)
    assert not longer.failed


def test_a_server_that_takes_only_so_many_at_once_is_asked_no_more(tmp_path: Path):
    with running(Faults(most_in_flight=6, delay=0.02)) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", tokens=40_000, concurrency=64)
        refused = endpoint.requests - len(endpoint.asked)
    assert not outcome.failed
    assert refused < 0.6 * endpoint.requests  # 64 at a time would have had nine in ten refused


def test_requests_a_minute_are_kept(tmp_path: Path):
    with running() as endpoint:
        started = time.monotonic()
        collect(endpoint, tmp_path / "journal", tokens=1600, teacher={"requests_per_minute": 600})
        seconds = time.monotonic() - started
    assert endpoint.requests <= 10 * seconds + 11
    assert endpoint.requests >= 15
