"""What the report says of the corpora's making: what was left out and why, and what each variant took of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from eval.compare import Accuracy
from eval.contamination import Contamination, name_in_corpora
from eval.tables import NOTHING, Cell, Column, Table, number, variant_columns
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


def left_out(manifest: Manifest) -> dict[str, Any]:
    """The facts of a corpus about what was removed, masked and found, those that there are."""
    keys = (*_LEFT_OUT, "personal_data", "toxicity")
    facts = {key: manifest.facts[key] for key in keys if manifest.facts.get(key) is not None}
    # A corpus holds the facts of what a teacher wrote for it under the names of those stages.
    tried = (manifest.facts.get("exercises") or {}).get("exercises")
    return facts | ({"exercises": tried} if tried else {})


def contamination_column(found: Contamination | None) -> Callable[[Accuracy], Cell] | None:
    """For the table of suites: how many documents of all corpora were left out for a suite."""
    return partial(_documents_left_out, found) if found else None


def contamination_table(found: Contamination, suites: Sequence[Accuracy]) -> Table:
    """Documents left out by suite and corpus: the suites of this report, and others for which there were some."""
    rows = []
    for suite in suites:
        documents = found.documents(suite)
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


def mixtures(recipe: Recipe, manifests: Mapping[str, Manifest]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each variant and source: the share asked, the share it was, tokens, tokens there are, passes over them."""
    sizes = manifests["tokens"].facts.get("sources") or {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in recipe.variants:
        facts = manifests[f"models/{variant.name}"].facts
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


def mixture_table(mixed: Mapping[str, Mapping[str, Mapping[str, Any]]], most: float) -> Table:
    """What each variant was trained on: sources are the rows, variants the columns; bold: seen more than so often."""
    sources = [source for source in SOURCES if any(source in parts for parts in mixed.values())]
    rows = [[Cell(source), *(_portion(parts.get(source), most) for parts in mixed.values())] for source in sources]
    return Table([Column("Source", number=False), *variant_columns(list(mixed))], rows)


def repetitions(mixed: Mapping[str, Mapping[str, Mapping[str, Any]]], most: float) -> list[str]:
    """A sentence for each source that a variant saw more often than the recipe's `train.max_epochs`."""
    return [
        f"“{variant}” saw {source} {part['passes']:.3g} times, more than the recipe’s train.max_epochs ({most:g})."
        for variant, parts in mixed.items()
        for source, part in parts.items()
        if (part["passes"] or 0) > most
    ]


def _documents_left_out(found: Contamination, suite: Accuracy) -> Cell:
    if suite.parts:
        return Cell("")
    documents = found.documents(suite)
    missing = [source for source in found.sources if source not in documents]
    if not documents:
        return Cell(_NOT_COMPARED)
    return Cell(number(sum(documents.values())), f"{', '.join(missing)} {_NOT_COMPARED}" if missing else "")


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
