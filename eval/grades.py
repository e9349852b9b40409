"""Grades of the 86 prompts' answers on disk: one file a grader, one line a grade, appended and flushed at once.

    RUN/gradings/person-anna.jsonl, RUN/gradings/judge-gpt-4o-3f2a91.jsonl
    {"item": "gender-1", "mark": "<16 hex>", "grade": "pass", "reason": "", "grader": "anna", "time": "..."}

A line names the answer by its mark and not the model that wrote it. The last line of a mark counts; a grade of null
stands for a judge's reply that held none.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import ValidationError

from eval.boundaries import SUITE, Grade, boundaries, prompts
from eval.item_files import ITEMS, read_items
from eval.subjects import Subject
from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from primer.section import Section

FOLDER = "gradings"
Kind = Literal["person", "judge"]

_FILE_NAME = re.compile(r"(?:person|judge)-[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class OpenAnswer:
    """What a model wrote to one prompt.

    Attributes:
        subject: Name of the side of the comparison.
        home: The folder whose `gradings/` its grades belong to.
        row: The prompt (`eval.boundaries.prompts`).
        text: The answer.
        mark: Hash of rubric, prompt and answer: whichever of them changes, a grade no longer holds.
    """

    subject: str
    home: Path
    row: Mapping[str, Any]
    text: str
    mark: str

    @property
    def shown(self) -> str:
        """The text for a grader: without the empty lines that a base model may write by the dozen."""
        return re.sub(r"\n(?:[ \t]*\n)+", "\n\n", self.text).strip()


class GradeLine(Section):
    """One line of a file of grades."""

    item: str
    mark: str
    grade: Grade | None
    reason: str
    grader: str
    time: str


def read_answers(subjects: Sequence[Subject]) -> list[OpenAnswer]:
    """The answers of all subjects: by subject, training seed and prompt.

    Raises:
        PrimerError: If items are missing or damaged, or an answer belongs to a prompt that is not there.
    """
    rows = {row["id"]: row for row in prompts()}
    rubric = boundaries().rubric.text()
    found: list[OpenAnswer] = []
    for subject in subjects:
        for folder in subject.scores:
            for item in read_items(folder / ITEMS):
                if item["suite"] != SUITE:
                    continue
                if item["item"] not in rows or not item.get("answers"):
                    raise PrimerError(
                        f"{folder / ITEMS}: {item['item']!r} of {SUITE!r} is no prompt of Primer's with its answer.",
                        "Run `primer eval` again: the prompts have changed.",
                    )
                row, text = rows[item["item"]], item["answers"][0]
                found.append(OpenAnswer(subject.name, _home(folder), row, text, _mark(rubric, row, text)))
    return found


def gradings(homes: Iterable[Path]) -> dict[str, dict[str, GradeLine]]:
    """What every grader said, by grader and mark, in some folders together.

    Raises:
        PrimerError: If a file is damaged.
    """
    found: dict[str, dict[str, GradeLine]] = {}
    for home in dict.fromkeys(homes):
        for path in sorted((home / FOLDER).glob("*.jsonl")):
            if _FILE_NAME.fullmatch(path.stem):
                found.setdefault(path.stem, {}).update(_read(path)[0])
    return found


class Grading:
    """A grader's file, held for this process: a context manager.

    Args:
        home: The folder whose `gradings/` it lies in.
        kind: A person or a judge.
        name: Of the grader, for the file.
        identity: Of the grader, in full.

    Attributes:
        grades: What was graded, by mark.

    Raises:
        PrimerError: If the name cannot be a file's; on entry, if the file is damaged, in use, or cannot be opened.
    """

    def __init__(self, home: Path, kind: Kind, name: str, identity: str) -> None:
        self.path, self._identity = home / FOLDER / f"{kind}-{name}.jsonl", identity
        if not _FILE_NAME.fullmatch(self.path.stem):
            raise PrimerError(
                f"The grader's name is {name!r}; expected up to 80 letters, digits, '.', '_' or '-'.",
                "For example: --person anna",
            )
        self.grades: dict[str, GradeLine] = {}

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        except OSError as error:
            raise PrimerError(f"{self.path} cannot be opened: {error}", "Mend its permissions.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.grades, whole = _read(self.path)
            self._file.truncate(whole)  # a line that a crash cut short
        except OSError as error:
            self._file.close()
            if isinstance(error, BlockingIOError):
                raise PrimerError(
                    f"{self.path} is in use: somebody is grading under this name.", "Wait, or choose another name."
                ) from None
            raise PrimerError(f"{self.path} cannot be locked: {error}", "Put the folder on another disk.") from None
        except PrimerError:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def give(self, answer: OpenAnswer, grade: Grade | None, reason: str = "") -> None:
        """Write a grade, on the disk when this returns.

        Raises:
            PrimerError: If it cannot be written.
        """
        line = GradeLine(
            item=answer.row["id"],
            mark=answer.mark,
            grade=grade,
            reason=reason,
            grader=self._identity,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            self._file.write(line.model_dump_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise PrimerError(
                f"{self.path} cannot be written: {error}", "Mend the cause and run the same command again: it goes on."
            ) from None
        self.grades[answer.mark] = line


def once_each(answers: Iterable[OpenAnswer], seed: int) -> list[OpenAnswer]:
    """Different answers in an order that mixes models and prompts, and that further answers do not change."""
    different = {answer.mark: answer for answer in answers}
    return [different[mark] for mark in sorted(different, key=lambda mark: fingerprint([seed, mark]))]


def _mark(rubric: str, row: Mapping[str, Any], text: str) -> str:
    return fingerprint([rubric, dict(row), text])[:16]


def _home(evaluation: Path) -> Path:
    """Outside the evaluation's own folder where that is a stage: making it again must not take the grades along."""
    return evaluation.parent.parent if evaluation.parent.name == "eval" else evaluation


def _read(path: Path) -> tuple[dict[str, GradeLine], int]:
    """The grades of a file by mark, and the length of its whole lines in bytes."""
    grades: dict[str, GradeLine] = {}
    whole = 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Mend its permissions.") from None
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            graded = GradeLine.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PrimerError(
                f"{path}, line {number}: {place + ': ' if place else ''}{first['msg']}. Nothing was changed.",
                f"Remove the line (sed -i '{number}d' {path}); its answer alone will be graded again.",
            ) from None
        grades[graded.mark] = graded
        whole += len(line)
    return grades, whole
