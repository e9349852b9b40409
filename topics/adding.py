"""Seeds that join a list: held to the checks of an audit, then written with ids of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from primer.benchmarks import Question
from primer.errors import PrimerError
from primer.run import write_text
from topics.audit import Finding, Listed, check_lines, check_titles
from topics.embedding import DIMENSION, Vectors, embed
from topics.overlap import check_overlap, embed_questions
from topics.retired import retired_ids
from topics.seeds import COLUMNS, FIELDS_FOLDER, Topic, parse_seed, read_seeds
from topics.similarity import check_near_duplicates
from topics.tables import TableRow

# Stands for the number that a seed gets once it is known to be good.
_PROVISIONAL = "0000"


def read_rows(rows: Sequence[TableRow], defaults: Mapping[str, str]) -> tuple[list[Listed], list[Finding]]:
    """Seeds out of the rows of a table, and what is wrong with the other rows.

    Args:
        rows: The table.
        defaults: Values for the columns that a row leaves empty.
    """
    seeds: list[Listed] = []
    findings: list[Finding] = []
    for row in rows:
        values = {column: value or defaults.get(column, "") for column, value in row.values.items()}
        missing = [column for column, value in values.items() if not value]
        if missing:
            named = ", ".join(missing)
            findings.append(
                Finding(row.where, f"has no {named}; add the column, or give one for all rows as an option")
            )
            continue
        if broken := [column for column, value in values.items() if not value.isprintable()]:
            column = broken[0]
            problem = f"column {column}: is {values[column]!r}; write plain text on one line, without tabs"
            findings.append(Finding(row.where, problem))
            continue
        field = values["field"]
        if not field.replace("-", "").isalnum() or field != field.lower() or not field.isascii():
            problem = f"the field {field!r} cannot name a file; write it in small letters and hyphens, as in night-sky"
            findings.append(Finding(row.where, problem))
            continue
        line = "\t".join(
            {**values, "id": f"{field}-{_PROVISIONAL}", "levels": values["levels"].replace(", ", ",")}[column]
            for column in COLUMNS
        )
        try:
            seeds.append(Listed(row.where, parse_seed(line, field, row.where)))
        except PrimerError as error:
            findings.append(Finding.of_error(row.where, error))
    return seeds, findings


def sift(
    rows: Sequence[TableRow],
    defaults: Mapping[str, str],
    present: Sequence[Listed],
    questions: Mapping[str, Sequence[Question]],
) -> tuple[list[Listed], list[Finding]]:
    """The rows of a table that may join a list, and what is wrong with the others.

    Args:
        rows: The table.
        defaults: Values for the columns that a row leaves empty.
        present: Seeds that must not be repeated.
        questions: Benchmarks that must not be copied, by suite.
    """
    new, findings = read_rows(rows, defaults)
    forms = [finding for check in check_lines(new) for finding in check.findings]
    new = _without(new, forms)
    findings += forms
    # A row that falls takes no other with it: what is left is looked at again until nothing falls.
    while repeats := check_new(new, present, questions):
        new = _without(new, repeats)
        findings += repeats
    order = {row.where: place for place, row in enumerate(rows)}
    return new, sorted(findings, key=lambda finding: order[finding.where])


def check_new(
    new: Sequence[Listed], present: Sequence[Listed], questions: Mapping[str, Sequence[Question]]
) -> list[Finding]:
    """What seeds that are to join others repeat.

    Args:
        new: The seeds.
        present: Those that they must not repeat.
        questions: Benchmarks that they must not copy, by suite.

    Returns:
        Findings about the new seeds alone, in their order.
    """
    if not new:
        return []
    both = [*present, *new]
    checks = check_titles(both)
    vectors = np.concatenate([_vectors(present, "topics"), _vectors(new, "new-topics")])
    checks.append(check_near_duplicates(both, vectors))
    if questions:
        checks.append(check_overlap(new, vectors[len(present) :], questions, embed_questions(questions)))
    order = {at.where: place for place, at in enumerate(new)}
    findings = [finding for check in checks for finding in check.findings if finding.where in order]
    return sorted(dict.fromkeys(findings), key=lambda finding: order[finding.where])


def add_seeds(new: Sequence[Topic], folder: Path) -> dict[str, int]:
    """Write seeds into a folder of seed files, after those of their subfield, with the next free numbers.

    Returns:
        How many each field got.

    Raises:
        PrimerError: If a file in the folder is not valid, or the folder cannot be written to.
    """
    by_field: dict[str, list[Topic]] = defaultdict(list)
    for topic in new:
        by_field[topic.field].append(topic)
    texts: dict[Path, str] = {}
    for field, topics in by_field.items():
        path = folder / f"{field}.tsv"
        groups: dict[str, list[tuple[str, Topic]]] = defaultdict(list)
        present = read_seeds(path) if path.exists() else []
        for topic in present:
            groups[topic.subfield].append((topic.id, topic))
        used = [topic.id for topic in present]
        if folder.resolve() == FIELDS_FOLDER.resolve():
            used += [identity for identity in retired_ids() if identity.rsplit("-", 1)[0] == field]
        number = max((int(identity.rsplit("-", 1)[1]) for identity in used), default=0)
        for topic in topics:
            number += 1
            groups[topic.subfield].append((f"{field}-{number:04d}", topic))
        lines = ["\t".join(COLUMNS)]
        lines += [
            "\t".join((identity, topic.subfield, topic.kind, ",".join(topic.levels), topic.title))
            for group in groups.values()
            for identity, topic in group
        ]
        texts[path] = "\n".join(lines) + "\n"
    waiting = {path: path.with_name(f".{path.name}.new") for path in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_text(waiting[path], text)
        for path, written in waiting.items():  # all are on the disk: what follows only renames
            written.replace(path)
    except OSError as error:
        raise PrimerError(f"{folder} cannot be written to: {error}", "Name another folder.") from None
    finally:
        for written in waiting.values():
            with suppress(OSError):
                written.unlink()
    return {field: len(topics) for field, topics in by_field.items()}


def _without(seeds: Sequence[Listed], findings: Sequence[Finding]) -> list[Listed]:
    bad = {finding.where for finding in findings}
    return [at for at in seeds if at.where not in bad]


def _vectors(listed: Sequence[Listed], name: str) -> Vectors:
    if not listed:
        return np.empty((0, DIMENSION), dtype=np.float32)
    return embed([at.topic.title for at in listed], name)
