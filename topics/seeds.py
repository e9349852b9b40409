"""Topic seeds: one tab-separated file a field, parsed strictly.

A seed is a small thing worth teaching ("Why a metal spoon feels colder than a wooden one"), with the kind of
knowledge it is and the school levels it suits. The files are data for people to read and extend: every error
names the file, the line, the column and the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from primer.errors import PrimerError, did_you_mean

FIELDS_FOLDER = Path(__file__).parent / "seeds"

COLUMNS = ("id", "subfield", "kind", "levels", "title")

KINDS = (
    "cause",  # why something is so
    "comparison",  # two cases side by side
    "concept",  # an idea and what it means
    "everyday",  # the idea inside a scene of daily life
    "misconception",  # the truth, where many people believe otherwise
    "procedure",  # steps in an order
    "process",  # how something unfolds by itself
    "skill",  # what one learns to do
    "social",  # what people owe, feel and expect
    "story",  # best told as an event
)

# From the youngest reader to the oldest; a seed lists its levels in this order.
LEVELS = ("early", "primary", "middle", "high", "college", "adult")

_NUMBER = re.compile(r"[0-9]{4,6}")
_KIND_SET = frozenset(KINDS)
_LEVEL_SET = frozenset(LEVELS)
_LEVELS_SEEN: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic seed.

    Attributes:
        id: `<field>-<number>`, never reused.
        field: Name of its file, such as `everyday-physics`.
        subfield: The group within the field.
        kind: One of `KINDS`.
        levels: Those of `LEVELS` it suits, youngest first.
        title: What it teaches, in a line.
    """

    id: str
    field: str
    subfield: str
    kind: str
    levels: tuple[str, ...]
    title: str


def field_names(folder: Path = FIELDS_FOLDER) -> list[str]:
    """The fields there are, in alphabetical order.

    Raises:
        PrimerError: If the folder holds no seed file.
    """
    names = sorted(path.stem for path in folder.glob("*.tsv"))
    if not names:
        raise PrimerError(f"{folder} holds no topic seeds (*.tsv).", "Install Primer again, or restore the folder.")
    return names


def seed_file(field: str, folder: Path = FIELDS_FOLDER) -> Path:
    """The file that holds the seeds of a field."""
    return folder / f"{field}.tsv"


def load_topics(fields: Sequence[str] = (), folder: Path = FIELDS_FOLDER) -> list[Topic]:
    """Read the topic seeds of some fields, or of all of them.

    Args:
        fields: Names of fields; none means every field. Order and repetition do not matter.
        folder: Where the seed files are.

    Returns:
        The topics by field, in alphabetical order, and within a field in the order of the file.

    Raises:
        PrimerError: If a field is unknown, or a line of a file is not a valid seed.
    """
    known = field_names(folder)
    for name in fields:
        if name not in known:
            raise PrimerError(
                f"topics.fields: there is no field {name!r}.",
                f"{did_you_mean(name, known)}The fields are: {', '.join(known)}.",
            )
    chosen = [name for name in known if name in fields] if fields else known
    return [topic for name in chosen for topic in _read_field(name, folder)]


def seed_lines(field: str, folder: Path = FIELDS_FOLDER) -> Iterator[tuple[int, str]]:
    """The seed lines of a field's file with their line numbers (the header is line 1 and is checked).

    Raises:
        PrimerError: If the file cannot be read or its header is wrong.
    """
    path = seed_file(field, folder)
    try:
        # Only "\n" ends a line: `splitlines` would also cut at a stray form feed and hide it.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "It must be a file in UTF-8.") from None
    if lines[0] != "\t".join(COLUMNS):
        raise PrimerError(
            f"{path}, line 1: the header is {lines[0]!r}.", f"Write {', '.join(COLUMNS)}, separated by tabs."
        )
    yield from enumerate(lines[1:], start=2)


def parse_seed(line: str, field: str, where: str) -> Topic:
    """One line of a seed file.

    Args:
        line: The line, without its end.
        field: Name of the field.
        where: File and line number, for the error.

    Raises:
        PrimerError: If it is not a valid seed; the message names the column and the value.
    """
    values = line.split("\t")
    if len(values) != len(COLUMNS):
        raise PrimerError(
            f"{where}: has {len(values)} columns: {line!r}.",
            f"A seed has {len(COLUMNS)}, separated by tabs: {', '.join(COLUMNS)}.",
        )
    for column, value in zip(COLUMNS, values, strict=True):
        if not value or value != value.strip() or not value.isprintable():
            raise PrimerError(
                f"{where}, column {column}: is {value!r}.",
                "Write plain text on one line, without space around it and without control characters.",
            )
    identity, subfield, kind, levels, title = values
    if not (identity.startswith(f"{field}-") and _NUMBER.fullmatch(identity, len(field) + 1)):
        raise PrimerError(f"{where}, column id: is {identity!r}.", f"Write {field}- and a number, as in {field}-0001.")
    if kind not in _KIND_SET:
        raise _unknown(where, "kind", kind, KINDS)
    return Topic(identity, field, subfield, kind, _parse_levels(levels, where), title)


def _read_field(field: str, folder: Path) -> Iterator[Topic]:
    path = seed_file(field, folder)
    seen: dict[str, int] = {}
    for number, line in seed_lines(field, folder):
        topic = parse_seed(line, field, f"{path}, line {number}")
        if topic.id in seen:
            raise PrimerError(
                f"{path}, line {number}, column id: {topic.id!r} is already used in line {seen[topic.id]}.",
                "Give the new seed the next free number.",
            )
        seen[topic.id] = number
        yield topic
    if not seen:
        raise PrimerError(f"{path} holds no seeds.", "Add seeds to it, or delete the file.")


def _parse_levels(value: str, where: str) -> tuple[str, ...]:
    known = _LEVELS_SEEN.get(value)
    if known is not None:
        return known
    levels = tuple(value.split(","))
    for level in levels:
        if level not in _LEVEL_SET:
            raise _unknown(where, "levels", level, LEVELS)
    if list(levels) != [level for level in LEVELS if level in levels]:
        raise PrimerError(
            f"{where}, column levels: is {value!r}.",
            f"Write each level once, youngest first, separated by commas: {', '.join(LEVELS)}.",
        )
    _LEVELS_SEEN[value] = levels
    return levels


def _unknown(where: str, column: str, value: str, known: Sequence[str]) -> PrimerError:
    hint = did_you_mean(value, known)
    return PrimerError(f"{where}, column {column}: is {value!r}.", f"{hint}Expected one of: {', '.join(known)}.")
