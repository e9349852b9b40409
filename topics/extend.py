"""Proposals for thin areas of a list, by a teacher; a person reads them before any enters."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from topics.allocation import Allocation
from topics.seeds import KINDS, LEVELS, Topic
from topics.tables import COLUMNS, TableRow

# Titles of the area that the teacher sees: enough to show the manner, few enough for a small context.
_SHOWN = 12
_PROMPT = Path(__file__).parent / "extend.j2"
_LINE = re.compile(r"^[\s\d.)*-]*(?P<kind>[a-z]+)\s*\|\s*(?P<levels>[a-z, ]+?)\s*\|\s*(?P<title>.+?)\s*$")


@dataclass(frozen=True)
class Area:
    """A subfield, how many seeds it has, and how many it would have if its field's plan were dealt out evenly."""

    field: str
    subfield: str
    seeds: int
    planned: float


def thin_areas(
    topics: Sequence[Topic], plan: Allocation | None, fields: Sequence[str], subfields: Sequence[str], count: int
) -> list[Area]:
    """The subfields that most lack seeds, thinnest first.

    Args:
        topics: The list.
        plan: Its plan; without one every subfield counts as planned alike.
        fields: Only these fields; none means all.
        subfields: Only these subfields; none means all.
        count: How many to return.
    """
    have = Counter((topic.field, topic.subfield) for topic in topics)
    planned = {
        (name, subfield): field.seeds / len(field.subfields)
        for name, field in (plan.fields() if plan else {}).items()
        for subfield in field.subfields
    }
    even = sum(have.values()) / max(1, len(have))
    areas = [
        Area(field, subfield, have[field, subfield], planned.get((field, subfield), even))
        for field, subfield in sorted(set(have) | set(planned))
        if (not fields or field in fields) and (not subfields or subfield in subfields)
    ]
    return sorted(areas, key=lambda area: area.seeds / area.planned)[:count]


def proposal_prompt(area: Area, topics: Sequence[Topic], count: int) -> list[dict[str, str]]:
    """Chat messages that ask a teacher for seeds of an area.

    Args:
        area: The subfield.
        topics: The list, for examples.
        count: How many seeds to ask for.
    """
    near = [t for t in topics if (t.field, t.subfield) == (area.field, area.subfield)]
    examples = near or [topic for topic in topics if topic.field == area.field]
    step = max(1, len(examples) // _SHOWN)
    # What comes out is text for a model, not HTML.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    template = environment.from_string(_PROMPT.read_text(encoding="utf-8"))
    text = template.render(area=area, examples=examples[::step][:_SHOWN], count=count, kinds=KINDS, levels=LEVELS)
    return [{"role": "user", "content": text.strip()}]


def parse_proposals(reply: str, area: Area, *, cut_off: bool = False) -> list[TableRow]:
    """The seeds in a teacher's reply: its lines of the form `kind | levels | title`; other lines are talk.

    Args:
        reply: The text.
        area: What it was asked about.
        cut_off: Whether the reply ended at its limit, so that its last line is not whole.
    """
    rows: list[TableRow] = []
    lines = reply.splitlines()
    for number, line in enumerate(lines[:-1] if cut_off else lines, start=1):
        match = _LINE.match(line)
        if match and match["kind"] != "kind":
            levels = {level.strip() for level in match["levels"].split(",")}
            values = {
                "title": match["title"].rstrip("."),
                "field": area.field,
                "subfield": area.subfield,
                "kind": match["kind"],
                # Their order is a form, not a meaning.
                "levels": ",".join(level for level in LEVELS if level in levels) or match["levels"],
            }
            rows.append(TableRow(f"{area.field}, {area.subfield}, proposal {number}", values))
    return rows


def review_table(proposals: Sequence[Topic], nearest: Sequence[Topic], cosines: Sequence[float]) -> str:
    """Proposals as CSV for a person to read, mend and import.

    Args:
        proposals: The seeds.
        nearest: For each, the seed of the list that is closest in meaning.
        cosines: How close that is.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, "nearest", "cosine"])
    for topic, other, cosine in zip(proposals, nearest, cosines, strict=True):
        levels = ",".join(topic.levels)
        writer.writerow([topic.title, topic.field, topic.subfield, topic.kind, levels, other.title, f"{cosine:.2f}"])
    return out.getvalue()
