"""Drawing topics: stratified, weighted, and the same on every machine.

An epoch is as many draws as there are topics. Without weights every topic comes once in it; with weights each comes
as often as its share says, rounded to a whole number of times so that the epoch's length holds. Within an epoch the
fields are dealt out evenly: any stretch from its beginning holds each field by its share, to within about one draw,
so that a run of three hundred prompts out of twenty thousand topics is a small picture of the whole list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from primer.errors import PrimerError, did_you_mean
from primer.recipe import TopicWeights
from topics.seeds import KINDS, LEVELS, Topic

# The golden ratio's fractional part: its multiples spread over [0, 1) as evenly as any can.
_GOLDEN = 0.6180339887498949


class TopicDraws:
    """Which topic comes at each place of each epoch.

    Args:
        topics: What to draw from, in any order; the order counts.
        weights: The recipe's.
        seed: The recipe's.

    Attributes:
        topics: Those with a weight above 0, in the order given.

    Raises:
        PrimerError: If a weight names a field, kind or level that no topic has, or nothing is left.
    """

    def __init__(self, topics: Sequence[Topic], weights: TopicWeights, seed: int) -> None:
        _check(topics, weights)
        weighed = [(topic, topic_weight(topic, weights)) for topic in topics]
        self.topics = [topic for topic, weight in weighed if weight > 0]
        if not self.topics:
            raise PrimerError(
                f"None of the {len(topics):,d} topics has a weight above 0.", "Give some of topics.weights more than 0."
            )
        values = np.array([weight for _, weight in weighed if weight > 0])
        # Systematic sampling: the topics, shuffled, lie end to end on a line, each as long as it comes in an epoch on
        # average; every whole number, moved by the epoch's offset, is a draw of the topic that it falls in. Rounded,
        # so that equal weights of any size make lengths of exactly one.
        copies = np.round(values * (len(values) / values.sum()), 9)
        self._even = bool((copies == 1).all())
        self._seed = seed
        self._line = np.argsort(self._noise("line")[0], kind="stable")
        self._ends = np.cumsum(copies[self._line])
        self._ends[-1] = len(values)  # what the rounding of so many sums took away or added
        self._start = int.from_bytes(self._digest("offset", "")[:8], "little") / 2**64
        _, self._field_of = np.unique([topic.field for topic in self.topics], return_inverse=True)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._counted = (0, np.zeros(len(values), dtype=np.int64))

    def __len__(self) -> int:
        """Draws in an epoch."""
        return len(self.topics)

    def place(self, index: int) -> tuple[int, int]:
        """The draw of a number, from 0: the topic's place in `topics`, and how often it came before in all.

        With weights, the first draw of a late epoch counts the epochs before it: about 1 ms each for 20,000 topics.
        """
        epoch, position = divmod(index, len(self.topics))
        order, turns = self._epoch(epoch)
        return order[position], turns[position]

    def _make_epoch(self, epoch: int) -> tuple[list[int], list[int]]:
        """The topics of an epoch in their order, and how often each came before."""
        noise = self._noise(str(epoch))
        drawn = np.repeat(np.arange(len(self.topics)), self._counts(epoch))
        # The draws of a field, shuffled, are dealt out over the epoch: one in each of as many equal stretches.
        shuffle = np.argsort((noise[1][drawn] + _occurrence(drawn) * _GOLDEN) % 1.0, kind="stable")
        fields = self._field_of[drawn[shuffle]]
        when = (_occurrence(fields) + noise[2][drawn[shuffle]]) / np.bincount(fields)[fields]
        order = drawn[shuffle[np.argsort(when, kind="stable")]]
        return order.tolist(), (self._counts_before(epoch)[order] + _occurrence(order)).tolist()

    def _counts(self, epoch: int) -> NDArray[np.int64]:
        """How often each topic comes in an epoch."""
        # Golden steps spread the offsets evenly over the epochs. Twenty bits keep the sums exact where all are one.
        offset = np.floor((self._start + epoch * _GOLDEN) % 1.0 * 2**20) / 2**20
        counts = np.empty(len(self._line), dtype=np.int64)
        counts[self._line] = np.diff(np.floor(self._ends + offset), prepend=0).astype(np.int64)
        return counts

    def _counts_before(self, epoch: int) -> NDArray[np.int64]:
        """How often each topic comes in all the epochs before one."""
        if self._even:
            return np.full(len(self.topics), epoch)
        known, counts = self._counted if self._counted[0] <= epoch else (0, np.zeros(len(self.topics), dtype=np.int64))
        for earlier in range(known, epoch):
            counts = counts + self._counts(earlier)
        self._counted = (epoch, counts)
        return counts

    def _noise(self, label: str) -> NDArray[np.float64]:
        """Three uniform numbers in [0, 1) for each topic, shape (3, topics), that depend on its id and the label."""
        digests = b"".join(self._digest(label, topic.id) for topic in self.topics)
        numbers = np.frombuffer(digests, dtype="<u8").reshape(-1, 3)
        return np.ldexp((numbers >> 11).T.astype(np.float64), -53)

    def _digest(self, label: str, identity: str) -> bytes:
        """24 random bytes that depend on the seed and two labels alone."""
        return hashlib.blake2b(f"topics\0{self._seed}\0{label}\0{identity}".encode(), digest_size=24).digest()


def _occurrence(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each element, how many elements before it are the same."""
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    result = np.empty(len(items), dtype=np.int64)
    result[order] = np.arange(len(items)) - np.searchsorted(ordered, ordered)
    return result


def topic_weight(topic: Topic, weights: TopicWeights) -> float:
    """How often a topic is drawn, relative to others: its field's weight times its kind's times its levels' mean."""
    levels = [weights.levels.get(level, 1.0) for level in topic.levels]
    return weights.fields.get(topic.field, 1.0) * weights.kinds.get(topic.kind, 1.0) * (sum(levels) / len(levels))


def _check(topics: Sequence[Topic], weights: TopicWeights) -> None:
    tables = {"fields": sorted({topic.field for topic in topics}), "kinds": KINDS, "levels": LEVELS}
    for table, known in tables.items():
        for name in getattr(weights, table):
            if name not in known:
                raise PrimerError(
                    f"topics.weights.{table} names {name!r}, which no topic in use has.",
                    f"{did_you_mean(name, known)}There are: {', '.join(known)}.",
                )
