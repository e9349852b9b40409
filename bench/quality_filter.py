"""Which classifier tells a teacher's good texts from others, what it should see of a text, and what that costs.

    python bench/quality_filter.py --texts articles.jsonl --labels labels-*.jsonl

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
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primer.environment import usable_cores
from primer.run import write_json
from synth.quality_classifiers import Array, Classifier, Vectors
from synth.quality_embedding import HEAD_CHARACTERS, sample_vectors, text_vectors
from synth.quality_measures import Booleans, area_under_roc, auc_intervals, threshold_for
from synth.quality_training import train_forest, train_linear
from topics.embedding import MODEL_NAME

RESULTS = Path(__file__).parent / "results" / "quality-filter.json"

# About 256 tokens of English prose.
WINDOW = 190
FOLDS, REPEATS, SEED = 5, 5, 0
TIMED = 100

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


def represent(texts: Sequence[str], windows_of: Callable[[str], list[str]], folder: Path) -> tuple[Vectors, float]:
    """Unit vectors of some texts, each the mean over its windows, and the windows of a text."""
    windows = [windows_of(text) for text in texts]
    vectors = sample_vectors([window for some in windows for window in some], folder)
    ends = np.cumsum([len(some) for some in windows])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    unit: Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit, len(vectors) / len(texts)


def cross_validated(train: Train, vectors: Vectors, good: Booleans, scores: Any) -> tuple[Array, list[float]]:
    """The mean probability of each text over the repetitions, and the area of each repetition."""
    total, areas = np.zeros(len(good)), []
    for repeat in range(REPEATS):
        order = np.random.default_rng([SEED, repeat]).permutation(len(good))
        order = order[np.argsort(scores[order], kind="stable")]
        predicted = np.empty(len(good))
        for fold in range(FOLDS):
            out = order[fold::FOLDS]
            kept = np.setdiff1d(order, out)
            predicted[out] = train(vectors[kept], good[kept], SEED).probabilities(vectors[out])
        total += predicted / REPEATS
        areas.append(area_under_roc(predicted, good))
    return total, areas


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--good", type=int, default=3, help="score from which a text is good")
    parser.add_argument("--keep", type=float, default=0.2, help="share of the texts to keep")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-filter"), help="folder for the embeddings")
    arguments = parser.parse_args()
    known = {row["id"]: row["score"] for path in arguments.labels for row in read(path)}
    rows = read(arguments.texts)
    labelled = np.array([row["id"] in known for row in rows])
    texts = [row["text"] for row in rows]
    scores = np.array([known[row["id"]] for row in rows if row["id"] in known])
    good = scores >= arguments.good
    print(f"{len(scores)} texts, {good.sum()} good; scores {np.bincount(scores, minlength=6).tolist()}")
    found: dict[str, Any] = {}
    predicted: dict[str, Array] = {}
    for name, windows_of in REPRESENTATIONS.items():
        vectors, windows = represent(texts, windows_of, arguments.out / name.replace(" ", "-"))
        vectors = vectors[labelled]
        for kind, train in CLASSIFIERS.items():
            started = time.monotonic()
            probabilities, areas = cross_validated(train, vectors, good, scores)
            predicted[f"{name}, {kind}"] = probabilities
            kept = probabilities >= threshold_for(probabilities, arguments.keep)
            found[f"{name}, {kind}"] = {
                "windows": round(windows, 2),
                "auc": area_under_roc(probabilities, good),
                "auc_of_each_repetition": areas,
                "precision": float(good[kept].mean()),
                "recall": float(good[kept].sum() / good.sum()),
                "seconds": round(time.monotonic() - started, 1),
            }
    reference = next(iter(predicted))
    for name, probabilities in predicted.items():
        intervals, difference = auc_intervals([probabilities, predicted[reference]], good, SEED)
        row = found[name]
        row |= {"interval": intervals[0], f"less {reference}": difference}
        print(
            f"{name:45} AUC {row['auc']:.3f} ({intervals[0][0]:.3f} to {intervals[0][1]:.3f})  "
            f"precision {row['precision']:.2f} recall {row['recall']:.2f}  "
            f"less the first {difference[0]:+.3f} to {difference[1]:+.3f}"
        )
    torch.set_num_threads(1)
    vectors = text_vectors(texts[:TIMED])
    many = np.tile(vectors, (50, 1))
    learnt, _ = represent(texts, beginning, arguments.out / "beginning")
    models = {kind: train(learnt[labelled], good, SEED) for kind, train in CLASSIFIERS.items()}
    rates: dict[str, float] = {"embedding": per_second(lambda: text_vectors(texts[:TIMED]), TIMED)}
    for kind, model in models.items():
        rates[kind] = per_second(lambda model=model: model.probabilities(many), len(many))  # type: ignore[misc]
    print("texts per CPU second:", rates)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python bench/quality_filter.py --texts FILE --labels FILES",
        "hardware": f"{usable_cores()} cores, {platform.machine()}, no GPU",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "torch", "tokenizers")},
        "embedding": MODEL_NAME,
        "texts": len(scores),
        "scores": np.bincount(scores, minlength=6).tolist(),
        "good_from": arguments.good,
        "keep": arguments.keep,
    }
    write_json(RESULTS, {"about": about, "classifiers": found, "texts_per_cpu_second": rates})


if __name__ == "__main__":
    main()
