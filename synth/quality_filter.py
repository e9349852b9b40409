"""The quality filter: a classifier over sentence embeddings that says how likely a text is to be educational.

After "Textbooks Are All You Need" (arXiv 2306.11644, section 2.1): a random forest on the output embedding of a
pretrained model, trained on a teacher's labels (`synth.quality_training`). On disk a filter is two files without
code in them: `filter.json`, for people and for checks, and `filter.safetensors`, the classifier's arrays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.run import write_json
from synth.quality_classifiers import Array, Classifier, Forest, Linear, Vectors
from synth.quality_embedding import HEAD_CHARACTERS, text_vectors

FORMAT = 1
FILES = ("filter.json", "filter.safetensors")
_KINDS: dict[str, type[Forest] | type[Linear]] = {Forest.kind: Forest, Linear.kind: Linear}


@dataclass(frozen=True)
class QualityFilter:
    """A trained filter.

    Attributes:
        model: Its classifier.
        threshold: The probability from which a text is kept.
        about: What it was trained on and how well it did, for people (JSON values).
    """

    model: Classifier
    threshold: float
    about: Mapping[str, Any]

    @property
    def classifier(self) -> str:
        """Name of the classifier: random_forest or linear."""
        return self.model.kind

    def scores(self, texts: Sequence[str]) -> Array:
        """The probability that each text is good, shape (n,); the same for a text in any company.

        Raises:
            PrimerError: If the embedding model is not installed.
        """
        return self.vector_scores(text_vectors(texts))

    def vector_scores(self, vectors: Vectors) -> Array:
        """The same from the texts' vectors (`synth.quality_embedding`), shape (n, 384)."""
        return self.model.probabilities(vectors)

    def save(self, folder: Path) -> None:
        """Write the filter into an existing folder."""
        from safetensors.numpy import save

        (folder / FILES[1]).write_bytes(save(self.model.arrays()))
        head = {
            "format": FORMAT,
            "classifier": self.classifier,
            "threshold": self.threshold,
            "embedding": _embedding(),
            "arrays": file_hash(folder / FILES[1]),
        }
        write_json(folder / FILES[0], head | {"about": dict(self.about)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a filter.

        Raises:
            PrimerError: If a file is missing or damaged, or the filter is of another version or embedding model.
        """
        head = _read_head(folder)
        return cls(_read_classifier(folder, head), head["threshold"], head["about"])


def other_rubric(folder: Path, wanted: str) -> str | None:
    """The rubric that a filter's labels were scored by, if it is another than the wanted one; None where it is unknown.

    Raises:
        PrimerError: If `filter.json` is missing or damaged.
    """
    rubric = _read_head(folder)["about"].get("rubric")
    return rubric if isinstance(rubric, str) and rubric != wanted else None


def _embedding() -> dict[str, Any]:
    from topics.embedding import DIMENSION, MODEL_NAME

    return {"model": MODEL_NAME, "dimension": DIMENSION, "characters": HEAD_CHARACTERS}


def _read_head(folder: Path) -> dict[str, Any]:
    """`filter.json`, checked."""
    path = folder / FILES[0]
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrimerError(
            f"{folder} holds no quality filter: there is no {FILES[0]} in it.",
            "Name the folder that `primer web train-filter` wrote, such as runs/NAME/filter/web.",
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(head, dict):
        raise _damaged(path, "it is not a JSON object")
    if head.get("format") != FORMAT:
        raise PrimerError(
            f"{path} has the format {head.get('format')!r}; this version of Primer reads {FORMAT}.",
            "Train the filter again with `primer web train-filter`; the teacher's labels can be used again.",
        )
    if head.get("embedding") != _embedding():
        raise PrimerError(
            f"{path} was trained on the embeddings {head.get('embedding')!r}; here they are {_embedding()!r}.",
            "Train the filter again with `primer web train-filter`; the teacher's labels can be used again.",
        )
    threshold = head.get("threshold")
    if not (isinstance(threshold, float | int) and math.isfinite(threshold)):
        raise _damaged(path, f"its threshold is {threshold!r}")
    if head.get("classifier") not in _KINDS or not isinstance(head.get("about"), dict):
        raise _damaged(path, f"its classifier is {head.get('classifier')!r}, or it does not say what it is about")
    return head


def _read_classifier(folder: Path, head: Mapping[str, Any]) -> Classifier:
    """The classifier's arrays, checked against what `filter.json` says of them."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILES[1]
    if not path.is_file():
        raise _damaged(path, "it is missing")
    if file_hash(path) != head.get("arrays"):
        raise _damaged(path, f"it is not the file that {FILES[0]} was written with")
    try:
        model = _KINDS[head["classifier"]].load(load_file(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from None
    dimension = _embedding()["dimension"]
    if model.dimension > dimension or (isinstance(model, Linear) and model.dimension != dimension):
        raise _damaged(path, f"it takes vectors of {model.dimension} numbers, and the embeddings have {dimension}")
    return model


def _damaged(path: Path, why: str) -> PrimerError:
    return PrimerError(
        f"The quality filter's file {path} cannot be used: {why}.",
        "Copy the filter's folder again, or train it again with `primer web train-filter`.",
    )
