"""How well the seeds cover what benchmarks ask, and what the questions far from every seed are about.

No seed is written from a benchmark; the distance of its questions says where the list has holes. They are mended in
kind, by subfields, never by copying questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from primer.benchmarks import Question
from topics.embedding import Vectors
from topics.similarity import nearest
from topics.titles import subject_words

# A question is covered if a seed is this close (cosine); docs/topics.md says how the number was found.
COVERED = 0.50

_GROUPS = 10
_WORDS = 6
_EXAMPLES = 3


@dataclass(frozen=True)
class FarGroup:
    """Questions that are far from every seed and close to each other.

    Attributes:
        count: How many.
        words: The words that set them apart from the other questions of the suite.
        examples: Places of the questions nearest to the group's middle.
    """

    count: int
    words: list[str]
    examples: list[int]


@dataclass(frozen=True)
class Coverage:
    """How close a suite's questions come to the seeds.

    Attributes:
        suite: Its name.
        questions: The rows.
        nearest: For each question, the place of its nearest seed.
        cosines: For each question, how close that is.
        sibling: The median question's cosine with the nearest other question of its suite: how close two texts of
            one kind on one subject come, to read the other figures by.
        far: What the uncovered questions are about, largest group first.
    """

    suite: str
    questions: Sequence[Question]
    nearest: NDArray[np.int64]
    cosines: Vectors
    sibling: float
    far: list[FarGroup]

    @property
    def median(self) -> float:
        """Of the cosine with the nearest seed."""
        return float(np.median(self.cosines))

    @property
    def covered(self) -> float:
        """Share of the questions with a seed at `COVERED` or closer."""
        return float(np.mean(self.cosines >= COVERED))


def measure_coverage(suite: str, questions: Sequence[Question], asked: Vectors, seeds: Vectors) -> Coverage:
    """Compare the questions of a suite with the seeds.

    Args:
        suite: Its name.
        questions: Its rows.
        asked: Embeddings of the questions.
        seeds: Embeddings of the seeds.
    """
    places, cosines = nearest(asked, seeds)
    close = cosines[:, 0]
    sibling = float(np.median(nearest(asked, asked, same=True)[1])) if len(asked) > 1 else 0.0
    far = _group(questions, asked, np.flatnonzero(close < COVERED))
    return Coverage(suite, questions, places[:, 0], close, sibling, far)


def _group(questions: Sequence[Question], vectors: Vectors, far: NDArray[np.int64]) -> list[FarGroup]:
    from sklearn.cluster import KMeans

    count = min(_GROUPS, len(far) // 5)
    if count < 1:
        return []
    means = KMeans(count, n_init=4, random_state=0).fit(vectors[far])
    everywhere = Counter(word for question in questions for word in subject_words(question.text))
    groups: list[FarGroup] = []
    for number in range(count):
        members = far[means.labels_ == number]
        here = Counter(word for place in members.tolist() for word in subject_words(questions[place].text))
        # Log-likelihood of the word in the group against the suite: frequent words that are rare elsewhere.
        rate = len(members) / len(questions)
        score = {word: n * math.log(n / (everywhere[word] * rate)) for word, n in here.items() if n > 1}
        middle = vectors[members] @ means.cluster_centers_[number]
        examples = members[np.argsort(-middle)[:_EXAMPLES]].tolist()
        groups.append(FarGroup(len(members), sorted(score, key=lambda word: -score[word])[:_WORDS], examples))
    return sorted(groups, key=lambda group: -group.count)
