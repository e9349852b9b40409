"""What a person, a log file and a script see of a generation."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from generation import Questions, settings
from mock_endpoint import Faults, running
from rich.console import Console

from primer.recipe_corpora import Duplicates
from primer.recipe_synth import Sampling
from synth import view
from synth.accept import Judge
from synth.engine import Outcome, Plan, asking, generate
from synth.journal import Journal
from synth.plan import make_plan, open_journal
from synth.teachers import open_teacher
from synth.view import Pace, Progress, View, line, screen

RUN = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from generation import *
from mock_endpoint import Endpoint, Faults
synth = settings(Endpoint(Faults(), address=sys.argv[1]), tokens=6000)
with open_journal(Path(sys.argv[2]), synth) as journal:
    ask = asking(lambda: open_teacher(synth))
    generate(Questions(), make_plan(synth), Judge(synth.accept, Duplicates()), journal, ask, [].append, View(None))
"""


def made(endpoint_words: int, folder: Path, console: Console | None) -> dict[str, object]:
    with running(Faults(words=endpoint_words, delay=0.05, short="SHORT", rate_limited=0.1)) as endpoint:
        synth = settings(endpoint, tokens=4000, teacher={"price_input": 1.0, "price_output": 2.0})
        with open_journal(folder / "journal", synth) as journal:
            generate(
                Questions({3: "SHORT", 5: "SHORT"}),
                make_plan(synth),
                Judge(synth.accept, Duplicates()),
                journal,
                asking(lambda: open_teacher(synth)),
                lambda _attempt: None,
                View(folder / "run" / "progress.json", console),
            )
    state: dict[str, object] = json.loads((folder / "run" / "progress.json").read_text())
    return state


def test_progress_json_tells_everything_a_script_wants(tmp_path: Path):
    state = made(80, tmp_path, None)
    assert (state["share"], state["state"]) == (1.0, "ended")
    assert isinstance(state["tokens"], int)
    assert state["tokens"] >= 4000
    assert state["rejected"] == {"too_short": 2}
    assert state["units"] == state["documents"] + 2  # type: ignore[operator]
    assert state["errors"]["rate_limit"] > 0  # type: ignore[index]
    paid = state["paid"]
    assert isinstance(paid, dict)
    assert paid["dollars"] == pytest.approx((paid["prompt_tokens"] + 2 * paid["completion_tokens"]) / 1e6)
    assert state["backends"][0]["answers"] >= state["units"]  # type: ignore[index]
    assert state["in_flight"] == 0


def test_a_log_file_gets_whole_lines_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view, "_LINE_SECONDS", 0.2)
    log = io.StringIO()
    made(80, tmp_path, Console(file=log, soft_wrap=True))
    lines = log.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(text.startswith("  corpus/synthetic: ") and " accepted of " in text for text in lines)
    assert not any("\x1b" in text for text in lines)


def test_a_terminal_gets_a_live_view_that_leaves_nothing_behind(tmp_path: Path, repository: Path):
    with running(Faults(delay=0.3)) as endpoint:
        main, side = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, endpoint.address, str(tmp_path / "journal")],
            cwd=repository,
            stderr=side,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "90", "LINES": "30"},
        )
        os.close(side)
        shown = bytearray()
        while True:
            try:
                chunk = os.read(main, 65_536)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
        assert process.wait(30) == 0
    text = shown.decode()
    for label in ("corpus/synthetic", "accepted", "tokens/s", "paid", "in flight", "near duplicates"):
        assert label in text
    assert text.count("\x1b[2K") > 20  # redrawn, and wiped at the end


def test_pace_is_that_of_the_latest_seconds_and_falls_when_nothing_comes():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        pace.count(100 if second < 50 else 300)
    assert pace.per_second() == pytest.approx(300, rel=0.05)
    now[0] = 130.0
    assert pace.per_second() < 130


def test_foreign_words_are_shown_as_they_are(tmp_path: Path):
    outcome = Outcome(units=1, failed=Counter({"HTTP 400: [bold]no[/bold]": 1}))
    with Journal(tmp_path / "journal", "0123456789ab") as journal:
        state = Progress("corpus/synthetic", Plan("x", Sampling(), 100, 1), outcome, journal).snapshot()
    console = Console(file=io.StringIO(), width=80)
    console.print(screen(state))
    console.print(line(state), markup=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]no[/bold]" in text


def test_an_empty_state_has_no_shares_of_nothing(tmp_path: Path):
    with Journal(tmp_path / "journal", "0123456789ab") as journal:
        state = Progress("corpus/synthetic", Plan("x", Sampling(), 100, 1), Outcome(), journal).snapshot()
    console = Console(file=io.StringIO(), width=80)
    console.print(screen(state))
    assert "of 0" not in console.file.getvalue()  # type: ignore[attr-defined]
