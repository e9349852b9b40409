"""Near duplicates: found where they are, also late and among many, and nothing else is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from primer.recipe_corpora import Duplicates
from synth import near_duplicates
from synth.near_duplicates import NearDuplicates
from synth.signatures import Found, Signatures, signature

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


def signed(words: list[str]) -> Signatures:
    return signature(" ".join(words), 5)


def seen(index: NearDuplicates, words: list[str]) -> Found | None:
    """What a text duplicates; if nothing, it is taken in."""
    found = index.find(signed(words))
    if found is None:
        index.add(signed(words))
    return found


@pytest.mark.parametrize(("places", "expected"), [(1, 1.0), (2, 1.0), (5, 0.0), (10, 0.0)])
def test_pairs_are_found_by_their_similarity_and_the_threshold(places: int, expected: float):
    assert (similarity(100, places) > 0.7) == (expected > 0.5)
    generator, estimates, found = random.Random(places), [], 0
    for _ in range(200):
        index, words = NearDuplicates(Duplicates()), text(generator)
        assert seen(index, words) is None
        if (match := seen(index, changed(words, places))) is not None:
            found += 1
            estimates.append(match.similarity)
    assert found / 200 == pytest.approx(expected, abs=0.03)
    if expected:
        assert np.mean(estimates) == pytest.approx(similarity(100, places), abs=0.01)


def test_the_first_text_is_found_among_many_and_no_stranger_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "_FIRST_TABLE", 64)  # so that there are many tables
    generator = random.Random(1)
    index, texts = NearDuplicates(Duplicates()), [text(generator) for _ in range(1000)]
    assert not any(seen(index, words) for words in texts)
    assert len(index) == 1000
    for number, words in enumerate(texts):
        found = seen(index, changed(words, 1))
        assert found is not None
        assert (found.number, found.kind, found.corpus) == (number, "near", None)
    assert len(index) == 1000  # what is a duplicate is not taken in


def test_an_equal_text_is_found_before_one_that_is_only_alike():
    generator = random.Random(4)
    index, words = NearDuplicates(Duplicates(threshold=0.95)), text(generator)
    other = changed(words, 1)
    index.add(signed(words))
    index.add(signed(other))
    assert index.find(signature(" ".join(other).upper().replace(" ", "\n"), 5)) == Found(1, 1.0, "exact")
    assert index.find(signature(" ".join(other) + "!", 5)) == Found(1, 1.0, "near")  # the same words, another text


def test_texts_from_one_mould_stay_apart_and_fill_no_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "_FIRST_TABLE", 256)
    generator = random.Random(2)
    mould, index = text(generator, 60), NearDuplicates(Duplicates(threshold=0.9))
    casts = [mould + text(generator, 12) for _ in range(1000)]  # a similarity of about 0.7 to each other
    alike = sum(seen(index, words) is not None for words in casts)
    assert alike < 10
    assert len(index) == 1000 - alike
    assert all(seen(index, words) for words in casts)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_bands_of_any_size_find_what_is_very_much_alike_and_only_that(rows: int):
    generator = random.Random(rows)
    index, texts = NearDuplicates(Duplicates.model_validate({"rows": rows})), [text(generator, 200) for _ in range(300)]
    assert not any(seen(index, words) for words in texts)
    assert [seen(index, changed(words, 1)).number for words in texts] == list(range(300))  # type: ignore[union-attr]


def test_a_low_threshold_finds_distant_relatives():
    generator = random.Random(3)
    index, words = NearDuplicates(Duplicates(rows=2, threshold=0.2)), text(generator)
    assert seen(index, words) is None
    assert seen(index, words[:60] + text(generator, 40))  # a similarity of 0.4
    assert not seen(index, text(generator))


def test_short_texts_are_compared_whole():
    index = NearDuplicates(Duplicates())
    assert not seen(index, ["only", "three", "words"])
    assert seen(index, ["only", "three", "words"])
    assert not seen(index, ["three", "other", "words"])
    assert not seen(index, ["!!!"])
    assert not seen(index, ["***"])  # without a word in it, and yet not the same
    assert not seen(index, [""])
    assert seen(index, ["", ""])


def test_a_text_takes_at_most_350_bytes_in_a_full_table():
    index = NearDuplicates(Duplicates())
    table = index._tables[0]
    assert (table._slots.nbytes + table._texts.nbytes + table._signatures.nbytes) / near_duplicates._FIRST_TABLE < 350
