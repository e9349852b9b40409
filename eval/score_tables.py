"""The report's tables of scores: accuracy, published figures, held-out loss, fields, toxicity, gaps, and all tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.comparison import Accuracy, Comparison, Difference, Fields, Measure, Toxicity
from eval.quoted import Quoted
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
METRICS = {"acc": "raw accuracy", "exact_match": "exact match", "pass@1": "pass@1"}


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


def quoted_table(c: Comparison, quoted: Quoted) -> Table | None:
    """Published figures beside the measured ones, by suite; None where none of these suites was asked."""
    asked = {a.name: a for a in c.suites}
    models = [model for model in quoted.models if any(suite in asked for suite in model.scores)]
    rows = []
    for suite in quoted.suites:
        if suite not in asked:
            continue
        scores = asked[suite].scores
        cells = [Cell(percent(scores[v].acc.value) if v in scores else NOTHING) for v in c.variants]
        rows.append([Cell(asked[suite].title), *cells, *(Cell(_quoted(m.scores.get(suite))) for m in models)])
    columns = [Column("Suite", number=False), *variant_columns(c.variants)]
    columns += [Column(model.name) for model in models]
    spans = (("", 1), ("measured here", len(c.variants)), ("quoted", len(models)))
    return Table(columns, rows, spans=spans) if rows else None


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


def groups_table(c: Comparison, t: Toxicity) -> Table:
    """Area under the curve, and the safety score where there is one, by group of people."""
    rows = []
    for group, values in t.groups.items():
        hostile, neutral = t.sizes.get(group, (0, 0))
        safety = t.safety.groups.get(group, {}) if t.safety else {}
        cells = [
            Cell(area(values[v]) if v in values else NOTHING, f"safety {area(safety[v])}" if v in safety else "")
            for v in c.variants
        ]
        rows.append([Cell(group.replace("_", " "), f"{hostile:,} hostile, {neutral:,} neutral"), *cells])
    return Table([Column("Group", number=False), *variant_columns(c.variants)], rows)


def gaps_table(c: Comparison) -> Table:
    """Accuracy on a benchmark minus that on its fresh twin, by variant."""
    rows = []
    for gap in c.gaps:
        cells = [_signed(gap.scores.get(v), signed_points) for v in c.variants]
        rows.append([Cell(gap.title, f"{gap.benchmark} − {gap.twin}"), *cells])
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
            return Cell(form(d.corrected), f"alone {form(d.alone)}")
    return Cell(NOTHING)


def _estimate(e: Estimate | None, form: Callable[[float], str], *, strong: bool = False) -> Cell:
    if e is None:
        return Cell(NOTHING)
    return Cell(form(e.value), f"{interval(e, form)}, SE {form(e.error)}" if e.error else interval(e, form), strong)


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


def _quoted(value: Any) -> str:
    """A published share in per cent; a bound such as "<0.03" keeps its sign."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return f"{value[0]}{number(100 * float(value[1:]))}"
    return percent(value)


def _p(value: float) -> str:
    return p_words(value).removeprefix("p\u00a0").removeprefix("=\u00a0")
