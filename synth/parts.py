"""How a source is divided into parts that worker processes read independently of each other.

What a part holds is a pure function of the pieces' sizes, the seed and the amount of text wanted: never of the
number of workers.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

# Of the text to be taken. So much is read in 8 s from repositories of Python and in 3 minutes from HTML pages: little
# is lost when a part is interrupted, and starting a process for it does not show.
PART_CHARACTERS = 32_000_000

# A part with less to read takes less time than starting its process.
_LEAST_BYTES = 1_000_000

# What can be divided is cut this much finer than parts, so that parts can be dealt nearly equal shares.
_PIECES_PER_PART = 4

Piece = TypeVar("Piece")


def parts_wanted(characters: int, total_bytes: int | None = None) -> int:
    """The number of parts for an amount of text; at least 1.

    Args:
        characters: How much is to be taken.
        total_bytes: How much there is to read, if that is known.
    """
    wanted = max(1, -(-characters // PART_CHARACTERS))
    return wanted if total_bytes is None else max(1, min(wanted, total_bytes // _LEAST_BYTES))


def largest_piece(total_bytes: int, parts: int) -> int:
    """The size in bytes above which something that can be divided should be; without end for a single part."""
    return total_bytes // (parts * _PIECES_PER_PART) + 1 if parts > 1 else total_bytes + 1


def equal_spans(sizes: Sequence[int], number: int) -> list[tuple[int, int]]:
    """Neighbouring things in about `number` spans [first, last) of nearly equal size; together they cover all."""
    total = max(1, sum(sizes))
    cuts = {0, len(sizes)}
    for index, before in enumerate(accumulate(sizes[:-1]), 1):
        if before * number // total > (before - sizes[index - 1]) * number // total:
            cuts.add(index)
    return list(pairwise(sorted(cuts)))


def deal(pieces: Sequence[Piece], sizes: Sequence[int], parts: int, seed: str) -> tuple[tuple[Piece, ...], ...]:
    """Deal pieces to parts of nearly equal size, each part in an order that the seed shuffles.

    Longest processing time first (Graham, 1969): each piece, from the largest, goes to the part that holds least, so
    that no part is larger than 4/3 of the best there is.

    Args:
        pieces: What to deal, in an order that does not depend on the machine.
        sizes: The size of each in bytes.
        parts: How many parts to make; there are never more than pieces.
        seed: Seed of the order, with a word that tells it from other uses.
    """
    order = random.Random(seed).sample(range(len(pieces)), len(pieces))
    held: list[list[int]] = [[] for _ in range(max(1, min(parts, len(pieces))))]
    loads = [(0, part) for part in range(len(held))]
    for place in sorted(range(len(order)), key=lambda place: -sizes[order[place]]):
        load, part = heapq.heappop(loads)
        held[part].append(place)
        heapq.heappush(loads, (load + sizes[order[place]] + 1, part))  # one more: empty files are dealt out as well
    return tuple(tuple(pieces[order[place]] for place in sorted(places)) for places in held)
