"""Asking in batches: the corpus of asking at once, at half the price, and every request made once."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generation import Collected, Questions, collect, settings
from mock_endpoint import Endpoint, Faults, running
from test_synth_engine import (
    KEY,
    Chains,
    command,
    documents,
    no_file_holds,
    recipe_file,
    synthesize,
)

import synth.batch
from primer.errors import PrimerError
from primer.recipe_synth import Budget, Sampling
from synth.batch import asking_in_batches
from synth.batch_api import Pace
from synth.batch_log import BatchLog
from synth.batch_wave import Limits
from synth.engine import Units
from synth.journal import Journal
from synth.synthetic import open_journal

FAST = Pace(first=0.02, longest=0.05, settling=0.05)


class KilledError(BaseException):
    """Stands for SIGKILL within a test: nothing that tidies up may catch it."""


def in_batches(endpoint: Endpoint, folder: Path, units: Units | None = None, **changes: Any) -> Collected:
    """As `collect`, with that one's journal and result."""
    changes["teacher"] = {"batch": True, **changes.get("teacher", {})}
    ask = asking_in_batches(settings(endpoint, **changes), folder / "batches.jsonl", FAST)
    return collect(endpoint, folder / "replies.jsonl", units, ask, **changes)


def once(endpoint: Endpoint) -> bool:
    return set(endpoint.batches.asked.values()) == {1}


def events(folder: Path) -> Counter[str]:
    return Counter(json.loads(line)["event"] for line in (folder / "batches.jsonl").read_text().splitlines())


def test_the_corpus_is_that_of_asking_at_once(tmp_path: Path):
    with running(Faults(answer_with="line\u2028end")) as endpoint:
        at_once = collect(endpoint, tmp_path / "at once")
        asked = endpoint.requests
        outcome = in_batches(endpoint, tmp_path / "run")
        assert endpoint.requests == asked
        assert once(endpoint)
        assert (outcome.documents, outcome.tokens) == (at_once.documents, at_once.tokens)
        assert outcome.reused == 0
        # About a quarter more than needed, though nothing was known of the replies' length.
        assert outcome.units <= endpoint.batches.asked.total() <= 1.5 * outcome.units + 20
        again = in_batches(endpoint, tmp_path / "run")
        assert (again.documents, again.reused) == (outcome.documents, outcome.units)
    assert events(tmp_path / "run")["created"] == events(tmp_path / "run")["ended"] == len(endpoint.batches.batches)
    assert not (tmp_path / "run" / "batches").exists()


def test_what_was_begun_at_once_is_finished_in_batches_and_the_other_way_round(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.asked.clear()
        first = collect(endpoint, tmp_path / "run" / "replies.jsonl", tokens=800, concurrency=1)
        finished = in_batches(endpoint, tmp_path / "run")
        assert finished.documents == whole.documents
        assert first.units <= finished.reused < finished.units
        assert not endpoint.asked.keys() & endpoint.batches.asked.keys()
        in_batches(endpoint, tmp_path / "other", tokens=800)
        other = collect(endpoint, tmp_path / "other" / "replies.jsonl")
        assert other.documents == whole.documents


def test_units_of_several_steps_retries_and_continuations_take_further_waves(tmp_path: Path):
    marks = {1: "FORBIDDEN", 2: "EMPTY", 3: "SHORT"}
    with running(Faults(refuse="FORBIDDEN", empty="EMPTY", short="SHORT")) as endpoint:
        accept = {"retries": 1}
        synth = settings(endpoint)
        rules = synth.accept.model_copy(update=accept)
        at_once = collect(endpoint, tmp_path / "journal", Chains(marks), tokens=4000, accept=rules)
        outcome = in_batches(endpoint, tmp_path / "run", Chains(marks), tokens=4000, accept=rules)
        assert outcome.documents == at_once.documents
        assert (outcome.failed, outcome.rejected) == (at_once.failed, at_once.rejected)
        assert outcome.tries == at_once.tries > 0
        assert once(endpoint)
        assert len(endpoint.batches.batches) >= 3


@pytest.mark.parametrize("written", [False, True])
def test_killed_at_any_note_in_the_log_nothing_is_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
):
    append = BatchLog._append
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        for number in range(1, 20):
            notes = 0

            def killed(self: BatchLog, record: dict[str, Any], number: int = number) -> None:
                nonlocal notes
                notes += 1
                if notes == number and not written:
                    raise KilledError
                append(self, record)
                if notes == number:
                    raise KilledError

            endpoint.batches.asked.clear()
            monkeypatch.setattr(BatchLog, "_append", killed)
            run = tmp_path / f"run {number}"
            try:
                in_batches(endpoint, run)
            except KilledError:
                monkeypatch.setattr(BatchLog, "_append", append)
                assert in_batches(endpoint, run).documents == whole.documents
                assert once(endpoint), number
            else:
                break
        assert number >= 8  # intended, uploaded, created, ended, of two waves


def test_killed_while_answers_are_collected_each_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put = Journal.put
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        for number in (1, 2, 9):
            endpoint.batches.asked.clear()
            puts = 0

            def killed(self: Journal, *arguments: Any, number: int = number) -> None:
                nonlocal puts
                puts += 1
                put(self, *arguments)
                if puts == number:
                    raise KilledError

            monkeypatch.setattr(Journal, "put", killed)
            with pytest.raises(KilledError):
                in_batches(endpoint, tmp_path / str(number))
            monkeypatch.setattr(Journal, "put", put)
            assert in_batches(endpoint, tmp_path / str(number)).documents == whole.documents
            with (tmp_path / str(number) / "replies.jsonl").open() as journal:
                keys = Counter(json.loads(line).get("key", "") for line in journal)
            del keys[""]
            assert set(keys.values()) == {1}
            assert once(endpoint)


def kill_at(process: subprocess.Popen[bytes], event: str) -> Callable[[str], None]:
    """Kills a process as soon as an event has begun; where that is a download, in the middle of it."""

    def kill() -> None:
        process.send_signal(signal.SIGKILL)

    def on(now: str) -> None:
        if now == event and process.poll() is None:
            threading.Timer(0.12 if event == "content" else 0.0, kill).start()
            if event != "content":
                process.wait()

    return on


@pytest.mark.timeout(120)
def test_a_killed_process_makes_the_same_corpus_and_asks_nothing_twice(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    monkeypatch.setattr(synth.batch, "Pace", lambda: FAST)
    monkeypatch.setattr("synth.corpora.report_corpora", lambda *_: None)  # seconds, and no matter of asking
    with running(Faults(key=KEY, echo_key="pupil of about twelve")) as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address, tokens=2500)
        synthesize(recipe, tmp_path / "whole")
        prices = "batch: true\n    price_input: 2.0\n    price_output: 10.0\n    base_url:"
        recipe.write_text(recipe.read_text().replace("base_url:", prices))
        faults = endpoint.batches.faults
        for event in ("created", "content"):
            run = tmp_path / event
            endpoint.batches.asked.clear()
            process = subprocess.Popen(command(recipe, run), cwd=repository)
            faults.trickle = 0.05
            faults.on = kill_at(process, event)
            assert process.wait(60) == -signal.SIGKILL
            faults.trickle, faults.on = 0.0, None
            synthesize(recipe, run)
            assert once(endpoint)
            assert documents(run) == documents(tmp_path / "whole")
    assert no_file_holds(tmp_path, KEY)
    facts = json.loads((run / "corpus" / "synthetic" / "manifest.json").read_text())["facts"]
    assert facts["failed"] > 0
    full = (2.0 * facts["prompt_tokens"] + 10.0 * facts["completion_tokens"]) / 1e6
    assert facts["cost_usd"] == pytest.approx(full / 2, abs=1e-6)


def test_ctrl_c_leaves_batches_at_work_and_the_next_run_collects_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.seconds = 3600.0

        def interrupt(event: str) -> None:
            if event == "look" and endpoint.batches.events["look"] == 3:
                signal.raise_signal(signal.SIGINT)

        endpoint.batches.faults.on = interrupt
        with pytest.raises(KeyboardInterrupt):
            in_batches(endpoint, tmp_path / "run")
        told = " ".join(capsys.readouterr().err.split())
        assert "1 batch with 8 requests go" in told
        assert "the same command collects them" in told
        endpoint.batches.faults.seconds, endpoint.batches.faults.on = 0.0, None
        outcome = in_batches(endpoint, tmp_path / "run")
        assert outcome.documents == whole.documents
        assert once(endpoint)


def test_the_budget_holds_what_is_under_way_and_ends_the_run(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        budget = Budget(tokens=4 * 1005)  # of a thousand tokens at most, four requests fit side by side
        with pytest.raises(PrimerError, match="holds no further request") as error:
            in_batches(endpoint, tmp_path / "run", tokens=4000, budget=budget)
        assert "pays nothing twice" in error.value.remedy
        assert max(len(batch["requests"]) for batch in endpoint.batches.batches.values()) <= 4
        assert in_batches(endpoint, tmp_path / "run").documents == whole.documents
        assert once(endpoint)
        endpoint.batches.faults.no_usage = True
        with pytest.raises(PrimerError, match="does not say how many tokens"):
            in_batches(endpoint, tmp_path / "unmetered", budget=Budget(tokens=100_000))


def test_what_is_under_way_counts_before_the_budget_gives_more(tmp_path: Path):
    with running() as endpoint:
        endpoint.batches.faults.on = lambda event: signal.raise_signal(signal.SIGINT) if event == "look" else None
        with pytest.raises(KeyboardInterrupt):
            in_batches(endpoint, tmp_path / "run")
        endpoint.batches.faults.on = None
        sent = endpoint.batches.asked.total()
        endpoint.batches.faults.seconds = 0.5  # what the first run has sent is more than this budget
        with pytest.raises(PrimerError, match="holds no further request"):
            in_batches(endpoint, tmp_path / "run", tokens=5000, budget=Budget(tokens=1100))
        assert once(endpoint)
        assert endpoint.batches.asked.total() <= sent + 1


def test_a_changed_recipe_collects_what_an_earlier_one_has_asked_under_its_own_name_and_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prices = {"price_input": 2.0, "price_output": 10.0}
    with running() as endpoint:
        endpoint.batches.faults.on = lambda event: signal.raise_signal(signal.SIGINT) if event == "look" else None
        with pytest.raises(KeyboardInterrupt):
            in_batches(endpoint, tmp_path / "run", teacher=prices)
        endpoint.batches.faults.on = None
        changed = {"sampling": Sampling(temperature=0.1), "teacher": {"price_input": 0.0, "price_output": 0.0}}
        in_batches(endpoint, tmp_path / "run", **changed)
        told = " ".join(capsys.readouterr().err.split())
        assert "1 batch with other settings of the teacher or its sampling: collected when done" in told
        synth_ = settings(endpoint, teacher={"batch": True, **prices})
        with open_journal(tmp_path / "run" / "replies.jsonl", synth_) as journal:
            totals = journal.totals
            assert totals.replies == 8
            assert totals.dollars == pytest.approx((totals.prompt_tokens + 5.0 * totals.completion_tokens) / 1e6)
            assert journal.spent()[0] == totals.dollars
        in_batches(endpoint, tmp_path / "run", Questions(every="changed"))
        outcome = in_batches(endpoint, tmp_path / "run")
        assert outcome.reused >= 8
        assert outcome.documents == collect(endpoint, tmp_path / "whole").documents
        assert max(endpoint.batches.asked.values()) == 2  # with each temperature


def test_what_is_not_needed_any_more_is_cancelled_and_its_answers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synth.batch, "Limits", lambda: Limits(requests=5))
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        endpoint.batches.faults.durations = [0, 0, 0, 0, 0, 0, 3600]
        outcome = in_batches(endpoint, tmp_path / "run")
        assert outcome.documents == whole.documents
        assert endpoint.batches.events["cancel"] >= 1
        assert events(tmp_path / "run")["ended"] == events(tmp_path / "run")["created"]
