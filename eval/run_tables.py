"""What the report says of the runs: their corpora, how each model was trained, how long it took, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.comparison import Accuracy
from eval.contamination import Contamination, name_in_corpora
from eval.tables import NOTHING, Cell, Column, Table, dollars, duration, joined, number
from primer.recipe import SOURCES, Recipe
from primer.run import Manifest

# Facts of a corpus that count documents, and what they are called.
_LEFT_OUT = {
    "exact_duplicates": "Exact duplicates",
    "near_duplicates": "Near duplicates",
    "rules": "Removed by heuristic rules",
    "quality_removed": "Removed by the quality filter",
    "contaminated": "Held items of a suite",
    "toxic_removed": "Removed as hostile or obscene",
}

_NOT_COMPARED = "not compared"

# Measures of a corpus: what they are called, which end is the more diverse one, and how they are written.
_DIVERSITY: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "documents": ("Documents measured", "", number),
    "words": ("Words measured", "", number),
    "near_duplicates": ("Near duplicates", "lower", "{:.1%}".format),
    "related": ("Related texts", "lower", "{:.1%}".format),
    "openings": ("Begin with one of the ten commonest openings", "lower", "{:.1%}".format),
    "stock_openings": ("Begin with a stock opener", "lower", "{:.1%}".format),
    "distinct_2": ("Different pairs of words", "higher", "{:.3f}".format),
    "distinct_4": ("Different runs of four words", "higher", "{:.3f}".format),
    "compression": ("Compression ratio of gzip", "lower", "{:.2f}".format),
    "cosine": ("Mean cosine of embeddings", "lower", "{:.3f}".format),
    "vendi": ("Vendi score a document", "higher", "{:.3f}".format),
}

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


def corpus_table(corpora: Mapping[str, Manifest], tokens: Manifest | None) -> Table:
    """Documents, characters and tokens by source."""
    packed = (tokens.facts.get("sources") or {}) if tokens else {}
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
        source: joined(manifest.facts.get("origin") or manifest.facts.get("teacher"), manifest.facts.get("licence"))
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
        ("Teacher", joined(facts.get("teacher"))),
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
        ("Cost", f"{dollars(cost)} US dollars" if cost is not None else "no price was given"),
        *([("Paid in this run folder, earlier settings included", f"{dollars(spent)} US dollars")] if spent else []),
    ]
    return Table([Column("", number=False), Column("", number=False)], [[Cell(k), Cell(v)] for k, v in values])


def left_out(manifest: Manifest) -> dict[str, Any]:
    """The facts of a corpus about what was removed, masked and found, those that there are."""
    keys = (*_LEFT_OUT, "personal_data", "toxicity")
    facts = {key: manifest.facts[key] for key in keys if manifest.facts.get(key) is not None}
    # A corpus holds the facts of what a teacher wrote for it under the names of those stages.
    tried = (manifest.facts.get("exercises") or {}).get("exercises")
    return facts | ({"exercises": tried} if tried else {})


def contamination_table(found: Contamination, suites: Sequence[Accuracy]) -> Table:
    """Documents left out by suite and corpus: the suites of this report that were compared, and others with some."""
    rows = []
    for suite in suites:
        documents = found.documents(suite)
        if not documents:
            continue
        counts = (number(documents[source]) if source in documents else _NOT_COMPARED for source in found.sources)
        rows.append([Cell(suite.title), *map(Cell, counts)])
    asked = {name_in_corpora(suite) for suite in suites}
    for name, known in sorted(found.left_out.items()):
        if name not in asked and any(known.values()):
            rows.append([Cell(name), *(Cell(number(known[s]) if s in known else NOTHING) for s in found.sources)])
    return Table([Column("Suite", number=False), *map(Column, found.sources)], rows)


def left_out_table(corpora: Mapping[str, Manifest]) -> Table | None:
    """What was removed from each source, masked in it and found in it; None if no manifest says anything."""
    facts = {source: left_out(manifest) for source, manifest in corpora.items()}
    rows = [[Cell(title), *(_count(f.get(key)) for f in facts.values())] for key, title in _LEFT_OUT.items()]
    rows.append([Cell("Places of personal data masked"), *(_kinds(f.get("personal_data")) for f in facts.values())])
    rows.append([Cell("Hostile or obscene documents"), *(_rate(f.get("toxicity")) for f in facts.values())])
    rows.append([Cell("Exercises that passed their tests"), *(_passed(f.get("exercises")) for f in facts.values())])
    rows = [row for row in rows if any(cell.text != NOTHING for cell in row[1:])]
    return Table([Column("", number=False), *map(Column, facts)], rows) if rows else None


def rules_table(corpora: Mapping[str, Manifest]) -> Table | None:
    """Documents that heuristic rules removed, by reason and source, the commonest reason first; None if none."""
    by_source = {source: manifest.facts["rules"] for source, manifest in corpora.items() if manifest.facts.get("rules")}
    total: Counter[str] = Counter()
    for rules in by_source.values():
        total.update(rules)
    if not total:
        return None
    reasons = sorted(total, key=lambda reason: (-total[reason], reason))
    rows = [
        [Cell(reason.replace("_", " ")), *(Cell(number(rules.get(reason, 0))) for rules in by_source.values())]
        for reason in reasons
    ]
    return Table([Column("Reason", number=False), *map(Column, by_source)], rows)


def diversity_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """How much each corpus repeats itself; sources are the columns."""
    rows = []
    sources = sorted(measured, key=lambda source: [*SOURCES, source].index(source))
    for key, (title, better, form) in _DIVERSITY.items():
        values = [measured[source].get(key) for source in sources]
        cells = [Cell(NOTHING if value is None else form(value)) for value in values]
        rows.append([Cell(title, f"{better} is more diverse" if better else ""), *cells])
    return Table([Column("", number=False), *map(Column, sources)], rows)


def mixtures(recipe: Recipe, manifests: Mapping[str, Manifest]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each variant that was trained, and each source: the share asked, the share it was, tokens, passes."""
    tokens = manifests.get("tokens")
    sizes = (tokens.facts.get("sources") or {}) if tokens else {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in recipe.variants:
        manifest = manifests.get(f"models/{variant.name}")
        if manifest is None:
            continue
        facts = manifest.facts
        taken, passes = facts.get("tokens_by_source") or {}, facts.get("epochs") or {}
        total = sum(taken.values())
        found[variant.name] = {
            source: {
                "asked": asked,
                "share": taken[source] / total if taken.get(source) is not None and total else None,
                "tokens": taken.get(source),
                "available": (sizes.get(source) or {}).get("train_tokens"),
                "passes": passes.get(source),
            }
            for source, asked in variant.mixture.items()
            if asked > 0
        }
    return found


def mixture_table(mixed: Mapping[str, Mapping[str, Mapping[str, Any]]], variants: Sequence[str], most: float) -> Table:
    """What each variant was trained on: sources are the rows, variants the columns; bold: seen more than so often."""
    sources = [source for source in SOURCES if any(source in parts for parts in mixed.values())]
    rows = [[Cell(source), *(_portion(parts.get(source), most) for parts in mixed.values())] for source in sources]
    columns = [Column(name, variant=variants.index(name)) for name in mixed]
    return Table([Column("Source", number=False), *columns], rows)


def repetitions(mixed: Mapping[str, Mapping[str, Mapping[str, Any]]], most: float) -> list[str]:
    """A sentence for each source that a variant saw more often than the recipe's `train.max_epochs`."""
    return [
        f"“{variant}” saw {source} {part['passes']:.3g} times, more than the recipe’s train.max_epochs ({most:g})."
        for variant, parts in mixed.items()
        for source, part in parts.items()
        if (part["passes"] or 0) > most
    ]


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


def _portion(part: Mapping[str, Any] | None, most: float) -> Cell:
    if part is None:
        return Cell(NOTHING)
    share, tokens, available, passes = (part[key] for key in ("share", "tokens", "available", "passes"))
    about = [f"asked {100 * part['asked']:.4g}%"]
    if tokens is not None:
        about.append(f"{tokens:,} tokens")
    if passes is not None:
        about.append(f"{passes:.2f} passes" + (f" over {available:,}" if available is not None else ""))
    return Cell(NOTHING if share is None else f"{share:.2%}", "; ".join(about), strong=(passes or 0) > most)


def _count(value: Any) -> Cell:
    """A count, or the sum of counts by reason."""
    if value is None:
        return Cell(NOTHING)
    return Cell(number(sum(value.values()) if isinstance(value, dict) else value))


def _kinds(counts: Mapping[str, int] | None) -> Cell:
    if counts is None:
        return Cell(NOTHING)
    kinds = sorted((kind for kind in counts if counts[kind]), key=lambda kind: -counts[kind])
    return Cell(number(sum(counts.values())), ", ".join(f"{kind.replace('_', ' ')} {counts[kind]:,}" for kind in kinds))


def _rate(toxicity: Mapping[str, Any] | None) -> Cell:
    if not toxicity or not toxicity.get("scored"):
        return Cell(NOTHING)
    return Cell(f"{toxicity['toxic'] / toxicity['scored']:.2%}", f"{toxicity['toxic']:,} of {toxicity['scored']:,}")


def _passed(exercises: Mapping[str, Any] | None) -> Cell:
    if not exercises or not exercises.get("tried"):
        return Cell(NOTHING)
    share = exercises["passed"] / exercises["tried"]
    return Cell(number(exercises["passed"]), f"{share:.0%} of {exercises['tried']:,} tried")


def _known(value: float | None) -> str:
    return NOTHING if value is None else number(value)


def _money(value: float | None) -> str:
    return NOTHING if value is None else dollars(value)


def _row(label: str, facts: Sequence[Mapping[str, Any]], key: str, form: Any) -> list[Cell]:
    return [Cell(label), *(Cell(form(f[key]) if f.get(key) is not None else NOTHING) for f in facts)]


def _mfu(facts: Mapping[str, Any]) -> str:
    mfu = facts.get("mfu")
    return NOTHING if mfu is None else f"{mfu:.1%} ({facts.get('mfu_convention') or 'convention not recorded'})"
