"""The stage `filter/<corpus>`: two classifiers trained on a teacher's labels, measured, and one of them kept.

Of the texts a fifth is held out, stratified by score. What is measured is measured on them, and the threshold is the
score that the wanted share of them reaches; so the filter that is kept is the very one that was measured.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from primer.environment import usable_cores
from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.progress import say
from primer.recipe_corpora import Quality
from primer.run import Built, write_text
from primer.words import text_hash
from prompts.rubrics import rubric_of
from synth.filter_page import Shown, filter_page
from synth.quality_classifiers import Array, Classifier, Forest, Linear, Vectors
from synth.quality_embedding import sample_vectors
from synth.quality_filter import QualityFilter
from synth.quality_measures import (
    Booleans,
    agreement,
    area_under_roc,
    auc_intervals,
    brier_score,
    histogram,
    reliability,
    roc_curve,
    threshold_for,
)

PAGE = "quality.html"
HIGHEST = 5

_HELD_OUT = 5  # one in so many
_FEWEST = 5  # texts of either kind, so that one of each is held out
_SHOWN = 20
_BINS, _PARTS = 10, 25

_TREES = 200
# A leaf holds at least so many texts, and at least one in 5,000 of all: a tree then has at most 5,000 leaves and the
# forest 44 MB, however many labels there are (10 MB for 100 trees, of 80,000 texts).
_LEAF, _LEAVES = 5, 5000

# Strengths of the linear probe's penalty, of which cross-validation chooses.
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Labels:
    """What the teacher said of distinct texts; all of one length."""

    texts: list[str]
    titles: list[str]
    scores: npt.NDArray[np.int64]
    reasons: list[str]
    repeated: list[list[int]]


def build_filter(labels: Path, folder: Path, settings: Quality, seed: int) -> Built:
    """Train the filter of a corpus, and write it and the page about it.

    Args:
        labels: The Parquet file with the teacher's labels (`synth.annotate`), in the folder labels/web or labels/code.
        folder: Where `filter.json`, `filter.safetensors` and `quality.html` go.
        settings: Which score is good, what share to keep, and which classifier.
        seed: Chooses the held-out texts and the forest's chances.

    Raises:
        PrimerError: If the labels are missing, too few, or all of one kind.
    """
    known = read_labels(labels)
    good = known.scores >= settings.good
    _check_enough(labels, good, settings)
    vectors = sample_vectors(known.texts, folder / "vectors")
    held = held_out(known.scores, seed)
    models = {
        kind: _timed(train, vectors[~held], good[~held], seed)
        for kind, train in (("random_forest", train_forest), ("linear", train_linear))
    }
    scores = {kind: model.probabilities(vectors[held]) for kind, (model, _) in models.items()}
    threshold = threshold_for(scores[settings.classifier], settings.keep)
    facts = _trained_for(labels, settings) | _facts(known, good, held, scores, threshold, settings, seed)
    if facts["warning"]:
        say(f"  [yellow]{facts['warning']}[/]")
    about = facts | {"labels_sha256": file_hash(labels), "seed": seed}
    QualityFilter(models[settings.classifier][0], threshold, about).save(folder)
    curves = {kind: roc_curve(some, good[held]) for kind, some in scores.items()}
    shown = _near_threshold(known, held, scores[settings.classifier], threshold)
    write_text(folder / PAGE, filter_page(facts, curves, *shown))
    shutil.rmtree(folder / "vectors")
    # Seconds are for the manifest alone: the files are the same each time that they are made.
    return Built(_summary(facts), facts | {"seconds": {kind: seconds for kind, (_, seconds) in models.items()}})


def read_labels(path: Path) -> Labels:
    """The labels of distinct texts: of equal texts the first one counts.

    Raises:
        PrimerError: If the file is missing, damaged, or holds other scores than 0 to 5.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["text", "title", "score", "reason", "repeated_scores"]
    again = "Make the labels again with `primer web annotate`."
    try:
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise PrimerError(f"The labels in {path} cannot be read: {str(error).splitlines()[0]}", again) from None
    distinct: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        for score in (row["score"], *(row["repeated_scores"] or ())):
            if score not in range(HIGHEST + 1):
                raise PrimerError(f"{path}, row {number}: the score is {score!r}, not one of 0 to {HIGHEST}.", again)
        distinct.setdefault(text_hash(row["text"]), row)
    kept = list(distinct.values())
    return Labels(
        texts=[row["text"] for row in kept],
        titles=[row["title"] or "" for row in kept],
        scores=np.array([row["score"] for row in kept], np.int64),
        reasons=[row["reason"] or "" for row in kept],
        repeated=[row["repeated_scores"] or [] for row in kept],
    )


def held_out(scores: npt.NDArray[np.int64], seed: int) -> Booleans:
    """Which texts are held out, shape (n,): every fifth in an order of chance, sorted by score."""
    order = np.random.default_rng(seed).permutation(len(scores))
    order = order[np.argsort(scores[order], kind="stable")]
    held = np.zeros(len(scores), np.bool_)
    held[order[_HELD_OUT // 2 :: _HELD_OUT]] = True
    return held


def train_forest(vectors: Vectors, good: Booleans, seed: int) -> Forest:
    """A random forest (Breiman 2001, Machine Learning 45) of `_TREES` trees."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        n_estimators=_TREES,
        min_samples_leaf=max(_LEAF, -(-len(good) // _LEAVES)),
        random_state=seed,
        n_jobs=usable_cores(),
    )
    forest.fit(vectors, good)
    return Forest.of([tree.tree_ for tree in forest.estimators_])


def train_linear(vectors: Vectors, good: Booleans, seed: int) -> Linear:
    """Logistic regression on standardised components, its penalty chosen by cross-validated likelihood."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(vectors)
    standard = scaler.transform(vectors)
    smallest = int(min(good.sum(), (~good).sum()))
    folds = StratifiedKFold(min(5, smallest), shuffle=True, random_state=seed)

    def likelihood(strength: float) -> float:
        regression = LogisticRegression(C=strength, max_iter=1000)
        return float(cross_val_score(regression, standard, good, cv=folds, scoring="neg_log_loss").mean())

    regression = LogisticRegression(C=max(_PENALTIES, key=likelihood), max_iter=1000)
    return Linear.of(scaler, regression.fit(standard, good))


def _timed(train: Any, vectors: Vectors, good: Booleans, seed: int) -> tuple[Classifier, float]:
    started = time.monotonic()
    model: Classifier = train(vectors, good, seed)
    return model, round(time.monotonic() - started, 2)


def _corpus_of(labels: Path) -> Literal["web", "code"] | None:
    """The corpus that labels belong to, by the folder that they lie in."""
    name = labels.parent.name
    return "web" if name == "web" else "code" if name == "code" else None


def _trained_for(labels: Path, settings: Quality) -> dict[str, str | None]:
    """The corpus, and the rubric that the teacher scored by: another use of the filter is checked against it."""
    corpus = _corpus_of(labels)
    return {"corpus": corpus, "rubric": rubric_of(settings, corpus).name if corpus else settings.rubric}


def _check_enough(labels: Path, good: Booleans, settings: Quality) -> None:
    corpus = _corpus_of(labels)

    def key(name: str) -> str:
        return f"{corpus}.quality.{name}" if corpus else f"web.quality.{name} or code.quality.{name}"

    count, of_all = int(good.sum()), len(good)
    if min(count, of_all - count) >= _FEWEST:
        return
    if of_all < 2 * _FEWEST:
        remedy = f"Label more texts: raise {key('samples')}, or see why so many answers were unreadable."
    elif count < _FEWEST:
        remedy = (
            f"Lower {key('good')} (now {settings.good}), label more texts, or choose a source that holds such texts."
        )
    else:
        remedy = f"Raise {key('good')} (now {settings.good}): nearly every text counts as good."
    raise PrimerError(
        f"Of {of_all} distinct texts that the teacher labelled ({labels}), {count} score {settings.good} or higher; "
        f"a filter is trained on at least {_FEWEST} that do and {_FEWEST} that do not.",
        remedy,
    )


def _facts(
    known: Labels,
    good: Booleans,
    held: Booleans,
    scores: Mapping[str, Array],
    threshold: float,
    settings: Quality,
    seed: int,
) -> dict[str, Any]:
    """What is measured, as JSON values; AUC is on the held-out texts."""
    truth = good[held]
    intervals, difference = auc_intervals(list(scores.values()), truth, seed)
    classifiers = {
        kind: _measured(some, truth, interval, settings.keep)
        for (kind, some), interval in zip(scores.items(), intervals, strict=True)
    }
    agreed = agreement([int(score) for score in known.scores], known.repeated, settings.good)
    areas = [found["auc"][0] for found in classifiers.values()]
    return {
        "labels": len(known.texts),
        "teacher_scores": np.bincount(known.scores, minlength=HIGHEST + 1).tolist(),
        "good_from": settings.good,
        "good": int(good.sum()),
        "held_out": int(held.sum()),
        "held_out_good": int(truth.sum()),
        "classifier": settings.classifier,
        "keep": settings.keep,
        "threshold": threshold,
        "classifiers": classifiers,
        "forest_minus_linear": [areas[0] - areas[1], *difference],
        "agreement": asdict(agreed) if agreed else None,
        "warning": _warning(classifiers[settings.classifier]["auc"]),
    }


def _warning(auc: Sequence[float]) -> str | None:
    """What to say of a classifier whose interval reaches down to guessing."""
    if auc[1] > 0.5:
        return None
    return (
        f"On the held-out texts the filter is not shown to be better than chance: AUC {auc[0]:.3f}, 95% interval "
        f"{auc[1]:.3f} to {auc[2]:.3f}, and guessing has 0.5. Read the page, and label more texts."
    )


def _measured(scores: Array, good: Booleans, interval: tuple[float, float], keep: float) -> dict[str, Any]:
    """One classifier on the held-out texts, with the threshold that is its own."""
    kept = scores >= threshold_for(scores, keep)
    return {
        "auc": [area_under_roc(scores, good), *interval],
        "brier": brier_score(scores, good),
        "precision": float(good[kept].mean()),
        "recall": float(good[kept].sum() / good.sum()),
        "kept": float(kept.mean()),
        "reliability": [list(group) for group in reliability(scores, good, _BINS)],
        "good_histogram": histogram(scores[good], _PARTS),
        "other_histogram": histogram(scores[~good], _PARTS),
    }


def _near_threshold(
    known: Labels, held: Booleans, scores: Array, threshold: float
) -> tuple[Sequence[Shown], Sequence[Shown]]:
    """The held-out texts next to the threshold: above it from the lowest up, below it from the highest down."""
    places = np.flatnonzero(held)
    order = np.argsort(scores, kind="stable")
    first = int((scores < threshold).sum())

    def shown(ranks: npt.NDArray[np.int64]) -> list[Shown]:
        return [
            Shown(
                score=float(scores[rank]),
                label=int(known.scores[places[rank]]),
                reason=known.reasons[places[rank]],
                title=known.titles[places[rank]],
                text=known.texts[places[rank]],
            )
            for rank in ranks
        ]

    return shown(order[first : first + _SHOWN]), shown(order[max(0, first - _SHOWN) : first][::-1])


def _summary(facts: Mapping[str, Any]) -> str:
    found = facts["classifiers"][facts["classifier"]]
    value, low, high = found["auc"]
    return (
        f"{facts['classifier'].replace('_', ' ')} on {facts['labels'] - facts['held_out']:,d} labels, "
        f"AUC {value:.3f} ({low:.3f} to {high:.3f}), "
        f"keeps {found['kept']:.0%} (score {facts['threshold']:.3f} or more)"
    )
