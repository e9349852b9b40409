"""`primer chat`: what a model writes is streamed as it is, stops where its format says, and can be interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from tiny_phi import make_model
from typer.testing import CliRunner

from primer.chat_cli import chat_command
from primer.errors import PrimerError
from primer.export_cli import export_command

app = typer.Typer()
app.command("chat")(chat_command)
app.command("export")(export_command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("run") / "models" / "mixed", context=64)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    from eval.loading import find_device, load_model

    return load_model(folder, find_device("cpu"))


class Recited:
    """In a model's place: recites a text after any prompt, then ends; may be interrupted before a token."""

    def __init__(self, tokenizer: Any, text: str, interrupt: int | None = None) -> None:
        self.config = SimpleNamespace(max_position_embeddings=64)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        self.device = "cpu"
        self.tokenizer, self.interrupt = tokenizer, interrupt
        self.tokens = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        self.prompts: list[str] = []

    def __call__(self, step: Any, past_key_values: int | None, **_: Any) -> Any:
        import torch

        place = past_key_values or 0
        if place == 0:
            self.prompts.append(self.tokenizer.decode(step[0].tolist()))
        if place == self.interrupt:
            raise KeyboardInterrupt
        logits = torch.zeros(1, 1, 51_200)
        logits[0, 0, self.tokens[place]] = 1.0
        return SimpleNamespace(logits=logits, past_key_values=place + 1)

    def num_parameters(self) -> int:
        return 0


@pytest.fixture
def reciting(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recited]:
    """Puts a model that recites a text in the place of whatever is loaded."""

    def put(text: str, interrupt: int | None = None) -> Recited:
        model = Recited(loaded[1], text, interrupt)
        monkeypatch.setattr("eval.loading.load_model", lambda *_: (model, loaded[1]))
        return model

    return put


def ask(*arguments: object, text: str | bytes | None = None) -> Any:
    return CliRunner().invoke(app, ["chat", *(str(argument) for argument in arguments)], input=text)


def types_in(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """Makes a person type lines at a terminal, then end the input."""
    typed: Iterator[str | type[BaseException]] = iter([*lines, EOFError])

    def read(_prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("primer.chat_cli.sys.stdin", SimpleNamespace(isatty=lambda: True))


def test_greedy_text_is_that_of_transformers_generate(loaded: tuple[Any, Any]):
    import torch

    from eval.streaming import Sampling, Writer

    model, tokenizer = loaded
    writer = Writer(model, tokenizer, seed=0)
    ids = writer.encode("The water cycle begins when")
    *_, written = writer.write(ids, Sampling(tokens=30))
    expected = model.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False, pad_token_id=0)
    assert written == tokenizer.decode(expected[0, len(ids) :], skip_special_tokens=True)
    assert written


def test_draws_depend_on_the_seed_alone_and_follow_the_probabilities(loaded: tuple[Any, Any]):
    import torch

    from eval.streaming import Sampling, Writer, _choose

    model, tokenizer = loaded

    def write(seed: int) -> str:
        writer = Writer(model, tokenizer, seed)
        *_, written = writer.write(writer.encode("The"), Sampling(temperature=1.0, top_p=0.9, tokens=20))
        return written

    assert write(1) == write(1) != write(2)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)

    def counts(sampling: Sampling) -> list[int]:
        drawn = [_choose(logits, sampling, generator) for _ in range(2000)]
        return [drawn.count(token) for token in range(4)]

    assert counts(Sampling(1.0, 1.0)) == pytest.approx([1000, 600, 300, 100], abs=100)
    assert counts(Sampling(1.0, 0.79)) == pytest.approx([1250, 750, 0, 0], abs=100)
    assert counts(Sampling(1.0, 0.0)) == counts(Sampling(1e-30, 1.0)) == counts(Sampling(0.0)) == [2000, 0, 0, 0]


def test_a_character_is_shown_only_when_it_is_whole(loaded: tuple[Any, Any]):
    from eval.streaming import Sampling, Writer

    text = "rain 🌧, déjà vu, 雨\ufffd end"
    writer = Writer(Recited(loaded[1], text), loaded[1], 0)
    written = list(writer.write([1], Sampling(tokens=60)))
    assert written[-1] == text
    assert len(writer.encode(text)) > len(text.split()) + 6  # some characters are several tokens
    assert all(text.startswith(part) for part in written)


def test_asked_once_only_the_answer_goes_to_standard_output(folder: Path, reciting: Callable[..., Recited]):
    model = reciting(" Because of the air.\n\nExercise 2: Why is grass green?\n\nAnswer: It is")
    result = ask(folder.parent.parent, "--prompt", "Why is the sky blue?")  # a run folder with a single model
    assert result.exit_code == 0, result.exception
    assert result.stdout == "Because of the air.\n"
    assert model.prompts == ["Why is the sky blue?\n\nAnswer:"]
    piped = ask(folder, "--format", "text", text="The sky\n")
    assert piped.stdout.endswith("Answer: It is\n")
    assert model.prompts[1] == "The sky"
    assert ask(folder, "--prompt", "Why?", "--tokens", 3).stdout == "Because of the\n"


def test_a_conversation_remembers_and_forgets_its_oldest_turns(
    folder: Path, reciting: Callable[..., Recited], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = reciting(" I see.\n\nAlice: And you?")
    types_in(monkeypatch, "/format chat", "One", "Two", "Three is a long question " * 3, "/reset", "Four")
    chat_command(folder, tokens=20)
    out, err = capsys.readouterr()
    assert out.count("I see.\n") == 4
    assert "Alice" not in out
    assert model.prompts[1] == "Alice: One\n\nBob: I see.\n\nAlice: Two\n\nBob:"
    assert model.prompts[2].startswith("Alice: Two\n\nBob: I see.\n\nAlice: Three")
    assert "the oldest turn is forgotten" in err
    assert model.prompts[3] == "Alice: Four\n\nBob:"


def test_ctrl_c_stops_an_answer_and_what_was_shown_counts_as_said(
    folder: Path, reciting: Callable[..., Recited], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = reciting(" one two three four", interrupt=2)
    types_in(monkeypatch, KeyboardInterrupt, "Count!", "Go on!")
    chat_command(folder, form="chat")
    out, err = capsys.readouterr()
    assert out.count("one two\n") == 2
    assert err.count("(stopped)") == 2
    assert model.prompts[1] == "Alice: Count!\n\nBob: one two\n\nAlice: Go on!\n\nBob:"


def test_commands_change_how_the_model_is_asked_and_mistakes_are_said(
    folder: Path, reciting: Callable[..., Recited], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = reciting("    return x\nprint(f(1))")
    lines = ["/tokens none", "/tokens 0", "/temperature nan", "/format cod", "/form", "/help", "/seed 3", "", "x " * 70]
    code = [f"/seed {2**64}", "/format code", "def f(x):", '    """Itself."""', "", "/quit", "never read"]
    types_in(monkeypatch, *lines, *code)
    chat_command(folder)
    out, err = capsys.readouterr()
    for words in ("'none' is not a number", "tokens cannot be 0", "temperature cannot be nan", "Did you mean code?"):
        assert words in err
    assert "There is no command /form" in err
    assert "the model's context is 64" in err
    assert "seed 3" in err
    assert "The seed cannot be" in err
    assert "/temperature NUMBER" in out
    assert out.endswith("    return x\n")
    assert model.prompts == ['def f(x):\n    """Itself."""\n']


def test_a_terminal_is_given_nothing_that_it_would_obey(
    folder: Path, reciting: Callable[..., Recited], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    reciting("a\x1b[2Jb\r\u202ec\n\td")
    chat_command(folder, prompt="x", form="text")
    assert capsys.readouterr().out == "a\x1b[2Jb\r\u202ec\n\td\n"  # into a file, as it is
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    chat_command(folder, prompt="x", form="text")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\r\\u202ec\n\td\n"


def test_what_cannot_be_asked_is_said_in_words(folder: Path, tmp_path: Path):
    def error(*arguments: object, text: str | bytes | None = None) -> str:
        result = ask(*arguments, text=text)
        assert isinstance(result.exception, PrimerError), result.exception
        assert result.stdout == ""
        return str(result.exception)

    assert "There is no directory" in error(tmp_path / "nowhere", "--prompt", "x")
    assert "has no config.json" in error(tmp_path, "--prompt", "x")
    for name in ("textbooks", "web"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    assert f"{tmp_path}/models/textbooks, {tmp_path}/models/web" in error(tmp_path, "--prompt", "x")
    assert "cannot be loaded" in error(tmp_path / "models" / "web", "--prompt", "x")
    assert "nothing to answer" in error(folder, text=" \n")
    assert "not UTF-8" in error(folder, text=b"\xff\xfe")
    assert "the model's context is 64" in error(folder, "--prompt", "word " * 70)


def test_what_transformers_would_make_up_is_refused(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    def changed(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    def error(model: Path) -> str:
        return str(ask(model, "--prompt", "x").exception)

    silent = changed("silent")
    for path in silent.glob("tokenizer*"):
        path.unlink()
    assert "its tokenizer is missing" in error(silent)
    partial = changed("partial")
    tensors = load_file(partial / "model.safetensors")
    del tensors["model.final_layernorm.bias"]
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensor(s), model.final_layernorm.bias among them" in error(partial)
    foreign = changed("foreign")
    tokenizer = json.loads((foreign / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["ZZ"] = 99_999
    (foreign / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "they are of different models" in error(foreign)


def test_an_export_replaces_files_alone(folder: Path, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, problem in (
        (pipe, "is no ordinary file"),
        (tmp_path, "is a directory"),
        (tmp_path / "none" / "x.gguf", "lies in a directory that does not exist"),
    ):
        result = CliRunner().invoke(app, ["export", str(folder), "--gguf", str(path)])
        assert isinstance(result.exception, PrimerError)
        assert problem in str(result.exception)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_both_commands_are_known_without_torch():
    code = "import sys, primer.chat_cli, primer.export_cli; sys.exit(bool({'torch', 'gguf'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
