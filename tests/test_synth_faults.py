"""An endpoint at its worst: nothing is lost, nothing hangs, and what goes wrong with one request costs one row."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from generation import Questions, collect, texts
from mock_endpoint import Faults, running

from primer.errors import PrimerError


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
