"""`primer synth inspect`, and the commands beside it: through a pipe, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from primer import documents
from primer.cli import app
from primer.documents import CorpusWriter, Document
from primer.errors import PrimerError
from primer.run import Built, RunFolder, Stage
from primer.words import text_hash
from synth.browse import Browser, Wanted, printable

PRIMER = Path(sys.executable).parent / "primer"
RECIPE = "recipes/smoke.yaml"
TITLE_SET, BELL, CLEAR, RED = "\x1b]0;owned\x07", "\x07", "\x1b[2J", "\x1b[31m"
HOSTILE = f"{TITLE_SET}{CLEAR}{RED}Lesson{BELL}\x9b5m [bold]one[/] \u202eback\x1b[0m\rends"


def synthetic(number: int, text: str = "") -> Document:
    text = text or f"Text {number}.\n" + "\n".join(f"Line {line} of {number}." for line in range(60))
    form = "letter" if number % 4 == 0 else "lecture"
    return Document(
        id=f"synthetic-{number:07d}",
        text=text,
        source="synthetic",
        hash=text_hash(text),
        group=f"g{number}",
        title=f"How wool {number} shrinks",
        provenance={
            **dict.fromkeys(["audience", "level", "length", "register", "teacher"], "plain"),
            **{"topic": f"How wool {number} shrinks", "field": "everyday-physics", "form": form, "language": "english"},
            **{"prompt": f"[user]\nWrite about wool {number}.", "required_words": ["wool"], "finish_reason": "stop"},
            **{"prompt_tokens": 1234, "completion_tokens": 90, "tries": 2, "continuations": 1},
        },
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a synthetic corpus of 200 in blocks of 16, one hostile document among them, and some web text."""
    path = tmp_path_factory.mktemp("inspect") / "run"

    def build_synthetic(folder: Path) -> Built:
        with CorpusWriter(folder, 0.2, 0) as writer:
            for number in range(200):
                document = synthetic(number, HOSTILE if number == 77 else "")
                if number == 77 and document["provenance"]:
                    document["provenance"] |= {"topic": HOSTILE, "prompt": HOSTILE, "teacher": HOSTILE}
                writer.add(document)
        return Built("made", {"forms": {"letter": 50, "lecture": 150}})

    def build_web(folder: Path) -> Built:
        with CorpusWriter(folder, 0.5, 0) as writer:
            for number in range(20):
                row = Document(id=f"web-{number}", text=f"Page {number}.", source="web", hash="", group=f"{number}")
                writer.add({**row, "title": f"Title {number}", "origin": "https://a.b"})
        return Built("made", {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_GROUP_ROWS", 16)
        RunFolder(path).complete(Stage("corpus/synthetic", {}, build_synthetic))
        RunFolder(path).complete(Stage("corpus/web", {}, build_web))
    return path


def primer(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


def inspect(repository: Path, run: Path, *arguments: str) -> str:
    """What `inspect` prints where there is no terminal."""
    result = primer("synth", "inspect", str(repository / RECIPE), "--run", str(run), *arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def problem(repository: Path, run: Path, *arguments: str) -> str:
    result = primer("synth", "inspect", str(repository / RECIPE), "--run", str(run), *arguments)
    assert isinstance(result.exception, PrimerError)
    return f"{result.exception.problem} {result.exception.remedy}"


def test_a_pipe_gets_the_document_beside_its_prompt_without_control_codes(repository: Path, run: Path):
    command = [PRIMER, "synth", "inspect", RECIPE, "--run", str(run), "--id", "synthetic-0000012"]
    text = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=True).stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    for line in (
        r"synthetic-0000012: document \d+ of 200",
        r"topic +How wool 12 shrinks \(everyday-physics\)",
        r"form +letter",
        r"audience +plain, level plain",
        r"tokens +90 written, 1,234 in prompts",
        r"finish +stop",
        r"tries +asked again 2 times, 1 continuations",
        r"--- prompt ---\n\[user\]\nWrite about wool 12\.",
        r"--- text ---\nText 12\.\nLine 0 of 12\.",
    ):
        assert re.search(line, text), line


def test_numbers_count_training_text_first_and_n_prints_the_following(repository: Path, run: Path):
    browser = Browser(run / "corpus" / "synthetic", Wanted())
    text = inspect(repository, run, "--number", "159", "-n", "3")
    assert re.findall(r"^(\S+): document (\d+) of 200$", text, re.MULTILINE) == [
        (browser.document(number)["id"], f"{number}") for number in (159, 160, 161)
    ]


def test_random_documents_follow_the_seed_and_the_filters(repository: Path, run: Path):
    def ids(*arguments: str) -> list[str]:
        return re.findall(r"^(\S+): document", inspect(repository, run, *arguments), re.MULTILINE)

    assert ids("-n", "5") == ids("-n", "5")
    assert ids("-n", "5") != ids("-n", "5", "--seed", "1")
    letters = ids("-n", "300", "--form", "letter", "--field", "everyday-physics")
    assert sorted(letters) == [f"synthetic-{number:07d}" for number in range(0, 200, 4)]
    assert ids("--topic", "WOOL 41 ") == ["synthetic-0000041"]
    assert ids("--contains", "line 3 of 133.") == ["synthetic-0000133"]
    assert ids("--source", "web", "--contains", "page 7") == ["web-7"]


def test_mistakes_are_one_clear_message(repository: Path, run: Path, tmp_path: Path):
    assert "Did you mean letter" in problem(repository, run, "--form", "leter")
    assert "None of the 200 documents of corpus/synthetic has contains 'zzz'" in problem(
        repository, run, "--contains", "zzz"
    )
    assert "--number is 201, but corpus/synthetic has 200" in problem(repository, run, "--number", "201")
    assert "holds no document 'web-1'" in problem(repository, run, "--id", "web-1")
    assert "Give one of them" in problem(repository, run, "--id", "x", "--number", "3")
    assert "no teacher wrote the web corpus" in problem(repository, run, "--source", "web", "--form", "letter")
    assert "corpus/code is not there yet. Run `primer synth`" in problem(repository, run, "--source", "code")
    assert "corpus/synthetic is not there yet" in problem(repository, tmp_path / "none")


def test_next_and_previous_keep_to_the_filter_and_stop_at_the_ends(run: Path):
    browser = Browser(run / "corpus" / "synthetic", Wanted(form="letter"))
    forward = []
    number = browser.after(0)
    while number:
        forward.append(number)
        number = browser.after(number)
    assert len(forward) == 50
    backward = [browser.total + 1]
    while before := browser.before(backward[-1]):
        backward.append(before)
    assert backward[:0:-1] == forward
    assert {browser.document(number)["provenance"]["form"] for number in forward} == {"letter"}
    assert sorted(browser.draw(3)) == forward


def test_a_random_document_costs_one_block_whatever_the_size(run: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    original = documents.Block.read

    def counting(self: documents.Block, columns: list[str] | None = None) -> list[dict[str, object]]:
        read.append(self.rows)
        return original(self, columns)

    monkeypatch.setattr(documents.Block, "read", counting)
    browser = Browser(run / "corpus" / "synthetic", Wanted())
    browser.document(next(browser.draw(0)))
    assert read == [16]
    assert browser.find("synthetic-0000150") is not None
    assert len(read) <= 3, "identities outside a block's range are not looked for in it"


def test_what_a_terminal_would_obey_is_taken_out():
    assert printable(HOSTILE) == "Lesson [bold]one[/] back\nends"
    assert printable("a\x1b]8;;https://a.b\x1b\\link\x1b]8;;\x1b\\ \x1bPq#0\x1b\\b\x1b") == "alink b"
    assert printable("half \x1b]0;never ended") == "half 0;never ended"
    assert printable("tab\tand\r\nlines\n水 é \ud800") == "tab\tand\nlines\n水 é "


def test_a_hostile_document_reaches_neither_pipe_nor_terminal(repository: Path, run: Path):
    text = inspect(repository, run, "--id", "synthetic-0000077")
    assert text.count("Lesson [bold]one[/] back") == 4
    with terminal(repository, run, "--id", "synthetic-0000077") as screen:
        shown = screen.until("space more")
    assert "Lesson [bold]one[/] back" in shown
    for code in (TITLE_SET, BELL, CLEAR, RED, "\x9b", "\u202e", "owned"):
        assert code not in shown


class Screen:
    """A pseudo-terminal with the pager on it."""

    def __init__(self, side: int, process: int) -> None:
        self.side, self.process = side, process
        self.everything = ""
        self.status: int | None = None

    def until(self, words: str) -> str:
        """What is drawn until some words come."""
        drawn, deadline = "", time.monotonic() + 30
        while words not in drawn:
            assert time.monotonic() < deadline, f"{words!r} did not come: {drawn!r}"
            if select.select([self.side], [], [], 0.2)[0]:
                drawn += os.read(self.side, 65_536).decode(errors="replace")
        self.everything += drawn
        return drawn

    def press(self, keys: str, words: str) -> str:
        os.write(self.side, keys.encode())
        return self.until(words)

    def end(self, keys: str) -> int:
        """The exit status after the last keys."""
        with suppress(OSError):  # the other side is closed
            os.write(self.side, keys.encode())
            while read := os.read(self.side, 65_536):
                self.everything += read.decode(errors="replace")
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return self.status


@contextmanager
def terminal(repository: Path, run: Path, *arguments: str) -> Iterator[Screen]:
    process, side = pty.fork()
    if process == 0:
        os.chdir(repository)
        os.environ["TERM"] = "xterm-256color"
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [str(PRIMER), "synth", "inspect", RECIPE, "--run", str(run), *arguments]
        # Not what readline, once some test has loaded it, adds to the process's own environment: LINES and COLUMNS.
        os.execve(PRIMER, command, dict(os.environ))
    screen = Screen(side, process)
    try:
        yield screen
    finally:
        screen.end("q")
        os.close(side)
    assert screen.status == 0


def test_keys_turn_the_pages_and_the_terminal_is_given_back(repository: Path, run: Path):
    browser = Browser(run / "corpus" / "synthetic", Wanted())
    with terminal(repository, run, "--number", "5") as screen:
        first = screen.until("space more")
        assert "document 5 of 200" in first
        assert "Write about wool" in first
        assert "+55 lines" in first
        assert "document 6 of 200" in screen.press("n", "space more")
        assert "document 4 of 200" in screen.press("p\x1b[D", "document 4 of 200")
        assert "document 173 of 200" in screen.press("g173\r", "document 173 of 200")
        assert "There is no document 900" in screen.press("g900\r", "There is no document 900")
        last = browser.document(173)["id"]
        assert last in screen.press("t", "Line 3 of")
        screen.press("G", "end")
        screen.press("g200\r", "document 200 of 200")
        assert "This is the last one." in screen.press("n", "This is the last one.")
        assert "document 200 of 200" not in screen.press("r", "space more")
        assert screen.end("q") == 0
        assert screen.everything.count("\x1b[?1049h") == screen.everything.count("\x1b[?1049l") == 1
        assert screen.everything.count("\x1b[?25l") == screen.everything.count("\x1b[?25h") == 1


def test_a_resized_screen_is_drawn_again_and_a_filter_is_told(repository: Path, run: Path):
    with terminal(repository, run, "--form", "letter", "--contains", "line") as screen:
        assert "only form 'letter', contains 'line'" in screen.until("space more")
        fcntl.ioctl(screen.side, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
        assert " lines" in screen.until(" lines")
        assert screen.end("\x03") == 0, "Ctrl-C leaves the pager as q does"


def test_plain_prints_on_a_terminal_too(repository: Path, run: Path):
    with terminal(repository, run, "--number", "5", "--plain") as screen:
        printed = screen.until("Line 59 of")
    assert "\x1b" not in printed
    assert "--- prompt ---" in printed


def test_a_recipe_in_the_place_of_a_command_is_made(repository: Path):
    for arguments in (["recipes/dmo.yaml"], ["run", "recipes/dmo.yaml"], ["--set", "seed=2", "recipes/dmo.yaml"]):
        result = primer("synth", *arguments)
        assert isinstance(result.exception, PrimerError)
        assert "recipes/dmo.yaml" in result.exception.problem
    mistyped = primer("synth", "inspct", RECIPE)
    assert mistyped.exit_code == 2
    assert "'inspect'" in mistyped.output


def test_help_teaches_all_of_it():
    group = primer("synth", "--help").stdout
    assert "RECIPE | COMMAND" in group
    for command in ("run", "inspect"):
        assert f"  {command} " in group
    assert "--set KEY=VALUE" in primer("synth", RECIPE, "--help").stdout
    assert "--contains" in primer("synth", "inspect", "--help").stdout
    commands = primer("--help").stdout.partition("Commands:")[2].split()
    assert commands[0] == "synth", "the first step comes first"
