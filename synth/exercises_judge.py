"""Judging exercises: a reply is accepted for what came of running it, and a verdict once given stands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from primer.recipe_corpora import CodeExercises
from primer.recipe_synth import Accept
from primer.sandbox import Sandbox, server_hash
from synth.backend import Messages
from synth.exercises import EMPTY_BODIES, Exercise, NoExerciseError, read_exercise, try_exercise
from synth.units import Judging

# Code is in no language that words could tell: `a`, `y` and `no` are Portuguese.
_LANGUAGE = "code"


class ExerciseJudge:
    """Judges replies that hold exercises: what is said of text, and then whether the solution passes its tests.

    It runs them where it is asked: a few milliseconds each, unless one never ends.

    Args:
        judge: The judge of texts.
        settings: Limits of a run.
        sandbox: Where they run.
        verdicts: What is known of earlier runs.
    """

    def __init__(self, judge: Judging, settings: CodeExercises, sandbox: Sandbox, verdicts: Verdicts) -> None:
        self._judge, self._settings, self._sandbox, self._verdicts = judge, settings, sandbox, verdicts

    @property
    def rules(self) -> Accept:
        """The rules of the judge of texts."""
        return self._judge.rules

    def check(
        self, written: str, finish_reason: str, messages: Messages, language: str = "english"
    ) -> tuple[str, str | None]:
        """The document in a reply, without its tests, and why it cannot be used, if it cannot.

        A reply that was cut short may still hold all that is wanted.
        """
        if finish_reason == "content_filter" or not written.strip():
            return self._judge.check(written, finish_reason, messages, language)
        try:
            exercise = read_exercise(written)
        except NoExerciseError as error:
            text, reason = self._judge.check(written, finish_reason, messages, language)
            plainer = reason if reason in ("refusal", "truncated") else None
            return text, plainer or ("truncated" if finish_reason == "length" else error.reason)
        _, reason = self._judge.check(exercise.text, "stop", messages, _LANGUAGE)
        if reason is not None:
            return exercise.text, reason
        seconds, memory = self._settings.seconds, self._settings.memory
        key = self._verdicts.key(exercise, seconds, memory)
        if key not in self._verdicts:
            reason = try_exercise(self._sandbox, exercise, seconds, memory)
            if reason == "lost":  # which says something of this machine, and nothing of the exercise
                return exercise.text, reason
            self._verdicts[key] = reason
        return exercise.text, self._verdicts[key]

    def place(self, text: str, passage: str | None = None, *, joined: bool = False) -> str | None:
        """Take a document in, or name the rule that it breaks."""
        return self._judge.place(text, passage, joined=joined)


class Verdicts:
    """Verdicts by programs, sandbox and limits, one JSON object a line, appended; a context manager.

    A line that a crash cut short is overwritten, and its program is run again.

    Args:
        path: The file; created if absent.

    Raises:
        PrimerError: On entry, if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str | None] = {}
        self._sandbox = server_hash()

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise PrimerError(
                f"{self._path} cannot be opened: {error}", "Mend its permissions, or choose --run."
            ) from None
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            self._take(line)
            whole += len(line)
        self._file.truncate(whole)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def key(self, exercise: Exercise, seconds: float, memory_mib: int) -> str:
        """Under which a verdict is kept: all that it hangs on, the sandbox's source and this Python's version too."""
        about = {
            "program": exercise.program,
            "emptied": [[exercise.emptied(body), noticed] for body, noticed in EMPTY_BODIES.items()],
            "seconds": seconds,
            "memory": memory_mib,
            "python": sys.version_info[:2],
            "sandbox": self._sandbox,
        }
        return fingerprint(about)[:32]

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> str | None:
        return self._known[key]

    def __setitem__(self, key: str, reason: str | None) -> None:
        self._known[key] = reason
        try:
            # At once and whole: what another process would read after a kill is every verdict that was used.
            os.write(self._file.fileno(), json.dumps({"key": key, "reason": reason}).encode() + b"\n")
        except OSError as error:
            raise PrimerError(
                f"{self._path} cannot be written: {error}", "Mend the cause and run the same command again."
            ) from None

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._known[record["key"]] = record["reason"]
        except (ValueError, TypeError, KeyError):
            return  # its program is run again
