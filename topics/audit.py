"""What is wrong with the topic seeds as a collection: everything at once, where loading stops at the first error."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from primer.errors import PrimerError
from topics.seeds import FIELDS_FOLDER, LEVELS, Topic, field_names, parse_seed, seed_file, seed_lines

# A shorter title says too little to write a page from; a longer one is a page already.
_TITLE_WORDS = range(3, 17)
_TITLE_CHARACTERS = 100

# Words that carry no subject, left out when two titles are compared.
_SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of to and or in on at for from with by as is are was be it its that this how why what when where "
        "does do can has have not no than your you one into",
    )
)


@dataclass(frozen=True)
class Finding:
    """One thing to mend: where (file and line) and what."""

    where: str
    problem: str


def audit(folder: Path = FIELDS_FOLDER) -> list[Finding]:
    """Everything that is wrong with the seeds in a folder; an empty list means that nothing is.

    Finds lines that do not parse, ids and titles used twice (titles compared by their subject words, whatever the
    order, case and small words), titles that are too short, too long or end in a full stop, levels with a gap
    and fields that list one subfield in two places.
    """
    found: list[Finding] = []
    ids: dict[str, str] = {}
    titles: dict[frozenset[str], str] = {}
    for field in field_names(folder):
        topics: list[tuple[str, Topic]] = []
        try:
            for number, line in seed_lines(field, folder):
                where = f"{seed_file(field, folder)}, line {number}"
                try:
                    topics.append((where, parse_seed(line, field, where)))
                except PrimerError as error:
                    found.append(Finding(where, f"{error.problem.removeprefix(where).lstrip(':, ')} {error.remedy}"))
        except PrimerError as error:
            found.append(Finding(str(seed_file(field, folder)), f"{error.problem} {error.remedy}"))
        for where, topic in topics:
            found.extend(Finding(where, problem) for problem in _title_problems(topic.title))
            found.extend(Finding(where, problem) for problem in _level_problems(topic.levels))
            if (first := ids.setdefault(topic.id, where)) != where:
                found.append(Finding(where, f"the id {topic.id} is already used in {first}"))
            if (first := titles.setdefault(subject_words(topic.title), where)) != where:
                found.append(Finding(where, f"the title {topic.title!r} says the same as {first}"))
        found.extend(_scattered_subfields(topics))
    return found


def subject_words(title: str) -> frozenset[str]:
    """The words of a title that carry its subject: lower case, no accents, no plural s, no small words."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower().replace("'", "")
    words = re.findall(r"[a-z0-9.]*[a-z0-9]", plain)
    kept = frozenset(word.removesuffix("s") for word in words if word not in _SMALL_WORDS)
    return kept or frozenset(words)


def _title_problems(title: str) -> Iterator[str]:
    words = len(title.split())
    if words not in _TITLE_WORDS:
        yield f"the title {title!r} has {words} words; expected {_TITLE_WORDS.start} to {_TITLE_WORDS.stop - 1}"
    if len(title) > _TITLE_CHARACTERS:
        yield f"the title {title!r} has {len(title)} characters; expected at most {_TITLE_CHARACTERS}"
    if title.endswith((".", "?", "!", ":", ";", ",")):
        yield f"the title {title!r} ends in {title[-1]!r}; write it without"
    if not (title[0].isupper() or title[0].isdigit()):
        yield f"the title {title!r} does not begin with a capital letter"


def _level_problems(levels: tuple[str, ...]) -> Iterator[str]:
    first, last = LEVELS.index(levels[0]), LEVELS.index(levels[-1])
    missing = [level for level in LEVELS[first : last + 1] if level not in levels]
    if missing:
        yield f"the levels {','.join(levels)} have a gap: {', '.join(missing)}"


def _scattered_subfields(topics: list[tuple[str, Topic]]) -> Iterator[Finding]:
    finished: set[str] = set()
    current = ""
    for where, topic in topics:
        if topic.subfield != current:
            if topic.subfield in finished:
                yield Finding(where, f"the subfield {topic.subfield!r} began further up; keep its seeds together")
            finished.add(current)
            current = topic.subfield
