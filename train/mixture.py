"""Which sequence stands at which place of a variant's training: a pure function of (recipe, place).

So resuming needs nothing but the step's number, and any part of the order can be looked up. How many sequences a
source gives to the whole training is settled first (`train.portions`). Then sources are interleaved evenly, not drawn
at random: after any number of sequences each source has had its share of them to within one sequence. Within a
source, windows of `context` + 1 tokens come in a shuffled order, a new one each epoch. The k-th sequence of a source is
the same in every variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from primer.recipe import SOURCES, Recipe, SourceName, Variant
from train.portions import apportion, budget_sequences, windows_in
from train.shards import Shard


@dataclass(frozen=True)
class Place:
    """A sequence's origin: the source and the number of sequences that source has given before."""

    source: SourceName
    number: int


def interleave(counts: Mapping[SourceName, int], start: int, stop: int) -> list[Place]:
    """The places `start` to `stop` of the even interleaving of some sources.

    The k-th of a source's c sequences out of n stands at time (k + 1/2) n / c, and all are sorted by time, so p places
    hold a source p c / n times, give or take 1/2 + c (m - 2) / 2 n for m sources: at most one sequence with Primer's
    three. After n places the pattern comes again.

    Args:
        counts: Sequences of each source in the whole training.
        start: First place.
        stop: The place after the last.
    """
    present = {source: count for source, count in sorted(counts.items()) if count}
    places = sum(present.values())
    margin = len(present)  # a sequence's time differs from its place by at most half the number of sources
    items: list[tuple[float, Place]] = []
    before = 0
    for source, count in present.items():
        # In whole numbers, so that equal times are equal: those at or after `start` - `margin`.
        number = max(0, -((places - 2 * count * (start - margin)) // (2 * places)))
        before += number
        while (time := (2 * number + 1) * places / (2 * count)) < stop + margin:
            items.append((time, Place(source, number)))
            number += 1
    items.sort(key=lambda item: (item[0], item[1].source))
    return [place for _, place in items[start - before : stop - before]]


class Mixture:
    """A variant's training data.

    Args:
        shards: The sources' tokens, by name.
        counts: Sequences of each source in the whole training.
        context: Tokens of a sequence.
        seed: Seed of the shuffling.
    """

    def __init__(
        self, shards: Mapping[SourceName, Shard], counts: Mapping[SourceName, int], context: int, seed: int
    ) -> None:
        self.counts = {source: count for source, count in counts.items() if count}
        self.shards = {source: shards[source] for source in self.counts}
        self.context = context
        self.seed = seed
        self.windows = {source: windows_in(len(shard), context) for source, shard in self.shards.items()}
        self._orders: dict[tuple[SourceName, int], npt.NDArray[np.int64]] = {}

    def sequences(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids of the sequences at places `start` to `stop`: (stop - start, context + 1).

        Places beyond the budget have sequences too: the sources alternate as from the beginning, and each goes on in
        its next windows. Training takes them where it leaves out some before.
        """
        out = np.empty((stop - start, self.context + 1), dtype=np.int64)
        for source, rows, starts in self._stretches(start, stop):
            out[rows] = self.shards[source].windows(starts, self.context + 1)
        return out

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """The document of each input token of those sequences, counted in each from 0: (stop - start, context).

        The end of a document belongs to the document that it ends.
        """
        out = np.empty((stop - start, self.context), dtype=np.int32)
        for source, rows, starts in self._stretches(start, stop):
            out[rows] = self.shards[source].document_numbers(starts, self.context)
        return out

    def window(self, place: Place) -> int:
        """Which window of the source the `place.number`-th sequence is."""
        return int(self._windows(place.source, np.array([place.number]))[0])

    def _stretches(
        self, start: int, stop: int
    ) -> Iterator[tuple[SourceName, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """By source, which of some places are its own, and where in its array their sequences begin."""
        places = interleave(self.counts, start, stop)
        for source in self.counts:
            own = [(row, place.number) for row, place in enumerate(places) if place.source == source]
            rows, numbers = np.array(own, dtype=np.int64).reshape(-1, 2).T
            yield source, rows, self._windows(source, numbers) * self.context

    def _windows(self, source: SourceName, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        epochs, within = np.divmod(numbers, self.windows[source])
        found = np.empty_like(numbers)
        for epoch in np.unique(epochs).tolist():
            found[epochs == epoch] = self._order(source, epoch)[within[epochs == epoch]]
        return found

    def _order(self, source: SourceName, epoch: int) -> npt.NDArray[np.int64]:
        key = (source, epoch)
        if key not in self._orders:
            # A pass may reach from one epoch into the next, so the order before is kept beside the new one.
            kept = {k: order for k, order in self._orders.items() if k == (source, epoch - 1) or k[0] != source}
            self._orders = {**kept, key: epoch_order(self.seed, source, epoch, self.windows[source])}
        return self._orders[key]


def epoch_order(seed: int, source: SourceName, epoch: int, windows: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch shows the windows of a source: a permutation of 0 to `windows` - 1."""
    # Sorting raw bits: numpy keeps a bit generator's stream the same for ever, but not its shuffles.
    bits = np.random.PCG64(np.random.SeedSequence([seed, SOURCES.index(source), epoch]))
    return np.argsort(bits.random_raw(windows), kind="stable")


def variant_mixture(recipe: Recipe, variant: Variant, shards: Mapping[SourceName, Shard]) -> Mixture:
    """The training data of one variant of a recipe."""
    counts = apportion(variant.mixture, budget_sequences(recipe))
    return Mixture(shards, counts, recipe.model.context, recipe.seed)
