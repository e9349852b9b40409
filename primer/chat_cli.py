"""`primer chat`: ask a trained model, in the formats that a base model knows."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from primer.errors import PrimerError, did_you_mean

if TYPE_CHECKING:
    from eval.formats import FormatName, Turn
    from eval.streaming import Sampling, Writer

_Number = TypeVar("_Number", int, float)

# What a terminal would obey, lone surrogates, and what turns the direction of writing; line ends and tabs are shown.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")

_HELP = """\
/format qa|chat|code|text  how the model is asked; code is typed to an empty line
/temperature NUMBER        0 takes the likeliest token every time
/tokens NUMBER             how long an answer may be
/seed NUMBER               begin the draws again
/reset                     forget the chat, and begin the draws again
/help                      this
/quit                      leave, as Ctrl-D does; Ctrl-C stops an answer"""


def chat_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, such as runs/demo/models/mixed.")],
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Ask this, print the answer.")] = None,
    form: Annotated[
        Literal["qa", "chat", "code", "text"],
        typer.Option("--format", help="Question and answer, chat, the rest of a Python function, the rest of a text."),
    ] = "qa",
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token every time.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens that have this much probability.")
    ] = 1.0,
    tokens: Annotated[int, typer.Option(min=1, help="How long an answer may be.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other draws.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")] = "auto",
) -> None:
    """Ask a model: a conversation, or one answer.

    One answer is given to --prompt, or to a text on standard input. The model is any Hugging Face causal language model
    on disk. A base model goes on after its answer with a question of its own: where the answer ends is known from the
    format. Asked once, only the answer goes to standard output.

        primer chat runs/demo/models/mixed --format code --prompt 'def add(a, b):'
    """
    from primer.model_folder import find_model
    from primer.progress import console, say

    folder = find_model(model)
    if prompt is None and not sys.stdin.isatty():
        prompt = _read_input()
    if prompt is not None and not prompt.strip():
        raise PrimerError("There is nothing to answer: the text is empty.", "Give one with --prompt, or pipe it in.")
    with console.status(f"loading {folder} ..."):  # seconds, most of them transformers' import
        from eval.loading import find_device, load_model
        from eval.streaming import Sampling, Writer

        loaded, tokenizer = load_model(folder, find_device(device))
    session = _Session(Writer(loaded, tokenizer, seed), form, Sampling(temperature, top_p, tokens), seed)
    if prompt is not None:
        session.answer(prompt)
        return
    size = f"{loaded.num_parameters() / 1e6:,.1f} million parameters, a context of {session.writer.context:,} tokens"
    say(f"{folder}: {type(loaded).__name__}, {size}. /help shows the commands, Ctrl-D leaves.")
    _converse(session)


@dataclass
class _Session:
    """A model, how it is asked, and of a chat what was said."""

    writer: Writer
    form: FormatName
    sampling: Sampling
    seed: int
    earlier: list[Turn] = field(default_factory=list)

    def reset(self) -> None:
        """Forget the chat, and begin the draws again."""
        self.earlier.clear()
        self.writer.reseed(self.seed)

    def answer(self, text: str) -> None:
        """Ask, and show the answer as it is written.

        Raises:
            PrimerError: If the text does not fit into the context.
            KeyboardInterrupt: At Ctrl-C; of a chat, what was shown counts as said.
        """
        from eval.formats import Turn, read_answer
        from primer.progress import say

        asked, ids = self._fit(text)
        shown, steps, ended = "", 0, False
        try:
            for written in self.writer.write(ids, self.sampling):
                steps += 1
                answer = read_answer(self.form, written, complete=False, asked=asked)
                shown, ended = _show(shown, answer.text), answer.ended
                if ended:
                    break
            else:
                shown = _show(shown, read_answer(self.form, written, complete=True, asked=asked).text)
        finally:
            if steps:  # no output at all where the prompt did not fit
                _print("\n")
            if self.form == "chat" and shown:
                self.earlier.append(Turn(text.strip(), shown))
        if not shown.strip():
            say("[dim](an empty answer)[/]")
        elif not ended and len(ids) + steps > self.writer.context:
            say(f"[dim](cut: the context of {self.writer.context:,} tokens is full)[/]")

    def _fit(self, text: str) -> tuple[str, list[int]]:
        """The prompt and its tokens; a chat's oldest turns are forgotten until there is room for an answer."""
        from eval.formats import prompt
        from primer.progress import say

        room = min(self.sampling.tokens, self.writer.context // 2)
        forgotten = 0
        while True:
            asked = prompt(self.form, text, self.earlier)
            ids = self.writer.encode(asked)
            if self.form != "chat" or not self.earlier or len(ids) + room <= self.writer.context:
                break
            self.earlier.pop(0)
            forgotten += 1
        if forgotten:
            turns = "turn is" if forgotten == 1 else f"{forgotten} turns are"
            say(f"[dim](the context of {self.writer.context:,} tokens is full: the oldest {turns} forgotten)[/]")
        return asked, ids


def _converse(session: _Session) -> None:
    """Ask for texts and commands until the end of input."""
    from primer.progress import console

    with contextlib.suppress(ImportError):  # some Pythons are built without
        import readline  # noqa: F401 - gives input() its history and keys
    while True:
        try:
            text = _read_text(session.form)
        except EOFError:
            _print("\n")
            return
        except KeyboardInterrupt:  # as in a shell: what was typed is dropped
            _print("\n")
            continue
        if text.strip() == "/quit":
            return
        try:
            if text.startswith("/"):
                _obey(session, text)
            elif text.strip():
                session.answer(text)
        except KeyboardInterrupt:
            console.print("(stopped)", style="dim")
        except PrimerError as error:
            console.print(str(error), markup=False)


def _read_text(form: FormatName) -> str:
    """A line; of code, all lines to an empty one."""
    lines = [input(f"{form}> ")]
    while form == "code" and lines[-1].strip() and not lines[0].startswith("/"):
        lines.append(input("." * len(form) + "> "))
    return "\n".join(lines)


def _obey(session: _Session, line: str) -> None:
    """Carry out a command.

    Raises:
        PrimerError: If there is no such command, or its value does not fit.
    """
    from eval.formats import FORMATS
    from primer.progress import printer, say

    command, _, value = line.partition(" ")
    value = value.strip()
    if command == "/help":
        printer.print(_HELP, markup=False)
    elif command == "/reset":
        session.reset()
    elif command == "/format":
        matching = [form for form in FORMATS if form == value]
        if not matching:
            raise PrimerError(
                f"There is no format {value!r}.", f"{did_you_mean(value, FORMATS)}Formats: {', '.join(FORMATS)}."
            )
        session.form = matching[0]
    elif command == "/temperature":
        session.sampling = replace(session.sampling, temperature=_number(value, float))
    elif command == "/tokens":
        session.sampling = replace(session.sampling, tokens=_number(value, int))
    elif command == "/seed":
        seed = _number(value, int)
        session.writer.reseed(seed)
        session.seed = seed
    else:
        raise PrimerError(f"There is no command {command}.", "/help shows those that there are.")
    if command in ("/temperature", "/tokens", "/seed"):
        sampling = session.sampling
        say(f"[dim]temperature {sampling.temperature:g}, tokens {sampling.tokens}, seed {session.seed}[/]")


def _number(value: str, kind: Callable[[str], _Number]) -> _Number:
    try:
        return kind(value)
    except ValueError:
        raise PrimerError(f"{value!r} is not a number that fits here.", "/help shows the commands.") from None


def _read_input() -> str:
    """All of standard input, without the line end that a shell's echo adds."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise PrimerError(f"The text on standard input is not UTF-8: {error}", "Convert it first.") from None


def _show(shown: str, text: str) -> str:
    """Print what is new in a text; returns the text."""
    _print(text[len(shown) :])
    return text


def _print(text: str) -> None:
    """Write to standard output at once; a terminal is given nothing that it would obey."""
    if sys.stdout.isatty():
        text = _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
    # What the locale cannot encode is written as its number.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
