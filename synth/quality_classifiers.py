"""The two classifiers of the quality filter as plain arrays: a random forest, and a linear probe.

They are trained by scikit-learn (`synth.quality_training`); applied, they need NumPy alone. A text's probability is
worked out from its own vector only, in the same order of operations whatever other texts stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

# Nodes looked at together: documents times trees.
_BLOCK = 400_000


class Classifier(Protocol):
    """What the filter asks of a classifier: a kind, arrays to keep, and probabilities."""

    kind: ClassVar[str]

    @property
    def dimension(self) -> int:
        """Length of the vectors that it takes; the least length, where it cannot tell."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything it is made of, by name."""
        ...

    def probabilities(self, vectors: Vectors) -> Array:
        """The probability that each text is good, shape (n,), from vectors of shape (n, dimension)."""
        ...


@dataclass(frozen=True, eq=False)
class Forest:
    """A random forest; the nodes of all trees stand in one row, children after their parents.

    A leaf is its own child on both sides. Thresholds are rounded down to 32 bits, which decides for 32-bit vectors
    exactly as the 64-bit threshold does.

    Attributes:
        roots: Place of each tree's root, shape (trees,).
        feature: Component of the vector that a node looks at, shape (nodes,).
        threshold: Where it is at most this, the text goes left, shape (nodes,).
        left: Place of the left child, shape (nodes,).
        right: Place of the right child, shape (nodes,).
        good: Share of good texts among those that reached the node in training, shape (nodes,).
    """

    roots: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int16]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    good: Array

    kind: ClassVar[str] = "random_forest"

    @property
    def dimension(self) -> int:
        """The least length of the vectors that it takes."""
        return int(self.feature.max()) + 1

    @classmethod
    def of(cls, trees: Sequence[Any]) -> Self:
        """The forest of scikit-learn's trees (`tree_` of each estimator), whose second class is "good"."""
        sizes = [tree.node_count for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        leaf = np.concatenate([tree.children_left for tree in trees]) < 0
        own, offset = np.arange(len(leaf)), np.repeat(roots, sizes)
        left = np.concatenate([tree.children_left for tree in trees]) + offset
        right = np.concatenate([tree.children_right for tree in trees]) + offset
        exact = np.concatenate([tree.threshold for tree in trees])
        rounded = exact.astype(np.float32)
        rounded = np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)
        return cls(
            roots=roots.astype(np.int32),
            feature=np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int16),
            threshold=np.where(leaf, np.float32(0), rounded).astype(np.float32),
            left=np.where(leaf, own, left).astype(np.int32),
            right=np.where(leaf, own, right).astype(np.int32),
            good=np.concatenate([tree.value[:, 0, 1] for tree in trees]).astype(np.float64),
        )

    @classmethod
    def load(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The forest of some arrays.

        Raises:
            ValueError: If they are no forest; then no text could be led astray by it, or in circles.
        """
        kinds = {"roots": "i4", "feature": "i2", "threshold": "f4", "left": "i4", "right": "i4", "good": "f8"}
        forest = cls(**_typed(arrays, kinds))
        nodes = len(forest.good)
        own = np.arange(nodes)
        if not all(len(part) == nodes for part in (forest.feature, forest.threshold, forest.left, forest.right)):
            raise ValueError("its nodes have parts of different lengths")
        leaf = (forest.left == own) & (forest.right == own)
        inner = (forest.left > own) & (forest.right > own) & (forest.left < nodes) & (forest.right < nodes)
        rooted = len(forest.roots) > 0 and forest.roots.min() >= 0 and forest.roots.max() < nodes
        if not (rooted and np.all(leaf | inner) and np.all(forest.feature >= 0)):
            raise ValueError("its nodes do not form trees")
        if not (np.all(np.isfinite(forest.threshold)) and np.all((forest.good >= 0) & (forest.good <= 1))):
            raise ValueError("it holds thresholds or shares that are no numbers, or out of range")
        return forest

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything it is made of, by name."""
        return dict(vars(self))

    def probabilities(self, vectors: Vectors) -> Array:
        """Mean over the trees of the share of good texts in the leaf that a text comes to, shape (n,)."""
        step = max(1, _BLOCK // len(self.roots))
        blocks = [self._leaves(vectors[start : start + step]) for start in range(0, len(vectors), step)]
        # Row after row in memory, so that each row is added up in the same order.
        shares = [np.ascontiguousarray(self.good[block]) for block in blocks]
        return np.concatenate([share.mean(axis=1) for share in shares] or [np.empty(0)])

    def _leaves(self, vectors: Vectors) -> npt.NDArray[np.int32]:
        """The leaf of each text in each tree, shape (n, trees)."""
        rows = np.arange(len(vectors))[:, None]
        places = np.broadcast_to(self.roots, (len(vectors), len(self.roots)))
        while True:
            lower = vectors[rows, self.feature[places]] <= self.threshold[places]
            below = np.where(lower, self.left[places], self.right[places])
            if np.array_equal(below, places):
                return places
            places = below


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear probe: logistic regression on the vector's components.

    Attributes:
        weights: One for each component, shape (dimension,).
        bias: Shape (1,).
    """

    weights: Array
    bias: Array

    kind: ClassVar[str] = "linear"

    @property
    def dimension(self) -> int:
        """Length of the vectors that it takes."""
        return len(self.weights)

    @classmethod
    def of(cls, scaler: Any, regression: Any) -> Self:
        """The probe of scikit-learn's StandardScaler and the LogisticRegression behind it, as one step."""
        weights = regression.coef_[0] / scaler.scale_
        return cls(weights=weights, bias=regression.intercept_ - (weights * scaler.mean_).sum())

    @classmethod
    def load(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The probe of some arrays.

        Raises:
            ValueError: If they are no linear probe.
        """
        probe = cls(**_typed(arrays, {"weights": "f8", "bias": "f8"}))
        if probe.bias.shape != (1,) or not (np.all(np.isfinite(probe.weights)) and np.isfinite(probe.bias[0])):
            raise ValueError("its weights are not finite numbers and one bias")
        return probe

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything it is made of, by name."""
        return dict(vars(self))

    def probabilities(self, vectors: Vectors) -> Array:
        """1 / (1 + exp(-(w x + b))), shape (n,)."""
        # A sum for each row, where a matrix product would depend on how many rows there are.
        logits = (vectors.astype(np.float64) * self.weights).sum(axis=1) + self.bias[0]
        probabilities: Array = np.exp(-np.logaddexp(0.0, -logits))
        return probabilities


def _typed(arrays: Mapping[str, npt.NDArray[Any]], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The arrays, if they are the ones that are wanted: their names, one axis, these types."""
    found = {name: array.dtype.str[1:] for name, array in arrays.items() if array.ndim == 1}
    if found != dict(kinds) or len(arrays) != len(kinds):
        raise ValueError(f"it holds {found}, and not {dict(kinds)}, each with one axis")
    return dict(arrays)
