"""Which classifier tells a teacher's good texts from others, what it should see of a text, and what that costs.

    python bench/quality_filter.py --texts articles.jsonl --labels labels-*.jsonl --good 3 2

Texts are JSON Lines with "id" and "text", labels with "id" and "score" (0 to 5). Cross-validated, five folds, five
times: every text is scored by classifiers that did not see it. Embeddings are kept in --out, which belongs to one file
of texts, so that a second run is quick. Results: bench/results/quality-filter.json, which holds no texts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primer.environment import usable_cores
from primer.run import write_json
from synth.quality_classifiers import Array, Classifier, Vectors
from synth.quality_embedding import HEAD_CHARACTERS, sample_vectors, text_vectors
from synth.quality_measures import Booleans, agreement, area_under_roc, threshold_for
from synth.quality_training import train_forest, train_linear
from topics.embedding import MODEL_NAME

RESULTS = Path(__file__).parent / "results" / "quality-filter.json"

# About 256 tokens of English prose.
WINDOW = 190
FOLDS, REPEATS, SEED = 5, 5, 0
TIMED = 100
DRAWS = 1000

Train = Callable[[Vectors, Booleans, int], Classifier]
CLASSIFIERS: dict[str, Train] = {"random forest": train_forest, "linear": train_linear}


def beginning(text: str) -> list[str]:
    """The first 256 tokens: the filter's way."""
    return [text[:HEAD_CHARACTERS]]


def half(text: str) -> list[str]:
    """The first 95 words, about 128 tokens."""
    return [" ".join(text.split()[: WINDOW // 2])]


def two_windows(text: str) -> list[str]:
    """The first two windows: about what the teacher is shown."""
    words = text.split()
    return [" ".join(words[start : start + WINDOW]) for start in (0, WINDOW) if start == 0 or len(words) > start]


def spread(text: str) -> list[str]:
    """Up to four windows, evenly spread from the beginning to the end."""
    words = text.split()
    count = min(4, -(-len(words) // WINDOW)) or 1
    starts = np.linspace(0, max(0, len(words) - WINDOW), count).astype(int)
    return [" ".join(words[start : start + WINDOW]) for start in starts]


REPRESENTATIONS = {
    "beginning": beginning,
    "first 95 words": half,
    "mean of the first two windows": two_windows,
    "mean of four windows": spread,
}


def represent(texts: Sequence[str], windows_of: Callable[[str], list[str]], folder: Path) -> Vectors:
    """Unit vectors of some texts, shape (n, 384), each the mean over its windows."""
    windows = [windows_of(text) for text in texts]
    vectors = sample_vectors([window for some in windows for window in some], folder)
    ends = np.cumsum([len(some) for some in windows])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    unit: Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit


def cross_validated(train: Train, vectors: Vectors, good: Booleans, scores: Any) -> Array:
    """The probability of each text in each repetition, shape (repetitions, n), by classifiers that did not see it."""
    predicted = np.empty((REPEATS, len(good)))
    for repeat in range(REPEATS):
        order = np.random.default_rng([SEED, repeat]).permutation(len(good))
        order = order[np.argsort(scores[order], kind="stable")]
        for fold in range(FOLDS):
            out = order[fold::FOLDS]
            kept = np.setdiff1d(order, out)
            predicted[repeat, out] = train(vectors[kept], good[kept], SEED).probabilities(vectors[out])
    return predicted


def mean_area(predicted: Array, good: Booleans, weights: Array | None = None) -> float:
    """The mean over the repetitions of the area under the ROC curve: that of one classifier, not of five together."""
    return float(np.mean([area_under_roc(scores, good, weights) for scores in predicted]))


def intervals(predicted: dict[str, Array], good: Booleans) -> tuple[Array, Array]:
    """95% bootstrap intervals of each mean area, and of each less the first, both of shape (2, classifiers)."""
    rng = np.random.default_rng(SEED)
    draws = np.empty((DRAWS, len(predicted)))
    for draw in draws:
        weights = np.zeros(len(good))
        for kind in (good, ~good):
            weights[kind] = rng.multinomial(kind.sum(), np.full(kind.sum(), 1 / kind.sum()))
        draw[:] = [mean_area(some, good, weights) for some in predicted.values()]
    ends = [0.025, 0.975]
    return np.quantile(draws, ends, axis=0), np.quantile(draws - draws[:, :1], ends, axis=0)


def per_second(work: Callable[[], object], count: int) -> float:
    """The best of three, in texts per CPU second of this process."""
    rates = []
    for _ in range(3):
        started = time.process_time()
        work()
        rates.append(count / (time.process_time() - started))
    return round(max(rates), 1)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compare(represented: dict[str, Vectors], scores: Any, good_from: int, keep: float) -> dict[str, Any]:
    """Every classifier on every representation, where the scores from `good_from` up are good."""
    good = scores >= good_from
    predicted = {
        f"{name}, {kind}": cross_validated(train, vectors, good, scores)
        for name, vectors in represented.items()
        for kind, train in CLASSIFIERS.items()
    }
    own, less = intervals(predicted, good)
    reference = next(iter(predicted))
    print(f"\n{good.sum()} of {len(good)} texts are good (score {good_from} or more)")
    found = {}
    for place, (name, some) in enumerate(predicted.items()):
        kept = [probabilities >= threshold_for(probabilities, keep) for probabilities in some]
        found[name] = {
            "auc": mean_area(some, good),
            "interval": own[:, place].tolist(),
            f"less {reference}": less[:, place].tolist(),
            "auc_of_each_repetition": [area_under_roc(probabilities, good) for probabilities in some],
            "precision": float(np.mean([good[chosen].mean() for chosen in kept])),
            "recall": float(np.mean([good[chosen].sum() / good.sum() for chosen in kept])),
        }
        print(
            f"{name:45} AUC {found[name]['auc']:.3f} ({own[0, place]:.3f} to {own[1, place]:.3f})  "
            f"precision {found[name]['precision']:.2f} recall {found[name]['recall']:.2f}  "
            f"less the first {less[0, place]:+.3f} to {less[1, place]:+.3f}"
        )
    return {"good": int(good.sum()), "classifiers": found}


def speeds(texts: Sequence[str], learnt: Vectors, good: Booleans) -> dict[str, float]:
    """Texts per CPU second on one thread: embedded, and scored by each classifier once they are."""
    torch.set_num_threads(1)
    many = np.tile(learnt, (10, 1))
    rates = {"embedding": per_second(lambda: text_vectors(texts[:TIMED]), min(TIMED, len(texts)))}
    for kind, train in CLASSIFIERS.items():
        model = train(learnt, good, SEED)
        rates[kind] = per_second(partial(model.probabilities, many), len(many))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--repeated", nargs="+", type=Path, default=[], metavar="FILE", help="second labels of some")
    parser.add_argument("--good", nargs="+", type=int, default=[3], help="score from which a text is good")
    parser.add_argument("--keep", type=float, default=0.2, help="share of the texts to keep")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-filter"), help="folder for the embeddings")
    arguments = parser.parse_args()
    known = {row["id"]: int(row["score"]) for path in arguments.labels for row in read(path)}
    again = {row["id"]: int(row["score"]) for path in arguments.repeated for row in read(path)}
    rows = read(arguments.texts)
    labelled = np.array([row["id"] in known for row in rows])
    scores = np.array([known[row["id"]] for row in rows if row["id"] in known])
    repeated = [[again[row["id"]]] if row["id"] in again else [] for row in rows if row["id"] in known]
    texts = [row["text"] for row in rows]
    represented = {
        name: represent(texts, windows_of, arguments.out / name.replace(" ", "-"))[labelled]
        for name, windows_of in REPRESENTATIONS.items()
    }
    results = {}
    for good_from in arguments.good:
        results[f"good from {good_from}"] = compare(represented, scores, good_from, arguments.keep)
        agreed = agreement(scores.tolist(), repeated, good_from)
        results[f"good from {good_from}"]["teacher"] = asdict(agreed) if agreed else None
        print(f"the teacher: {agreed}")
    rates = speeds(texts, represented["beginning"], scores >= arguments.good[0])
    print("\ntexts per CPU second:", rates)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python bench/quality_filter.py --texts FILE --labels FILES --repeated FILES --good 3 2",
        "hardware": f"{usable_cores()} cores, {platform.machine()}, no GPU",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "torch", "tokenizers")},
        "embedding": MODEL_NAME,
        "texts": len(scores),
        "scores": np.bincount(scores, minlength=6).tolist(),
        "keep": arguments.keep,
    }
    write_json(RESULTS, {"about": about, "results": results, "texts_per_cpu_second": rates})


if __name__ == "__main__":
    main()
