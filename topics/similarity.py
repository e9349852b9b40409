"""What embeddings say of a list: nearest seeds, and seeds that say nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from topics.audit import Check, Finding, Listed
from topics.embedding import Vectors

# Two titles this close (cosine) are taken for one; fewer than this share of the seeds may have such a neighbor.
NEAR_DUPLICATE = 0.90
_MOST_NEAR_DUPLICATES = 0.005

_BLOCK = 1024


def nearest(
    queries: Vectors, vectors: Vectors, count: int = 1, *, same: bool = False
) -> tuple[NDArray[np.int64], Vectors]:
    """The vectors with the largest cosine to each query.

    Args:
        queries: Unit vectors, shape (queries, width).
        vectors: Unit vectors, shape (vectors, width).
        count: How many to find.
        same: Whether queries and vectors are one list, and nothing is to be its own neighbor.

    Returns:
        Places in `vectors` and cosines, each of shape (queries, count), closest first.
    """
    places = np.empty((len(queries), count), dtype=np.int64)
    cosines = np.empty((len(queries), count), dtype=np.float32)
    for start, products in _products(queries, vectors, same=same):
        rows = np.arange(len(products))
        best = np.argpartition(-products, count - 1, axis=1)[:, :count]
        order = np.argsort(-products[rows[:, None], best], axis=1, kind="stable")
        best = best[rows[:, None], order]
        places[start : start + len(products)] = best
        cosines[start : start + len(products)] = products[rows[:, None], best]
    return places, cosines


def check_near_duplicates(listed: Sequence[Listed], vectors: Vectors) -> Check:
    """Whether few enough seeds have a neighbor that says nearly the same."""
    close: set[int] = set()
    findings: list[Finding] = []
    best = np.empty(len(vectors), dtype=np.float32)
    for start, products in _products(vectors, vectors, same=True):
        best[start : start + len(products)] = products.max(axis=1)
        for row, other in np.argwhere(products >= NEAR_DUPLICATE).tolist():
            close.add(start + row)
            if other < start + row:
                later, earlier = listed[start + row], listed[other]
                findings.append(
                    Finding(
                        later.where,
                        f"{later.topic.title!r} is close to {earlier.topic.title!r} ({earlier.where}): cosine "
                        f"{products[row, other]:.2f}",
                    )
                )
    share = len(close) / len(listed)
    return Check(
        f"fewer than {_MOST_NEAR_DUPLICATES:.1%} of the seeds have a neighbor above cosine {NEAR_DUPLICATE:.2f}",
        f"{len(close):,d} of {len(listed):,d} ({share:.2%}); the median seed's nearest is at {np.median(best):.2f}",
        share < _MOST_NEAR_DUPLICATES,
        findings,
    )


def _products(queries: Vectors, vectors: Vectors, *, same: bool) -> Iterator[tuple[int, Vectors]]:
    """The cosines of some queries at a time with every vector, and the place of the first of them."""
    for start in range(0, len(queries), _BLOCK):
        products = queries[start : start + _BLOCK] @ vectors.T
        if same:
            rows = np.arange(len(products))
            products[rows, start + rows] = -1.0
        yield start, products
