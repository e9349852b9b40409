"""The engine: the same corpus whatever happens on the way, and an end where going on is pointless."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from generation import Question, Questions, collect, texts
from mock_endpoint import Faults, running

from primer.documents import read_documents
from primer.errors import PrimerError
from primer.recipe_file import load_recipe
from primer.run import RunFolder
from synth.corpora import make_corpora

KEY = "sk-secret-0123456789"


def test_the_corpus_is_the_shortest_prefix_whatever_the_order_of_arrival(tmp_path: Path):
    with running(Faults(delay=0.03)) as slow, running() as fast:
        first = collect(slow, tmp_path / "a", concurrency=32)
        # Arrival was out of order: with these delays, units finish long before earlier ones.
        second = collect(fast, tmp_path / "b", concurrency=1)
    assert texts(first) == texts(second)
    assert first.tokens == second.tokens >= 2000
    assert sum(attempt.tokens for attempt in first.attempts[:-1]) < 2000
    assert fast.requests == second.units  # one at a time: not one request too many
    assert slow.requests <= first.units + 32 + 4 * 32


def test_nothing_is_asked_again_when_only_the_concurrency_changed(tmp_path: Path):
    with running() as endpoint:
        first = collect(endpoint, tmp_path / "journal", concurrency=4)
        asked = endpoint.requests
        again = collect(endpoint, tmp_path / "journal", concurrency=16)
        assert endpoint.requests == asked
        assert (texts(again), again.reused) == (texts(first), first.units)
        longer = collect(endpoint, tmp_path / "journal", tokens=3000)
        assert texts(longer)[: len(texts(first))] == texts(first)
        assert sum(count - 1 for count in endpoint.asked.values()) <= 4  # in flight when the first run was done


def test_a_refused_request_costs_one_row_and_is_recorded(tmp_path: Path):
    with running(Faults(refuse="FORBIDDEN", short="SHORT")) as endpoint:
        whole = collect(endpoint, tmp_path / "whole")
        outcome = collect(endpoint, tmp_path / "journal", Questions({3: "FORBIDDEN", 5: "SHORT"}))
        assert outcome.failed == Counter({"HTTP 400: The prompt was refused": 1})
        assert outcome.rejected == Counter({"too_short": 1})
        kept = [text for text in texts(whole) if text in texts(outcome)]
        assert len(kept) == len(texts(whole)) - 2
        assert texts(collect(endpoint, tmp_path / "journal", Questions({3: "FORBIDDEN", 5: "SHORT"}))) == texts(outcome)
        refused = [body for body in endpoint.bodies if "FORBIDDEN" in body["messages"][0]["content"]]
        assert len(refused) == 1  # a refusal is not asked again
    failures = [line for line in (tmp_path / "journal").read_text().splitlines() if '"failure"' in line]
    # The second says that it was the question's fault: others were answered afterwards.
    assert [('"status": 400' in line, '"permanent": true' in line) for line in failures] == [
        (True, False),
        (True, True),
    ]


def test_a_hanging_or_garbled_request_costs_one_row_and_is_asked_again_later(tmp_path: Path):
    prompts = Questions({2: "HANG", 9: "GARBAGE"})
    with running(Faults(hang="HANG", garbage="GARBAGE")) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", prompts, timeout=1.0)
        assert sum(outcome.failed.values()) == 2
        assert "no reply within 1 s" in outcome.failed
        endpoint.faults.hang = endpoint.faults.garbage = None
        asked = endpoint.requests
        again = collect(endpoint, tmp_path / "journal", prompts, concurrency=1)
        assert not again.failed
        assert endpoint.requests == asked + 2


def test_rate_limits_and_passing_errors_cost_nothing(tmp_path: Path):
    with running() as endpoint:
        whole = collect(endpoint, tmp_path / "whole", tokens=500)
    with running(Faults(limited_first=3)) as endpoint:
        started = time.monotonic()
        assert texts(collect(endpoint, tmp_path / "a", tokens=500)) == texts(whole)
        assert time.monotonic() - started >= 1  # as long as Retry-After says
    with running(Faults(broken_first=3)) as endpoint:
        assert texts(collect(endpoint, tmp_path / "b", tokens=500)) == texts(whole)


def test_a_wrong_key_stops_at_once_and_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    with running(Faults(key="another")) as endpoint, pytest.raises(PrimerError, match="refused the key") as error:
        collect(endpoint, tmp_path / "journal")
    assert "PRIMER_TEST_KEY" in error.value.remedy
    assert KEY not in str(error.value)
    with running(Faults(key=KEY, echo_key="ECHO")) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Questions({1: "ECHO"}))
    assert sum(outcome.failed.values()) == 1
    assert KEY not in (tmp_path / "journal").read_text()
    assert KEY not in repr(outcome)


def test_an_unknown_model_stops_at_once(tmp_path: Path):
    with running(Faults(model="known")) as endpoint, pytest.raises(PrimerError, match="does not know the model 'mock'"):
        collect(endpoint, tmp_path / "journal")
    assert endpoint.requests <= 8


def test_twenty_failures_in_a_row_stop_the_run(tmp_path: Path):
    with running(Faults(refuse="Question")) as endpoint, pytest.raises(PrimerError, match="again and again: HTTP 400"):
        collect(endpoint, tmp_path / "journal")
    assert 20 <= endpoint.requests <= 20 + 8


def test_a_server_that_goes_away_stops_the_run_and_keeps_its_answers(tmp_path: Path):
    with running() as endpoint:
        first = collect(endpoint, tmp_path / "journal", tokens=1000)
        endpoint.faults.broken = True
        with pytest.raises(PrimerError, match="HTTP 500"):
            collect(endpoint, tmp_path / "journal", patience=1.0)
        endpoint.faults.broken = False
        outcome = collect(endpoint, tmp_path / "journal")
    assert outcome.reused >= first.units


def test_hardly_any_accepted_reply_stops_the_run_with_the_reasons(tmp_path: Path):
    with (
        running(Faults(short="SHORT")) as endpoint,
        pytest.raises(PrimerError, match=r"Of 200 prompts only 0.*\n +200  too_short"),
    ):
        collect(endpoint, tmp_path / "journal", Questions(every="SHORT"), concurrency=32)
    assert endpoint.requests <= 200 + 5 * 32


def test_a_slow_first_request_holds_the_others_within_bounds(tmp_path: Path):
    with running(Faults(hang="HANG")) as endpoint:
        collect(endpoint, tmp_path / "journal", Questions({0: "HANG"}), concurrency=2, timeout=1.5, tokens=10_000)
        in_time = [body for body in endpoint.bodies[:70] if "HANG" not in body["messages"][0]["content"]]
        numbers = [int(body["messages"][0]["content"].split()[1]) for body in in_time]
        assert max(numbers[:63]) < 64  # the first unit and 63 beyond it


class Chains:
    """Units of three steps; `words` mark the second step of some."""

    def __init__(self, words: dict[int, str] | None = None) -> None:
        self.words = words or {}

    def __getitem__(self, index: int) -> Question:
        return Question([f"Plan {index}", f"Part {index} {self.words.get(index, '')}", f"End {index}"], index)


def test_a_unit_of_several_steps_is_one_document_and_ends_at_the_first_step_that_fails(tmp_path: Path):
    marks = {1: "FORBIDDEN", 2: "EMPTY", 3: "SHORT"}
    with running(Faults(refuse="FORBIDDEN", empty="EMPTY", short="SHORT")) as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Chains(marks), tokens=4000, concurrency=4)
        asked = endpoint.requests
        assert outcome.failed == Counter({"HTTP 400: The prompt was refused": 1})
        assert outcome.rejected == Counter({"empty": 1}), "a short part is no fault of a long document"
        first = outcome.attempts[0]
        parts = first.document.split("\n\n")
        assert (len(parts), len(first.replies)) == (3, 3)
        assert first.tokens == sum(reply.completion_tokens or 0 for reply in first.replies)
        ends = [body for body in endpoint.bodies if body["messages"][0]["content"].startswith("End 0 ")]
        assert [body["messages"][0]["content"] for body in ends] == [f"End 0 {parts[0]}"]
        assert not any(body["messages"][0]["content"].startswith(("End 1 ", "End 2 ")) for body in endpoint.bodies)
        again = collect(endpoint, tmp_path / "journal", Chains(marks), tokens=4000, concurrency=2)
        assert (texts(again), again.reused) == (texts(outcome), outcome.units)
        assert endpoint.requests == asked


class Picky:
    """Units of two steps, the second of which cannot do with the answer to the first, in some."""

    def __getitem__(self, index: int) -> Question:
        return PickyQuestion([f"Plan {index}", f"Part {index}"], index)


class PickyQuestion(Question):
    def messages(self, replies: Sequence[str] = ()) -> list[dict[str, str]]:
        if replies and self.seed % 3 == 0:
            raise PrimerError("lines.j2, line 9: list object has no element 1", "Mend it.")
        return super().messages(replies)


def test_a_form_that_cannot_do_with_an_answer_costs_its_unit_and_not_the_run(tmp_path: Path):
    with running() as endpoint:
        outcome = collect(endpoint, tmp_path / "journal", Picky())
        assert outcome.rejected["form_failed"] == -(-outcome.units // 3)
        assert texts(collect(endpoint, tmp_path / "journal", Picky())) == texts(outcome)


def recipe_file(folder: Path, address: str, **synth: Any) -> Path:
    teacher = {"kind": "openai", "base_url": address, "model": "mock", "api_key_env": "PRIMER_TEST_KEY"}
    recipe = {
        "name": "engine",
        "synth": {"tokens": 6000, "teacher": teacher, "concurrency": 8, **synth},
        "prompts": {"snippet_share": 0.0},
        "corpus": {"held_out_share": 0.3},
        "variants": [{"name": "only", "mixture": {"synthetic": 1.0}}],
    }
    path = folder / "engine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def command(recipe: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "primer.cli", "synth", str(recipe), "--run", str(run)]


def synthesize(path: Path, run: Path) -> None:
    recipe = load_recipe(path)
    with RunFolder.opened(run, recipe) as folder:
        make_corpora(recipe, folder)


def documents(run: Path) -> list[dict[str, Any]]:
    rows = []
    for split in ("train", "held_out"):
        for row in read_documents(run / "corpus" / "synthetic", split):
            row["provenance"].pop("seconds")
            rows.append({**row, "split": split})
    return rows


@pytest.mark.timeout(120)
def test_a_run_killed_again_and_again_makes_the_same_corpus_and_pays_nothing_twice(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    with running(Faults(delay=0.1, key=KEY, refuse="pupil of about twelve")) as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        synthesize(recipe, tmp_path / "whole")
        endpoint.asked.clear()
        run, kills = tmp_path / "killed", 0
        journal = run / "journal" / "replies.jsonl"
        for records in (10, 35, 60):
            process = subprocess.Popen(command(recipe, run), cwd=repository)
            while process.poll() is None and lines_in(journal) < records:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        synthesize(recipe, run)
    assert kills == 3
    assert documents(run) == documents(tmp_path / "whole")
    assert len(documents(run)) > 60
    # Asked twice was at most what was in flight at a kill: 8 requests, three times; and a refusal or two that no answer
    # had followed yet, so that it might have been the server's mood.
    assert sum(count - 1 for count in endpoint.asked.values()) <= kills * (8 + 2)
    assert no_file_holds(tmp_path, KEY)
    facts = json.loads((run / "corpus" / "synthetic" / "manifest.json").read_text())["facts"]
    assert facts["tokens"] >= 6000
    assert facts["units"] == facts["accepted"] + facts["failed"] + sum(facts["rejected"].values())
    assert facts["reused"] >= 30  # units; of the journal's 60 lines some are steps of books, and some tell seconds
    assert facts["failed"] > 0
    assert sum(facts["forms"].values()) == facts["accepted"]
    assert facts["completion_tokens"] >= facts["tokens"]
    assert facts["seconds"] > 0
    assert facts["cost_usd"] is None


def test_ctrl_c_keeps_what_was_answered(tmp_path: Path, repository: Path):
    with running(Faults(delay=0.1)) as endpoint:
        recipe, run = recipe_file(tmp_path, endpoint.address), tmp_path / "run"
        process = subprocess.Popen(command(recipe, run), cwd=repository, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and lines_in(run / "journal" / "replies.jsonl") < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=15)
        assert process.returncode == 130, messages
        assert "Traceback" not in messages
        assert not (run / "corpus" / "synthetic").exists()
        asked = endpoint.requests
        synthesize(recipe, run)
        assert sum(count - 1 for count in endpoint.asked.values()) <= 8
        assert endpoint.requests > asked


@pytest.mark.parametrize("faults", [Faults(key=KEY, echo_key="e"), Faults(key="another"), Faults(key=KEY)])
def test_the_key_is_said_nowhere(faults: Faults, tmp_path: Path, repository: Path):
    """Not by a server that quotes it in every refusal, not by one that refuses it, not by a run that goes well."""
    with running(faults) as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address, tokens=500)
        done = subprocess.run(
            command(recipe, tmp_path / "run"),
            cwd=repository,
            capture_output=True,
            text=True,
            env=os.environ | {"PRIMER_TEST_KEY": KEY},
        )
        assert endpoint.bodies or faults.key == "another"
    assert (done.returncode == 0) == (faults == Faults(key=KEY)), done.stderr
    assert KEY not in done.stdout + done.stderr
    assert no_file_holds(tmp_path, KEY)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def no_file_holds(folder: Path, secret: str) -> bool:
    return not any(secret.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
