"""Reading what evaluations hold, strictly, and finding what their subjects were asked alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eval.item_files import ITEMS, read_items
from eval.subjects import RESULTS, Subject
from primer.errors import PrimerError

_REMEDY = "Run `primer eval` to make it again."
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Row(BaseModel):
    # Further keys may stand in the files; what is read here must be there and of its type.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChoiceItem(_Row):
    """One multiple-choice item: the right choice, and whether the model took it (raw and normalised by length)."""

    kind: Literal["choice"]
    suite: str
    item: str
    gold: int
    acc: Annotated[float, Field(ge=0, le=1, multiple_of=1)]
    acc_norm: Annotated[float, Field(ge=0, le=1, multiple_of=1)] | None = None
    loglikelihoods: Annotated[list[_Finite], Field(min_length=1)]


class GenerationItem(_Row):
    """One item that is answered by writing: the share of the answers to it that are right."""

    kind: Literal["generation"]
    suite: str
    item: str
    acc: _Share


class HeldOutItem(_Row):
    """One held-out document: the bits the model needs for it, and its length in UTF-8 bytes."""

    kind: Literal["held_out"]
    suite: str
    item: str
    bits: Annotated[_Finite, Field(ge=0)]
    bytes: Annotated[int, Field(gt=0)]


class ToxicityItem(_Row):
    """One sentence about groups of people, hostile or neutral; `pair` ties matched sentences together."""

    kind: Literal["toxicity"]
    suite: str
    item: str
    pair: str | None = None
    groups: Annotated[list[str], Field(min_length=1)]
    hostile: bool
    log_perplexity: _Finite
    toxicity: Annotated[_Finite, Field(gt=0)] | None = None


class OpenItem(_Row):
    """Answers to a prompt that nothing here grades."""

    kind: Literal["open"]
    suite: str
    item: str


class SuiteResult(_Row):
    """The totals of one suite of questions."""

    suite: str
    title: str
    origin: Literal["built-in", "benchmark"]
    area: str = ""
    kind: Literal["choice", "generation"]
    twin: str | None = None
    rows: int
    chance: _Share
    acc: _Share
    acc_norm: _Share | None = None
    metric: str
    shots: int = 0
    split: str = ""
    protocol: str = ""


class ToxicitySet(_Row):
    """One set of sentences for the toxicity measures."""

    set: str
    title: str
    rows: int
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


Question = ChoiceItem | GenerationItem
Item = ChoiceItem | GenerationItem | HeldOutItem | ToxicityItem | OpenItem
_ITEM: TypeAdapter[Item] = TypeAdapter(Annotated[Item, Field(discriminator="kind")])
_KINDS = ("choice", "generation", "held_out", "toxicity", "open")
T = TypeVar("T", bound=Item)
Part = Literal["questions", "held_out", "toxicity"]


@dataclass(frozen=True)
class ModelScores:
    """All that was measured of one model; items by suite, then by name, in sorted order."""

    results: Results
    questions: Mapping[str, Mapping[str, Question]] = field(default_factory=dict)
    held_out: Mapping[str, Mapping[str, HeldOutItem]] = field(default_factory=dict)
    toxicity: Mapping[str, Mapping[str, ToxicityItem]] = field(default_factory=dict)


@dataclass(frozen=True)
class SubjectScores:
    """The scores of a subject: of one model for each training seed, all of which were asked the same."""

    name: str
    models: tuple[ModelScores, ...]

    def total(self, suite: str) -> SuiteResult:
        """What its first model's results say of a suite of questions."""
        return next(s for s in self.models[0].results.suites if s.suite == suite)


def read_scores(subjects: Sequence[Subject]) -> list[SubjectScores]:
    """Read the evaluation folders of the subjects.

    Raises:
        PrimerError: If a file is missing or damaged (the message names file, item and key), an item stands twice, the
            totals disagree with the items, or two models of one run were not asked the same items.
    """
    scores = []
    for subject in subjects:
        models = tuple(_read_model(folder, of_run=subject.run is not None) for folder in subject.scores)
        for number, other in enumerate(models[1:], start=2):
            _require_alike((subject.name, models[0]), (f"{subject.name}, seed {number}", other))
        scores.append(SubjectScores(subject.name, models))
    runs = [subject.run.path if subject.run else None for subject in subjects]
    for at, run in enumerate(runs):
        if run is not None and (first := runs.index(run)) < at:
            _require_alike((scores[first].name, scores[first].models[0]), (scores[at].name, scores[at].models[0]))
    return scores


def share_items(scores: Sequence[SubjectScores], part: Part) -> tuple[dict[str, list[SubjectScores]], list[str]]:
    """The subjects that were asked the same, by suite.

    Where subjects from different places were asked different items of a suite, the largest number of them that were
    asked the same are compared (of equally many, those with the earliest subject).

    Returns:
        By suite, in the order of the subjects' suites, at least two subjects (one if there is no other), in order; and
        one line for the suites that are compared without the same subjects.
    """
    shared: dict[str, list[SubjectScores]] = {}
    reasons: dict[str, list[str]] = {}
    for suite in dict.fromkeys(name for s in scores for name in _names(s.models[0], part)):
        sides: dict[Any, list[SubjectScores]] = {}
        for s in scores:
            if suite in _of(s.models[0], part):
                sides.setdefault(_asked(s.models[0], part, suite), []).append(s)
        largest = max(sides.values(), key=len)
        if len(largest) > 1 or len(scores) == 1:
            shared[suite] = largest
        if len(largest) < len(scores):
            without = [s.name for s in scores if s not in largest]
            where = (
                f"compared without {', '.join(without)}, asked other items or none"
                if suite in shared
                else "not compared: no two models were asked the same items"
            )
            reasons.setdefault(where, []).append(suite)
    kind = part.replace("_", "-")
    return shared, [f"{', '.join(suites)} ({kind}): {where}." for where, suites in reasons.items()]


def _read_model(folder: Path, *, of_run: bool) -> ModelScores:
    path = folder / RESULTS
    try:
        results = Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", _REMEDY) from None
    except ValidationError as error:
        raise PrimerError(f"{path}: {_first(error)}", _REMEDY) from None
    if of_run and results.variant != folder.name:
        raise PrimerError(f"{path} is about the model {results.variant!r}; expected {folder.name!r}.", _REMEDY)
    items = _parse_items(folder / ITEMS)
    scores = ModelScores(
        results,
        _by_suite([i for i in items if isinstance(i, ChoiceItem | GenerationItem)], folder),
        _by_suite([i for i in items if isinstance(i, HeldOutItem)], folder),
        _by_suite([i for i in items if isinstance(i, ToxicityItem)], folder),
    )
    _check_totals(scores, path)
    return scores


def _parse_items(path: Path) -> list[Item]:
    items: list[Item] = []
    for row in read_items(path):
        try:
            items.append(_ITEM.validate_python(row))
        except ValidationError as error:
            where = f"the item {row['item']!r} of {row['suite']!r}"
            raise PrimerError(f"{path}, {where}: {_first(error)}", _REMEDY) from None
    return items


def _by_suite(items: Sequence[T], folder: Path) -> dict[str, dict[str, T]]:
    suites: dict[str, dict[str, T]] = {}
    for item in sorted(items, key=lambda i: (i.suite, i.item)):
        suite = suites.setdefault(item.suite, {})
        if item.item in suite:
            raise PrimerError(
                f"{folder / ITEMS}: the item {item.item!r} of {item.suite!r} stands there twice.", _REMEDY
            )
        suite[item.item] = item
    return suites


def _check_totals(scores: ModelScores, path: Path) -> None:
    """The totals and the items must tell the same story; the comparison is worked out from the items."""
    for part, named, held in (
        ("suites", {suite.suite for suite in scores.results.suites}, set(scores.questions)),
        ("toxicity", {found.set for found in scores.results.toxicity}, set(scores.toxicity)),
    ):
        if named != held:
            raise PrimerError(f"{path} lists the {part} {sorted(named)}, but {ITEMS} holds {sorted(held)}.", _REMEDY)
    for suite in scores.results.suites:
        items = scores.questions[suite.suite].values()
        norms = [i.acc_norm for i in items if isinstance(i, ChoiceItem) and i.acc_norm is not None]
        for metric, stated, counted in (
            ("acc", suite.acc, sum(i.acc for i in items) / len(items)),
            ("acc_norm", suite.acc_norm, sum(norms) / len(items) if len(norms) == len(items) else None),
        ):
            if (stated is None) != (counted is None) or abs((stated or 0) - (counted or 0)) > 1e-3:  # may be rounded
                raise PrimerError(
                    f"{path}: {metric} of {suite.suite!r} is {stated}, but its {len(items)} items give {counted}.",
                    _REMEDY,
                )
        if any(i.kind != suite.kind for i in items):
            raise PrimerError(f"{path}: {suite.suite!r} is of kind {suite.kind!r}, but its items are not.", _REMEDY)


def _require_alike(first: tuple[str, ModelScores], other: tuple[str, ModelScores]) -> None:
    parts: tuple[Part, ...] = ("questions", "held_out", "toxicity")
    for part in parts:
        mine, theirs = _of(first[1], part), _of(other[1], part)
        for suite in sorted(set(mine) | set(theirs)):
            a, b = mine.get(suite, {}), theirs.get(suite, {})
            unlike = sorted(
                k for k in set(a) | set(b) if k not in a or k not in b or _question(a[k]) != _question(b[k])
            )
            if unlike:
                raise PrimerError(
                    f"{first[0]!r} and {other[0]!r} were not asked the same items: {suite!r} ({part}) has {len(a)} and "
                    f"{len(b)} items; {len(unlike)} are not in both or differ (first: {unlike[0]!r}).",
                    "Run `primer eval` again; if that does not help, delete the folder eval/ of the run first.",
                )


def _of(scores: ModelScores, part: Part) -> Mapping[str, Mapping[str, Item]]:
    found: Mapping[str, Mapping[str, Item]] = getattr(scores, part)
    return found


def _names(scores: ModelScores, part: Part) -> list[str]:
    """In the order of the results."""
    if part == "held_out":
        return list(scores.held_out)
    return [s.suite for s in scores.results.suites] if part == "questions" else [s.set for s in scores.results.toxicity]


def _asked(scores: ModelScores, part: Part, suite: str) -> tuple[Any, ...]:
    """What two models must agree in for a suite to be compared."""
    how = [(s.metric, s.shots) for s in scores.results.suites if s.suite == suite] if part == "questions" else []
    return (*how, *((name, *_question(item)) for name, item in _of(scores, part)[suite].items()))


def _question(item: Item) -> tuple[Any, ...]:
    """What of an item does not depend on the model."""
    if isinstance(item, ChoiceItem):
        return item.gold, len(item.loglikelihoods)
    if isinstance(item, HeldOutItem):
        return (item.bytes,)
    if isinstance(item, ToxicityItem):
        return item.pair, tuple(item.groups), item.hostile, item.toxicity
    return ()


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in detail["loc"] if part not in _KINDS)
    shown = json.dumps(detail["input"], default=str)[:80]
    return f"{key or 'the whole'}: is {shown}; {detail['msg'][0].lower()}{detail['msg'][1:]}."
