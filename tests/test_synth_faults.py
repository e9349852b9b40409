"""An endpoint at its worst: nothing is lost, nothing hangs, and what goes wrong with one request costs one row."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web
from generation import Questions, collect, texts
from mock_endpoint import Endpoint, Faults, running

from primer.errors import PrimerError
from synth.backend import RequestError
from synth.endpoint import open_endpoint
from synth.journal import Reply


@pytest.mark.parametrize(
    "fault",
    [
        {"rate_limited": 0.1},
        {"told_to_wait": 0.03},
        {"failing": 0.1},
        {"reset": 0.1},
        {"cut": 0.1},
        {"mislabelled": 1.0},
        {"dripping": 0.1},
        {"rate_limited": 0.03, "told_to_wait": 0.02, "failing": 0.03, "reset": 0.03, "cut": 0.03, "dripping": 0.03},
    ],
    ids=lambda fault: "+".join(fault),
)
def test_passing_trouble_changes_nothing(fault: dict[str, float], tmp_path: Path):
    with running() as sound, running(Faults(**fault)) as troubled:  # type: ignore[arg-type]
        expected = collect(sound, tmp_path / "sound", tokens=16_000, concurrency=32)
        started = time.monotonic()
        outcome = collect(troubled, tmp_path / "troubled", tokens=16_000, concurrency=32)
        seconds = time.monotonic() - started
        unanswered = troubled.requests - len(troubled.asked)
        assert unanswered > 0 or not set(fault) - {"mislabelled", "dripping"}
    assert texts(outcome) == texts(expected)
    assert not outcome.failed
    assert seconds < 30


def test_an_answer_that_a_filter_stopped_is_rejected_with_its_reason(tmp_path: Path):
    with running(Faults(filtered=0.2)) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", tokens=8000, concurrency=16)
    assert set(outcome.rejected) == {"content_filter"}
    assert 0.08 < outcome.rejected["content_filter"] / outcome.units < 0.35
    assert outcome.accepted + outcome.rejected["content_filter"] == outcome.units


def test_an_empty_account_stops_at_once_and_says_so(tmp_path: Path):
    with running(Faults(no_quota=True)) as endpoint:
        with pytest.raises(PrimerError, match="no money or quota left") as error:
            collect(endpoint, tmp_path / "journal")
        assert endpoint.requests <= 8
    assert "none is paid for twice" in error.value.remedy


def test_one_bad_request_costs_exactly_one_row_whatever_is_bad_about_it(tmp_path: Path):
    bad = {3: "FORBIDDEN", 8: "HANG", 13: "GARBAGE"}
    with running(Faults(refuse="FORBIDDEN", hang="HANG", garbage="GARBAGE", rate_limited=0.05)) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Questions(bad), tokens=4000, timeout=1.0)
        assert sum(outcome.failed.values()) == 3
        assert outcome.units == outcome.accepted + 3
        assert {reason.split(":")[0] for reason in outcome.failed} == {
            "HTTP 400",
            "no reply within 1 s",
            "no chat completion in '<html>Welcome to the proxy</html>'",
        }
        hung = [body for body in endpoint.bodies if "HANG" in body["messages"][0]["content"]]
        assert 2 <= len(hung) <= 4  # a time-out has cost its whole wait: waited for twice


def test_a_crash_in_the_middle_of_trouble_loses_nothing(tmp_path: Path):
    with running(Faults(rate_limited=0.05, reset=0.05)) as endpoint:
        first = collect(endpoint, tmp_path / "journal", tokens=4000)
        whole = collect(endpoint, tmp_path / "whole", tokens=8000)
        asked = dict(endpoint.asked)
        again = collect(endpoint, tmp_path / "journal", tokens=8000)
    assert texts(again) == texts(whole)
    assert texts(again)[: len(texts(first))] == texts(first)
    assert asked


def test_what_a_server_says_cannot_command_the_terminal(tmp_path: Path):
    with running(Faults(refuse="FORBIDDEN", refusal="No\x1b[2J\x07\nand no\x9b1A")) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Questions({1: "FORBIDDEN"}), tokens=500)
    assert list(outcome.failed) == ["HTTP 400: No[2J and no1A"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and breaks a tenth as long."""
    monkeypatch.setattr("synth.pool._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("synth.pool._LONGEST_PAUSE", 0.2)
    monkeypatch.setattr("synth.limits._SHORTEST_BREAK", 0.05)
    monkeypatch.setattr("synth.limits._LONGEST_BREAK", 0.5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("fault", ["always_500", "always_429"])
def test_a_request_that_never_succeeds_costs_its_row_and_not_the_run(fault: str, concurrency: int, tmp_path: Path):
    with running(Faults(**{fault: "CURSED"})) as endpoint:
        units = Questions({5: "CURSED", 22: "CURSED"})
        outcome = collect(endpoint, tmp_path / "journal", units, concurrency=concurrency, patience=30.0)
    assert sum(outcome.failed.values()) == 2
    assert outcome.accepted == outcome.units - 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["broken", "hanging", "garbage"])
def test_an_outage_of_any_kind_costs_no_row(fault: str, tmp_path: Path):
    with running(Faults(delay=0.02)) as endpoint:
        whole = collect(endpoint, tmp_path / "whole", tokens=4000, concurrency=8)

        def outage() -> None:
            before = endpoint.requests
            while endpoint.requests < before + 40 and running_still.is_set():  # before the first answer it is no outage
                time.sleep(0.01)
            endpoint.faults.broken = fault == "broken"
            endpoint.faults.hang = "Question" if fault == "hanging" else None
            endpoint.faults.garbage = "Question" if fault == "garbage" else None
            time.sleep(2)
            endpoint.faults.broken, endpoint.faults.hang, endpoint.faults.garbage = False, None, None

        running_still = threading.Event()
        running_still.set()
        trouble = threading.Thread(target=outage)
        trouble.start()
        outcome = collect(endpoint, tmp_path / "journal", tokens=16_000, concurrency=8, timeout=0.5, patience=60.0)
        running_still.clear()
        trouble.join()
    assert not outcome.failed
    assert texts(outcome)[: len(texts(whole))] == texts(whole)


def test_one_long_retry_after_does_not_end_a_run_that_goes_well(tmp_path: Path):
    with running(Faults(wait_an_hour="LATER")) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Questions({3: "LATER"}), tokens=4000, patience=1.0)
    assert not outcome.failed


def test_an_address_that_serves_another_model_is_left_alone(tmp_path: Path):
    with running() as right, running(Faults(model="other")) as wrong:
        both = {"base_url": [right.address, wrong.address]}
        outcome = collect(right, tmp_path / "journal", tokens=4000, teacher=both)
        assert not outcome.failed
        assert wrong.requests < 10


def test_a_key_that_may_not_list_models_may_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def forbidden(self: Endpoint, _request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "Missing scopes: api.model.read"}}, status=403)

    monkeypatch.setattr(Endpoint, "_models", forbidden)
    with running() as endpoint:
        assert collect(endpoint, tmp_path / "journal", tokens=500).accepted


KEY = "sk-verysecretkey-0123456789"


def read(body: object, key: str = KEY) -> Reply:
    async def answer() -> Reply:
        async with open_endpoint("http://127.0.0.1:9/v1", "m", 5.0, key=key, key_variable="KEY") as backend:
            return backend.read(body if isinstance(body, bytes) else json.dumps(body).encode(), 0.1)

    return asyncio.run(answer())


def said(text: object, usage: object = None, finish: object = "stop") -> dict[str, object]:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


@pytest.mark.parametrize("count", [0, -1, True, "12", 12.5, 2**63, 10**400, None, [1]])
def test_a_count_of_tokens_that_cannot_be_true_is_none(count: object):
    reply = read(said("Some text.", {"prompt_tokens": count, "completion_tokens": count}))
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


def test_text_that_cannot_be_written_becomes_text_that_can():
    reply = read(b'{"choices": [{"message": {"content": "Ice \\ud800 floats."}, "finish_reason": "stop"}]}')
    assert reply.text == "Ice ? floats."
    assert read(said(None)).text == ""


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"{}", b"\xff\xfe", said(["parts"]), said("x", finish=5), {"choices": []}, b"x" * 9_000_000],
    ids=["nested", "empty", "bytes", "parts", "finish", "no choice", "huge"],
)
def test_what_is_no_reply_is_an_error_of_that_request(body: object):
    with pytest.raises(RequestError) as error:
        read(body)
    assert error.value.trouble == "garbage"


def test_no_part_of_a_key_is_kept_and_no_word_is_taken_for_one():
    for padding in range(60, 90):  # wherever the quoted body is cut
        with pytest.raises(RequestError) as error:
            read(("x" * padding + KEY + "y" * 200).encode())
        assert not any(KEY[:length] in str(error.value) for length in range(6, len(KEY)))
    assert KEY not in read(said(f"The key is {KEY}.", finish=KEY)).text
    assert read(said("x", finish=KEY)).finish_reason == "unknown"
    assert read(said("An animal in a garden."), key="a").text == "An animal in a garden."
