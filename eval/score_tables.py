"""The report's tables of scores: accuracy, published figures, held-out loss, fields, toxicity, gaps, and all tests."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from eval.comparison import LARGEST, Accuracy, Comparison, Difference, Fields, Measure, Toxicity
from eval.quoted import Quoted, QuotedModel
from eval.statistics import Estimate
from eval.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    area,
    bits,
    interval,
    number,
    percent,
    signed,
    signed_interval,
    signed_points,
    variant_columns,
)
from eval.verdict import p_words

# Groups of suites, in the order of the report.
AREAS = {
    "common-sense": "Common sense",
    "language": "Language and knowledge",
    "multi-step": "Several steps: arithmetic and code",
    "": "Other suites",
}

# Hostile or neutral sentences about a group of people below which it has no area under the curve of its own.
FEW = 5


def by_area(suites: Sequence[Accuracy]) -> dict[str, list[Accuracy]]:
    """Suites by the title of their area: in each benchmarks before built-in suites."""
    found: dict[str, list[Accuracy]] = {}
    for name, title in AREAS.items():
        some = [a for a in suites if (a.area if a.area in AREAS else "") == name]
        if some:
            found[title] = sorted(some, key=lambda a: a.origin == "built-in")
    return found


def accuracy_table(c: Comparison) -> Table:
    """Per cent correct by suite and variant, with marks, standard errors, and what difference could be found."""
    rows: list[list[Cell]] = []
    headings: dict[int, str] = {}
    groups = by_area(c.suites) | ({"Means": c.means} if c.means else {})
    for title, suites in groups.items():
        headings[len(rows)] = title
        for a in suites:
            row = [Cell(a.title, protocol_in_short(a)), Cell(percent(a.chance) if a.chance else NOTHING)]
            row += [_accuracy(c, a, variant) for variant in c.variants]
            row += [_detectable(c, "mean_accuracy" if a.parts else "accuracy", a.name, percent)] * bool(c.detectable)
            rows.append(row)
    columns = [Column("Suite", number=False), Column("Chance"), *variant_columns(c.variants)]
    columns += [Column("Detectable")] * bool(c.detectable)
    summed = range(len(rows) - len(c.means), len(rows))
    return Table(columns, rows, frozenset(summed), headings)


def normalised_table(c: Comparison) -> Table | None:
    """Accuracy normalised by the answers' length; None where no suite has it."""
    rows: list[list[Cell]] = []
    headings: dict[int, str] = {}
    for title, suites in (by_area(c.suites) | {"Means": c.means}).items():
        some = [a for a in suites if any(score.acc_norm for score in a.scores.values())]
        if some:
            headings[len(rows)] = title
        for a in some:
            found = [a.scores[v].acc_norm if v in a.scores else None for v in c.variants]
            rows.append([Cell(a.title), Cell(percent(a.chance)), *(_estimate(e, percent) for e in found)])
    columns = [Column("Suite", number=False), Column("Chance"), *variant_columns(c.variants)]
    return Table(columns, rows, headings=headings) if rows else None


def protocol_in_short(a: Accuracy) -> str:
    """Shots, metric, split and rows: the ends of the protocol, which has the prompt between them."""
    if a.parts:
        return f"{len(a.parts)} suites, {a.rows:,} rows"
    parts = a.protocol.split("; ")
    split = parts[-2:-1] if re.fullmatch(r"[\d,]+ rows", parts[-1]) else []
    return ", ".join([*[p for p in parts[:1] if p], a.metric, *split, f"{a.rows:,} rows"])


def quoted_tables(c: Comparison, quoted: Quoted) -> dict[str, Table]:
    """Measured and quoted models below each other, suites as columns: a table for each area, by its title."""
    tables = {}
    for title, suites in by_area([a for a in c.suites if a.name in quoted.suites]).items():
        suites.sort(key=lambda a: quoted.suites.index(a.name))
        rows = [
            [Cell(v), *(Cell(percent(a.scores[v].acc.value) if v in a.scores else NOTHING) for a in suites)]
            for v in c.variants
            if any(v in a.scores for a in suites)
        ]
        headings = {0: "Measured here", len(rows): "Quoted: not measured here"}
        for model in quoted.models:
            if any(a.name in model.figures for a in suites):
                about = Cell(model.name, f"{model.parameters}, {model.about}")
                rows.append([about, *(_quoted(model, a.name) for a in suites)])
        columns = [Column("Model", number=False), *(Column(a.title) for a in suites)]
        tables[title] = Table(columns, rows, headings=headings)
    return tables


def held_out_table(c: Comparison) -> Table:
    """Bits per byte by source and variant."""
    rows = []
    for h in c.held_out:
        best = c.best("bits_per_byte", h.source)
        about = f"{h.documents:,} documents in {h.clusters:,} groups, {h.bytes:,} bytes"
        cells = [_estimate(h.scores.get(v), bits, strong=v == best) for v in c.variants]
        found = [_detectable(c, "bits_per_byte", h.source, bits)] * bool(c.detectable)
        rows.append([Cell(h.source, about), *cells, *found])
    columns = [Column("Source", number=False), *variant_columns(c.variants)]
    return Table([*columns, *([Column("Detectable")] * bool(c.detectable))], rows)


def fields_table(c: Comparison, fields: Fields) -> Table:
    """Bits per byte of the baseline by field of topics, and what the other variants gain."""
    others = [(position, v) for position, v in enumerate(c.variants) if v != fields.baseline]
    rows = []
    for row in fields.rows:
        about = f"{row.documents:,} documents in {row.clusters:,} groups"
        cells = [Cell(row.name.replace("-", " "), about), _estimate(row.scores.get(fields.baseline), bits)]
        for _, variant in others:
            found = gain(fields, row.name, variant)
            cells.append(_signed(found.estimate, signed, strong=found.beyond_noise) if found else Cell(NOTHING))
        rows.append(cells)
    baseline = Column(fields.baseline, variant=c.variants.index(fields.baseline))
    gains = [Column(f"{variant}: gain", variant=position) for position, variant in others]
    return Table([Column("Field", number=False), baseline, *gains], rows)


def gain(fields: Fields, name: str, variant: str) -> Difference | None:
    """What a variant gains over the baseline in a field: a positive number of bits per byte is better."""
    for d in fields.differences:
        if d.subject == name and {d.first, d.second} == {variant, fields.baseline}:
            e = d.estimate.negated() if d.first == variant else d.estimate
            return Difference(d.measure, d.subject, variant, fields.baseline, e, d.p, d.p_adjusted)
    return None


def toxicity_table(c: Comparison) -> Table:
    """Area under the curve by set and variant, and below each set SafeNLP's safety score where it has one."""
    rows = []
    for t in c.toxicity:
        best = c.best("toxicity", t.name)
        cells = [_estimate(t.scores.get(v), area, strong=v == best) for v in c.variants]
        found = [_detectable(c, "toxicity", t.name, area)] * bool(c.detectable)
        rows.append([Cell(t.title, f"area under the curve, {t.rows:,} sentences"), *cells, *found])
        if t.safety:
            scores = [_estimate(t.safety.scores.get(v), area) for v in c.variants]
            rows.append([Cell(t.title, "SafeNLP’s safety score"), *scores, *[Cell("")] * len(found)])
            rule = [_by_rule(t, v) for v in c.variants]
            rows.append([Cell(t.title, "the same, groups by SafeNLP’s rule"), *rule, *[Cell("")] * len(found)])
    columns = [Column("Set", number=False), *variant_columns(c.variants)]
    return Table([*columns, *([Column("Detectable")] * bool(c.detectable))], rows)


def small_groups(t: Toxicity) -> list[str]:
    """Groups of people with fewer than `FEW` hostile or neutral sentences: their area under the curve says nothing."""
    return [_people(group) for group in t.groups if min(t.sizes.get(group, (0, 0))) < FEW]


def groups_table(c: Comparison, t: Toxicity) -> Table | None:
    """Area under the curve, and the safety score where there is one, by group of people; None if all are small."""
    rows = []
    for group, values in t.groups.items():
        hostile, neutral = t.sizes.get(group, (0, 0))
        if min(hostile, neutral) < FEW:
            continue
        safety = t.safety.groups.get(group, {}) if t.safety else {}
        cells = [
            Cell(area(values[v]) if v in values else NOTHING, f"safety {area(safety[v])}" if v in safety else "")
            for v in c.variants
        ]
        rows.append([Cell(_people(group), f"{hostile:,} hostile, {neutral:,} neutral"), *cells])
    return Table([Column("Group", number=False), *variant_columns(c.variants)], rows) if rows else None


def gaps_table(c: Comparison) -> Table:
    """Accuracy on a benchmark minus that on its fresh twin, by variant."""
    names = {a.name: a.title for a in c.suites}
    rows = []
    for gap in c.gaps:
        cells = [_signed(gap.scores.get(v), signed_points) for v in c.variants]
        rows.append([Cell(gap.title, f"minus “{names[gap.twin]}”"), *cells])
    return Table([Column("Benchmark and twin", number=False), *variant_columns(c.variants)], rows)


def difference_table(differences: Sequence[Difference], titles: Mapping[tuple[str, str], str]) -> Table:
    """Paired tests, the better variant of each pair first.

    Args:
        differences: What was tested.
        titles: By measure and subject.
    """
    units = {"bits_per_byte": "bits per byte", "field": "bits per byte", "toxicity": "area under the curve"}
    rows = []
    for d in (found.ordered() for found in differences):
        form = signed if d.measure in units else signed_points
        effect = f"h {signed(d.effect.value)}" if d.effect else ""
        rows.append(
            [
                Cell(titles.get((d.measure, d.subject), d.subject), units.get(d.measure, "points"), d.beyond_noise),
                Cell(f"{d.first} – {d.second}", effect),
                Cell(form(d.estimate.value), f"{signed_interval(d.estimate, form)}, SE {_error(d.estimate, form)}"),
                Cell(_p(d.p)),
                Cell(_p(d.p_adjusted), strong=d.beyond_noise),
            ]
        )
    heads = ("Difference", "p", "Adjusted p")
    return Table([Column("Measure", number=False), Column("Pair", number=False), *map(Column, heads)], rows)


def titles(c: Comparison) -> dict[tuple[str, str], str]:
    """What the tests of a comparison are about, by measure and subject."""
    return {
        **{("accuracy", a.name): a.title for a in c.suites},
        **{("mean_accuracy", a.name): a.title for a in c.means},
        **{("bits_per_byte", h.source): f"Held-out {h.source} text" for h in c.held_out},
        **{("toxicity", t.name): t.title for t in c.toxicity},
        **{("gap", gap.benchmark): gap.title for gap in c.gaps},
        **{("field", row.name): row.name.replace("-", " ") for row in (c.fields.rows if c.fields else ())},
    }


def _accuracy(c: Comparison, a: Accuracy, variant: str) -> Cell:
    score = a.scores.get(variant)
    if score is None:
        return Cell(NOTHING)
    best = c.best("mean_accuracy" if a.parts else "accuracy", a.name)
    cell = _estimate(score.acc, percent, strong=variant == best)
    return replace(cell, mark="*" if score.p is not None and score.above_chance else "")


def _detectable(c: Comparison, measure: Measure, subject: str, form: Callable[[float], str]) -> Cell:
    for d in c.detectable:
        if (d.measure, d.subject) == (measure, subject):
            most = LARGEST.get(measure, math.inf)
            corrected, alone = (form(value) if value < most else "none" for value in (d.corrected, d.alone))
            return Cell(corrected, f"alone {alone}")
    return Cell(NOTHING)


def _estimate(e: Estimate | None, form: Callable[[float], str], *, strong: bool = False) -> Cell:
    if e is None:
        return Cell(NOTHING)
    # A single document has neither.
    about = "" if e.low == e.high else interval(e, form) + (f", SE {form(e.error)}" if e.error else "")
    return Cell(form(e.value), about, strong)


def _signed(e: Estimate | None, form: Callable[[float], str], *, strong: bool = False) -> Cell:
    if e is None:
        return Cell(NOTHING)
    return Cell(form(e.value), f"{signed_interval(e, form)}, SE {_error(e, form)}", strong)


def _error(e: Estimate, form: Callable[[float], str]) -> str:
    return form(e.error).removeprefix("+")


def _by_rule(t: Toxicity, variant: str) -> Cell:
    value = t.safety.by_rule.get(variant) if t.safety else None
    without = t.safety.left_out.get(variant, ()) if t.safety else ()
    return Cell(NOTHING if value is None else area(value), f"{len(without)} groups left out" if without else "")


def _people(group: str) -> str:
    """A group of people as one writes it; ToxiGen shortens some of their names."""
    return re.sub(r"\bdis$", "disability", re.sub("[-_]", " ", group))


def _quoted(model: QuotedModel, suite: str) -> Cell:
    """A published share in per cent; a bound such as "<0.03" keeps its sign; † was not found in a second source."""
    value = model.figures.get(suite)
    if value is None:
        return Cell(NOTHING)
    text = f"{value[0]}{number(100 * float(value[1:]))}" if isinstance(value, str) else percent(value)
    return Cell(text, mark="†" if suite in model.unchecked else "")


def _p(value: float) -> str:
    return p_words(value).removeprefix("p\u00a0").removeprefix("=\u00a0")
