"""Batches that fail, whole or in part: what is asked again, what stops the run, and what people are told."""

from __future__ import annotations

import re
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from generation import Questions, collect
from mock_endpoint import Faults, running
from openai.types import Batch as RemoteBatch
from openai.types import BatchRequestCounts
from test_synth_batch import in_batches, once
from test_synth_engine import KEY, no_file_holds

import synth.batch
from primer.errors import PrimerError
from primer.recipe_synth import EndpointTeacher
from synth.batch_log import Batch, BatchLog
from synth.batch_wave import Limits


def test_an_expired_batch_keeps_its_answers_and_the_rest_is_asked_again(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.expiring = [3, 0]
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)  # of those that were answered
    assert '"failure"' not in (tmp_path / "run" / "replies.jsonl").read_text()


def test_requests_that_fail_are_rows_and_those_in_passing_are_asked_three_times(tmp_path: Path):
    prompts = Questions({1: "FORBIDDEN", 2: "BROKEN", 3: "SILENT"})
    with running(Faults(refuse="FORBIDDEN")) as endpoint:
        endpoint.batches.faults.failing, endpoint.batches.faults.silent = "BROKEN", "SILENT"
        outcome = in_batches(endpoint, tmp_path / "run", prompts)
        silence = "HTTP 500: the batch has neither an answer nor an error"
        refused = "HTTP 400: The prompt was refused"
        assert outcome.failed == Counter({refused: 1, "HTTP 500: The server broke": 1, silence: 1})
        assert sorted(endpoint.batches.asked.values())[-3:] == [1, 3, 3]
        assert in_batches(endpoint, tmp_path / "run", prompts).documents == outcome.documents
        assert sorted(endpoint.batches.asked.values())[-3:] == [1, 3, 3]
        endpoint.batches.faults.failing_first = 2
        assert not in_batches(endpoint, tmp_path / "other").failed


@pytest.mark.parametrize("where", ["rows", "validation"])
def test_the_newer_name_of_the_limit_is_found_out_and_remembered(tmp_path: Path, where: str):
    told = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    with running(Faults(new_limit_name=True)) as endpoint:
        whole = collect(endpoint, tmp_path / "whole", tokens=6000)
        if where == "validation":
            endpoint.batches.faults.refusals = [{"code": "unsupported_parameter", "line": 1, "message": told}]
        outcome = in_batches(endpoint, tmp_path / "run")
        assert (outcome.documents, outcome.failed) == (whole.documents[: outcome.accepted], Counter())
        asked = [body for body in endpoint.batches.bodies if "max_tokens" in body]
        assert len(asked) == (len(endpoint.batches.batches["batch_0"]["requests"]) if where == "rows" else 0)
        assert in_batches(endpoint, tmp_path / "run", tokens=6000).documents == whole.documents
        assert [body for body in endpoint.batches.bodies if "max_tokens" in body] == asked


def test_a_batch_in_which_everything_fails_stops_the_run_and_its_failures_are_not_kept(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole", tokens=None, documents=40)
        for status, code, problem in (
            (400, None, "again and again: HTTP 400: The seed is odd"),
            (429, "insufficient_quota", "no money or quota left"),
            (404, "model_not_found", "does not know the model 'mock'"),
        ):
            endpoint.batches.faults.error = status, {"message": "The seed is odd", "code": code}
            with pytest.raises(PrimerError, match=problem):
                in_batches(endpoint, tmp_path / "run", tokens=None, documents=40)
        endpoint.batches.faults.error = None
        outcome = in_batches(endpoint, tmp_path / "run", tokens=None, documents=40)
        assert (outcome.documents, outcome.failed) == (whole.documents, Counter())


def test_a_batch_that_is_refused_is_explained_with_its_name_and_file(tmp_path: Path):
    with running() as endpoint:
        refusal = {"code": "invalid_request", "line": 2, "message": "Extra field"}
        endpoint.batches.faults.refusals = [refusal]
        with pytest.raises(PrimerError, match=r"refused the batch batch_0 \(file file-0\): line 2: Extra field"):
            in_batches(endpoint, tmp_path / "run")
        endpoint.batches.faults.refusals = [{"code": "billing_hard_limit_reached", "message": "No more"}]
        with pytest.raises(PrimerError, match="no money or quota left"):
            in_batches(endpoint, tmp_path / "run")
        endpoint.batches.faults.unwilling = [(400, "billing_hard_limit_reached")]
        with pytest.raises(PrimerError, match="has no money or quota left"):
            in_batches(endpoint, tmp_path / "run")
        endpoint.batches.faults.unwilling = [(400, "invalid_request")]
        with pytest.raises(PrimerError, match="refused a batch: HTTP 400: Not now"):
            in_batches(endpoint, tmp_path / "run")
        endpoint.batches.faults.unwilling = [(429, "rate_limit_exceeded")]  # a matter of pace
        whole = collect(endpoint, tmp_path / "whole")
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)


def test_batches_become_smaller_where_the_provider_takes_no_more(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.most_requests = 6
        assert in_batches(endpoint, tmp_path / "queue").documents == whole.documents
        assert once(endpoint)
        endpoint.batches.asked.clear()
        endpoint.batches.faults.most_requests, endpoint.batches.faults.largest_file = None, 1500
        assert in_batches(endpoint, tmp_path / "file").documents == whole.documents
        assert once(endpoint)
        endpoint.batches.faults.largest_file = 10
        with pytest.raises(PrimerError, match="single request: HTTP 413"):
            in_batches(endpoint, tmp_path / "nothing")


def test_a_batch_made_while_its_answer_was_lost_is_found_again(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        in_batches(endpoint, tmp_path / "others")  # the list has further pages
        endpoint.batches.asked.clear()
        endpoint.batches.faults.unsure = 2
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)
        assert endpoint.batches.events["list"] >= 2


def test_lost_cut_and_damaged_files_of_answers(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        faults = endpoint.batches.faults
        faults.lost = True
        with pytest.raises(PrimerError, match=r"file file-1 with answers of the batch batch_0 is not at .*") as error:
            in_batches(endpoint, tmp_path / "run")
        assert "remove the lines with" in error.value.remedy
        faults.lost, faults.damaged = False, True
        with pytest.raises(PrimerError, match="Line 2 of the file file-1, with answers of the batch batch_0"):
            in_batches(endpoint, tmp_path / "run")
        faults.damaged, faults.cut = False, 1
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)


def test_an_endpoint_without_batches_and_a_wrong_key_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    with running(Faults(key="another")) as endpoint, pytest.raises(PrimerError, match="refused the key") as error:
        in_batches(endpoint, tmp_path / "run")
    assert KEY not in str(error.value)
    with running(Faults(key=KEY)) as endpoint:
        endpoint.batches.faults.absent = True
        with pytest.raises(PrimerError, match="has no Batch API") as error:
            in_batches(endpoint, tmp_path / "run")
        assert "synth.teacher.batch=false" in error.value.remedy
        endpoint.batches.faults.absent = False
        in_batches(endpoint, tmp_path / "run")
        assert once(endpoint)
    assert no_file_holds(tmp_path, KEY)
    with pytest.raises(PrimerError, match="cannot be reached"):
        in_batches(endpoint, tmp_path / "gone")


def test_a_batch_that_the_endpoint_does_not_know_and_one_elsewhere_are_named(tmp_path: Path):
    with running() as endpoint, running() as elsewhere:
        endpoint.batches.faults.on = lambda event: signal.raise_signal(signal.SIGINT) if event == "look" else None
        with pytest.raises(KeyboardInterrupt):
            in_batches(endpoint, tmp_path / "run", teacher={"service": "mine"})
        with pytest.raises(PrimerError, match=f"is under way at {endpoint.address}"):
            in_batches(elsewhere, tmp_path / "run", teacher={"service": "mine"})
        endpoint.batches.faults.on = None
        endpoint.batches.batches.clear()
        with pytest.raises(PrimerError, match="does not know the batch batch_0"):
            in_batches(endpoint, tmp_path / "run", teacher={"service": "mine"})


def test_a_damaged_log_changes_nothing_and_a_cut_line_is_forgotten(tmp_path: Path):
    path = tmp_path / "batches.jsonl"
    log = BatchLog(path)
    batch = log.intend([b"{}\n"], "0" * 12, "http://x/v1", "max_tokens")
    log.created(batch, "batch_1")
    with path.open("a") as file:
        file.write('{"batch": "')
    assert [b.id for b in BatchLog(path).pending.values()] == ["batch_1"]
    assert path.read_bytes().endswith(b"}\n")
    whole = path.read_bytes()
    path.write_bytes(b"junk\n" + whole)
    with pytest.raises(PrimerError, match=r"batches.jsonl, line 1: the record is damaged: b'junk'"):
        BatchLog(path)
    assert path.read_bytes() == b"junk\n" + whole


def test_several_addresses_have_no_batches():
    with pytest.raises(ValueError, match="batch is true, and base_url names 2 addresses"):
        EndpointTeacher(kind="openai", model="m", base_url=["http://a/v1", "http://b/v1"], batch=True)


def test_the_view_shows_each_batch_with_its_counts_and_times():
    batch = Batch("0123", "tag", "http://x/v1", 40, "max_tokens", 1_800_000_000.0, "file-1", "batch_1")
    counts = {"total": 40, "completed": 30, "failed": 2}
    seen = RemoteBatch.model_construct(
        status="in_progress", expires_at=1_800_086_400, request_counts=BatchRequestCounts(**counts)
    )
    state = synth.batch._state(synth.batch._UnderWay(batch, set(), ExitStack(), seen))
    assert (state.in_flight, state.limit, state.answers, state.errors) == (8, 40, 30, Counter(failed=2))
    assert re.fullmatch(r"batch batch_1, in progress, begun \d\d Jan \d\d:\d\d, expires \d\d Jan \d\d:\d\d", state.name)


def test_where_the_queue_is_full_the_next_batch_waits_for_those_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synth.batch, "Limits", lambda: Limits(requests=5))
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.seconds = 0.3
        endpoint.batches.faults.most_enqueued = 5
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)
        assert {len(batch["requests"]) for batch in endpoint.batches.batches.values()} >= {5}


def test_an_outage_stops_the_run_and_no_request_is_given_up(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.error = 503, {"message": "Overloaded", "code": None}
        with pytest.raises(PrimerError, match="again and again: HTTP 503: Overloaded"):
            in_batches(endpoint, tmp_path / "run")
        assert set(endpoint.batches.asked.values()) == {3}
        endpoint.batches.faults.error = None
        outcome = in_batches(endpoint, tmp_path / "run")
        assert (outcome.documents, outcome.failed) == (whole.documents, Counter())
