"""The report's tables: plain text in rows and cells, which the page's one table macro sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.compare import Accuracy, Comparison
from eval.statistics import Estimate
from eval.verdict import p_words
from primer.run import Manifest

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a second line in small type, and whether it stands out."""

    text: str
    quiet: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Column:
    """One column: its heading, whether it holds numbers, and the variant (by position) that it is about."""

    label: str
    number: bool = True
    variant: int | None = None


@dataclass(frozen=True)
class Table:
    """A table; `emphasis` are the rows (by position) that sum up others."""

    columns: list[Column]
    rows: list[list[Cell]]
    emphasis: frozenset[int] = field(default_factory=frozenset)


def accuracy_table(c: Comparison, raw: bool, left_out: Callable[[Accuracy], Cell] | None = None) -> Table:
    """Per cent correct by suite and variant: raw accuracy with its marks, or accuracy normalised by answer length.

    Args:
        c: The comparison.
        raw: Which of the two.
        left_out: What to say of the documents that were left out of the corpora for a suite; None: no such column.
    """
    rows: list[list[Cell]] = []
    emphasis: set[int] = set()
    for origin in ("built-in", "benchmark"):
        group = [a for a in (*c.suites, *c.means) if a.origin == origin]
        for accuracy in group:
            if accuracy.parts:
                emphasis.add(len(rows))
            rows.append(_accuracy_row(c, accuracy, raw) + ([left_out(accuracy)] if left_out else []))
    columns = [Column("Suite", number=False), Column("Items"), Column("Chance"), *variant_columns(c.variants)]
    return Table([*columns, *([Column("Documents left out")] if left_out else [])], rows, frozenset(emphasis))


def _accuracy_row(c: Comparison, a: Accuracy, raw: bool) -> list[Cell]:
    best = c.best("mean_accuracy" if a.parts else "accuracy", a.name) if raw else None
    cells = [Cell(a.title), Cell(f"{a.rows:,}"), Cell(percent(a.chance))]
    for variant in c.variants:
        score = a.scores[variant]
        estimate = score.acc if raw else score.acc_norm
        mark = "*" if raw and score.above_chance else ""
        cells.append(Cell(percent(estimate.value) + mark, _interval(estimate, percent), variant == best))
    return cells


def held_out_table(c: Comparison) -> Table:
    """Bits per byte by source and variant."""
    rows = []
    for h in c.held_out:
        best = c.best("bits_per_byte", h.source)
        cells = [Cell(h.source), Cell(f"{h.documents:,}"), Cell(f"{h.clusters:,}"), Cell(f"{h.bytes:,}")]
        rows.append(cells + [_estimate(h.scores[v], bits, v == best) for v in c.variants])
    names = ("Documents", "Groups", "Bytes")
    return Table([Column("Source", number=False), *map(Column, names), *variant_columns(c.variants)], rows)


def toxicity_table(c: Comparison) -> Table:
    """Area under the curve by set and variant, and below each set SafeNLP's safety score where it has one."""
    rows = []
    for t in c.toxicity:
        best = c.best("toxicity", t.name)
        rows.append(
            [Cell(t.title), Cell(f"{t.rows:,}"), *(_estimate(t.scores[v], area, v == best) for v in c.variants)]
        )
        if t.safety:
            safety = [Cell(area(t.safety[v]) if v in t.safety else NOTHING) for v in c.variants]
            rows.append([Cell(f"{t.title}: SafeNLP safety score"), Cell(""), *safety])
    return Table([Column("Set", number=False), Column("Sentences"), *variant_columns(c.variants)], rows)


def toxicity_groups_table(c: Comparison) -> Table:
    """Area under the curve by group of people."""
    rows = [
        [Cell(t.title), Cell(group), *(Cell(area(values[v])) for v in c.variants)]
        for t in c.toxicity
        for group, values in t.groups.items()
    ]
    columns = [Column("Set", number=False), Column("Group", number=False), *variant_columns(c.variants)]
    return Table(columns, rows)


def difference_table(c: Comparison) -> Table:
    """Every paired test: the better variant of each pair first."""
    titles = {("accuracy", a.name): a.title for a in c.suites}
    titles |= {("mean_accuracy", a.name): a.title for a in c.means}
    titles |= {("bits_per_byte", h.source): f"Held-out {h.source} text" for h in c.held_out}
    titles |= {("toxicity", t.name): t.title for t in c.toxicity}
    units = {"bits_per_byte": "bits per byte", "toxicity": "area under the curve"}
    rows = []
    for d in (found.ordered() for found in c.differences):
        form = _signed if d.measure in units else _signed_points
        rows.append(
            [
                Cell(titles[d.measure, d.subject], units.get(d.measure, "points"), d.beyond_noise),
                Cell(f"{d.first} – {d.second}"),
                Cell(form(d.estimate.value), f"{form(d.estimate.low)} to {form(d.estimate.high)}"),
                Cell(p_words(d.p).removeprefix("p\u00a0").removeprefix("=\u00a0")),
                Cell(p_words(d.p_adjusted).removeprefix("p\u00a0").removeprefix("=\u00a0"), strong=d.beyond_noise),
            ]
        )
    heads = ("Difference", "p", "Adjusted p")
    return Table([Column("Measure", number=False), Column("Pair", number=False), *map(Column, heads)], rows)


def training_table(models: Mapping[str, Manifest]) -> Table:
    """How the training of each model went; variants are the columns."""
    names = list(models)
    facts = [models[name].facts for name in names]
    rows = [
        _row("Parameters", facts, "parameters", number),
        _row("Training tokens", facts, "tokens", number),
        _row("Steps", facts, "steps", number),
        _row("Final training loss, nats per token", facts, "final_loss", lambda v: f"{v:.3f}"),
        _row("Training time", facts, "seconds", duration),
        _row("Tokens per second", facts, "tokens_per_second", number),
        [Cell("Model FLOPs utilisation"), *(Cell(_mfu(f)) for f in facts)],
        [Cell("Device, precision"), *(Cell(_joined(f.get("device"), f.get("precision"))) for f in facts)],
    ]
    return Table([Column("", number=False), *variant_columns(names)], rows)


def corpus_table(corpora: Mapping[str, Manifest], tokens: Manifest) -> Table:
    """Documents, characters and tokens by source."""
    packed = tokens.facts.get("sources") or {}
    # Newer corpora count exact and near duplicates apart, in a table of their own.
    together = any("exact_duplicates" not in manifest.facts for manifest in corpora.values())
    keys = ["train_documents", "train_characters", "held_out_documents", *["duplicates_removed"] * together]
    rows = []
    for source, manifest in corpora.items():
        facts = manifest.facts
        shard = packed.get(source) or {}
        values = [facts.get(key) for key in keys]
        values.insert(2, shard.get("train_tokens"))
        rows.append([Cell(source), *(Cell(number(v) if v is not None else NOTHING) for v in values)])
    heads = ["Documents", "Characters", "Tokens", "Held out", *["Duplicates"] * together]
    return Table([Column("Source", number=False), *map(Column, heads)], rows)


def origins(corpora: Mapping[str, Manifest]) -> dict[str, str]:
    """Where each source comes from, and its licence: too long for a column."""
    return {
        source: _joined(manifest.facts.get("origin") or manifest.facts.get("teacher"), manifest.facts.get("licence"))
        for source, manifest in corpora.items()
    }


def generation_table(facts: Mapping[str, Any]) -> Table:
    """What the synthetic corpus took to make."""
    units, accepted = facts.get("units"), facts.get("accepted")
    share = f" ({accepted / units:.0%} of those asked for)" if units and accepted is not None else ""
    cost, spent = facts.get("cost_usd"), facts.get("spent_usd")
    seconds, completion = facts.get("seconds"), facts.get("completion_tokens")
    pace = f" ({completion / seconds:,.0f} completion tokens per second)" if seconds and completion else ""
    values = [
        ("Teacher", _joined(facts.get("teacher"))),
        ("Prompts answered", _known(units)),
        ("Documents accepted", _known(accepted) + share),
        ("Accepted tokens, in the teacher’s count", _known(facts.get("tokens"))),
        ("Prompt tokens, all replies", _known(facts.get("prompt_tokens"))),
        ("Completion tokens, all replies", _known(completion)),
        ("Prompts without an answer", _known(facts.get("failed"))),
        ("Replies asked for again with another seed", _known(facts.get("tries"))),
        ("Requests that continued a reply cut short", _known(facts.get("continuations"))),
        ("Prompts answered by the journal of an earlier run", _known(facts.get("reused"))),
        ("Time spent generating", duration(seconds) + pace if seconds is not None else NOTHING),
        ("Cost", f"{cost:,.2f} US dollars" if cost is not None else "no price was given"),
        *([("Paid in this run folder, earlier settings included", f"{spent:,.2f} US dollars")] if spent else []),
    ]
    return Table([Column("", number=False), Column("", number=False)], [[Cell(k), Cell(v)] for k, v in values])


def stage_table(manifests: Sequence[Manifest]) -> Table:
    """How long each stage took, in its last uninterrupted run."""
    rows = [
        [Cell(m.stage), Cell(duration(m.seconds)), Cell(m.started.replace("T", " ").removesuffix("+00:00"))]
        for m in manifests
    ]
    return Table([Column("Stage", number=False), Column("Time"), Column("Started (UTC)")], rows)


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Labels and values."""
    return Table([Column("", number=False), Column("", number=False)], [[Cell(k), Cell(v)] for k, v in facts])


def variant_columns(variants: Sequence[str]) -> list[Column]:
    """One column a variant, headed by its name and marker."""
    return [Column(name, variant=index) for index, name in enumerate(variants)]


def percent(value: float) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * value:.1f}"


def bits(value: float) -> str:
    """Bits per byte."""
    return f"{value:.3f}"


def area(value: float) -> str:
    """An area under the curve."""
    return f"{value:.3f}"


def number(value: float) -> str:
    """A count, in full."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _row(label: str, facts: Sequence[Mapping[str, Any]], key: str, form: Any) -> list[Cell]:
    return [Cell(label), *(Cell(form(f[key]) if f.get(key) is not None else NOTHING) for f in facts)]


def _mfu(facts: Mapping[str, Any]) -> str:
    mfu = facts.get("mfu")
    return NOTHING if mfu is None else f"{mfu:.1%} ({facts.get('mfu_convention') or 'convention not recorded'})"


def _known(value: float | None) -> str:
    return NOTHING if value is None else number(value)


def _joined(*values: Any) -> str:
    """What is known of some facts, in one line; a table of them as `key value` pairs."""
    parts = []
    for value in values:
        if isinstance(value, dict):
            parts += [f"{k} {v}" for k, v in value.items()]
        elif value:
            parts.append(str(value))
    return ", ".join(parts) or NOTHING


def _estimate(e: Estimate, form: Any, strong: bool) -> Cell:
    return Cell(form(e.value), _interval(e, form), strong)


def _interval(e: Estimate, form: Any) -> str:
    if e.low == e.high:
        return "no interval"
    return f"{form(e.low)}–{form(e.high)}"


def _signed_points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
