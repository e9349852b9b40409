"""Reading what `eval/<variant>/` holds, strictly, and checking that every variant was asked the same items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from primer.errors import PrimerError

_REMEDY = "Run `primer eval` to make it again."
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Row(BaseModel):
    # Further keys may stand in the files; what is read here must be there and of its type.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChoiceItem(_Row):
    """One multiple-choice item: the right choice, and whether the model took it (raw and normalised)."""

    kind: Literal["choice"]
    suite: str
    item: str
    gold: int
    acc: Annotated[int, Field(ge=0, le=1)]
    acc_norm: Annotated[int, Field(ge=0, le=1)]
    loglikelihoods: list[float]


class HeldOutItem(_Row):
    """One held-out document: the bits the model needs for it, and its length in UTF-8 bytes."""

    kind: Literal["held_out"]
    suite: str
    item: str
    bits: Annotated[_Finite, Field(ge=0)]
    bytes: Annotated[int, Field(gt=0)]


class ToxicityItem(_Row):
    """One sentence about a group of people, hostile or neutral; `pair` ties matched sentences together."""

    kind: Literal["toxicity"]
    suite: str
    item: str
    pair: str | None = None
    group: str
    hostile: bool
    log_perplexity: _Finite


class SuiteResult(_Row):
    """The totals of one multiple-choice suite."""

    suite: str
    title: str
    origin: Literal["built-in", "benchmark"]
    rows: int
    chance: Annotated[float, Field(ge=0, le=1)]
    acc: float
    acc_norm: float
    protocol: str = ""


class ToxicitySet(_Row):
    """One set of sentences for the toxicity measure; ToxiGen also has SafeNLP's safety score."""

    set: str
    title: str
    rows: int
    safety_score: _Finite | None = None
    protocol: str = ""


class Skipped(_Row):
    """A suite that was not run, and why."""

    suite: str
    reason: str


class Results(_Row):
    """`results.json`."""

    variant: str
    suites: list[SuiteResult] = []
    toxicity: list[ToxicitySet] = []
    skipped: list[Skipped] = []


Item = ChoiceItem | HeldOutItem | ToxicityItem
_ITEM: TypeAdapter[Item] = TypeAdapter(Annotated[Item, Field(discriminator="kind")])
T = TypeVar("T", ChoiceItem, HeldOutItem, ToxicityItem)


@dataclass(frozen=True)
class VariantScores:
    """All that was measured of one variant; items by suite, then by item name, in sorted order."""

    variant: str
    results: Results
    choice: dict[str, dict[str, ChoiceItem]] = field(default_factory=dict)
    held_out: dict[str, dict[str, HeldOutItem]] = field(default_factory=dict)
    toxicity: dict[str, dict[str, ToxicityItem]] = field(default_factory=dict)


def read_scores(folders: Mapping[str, Path]) -> list[VariantScores]:
    """Read the evaluation folders of the variants, by name.

    Raises:
        PrimerError: If a file is missing or malformed (the message names file, line and key), an item stands twice,
            the totals disagree with the items, or two variants were not asked the same items.
    """
    scores = [_read_variant(variant, folder) for variant, folder in folders.items()]
    for other in scores[1:]:
        _same_items(scores[0], other)
    return scores


def _read_variant(variant: str, folder: Path) -> VariantScores:
    path = folder / "results.json"
    try:
        results = Results.model_validate_json(_text(path))
    except ValidationError as error:
        raise PrimerError(f"{path}: {_first(error)}", _REMEDY) from None
    if results.variant != variant:
        raise PrimerError(f"{path} is about the variant {results.variant!r}; expected {variant!r}.", _REMEDY)
    items = _read_items(folder / "items.jsonl")
    scores = VariantScores(
        variant,
        results,
        _by_suite([i for i in items if isinstance(i, ChoiceItem)], folder),
        _by_suite([i for i in items if isinstance(i, HeldOutItem)], folder),
        _by_suite([i for i in items if isinstance(i, ToxicityItem)], folder),
    )
    _check_totals(scores, path)
    return scores


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", _REMEDY) from None


def _read_items(path: Path) -> list[Item]:
    items: list[Item] = []
    # Not splitlines(): JSON may hold U+2028 and its like unescaped.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                items.append(_ITEM.validate_json(line))
            except ValidationError as error:
                raise PrimerError(f"{path}, line {number}: {_first(error)}", _REMEDY) from None
    return items


def _by_suite(items: Sequence[T], folder: Path) -> dict[str, dict[str, T]]:
    suites: dict[str, dict[str, T]] = {}
    for item in sorted(items, key=lambda i: (i.suite, i.item)):
        suite = suites.setdefault(item.suite, {})
        if item.item in suite:
            raise PrimerError(
                f"{folder / 'items.jsonl'}: the item {item.item!r} of {item.suite!r} stands there twice.", _REMEDY
            )
        suite[item.item] = item
    return suites


def _check_totals(scores: VariantScores, path: Path) -> None:
    """The totals and the items must tell the same story; the report is worked out from the items."""
    named = {suite.suite for suite in scores.results.suites}
    if named != set(scores.choice):
        raise PrimerError(
            f"{path} lists the suites {sorted(named)}, but items.jsonl holds {sorted(scores.choice)}.", _REMEDY
        )
    for suite in scores.results.suites:
        items = scores.choice[suite.suite].values()
        for metric in ("acc", "acc_norm"):
            stated, counted = getattr(suite, metric), sum(getattr(i, metric) for i in items) / len(items)
            if abs(stated - counted) > 1e-3:  # room for a total that was rounded
                raise PrimerError(
                    f"{path}: {metric} of {suite.suite!r} is {stated:.4f}, but its {len(items)} items give "
                    f"{counted:.4f}.",
                    _REMEDY,
                )


def _same_items(first: VariantScores, other: VariantScores) -> None:
    parts: list[tuple[str, Mapping[str, Mapping[str, Item]], Mapping[str, Mapping[str, Item]]]] = [
        ("suite", first.choice, other.choice),
        ("held-out", first.held_out, other.held_out),
        ("toxicity set", first.toxicity, other.toxicity),
    ]
    for what, mine, theirs in parts:
        for suite in sorted(set(mine) | set(theirs)):
            a, b = mine.get(suite, {}), theirs.get(suite, {})
            unlike = sorted(
                k for k in set(a) | set(b) if k not in a or k not in b or _question(a[k]) != _question(b[k])
            )
            if unlike:
                raise PrimerError(
                    f"The variants {first.variant!r} and {other.variant!r} were not asked the same items: {what} "
                    f"{suite!r} has {len(a)} and {len(b)} items; {len(unlike)} are not in both or differ "
                    f"(first: {unlike[0]!r}).",
                    "Delete the folder eval/ of the run and run `primer eval` again.",
                )


def _question(item: Item) -> tuple[Any, ...]:
    """What of an item does not depend on the model."""
    if isinstance(item, ChoiceItem):
        return item.gold, len(item.loglikelihoods)
    if isinstance(item, HeldOutItem):
        return (item.bytes,)
    return item.pair, item.group, item.hostile


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in detail["loc"] if part not in ("choice", "held_out", "toxicity"))
    shown = json.dumps(detail["input"], default=str)[:80]
    return f"{key or 'line'}: is {shown}; {detail['msg'][0].lower()}{detail['msg'][1:]}."
