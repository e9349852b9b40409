"""What the report says of the runs: how each model was trained, how long everything took, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.tables import NOTHING, Cell, Column, Table, dollars, duration, joined, number
from primer.run import Manifest

# What a stage's first part says its time was spent on.
_WORK = {
    "labels": "Labels for the filter, by a teacher",
    "filter": "Training the filter",
    "refined": "Web text and code: rules, filter, screens",
    "written": "Code by a teacher",
    "tokenizer": "Tokenizer and tokens",
    "tokens": "Tokenizer and tokens",
    "models": "Training",
    "eval": "Evaluation",
}
_CORPORA = {"synthetic": "Synthetic corpus, by a teacher", "diversity": "Measuring the corpora"}
_OTHER_CORPORA = "Web text and code: deduplication, writing"


def training_table(models: Sequence[tuple[str, int, Manifest]]) -> Table:
    """How each training went; models are the columns, each with the position of its variant."""
    facts = [manifest.facts for _, _, manifest in models]
    rows = [
        _row("Parameters", facts, "parameters", number),
        _row("Training tokens", facts, "tokens", number),
        _row("Steps", facts, "steps", number),
        _row("Final training loss, nats per token", facts, "final_loss", lambda v: f"{v:.3f}"),
        _row("Training time", facts, "seconds", duration),
        _row("Tokens per second", facts, "tokens_per_second", number),
        [Cell("Model FLOPs utilisation"), *(Cell(_mfu(f)) for f in facts)],
        [Cell("Device, precision"), *(Cell(joined(f.get("device"), f.get("precision"))) for f in facts)],
    ]
    columns = [Column(name, variant=position) for name, position, _ in models]
    return Table([Column("", number=False), *columns], rows)


def cost_rows(manifests: Sequence[Manifest]) -> list[tuple[str, float, float | None]]:
    """Seconds and US dollars by kind of work; dollars are None where no price is known.

    A stage that asked a teacher knows the time of all its attempts; others only that of the last one.
    """
    found: dict[str, tuple[float, float | None]] = {}
    for manifest in manifests:
        room, _, name = manifest.stage.partition("/")
        label = _CORPORA.get(name, _OTHER_CORPORA) if room == "corpus" else _WORK.get(room)
        if label is None:
            continue
        facts = manifest.facts
        asked = facts.get("seconds") if room in ("labels", "written") or name == "synthetic" else None
        seconds, paid = found.get(label, (0.0, None))
        price = facts.get("cost_usd")
        if price is not None:
            price = max(price, facts.get("spent_usd") or 0.0)
            paid = price + (paid or 0.0)
        found[label] = (seconds + max(manifest.seconds, asked or 0.0), paid)
    return [(label, seconds, paid) for label, (seconds, paid) in found.items()]


def cost_table(rows: Sequence[tuple[str, float, float | None]]) -> Table:
    """Hours and dollars by kind of work, with their sum."""
    body = [[Cell(label), Cell(duration(seconds)), Cell(_money(paid))] for label, seconds, paid in rows]
    known = [paid for _, _, paid in rows if paid is not None]
    total = [Cell("Total"), Cell(duration(sum(row[1] for row in rows))), Cell(_money(sum(known) if known else None))]
    columns = [Column("Work", number=False), Column("Time"), Column("US dollars")]
    return Table(columns, [*body, total], frozenset({len(body)}))


def stage_table(manifests: Sequence[Manifest]) -> Table:
    """How long each stage took, in its last uninterrupted run."""
    rows = [
        [Cell(m.stage), Cell(duration(m.seconds)), Cell(m.started.replace("T", " ").removesuffix("+00:00"))]
        for m in manifests
    ]
    return Table([Column("Stage", number=False), Column("Time"), Column("Started (UTC)")], rows)


def _money(value: float | None) -> str:
    return NOTHING if value is None else dollars(value)


def _row(label: str, facts: Sequence[Mapping[str, Any]], key: str, form: Any) -> list[Cell]:
    return [Cell(label), *(Cell(form(f[key]) if f.get(key) is not None else NOTHING) for f in facts)]


def _mfu(facts: Mapping[str, Any]) -> str:
    mfu = facts.get("mfu")
    return NOTHING if mfu is None else f"{mfu:.1%} ({facts.get('mfu_convention') or 'convention not recorded'})"
