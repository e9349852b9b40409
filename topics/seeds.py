"""Topic seeds: one tab-separated file a field, parsed strictly.

A seed is a small thing worth teaching ("Why a metal spoon feels colder than a wooden one"), with the kind of
knowledge it is and the school levels it suits. The files are data for people to read and extend: every error
names the file, the line, the column and the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from primer.errors import PrimerError, did_you_mean

# The list that comes with Primer, as recipes call it; any other name is a folder.
BUILT_IN = "primer"
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
# Every way to write some levels in their order: there are 63.
_LEVELS = {",".join(some): some for count in range(1, 7) for some in combinations(LEVELS, count)}
# What stands between two values or lines where one is empty or has space around it.
_LOOSE = tuple(a + b for a in "\t\n " for b in "\t\n " if a + b not in ("  ", "\n\n"))


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


def list_folder(name: str) -> Path:
    """The folder of a list: Primer's own by its name, others by their path."""
    return FIELDS_FOLDER if name == BUILT_IN else Path(name).expanduser()


def seed_files(lists: Sequence[str] = (BUILT_IN,)) -> dict[str, Path]:
    """The files of some lists of seeds, by field, in alphabetical order.

    Args:
        lists: `primer`, or paths of folders with one .tsv file a field.

    Raises:
        PrimerError: If a folder holds no seed file, or a field is in two lists.
    """
    found: dict[str, Path] = {}
    for name in lists:
        folder = list_folder(name)
        paths = sorted(folder.glob("*.tsv"))
        if not paths:
            raise PrimerError(
                f"{folder} holds no topic seeds (*.tsv).",
                "Install Primer again, or restore the folder."
                if name == BUILT_IN
                else f"topics.lists names folders of seed files, and {BUILT_IN!r} for Primer's own. "
                "`primer topics import` makes one.",
            )
        for path in paths:
            if path.stem in found:
                raise PrimerError(
                    f"topics.lists: the field {path.stem!r} is in {found[path.stem].parent} and in {folder}.",
                    "Rename one of the files, and the ids in it, or leave one list out.",
                )
            found[path.stem] = path
    return dict(sorted(found.items()))


def field_names(lists: Sequence[str] = (BUILT_IN,)) -> list[str]:
    """The fields there are, in alphabetical order."""
    return list(seed_files(lists))


def choose_fields(fields: Sequence[str], lists: Sequence[str] = (BUILT_IN,)) -> dict[str, Path]:
    """The seed files of some fields, or of all of them if none is named; order and repetition do not matter.

    Raises:
        PrimerError: If a field is unknown, or see `seed_files`.
    """
    files = seed_files(lists)
    for name in fields:
        if name not in files:
            raise PrimerError(
                f"topics.fields: there is no field {name!r}.",
                f"{did_you_mean(name, files)}The fields are: {', '.join(files)}.",
            )
    return {name: path for name, path in files.items() if not fields or name in fields}


def load_topics(fields: Sequence[str] = (), lists: Sequence[str] = (BUILT_IN,)) -> list[Topic]:
    """Read the topic seeds of some fields, or of all of them.

    Args:
        fields: Names of fields; none means every field.
        lists: Where to look: `primer`, or paths of folders.

    Returns:
        The topics by field, in alphabetical order, and within a field in the order of the file.

    Raises:
        PrimerError: If a field is unknown, or a line of a file is not a valid seed.
    """
    return [topic for path in choose_fields(fields, lists).values() for topic in read_seeds(path)]


def read_seeds(path: Path) -> list[Topic]:
    """The seeds of one file; its name is the field.

    Raises:
        PrimerError: If the file or a line of it is not valid, or holds an id twice, or it holds no seeds.
    """
    lines = seed_lines(path)
    topics = _read_valid(lines, path.stem)
    if topics is None:
        topics = list(_read_with_errors(lines, path))
    if not topics:
        raise PrimerError(f"{path} holds no seeds.", "Add seeds to it, or delete the file.")
    return topics


def seed_lines(path: Path) -> list[str]:
    """The lines of a field's file below its header; the first of them is line 2 of the file.

    Raises:
        PrimerError: If the file cannot be read or its header is wrong.
    """
    try:
        # Only "\n" ends a line: `splitlines` would also cut at a stray form feed and hide it.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "It must be a file in UTF-8.") from None
    if lines[0] != "\t".join(COLUMNS):
        raise PrimerError(
            f"{path}, line 1: the header is {lines[0]!r}.", f"Write {', '.join(COLUMNS)}, separated by tabs."
        )
    return lines[1:]


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


def _read_valid(lines: list[str], field: str) -> list[Topic] | None:
    """The seeds, fast, if every line is valid; None if one is not."""
    text = "\n" + "\n".join(lines) + "\n"
    if any(pair in text for pair in _LOOSE) or not text.replace("\t", "").replace("\n", "").isprintable():
        return None
    prefix, start = f"{field}-", len(field) + 1
    topics: list[Topic] = []
    try:
        for line in lines:
            identity, subfield, kind, levels, title = line.split("\t")
            if kind not in _KIND_SET or not identity.startswith(prefix) or not _NUMBER.fullmatch(identity, start):
                return None
            topics.append(Topic(identity, field, subfield, kind, _LEVELS[levels], title))
    except (ValueError, KeyError):
        return None
    return topics if len({topic.id for topic in topics}) == len(topics) else None


def _read_with_errors(lines: list[str], path: Path) -> Iterator[Topic]:
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        topic = parse_seed(line, path.stem, f"{path}, line {number}")
        if topic.id in seen:
            raise PrimerError(
                f"{path}, line {number}, column id: {topic.id!r} is already used in line {seen[topic.id]}.",
                "Give the new seed the next free number.",
            )
        seen[topic.id] = number
        yield topic


def _parse_levels(value: str, where: str) -> tuple[str, ...]:
    if value in _LEVELS:
        return _LEVELS[value]
    for level in value.split(","):
        if level not in LEVELS:
            raise _unknown(where, "levels", level, LEVELS)
    raise PrimerError(
        f"{where}, column levels: is {value!r}.",
        f"Write each level once, youngest first, separated by commas: {', '.join(LEVELS)}.",
    )


def _unknown(where: str, column: str, value: str, known: Sequence[str]) -> PrimerError:
    hint = did_you_mean(value, known)
    return PrimerError(f"{where}, column {column}: is {value!r}.", f"{hint}Expected one of: {', '.join(known)}.")
