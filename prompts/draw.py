"""Random choices as pure functions: no generator, no state, the same on every machine and Python version."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from itertools import accumulate

_TWO_64 = 1 << 64

# The golden ratio's fractional part in 64 bits: multiples of it spread over a circle as evenly as any can.
_GOLDEN = 0x9E3779B97F4A7C15

# 64-bit numbers in one BLAKE2b digest.
DRAWS = 8


def draws(*labels: object) -> tuple[int, ...]:
    """`DRAWS` independent uniform 64-bit numbers that depend on the labels alone."""
    text = "\0".join(map(str, labels)).encode()
    return struct.unpack(f"<{DRAWS}Q", hashlib.blake2b(text, digest_size=8 * DRAWS).digest())


class Shares:
    """A choice among some items by weight.

    Args:
        weights: A positive weight for each item.
    """

    def __init__(self, weights: list[float]) -> None:
        total = sum(weights)
        self._bounds = list(accumulate(weight / total for weight in weights))
        self._count = len(weights)

    def __len__(self) -> int:
        return self._count

    def pick(self, draw: int) -> int:
        """The item that a uniform 64-bit number falls on."""
        return min(bisect_right(self._bounds, draw / _TWO_64), self._count - 1)

    def pick_unlike_last(self, start: int, turn: int) -> int:
        """The item of turn 0, 1, 2, ...: by weight, and never the same in two turns that follow each other.

        The turns walk round the circle of weights in golden steps from a uniform start, so that an item comes up
        by its weight over the turns, and over many starts in every turn. A step is 0.38 of the circle (the shorter
        way), so only an item with a larger share can meet itself; in such a run every second turn goes to another
        item. Two items take turns. The cost grows with the length of such a run alone: with all but a millionth of the
        weight on one item, a walk back over as many turns.
        """
        if self._count == 1:
            return 0
        if self._count == 2:
            return (self.pick(start) + turn) % 2
        item, run = self._at(start, turn), 0
        while run < turn and self._at(start, turn - run - 1) == item:
            run += 1
        if run % 2 == 0:
            return item
        following = self._at(start, turn + 1)
        others = [other for other in range(self._count) if other not in (item, following)]
        weights = [self._bounds[other] - (self._bounds[other - 1] if other else 0.0) for other in others]
        return others[Shares(weights).pick(draws(start, turn)[0])]

    def _at(self, start: int, turn: int) -> int:
        return self.pick((start + turn * _GOLDEN) % _TWO_64)
