"""Which beginnings of many sequences are worth computing once: the examples of few-shot prompts, long descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# A stem is a batch of its own and splits others: it has to save as much work as so many tokens take.
_COST = 256
# Seeing a shorter one from every row costs more than computing it again.
_SHORTEST = 16


@dataclass(frozen=True)
class Stem:
    """Tokens that some sequences begin with, and the numbers of these."""

    tokens: Sequence[int]
    members: list[int]


@dataclass
class _Node:
    """Neighbours in sorted order that begin with `height` equal tokens, from number `left` on.

    Attributes:
        saved: Tokens that the best choice of stems below saves.
        chosen: That choice: (first number, number after the last, length).
    """

    height: int
    left: int
    saved: int = 0
    chosen: list[tuple[int, int, int]] = field(default_factory=list)


def find_stems(sequences: Sequence[list[int]]) -> list[Stem]:
    """The stems that save most tokens; each sequence is on one at most.

    In sorted order sequences with a common beginning are neighbours, and those with a longer one lie within: a tree of
    beginnings. For each node, bottom up, either its beginning is the stem of all of its sequences, or the best stems of
    the nodes below remain.
    """
    order = sorted(range(len(sequences)), key=lambda number: sequences[number])
    stack = [_Node(0, 0)]
    for after in range(1, len(order) + 1):
        height = shared_length(sequences[order[after - 1]], sequences[order[after]]) if after < len(order) else 0
        below = _Node(0, after - 1)
        while stack[-1].height > height:
            node = _with(stack.pop(), below)
            members = after - node.left
            own = (members - 1) * node.height - _COST
            if node.height >= _SHORTEST and own > node.saved:
                node.saved, node.chosen = own, [(node.left, after, node.height)]
            below = node
        if stack[-1].height < height:
            stack.append(_Node(height, below.left))
        _with(stack[-1], below)
    return [
        Stem(sequences[order[first]][:length], [order[place] for place in range(first, after)])
        for first, after, length in stack[0].chosen
    ]


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of equal tokens that two sequences begin with."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:  # equal before `low`, not before `high`; slices compare far faster than tokens
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _with(node: _Node, below: _Node) -> _Node:
    node.saved += below.saved
    node.chosen += below.chosen
    return node
