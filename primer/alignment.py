"""How much of a benchmark's item a stretch of text holds, word for word and in order: the rule of decontamination."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# Four fifths of an item's words, or of a short item all but one: one word in ten may be another.
SHARE = 0.8
_SHORT = 14

# How many words may stand between those of the item, as a share of its words: letters before choices, notes.
_BETWEEN = 0.3

# So many words without a gap are a copy whatever the rest is. A famous sentence is shorter: "We hold these truths to be
# self-evident ... the pursuit of Happiness" has 35.
BLOCK = 50

# What must be shared at least: words that are no numbers, and words that tell one text from another (`telling`).
WORDS = 8
_TELLING = 3
_TELLING_SHARE = 0.6
_TELLING_IN_BLOCK = 8

# A single word in the right order says little: most windows hold the item's "of" and "the" somewhere. It counts if at
# most so many words part it, in item and text, from what counts already: a word replaced, the letter of an answer.
_APART = 1

_VOCABULARY = 100_000  # words of all benchmarks, about

# Words that any question, any sentence or any program has.
_STOCK_TEXT = """
a an the and or but nor if then than so as of in on at by for to from with without into onto over under about between
through during after before above below up down out off again is are was were be been being am do does did done doing
have has had having can could will would shall should may might must not no only own same too very just also there
here when where why how what which who whom whose this that these those i me my we us our you your he him his she her
hers it its they them their one two all any both each few more most other another some such many much because while
against until get got however make made use used using people person someone man woman new first second following best
describes describe likely statement statements true false example correct incorrect answer question explain explains
called known def return self import none range len print else elif assert write python function program find check
whether given number numbers list string
"""
_STOCK = frozenset(_STOCK_TEXT.split())


@lru_cache(_VOCABULARY)
def is_number(word: str) -> bool:
    """Whether a word has no letter."""
    return not any(map(str.isalpha, word))


@lru_cache(_VOCABULARY)
def is_telling(word: str) -> bool:
    """Whether a word tells one text from another: no number, no letter or two, no stock word of questions or code."""
    return len(word) >= 3 and word not in _STOCK and not is_number(word)


def enough_to_tell(words: Sequence[str]) -> bool:
    """Whether words are enough to be an item: "Paris" and "Which of the following is true?" are in many texts."""
    return sum(not is_number(word) for word in words) >= WORDS and sum(map(is_telling, words)) >= _TELLING


@dataclass(frozen=True, slots=True)
class Shared:
    """What a text and an item have in common.

    Attributes:
        words: Words of the item that the stretch holds in their order.
        longest: Words of the longest block.
        start: Place of the stretch's first word in the text.
        stop: Place after its last.
        places: Places of the shared words in the item, as ranges.
        block: Those of the longest block.
    """

    words: int
    longest: int
    start: int
    stop: int
    places: tuple[range, ...]
    block: range


def shared(item: Sequence[int], text: Sequence[int]) -> Shared | None:
    """The best stretch of a text for an item: matching blocks as `difflib.SequenceMatcher` finds them, without junk.

    Blocks at either end that lengthen the stretch by more than they add are left out.

    Args:
        item: Words as numbers.
        text: Words as numbers; those that no item has may all be one number.

    Returns:
        What is shared; None if no two words in a row are.
    """
    blocks = _counted(difflib.SequenceMatcher(None, item, text, autojunk=False).get_matching_blocks()[:-1])
    if not blocks:
        return None
    words = sum(block.size for block in blocks)
    first, last = 0, len(blocks) - 1

    def density(first: int, last: int, words: int) -> float:
        return words / max(len(item), blocks[last].b + blocks[last].size - blocks[first].b)

    while first < last:
        without_first = density(first + 1, last, words - blocks[first].size)
        without_last = density(first, last - 1, words - blocks[last].size)
        if max(without_first, without_last) <= density(first, last, words):
            break
        if without_first >= without_last:
            words, first = words - blocks[first].size, first + 1
        else:
            words, last = words - blocks[last].size, last - 1
    kept = blocks[first : last + 1]
    longest = max(kept, key=lambda block: block.size)
    return Shared(
        words,
        longest.size,
        kept[0].b,
        kept[-1].b + kept[-1].size,
        tuple(range(block.a, block.a + block.size) for block in kept),
        range(longest.a, longest.a + longest.size),
    )


def _counted(blocks: list[difflib.Match]) -> list[difflib.Match]:
    """Blocks of two words and more, and single words close to them."""
    counted = [block.size > 1 for block in blocks]
    for order in (range(1, len(blocks)), range(len(blocks) - 2, -1, -1)):
        step = order.step
        for place in order:
            if not counted[place] and counted[place - step]:
                before, after = sorted((blocks[place], blocks[place - step]))
                gaps = after.a - before.a - before.size, after.b - before.b - before.size
                counted[place] = max(gaps) <= _APART
    return [block for block, counts in zip(blocks, counted, strict=True) if counts]


def is_copy(found: Shared, numbers: Sequence[bool], telling: Sequence[bool]) -> bool:
    """Whether what is shared makes the text a copy of the item.

    Args:
        found: What they share.
        numbers: Of each word of the item whether it is a number.
        telling: Of each word of the item whether it tells one text from another.
    """
    if found.longest >= BLOCK and sum(telling[place] for place in found.block) >= _TELLING_IN_BLOCK:
        return True
    length, stretch = len(telling), found.stop - found.start
    if length < _SHORT:
        close = found.words >= length - 1 and stretch <= length + 2
    else:
        close = found.words >= SHARE * length and stretch <= (1 + _BETWEEN) * length
    if not close:
        return False
    told = sum(telling[place] for places in found.places for place in places)
    words = found.words - sum(numbers[place] for places in found.places for place in places)
    return words >= WORDS - (length < _SHORT) and told >= max(_TELLING, _TELLING_SHARE * sum(telling))
