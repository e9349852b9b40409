"""SIGKILL at any moment, twenty times: every unit accounted for once, nothing paid for twice but what was in flight."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from generation import Questions, collect
from mock_endpoint import Endpoint, Faults, running

from primer.words import text_hash

UNITS, KILLS, CONCURRENCY = 10_000, 20, 64

# A tenth of the prompts is refused or brings too short an answer.
MARKS = {number: "FORBIDDEN" if number % 20 else "SHORT" for number in range(0, UNITS, 10)}
DOCUMENTS = UNITS - len(MARKS)

RUN = """
import json, sys
sys.path.insert(0, "tests")
from pathlib import Path
from mock_endpoint import Endpoint, Faults
from test_synth_crash import generate
print(json.dumps(generate(Endpoint(Faults(), address=sys.argv[1]), Path(sys.argv[2]))))
"""


def generate(endpoint: Endpoint, journal: Path) -> dict[str, object]:
    """The whole generation, in this process."""
    outcome = collect(endpoint, journal, Questions(MARKS), tokens=None, documents=DOCUMENTS, concurrency=CONCURRENCY)
    return {
        "units": outcome.units,
        "accepted": outcome.accepted,
        "rejected": dict(outcome.rejected),
        "failed": dict(outcome.failed),
        "texts": text_hash("\n".join(outcome.documents)),
    }


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.timeout(900)
def test_twenty_kills_in_ten_thousand_units_change_nothing(tmp_path: Path, repository: Path):
    generator = random.Random(5)
    journal, kills = tmp_path / "killed", 0
    with running(Faults(words=45, refuse="FORBIDDEN", short="SHORT")) as endpoint:
        whole = generate(endpoint, tmp_path / "whole")
        endpoint.asked.clear()
        for number in range(KILLS):
            until = (number + generator.random()) * UNITS / (KILLS + 1)
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, endpoint.address, str(journal)], cwd=repository, stdout=subprocess.DEVNULL
            )
            while process.poll() is None and lines_in(journal) < until:
                time.sleep(generator.uniform(0.001, 0.02))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        last = subprocess.run(
            [sys.executable, "-c", RUN, endpoint.address, str(journal)],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
    assert kills == KILLS
    outcome = json.loads(last.stdout)
    assert outcome == whole
    assert outcome["units"] >= UNITS
    assert outcome["accepted"] + sum(outcome["rejected"].values()) + sum(outcome["failed"].values()) == outcome["units"]
    # Asked twice was at most what was in flight at a kill.
    assert sum(count - 1 for count in endpoint.asked.values()) <= KILLS * CONCURRENCY
    assert_each_answer_is_there_once(journal, whole=tmp_path / "whole")


def assert_each_answer_is_there_once(journal: Path, whole: Path) -> None:
    """No answer was recorded twice, none is missing, and none is torn. A refusal may stand there first in doubt."""
    records = [record for record in map(json.loads, journal.read_text().splitlines()) if "key" in record]
    answers = [record["key"] for record in records if "reply" in record]
    assert len(answers) == len(set(answers))
    expected = {record["key"] for record in map(json.loads, whole.read_text().splitlines()) if "key" in record}
    keys = {record["key"] for record in records}
    assert len(keys ^ expected) <= CONCURRENCY + 1  # those in flight when the target was reached
