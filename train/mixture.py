"""Which sequence stands at which place of a variant's training: a pure function of (recipe, place).

So resuming needs nothing but the step's number, and any part of the order can be looked up. Sources are interleaved
evenly, not drawn at random: after any number of sequences each source has had its share to within one sequence.
Within a source, windows of `context` + 1 tokens come in a shuffled order, a new one each epoch. The k-th sequence of
a source is the same in every variant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from primer.errors import PrimerError
from primer.recipe import SOURCES, Recipe, Variant
from train.shards import Shard

_REMEDIES = {
    "synthetic": "collect more (synth.tokens)",
    "web": "take more (web.characters)",
    "code": "take more (code.characters)",
}


@dataclass(frozen=True)
class Place:
    """A sequence's origin: the source and the number of sequences that source has given before."""

    source: str
    number: int


def interleave(shares: Mapping[str, float], start: int, stop: int) -> list[Place]:
    """The places `start` to `stop` of the endless interleaving of some sources.

    The k-th sequence of a source with share w stands at time (k + 1/2) / w, and all are sorted by time, so n places
    hold a source between n w - (1/2 + w (m - 2) / 2) and n w + (1/2 + w (m - 2) / 2) times for m sources: with Primer's
    three, at most one sequence more or less than its share.
    """
    items, before = _around(shares, start, stop)
    return [place for _, place in items[start - sum(before.values()) : stop - sum(before.values())]]


def counts(shares: Mapping[str, float], places: int) -> dict[str, int]:
    """How many of the first so many places each source has."""
    items, found = _around(shares, places, places)
    for _, place in items[: places - sum(found.values())]:
        found[place.source] += 1
    return found


def _around(shares: Mapping[str, float], start: int, stop: int) -> tuple[list[tuple[float, Place]], dict[str, int]]:
    """Sequences in order of time, all of places `start` to `stop` among them; and how many each source has before."""
    names = [name for name in sorted(shares) if shares[name] > 0]
    margin = len(names)  # a sequence's time differs from its place by at most half the number of sources
    items: list[tuple[float, Place]] = []
    before: dict[str, int] = {}
    for name in names:
        share = shares[name]
        number = max(0, math.floor((start - margin) * share - 0.5))
        while (number + 0.5) / share < start - margin:
            number += 1
        before[name] = number
        while (time := (number + 0.5) / share) < stop + margin:
            items.append((time, Place(name, number)))
            number += 1
    items.sort(key=lambda item: (item[0], item[1].source))
    return items, before


class Mixture:
    """A variant's training data.

    Args:
        shards: The sources' tokens, by name.
        shares: Token share of each source; sums to one.
        context: Tokens of a sequence.
        seed: Seed of the shuffling.
    """

    def __init__(self, shards: Mapping[str, Shard], shares: Mapping[str, float], context: int, seed: int) -> None:
        self.shares = {name: share for name, share in shares.items() if share > 0}
        self.shards = {name: shards[name] for name in self.shares}
        self.context = context
        self.seed = seed
        # Neighbouring windows share one token: each is the last target of one and the first input of the next.
        self.windows = {name: (len(shard) - 1) // context for name, shard in self.shards.items()}
        self._orders: dict[tuple[str, int], npt.NDArray[np.int64]] = {}

    def sequences(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids of the sequences at places `start` to `stop`: (stop - start, context + 1)."""
        out = np.empty((stop - start, self.context + 1), dtype=np.int64)
        for row, place in enumerate(interleave(self.shares, start, stop)):
            window = self.window(place)
            out[row] = self.shards[place.source].windows(np.array([window * self.context]), self.context + 1)[0]
        return out

    def window(self, place: Place) -> int:
        """Which window of the source the `place.number`-th sequence is."""
        epoch, number = divmod(place.number, self.windows[place.source])
        return int(self._order(place.source, epoch)[number])

    def epochs(self, sequences: int) -> dict[str, float]:
        """How often each source is seen in the first so many sequences."""
        return {
            name: count / self.windows[name] for name, count in self.counts(sequences).items() if self.windows[name]
        }

    def counts(self, sequences: int) -> dict[str, int]:
        """How many of the first so many sequences come from each source."""
        return counts(self.shares, sequences)

    def check(self, sequences: int, max_epochs: float, variant: str) -> None:
        """Hold the budget against the tokens there are.

        Raises:
            PrimerError: If a source is shorter than one sequence or would be repeated too often.
        """
        for name, count in self.counts(sequences).items():
            present, needed = self.windows[name] * self.context, count * self.context
            if present == 0:
                raise PrimerError(
                    f"corpus/{name} has {len(self.shards[name]):,} tokens, fewer than one sequence of "
                    f"{self.context + 1:,} (model.context + 1).",
                    f"For {name}, {_REMEDIES[name]}, or lower model.context.",
                )
            if needed > present * max_epochs:
                raise PrimerError(
                    f"Variant {variant!r} needs {needed:,} tokens of {name}, but corpus/{name} has {present:,}: it "
                    f"would be seen {needed / present:.1f} times, more than train.max_epochs ({max_epochs:g}) allows.",
                    f"For {name}, {_REMEDIES[name]}; or lower train.tokens to {self._largest_budget(max_epochs):,}, or "
                    "raise train.max_epochs.",
                )

    def _largest_budget(self, max_epochs: float) -> int:
        """Tokens of training that surely repeat no source more often than allowed."""
        return min(
            max(0, int((self.windows[name] * max_epochs - 1) / share)) * self.context
            for name, share in self.shares.items()
        )

    def _order(self, source: str, epoch: int) -> npt.NDArray[np.int64]:
        key = (source, epoch)
        if key not in self._orders:
            # A pass may reach from one epoch into the next, so the order before is kept beside the new one.
            kept = {k: order for k, order in self._orders.items() if k == (source, epoch - 1) or k[0] != source}
            self._orders = {**kept, key: epoch_order(self.seed, source, epoch, self.windows[source])}
        return self._orders[key]


def epoch_order(seed: int, source: str, epoch: int, windows: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch shows the windows of a source: a permutation of 0 to `windows` - 1."""
    # Sorting raw bits: numpy keeps a bit generator's stream the same for ever, but not its shuffles.
    bits = np.random.PCG64(np.random.SeedSequence([seed, SOURCES.index(source), epoch]))
    return np.argsort(bits.random_raw(windows), kind="stable")


def variant_mixture(recipe: Recipe, variant: Variant, shards: Mapping[str, Shard]) -> Mixture:
    """The training data of one variant of a recipe."""
    return Mixture(shards, dict(variant.mixture.items()), recipe.model.context, recipe.seed)
