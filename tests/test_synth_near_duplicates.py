"""Near duplicates: found where they are, also late and among many, and nothing else is."""

from __future__ import annotations

import random

import pytest

from synth import near_duplicates
from synth.near_duplicates import NearDuplicates

VOCABULARY = [f"word{number}" for number in range(20_000)]


def text(generator: random.Random, words: int = 100) -> list[str]:
    return generator.choices(VOCABULARY, k=words)


def changed(words: list[str], places: int) -> list[str]:
    """Words apart from each other changed: each takes five shingles with it."""
    other = list(words)
    for number in range(places):
        other[int((number + 0.5) * len(words) / places)] = f"other{number}"
    return other


def similarity(words: int, places: int) -> float:
    shingles, lost = words - 4, 5 * places
    return (shingles - lost) / (shingles + lost)


@pytest.mark.parametrize(("places", "expected"), [(1, 1.0), (2, 1.0), (5, 0.0), (10, 0.0)])
def test_pairs_are_found_by_their_similarity_and_the_threshold(places: int, expected: float):
    assert (similarity(100, places) > 0.7) == (expected > 0.5)
    generator, found = random.Random(places), 0
    for _ in range(200):
        index, words = NearDuplicates(0.7), text(generator)
        assert not index.seen(words)
        found += index.seen(changed(words, places))
    assert found / 200 == pytest.approx(expected, abs=0.03)


def test_the_first_text_is_found_among_many_and_no_stranger_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "_FIRST_TABLE", 64)  # so that there are many tables
    generator = random.Random(1)
    index, texts = NearDuplicates(0.7), [text(generator) for _ in range(3000)]
    assert not any(map(index.seen, texts))
    assert len(index) == 3000
    assert all(index.seen(changed(words, 1)) for words in texts)
    assert len(index) == 3000  # what is a duplicate is not taken in


def test_texts_from_one_mould_stay_apart_and_fill_no_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "_FIRST_TABLE", 256)
    generator = random.Random(2)
    mould, index = text(generator, 60), NearDuplicates(0.9)
    casts = [mould + text(generator, 12) for _ in range(2000)]  # a similarity of about 0.7 to each other
    seen = list(map(index.seen, casts))
    assert sum(seen) < 20
    assert len(index) == 2000 - sum(seen)
    assert all(map(index.seen, casts))


def test_a_low_threshold_finds_distant_relatives():
    generator = random.Random(3)
    index, words = NearDuplicates(0.2), text(generator)
    assert not index.seen(words)
    assert index.seen(words[:60] + text(generator, 40))  # a similarity of 0.4
    assert not index.seen(text(generator))


def test_short_texts_are_compared_whole():
    index = NearDuplicates(0.7)
    assert not index.seen(["only", "three", "words"])
    assert index.seen(["only", "three", "words"])
    assert not index.seen(["three", "other", "words"])
