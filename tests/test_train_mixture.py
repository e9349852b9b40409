from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from train_samples import make_shards, recipe, texts

from primer.errors import PrimerError
from primer.recipe import SOURCES, Recipe, SourceName
from train.mixture import Mixture, Place, epoch_order, interleave, variant_mixture
from train.portions import Portion, apportion, largest_budget, mixed_portions, repetition_warnings
from train.shards import Shard, write_shard
from train.tokenizer import tokenizer_hash, trained_tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer({"web": lambda: iter(texts("web", 60))}, 300)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[SourceName, Shard]:
    return make_shards(tmp_path_factory.mktemp("tokens"), tokenizer, {"synthetic": 20, "web": 9, "code": 6})


def _random_shares(seed: int) -> dict[SourceName, float]:
    rng = random.Random(seed)
    weights = [rng.random() ** 3 + 1e-3 for _ in range(3)]
    return dict(zip(SOURCES, (w / sum(weights) for w in weights), strict=True))


SHARES: list[dict[SourceName, float]] = [
    {"web": 1.0},
    {"web": 0.8, "code": 0.2},
    {"web": 0.4, "synthetic": 0.4, "code": 0.2},
    {"web": 1.0, "code": 0.0},
    {"web": 1 / 3, "synthetic": 1 / 3, "code": 0.333334},
    *(_random_shares(seed) for seed in range(6)),
]


@pytest.mark.parametrize("shares", SHARES)
def test_the_whole_budget_is_divided_as_exactly_as_whole_sequences_allow(shares: dict[SourceName, float]):
    sources = [source for source, share in shares.items() if share]
    for sequences in (*range(1, 200), 800, 999, 1000, 1001, 4321, 73_242_187):  # the demo's are 800, phi-1.5's the last
        found = apportion(shares, sequences)
        assert list(found) == sources
        assert sum(found.values()) == sequences
        furthest = max(abs(found[source] - sequences * shares[source] / sum(shares.values())) for source in sources)
        assert furthest <= 1 - 1 / len(sources) + 1e-6
        # Every other division into whole sequences near the shares is at least as far from them.
        floors = [int(sequences * shares[source] / sum(shares.values())) for source in sources]
        for steps in itertools.product((-1, 0, 1, 2), repeat=len(sources) - 1):
            other = [floor + step for floor, step in zip(floors, steps, strict=False)]
            other.append(sequences - sum(other))
            away = [abs(n - sequences * shares[s] / sum(shares.values())) for n, s in zip(other, sources, strict=True)]
            assert max(away) >= furthest - 1e-6
        if sequences >= 1000:
            assert all(abs(found[source] / sequences - shares[source]) <= 0.001 for source in sources)


@pytest.mark.parametrize("shares", SHARES)
def test_every_prefix_has_its_part_of_each_source_to_within_one_sequence(shares: dict[SourceName, float]):
    whole = apportion(shares, 3000)
    seen: Counter[SourceName] = Counter()
    for place, item in enumerate(interleave(whole, 0, 3000), start=1):
        assert item.number == seen[item.source]  # each source's sequences follow one another without a gap
        seen[item.source] += 1
        for source, count in whole.items():
            assert abs(seen[source] - count / 3000 * place) <= 1
    assert seen == whole


def test_order_is_the_same_from_anywhere():
    counts = apportion(_random_shares(11), 500)
    whole = interleave(counts, 0, 700)  # beyond the budget: the pattern comes again
    assert [place.source for place in whole[500:]] == [place.source for place in whole[:200]]
    for start in (0, 1, 2, 13, 350, 499, 500, 699):
        assert interleave(counts, start, 700) == whole[start:]
    counts = apportion(_random_shares(11), 73_242_187)  # phi-1.5's budget
    far = 70_000_000
    assert interleave(counts, far, far + 50)[20:] == interleave(counts, far + 20, far + 50)
    last = interleave(counts, 73_242_087, 73_242_187)
    assert {place.source: place.number + 1 for place in last} == counts  # the last of each is the last there is


def test_each_epoch_sees_every_window_once_in_a_new_order(shards: dict[SourceName, Shard]):
    mixture = Mixture(shards, {"web": 500}, CONTEXT, seed=5)
    windows = (len(shards["web"]) - 1) // CONTEXT
    tokens = np.asarray(shards["web"].tokens).astype(int)
    expected = {tuple(tokens[w * CONTEXT : w * CONTEXT + CONTEXT + 1]) for w in range(windows)}
    first, second = mixture.sequences(0, windows), mixture.sequences(windows, 2 * windows)
    assert {tuple(row) for row in first.tolist()} == expected == {tuple(row) for row in second.tolist()}
    assert first.tolist() != second.tolist()
    assert not np.array_equal(first, Mixture(shards, {"web": 500}, CONTEXT, seed=6).sequences(0, windows))


def test_the_order_of_an_epoch_never_changes():
    # Whatever the version of numpy or of this code: a checkpoint from before must go on with the same data.
    assert epoch_order(5, "web", 0, 1000)[:6].tolist() == [896, 172, 865, 294, 675, 248]
    assert sorted(epoch_order(5, "web", 0, 1000)) == list(range(1000))
    assert epoch_order(5, "code", 0, 1000).tolist() != epoch_order(5, "web", 0, 1000).tolist()


def test_sequences_are_a_pure_function_of_the_place(shards: dict[SourceName, Shard]):
    counts: dict[SourceName, int] = {"web": 120, "synthetic": 120, "code": 60}
    whole = Mixture(shards, counts, CONTEXT, seed=5).sequences(0, 300)
    assert whole.shape == (300, CONTEXT + 1)
    for start, stop in ((0, 3), (299, 300), (150, 171), (7, 250)):
        assert np.array_equal(Mixture(shards, counts, CONTEXT, seed=5).sequences(start, stop), whole[start:stop])


def _documents_by_hand(mixture: Mixture, start: int, stop: int) -> list[list[int]]:
    rows = []
    for place in interleave(mixture.counts, start, stop):
        begin = mixture.window(place) * mixture.context
        tokens = mixture.shards[place.source].tokens[begin : begin + mixture.context].tolist()
        rows.append([tokens[:at].count(0) for at in range(mixture.context)])  # 0 ends a document
    return rows


@pytest.mark.parametrize("context", [1, 7, CONTEXT, 300])
def test_each_token_knows_its_document(tmp_path: Path, tokenizer: Tokenizer, context: int):
    mark = tokenizer_hash(tokenizer)
    rng = random.Random(context)
    for source in ("web", "code"):
        items = [" ".join(["a river"] * rng.choice((0, 0, 1, 3, 40))) for _ in range(300)]
        write_shard(tmp_path, source, items, tokenizer)
    shards: dict[SourceName, Shard] = {source: Shard(tmp_path, source, mark) for source in ("web", "code")}
    mixture = Mixture(shards, {"web": 40, "code": 30}, context, seed=2)
    found = mixture.documents(0, 90)  # beyond the budget, too
    assert found.shape == (90, context)
    assert found.dtype == np.int32
    assert found.tolist() == _documents_by_hand(mixture, 0, 90)
    assert context == 1 or found.max() > 1


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_take_the_same_sequences_of_a_step_whatever_their_number(shards: dict[SourceName, Shard], ranks: int):
    counts: dict[SourceName, int] = {"web": 120, "synthetic": 120, "code": 60}
    whole = Mixture(shards, counts, CONTEXT, seed=5)
    sequences, first = 12, 276  # of a step; the third one ends beyond the budget
    for step in range(3):
        begin = first + step * sequences
        taken, numbered = [], []
        for rank in range(ranks):
            own = Mixture(shards, counts, CONTEXT, seed=5)  # every process has its own
            cut = (begin + rank * sequences // ranks, begin + (rank + 1) * sequences // ranks)
            taken.append(own.sequences(*cut))
            numbered.append(own.documents(*cut))
        assert np.array_equal(np.concatenate(taken), whole.sequences(begin, begin + sequences))
        assert np.array_equal(np.concatenate(numbered), whole.documents(begin, begin + sequences))


def test_beyond_the_budget_the_pattern_comes_again_with_new_windows(shards: dict[SourceName, Shard]):
    windows = (len(shards["web"]) - 1) // CONTEXT
    counts: dict[SourceName, int] = {"web": windows, "code": 10}
    mixture = Mixture(shards, counts, CONTEXT, seed=5)
    budget = windows + 10
    again = interleave(counts, budget, 2 * budget)
    assert [place.source for place in again] == [place.source for place in interleave(counts, 0, budget)]
    assert [place.number for place in again if place.source == "web"] == list(range(windows, 2 * windows))
    rows = mixture.sequences(budget, 2 * budget)
    second = epoch_order(5, "web", 1, windows)  # the first epoch is over
    expected = shards["web"].windows(second * CONTEXT, CONTEXT + 1)
    assert np.array_equal(rows[[place.source == "web" for place in again]], expected)


def test_sequences_come_from_where_they_lie_in_the_file(shards: dict[SourceName, Shard]):
    counts: dict[SourceName, int] = {"web": 90, "code": 45}
    mixture = Mixture(shards, counts, CONTEXT, seed=9)
    for row, place in zip(mixture.sequences(30, 130), interleave(counts, 30, 130), strict=True):
        at = mixture.window(place) * CONTEXT
        assert row.tolist() == shards[place.source].tokens[at : at + CONTEXT + 1].tolist()
    assert mixture.sequences(5, 5).shape == (0, CONTEXT + 1)


def test_a_source_gives_every_variant_the_same_sequences(shards: dict[SourceName, Shard]):
    def code(counts: dict[SourceName, int]) -> list[list[int]]:
        rows = Mixture(shards, counts, CONTEXT, seed=5).sequences(0, 100).tolist()
        places = interleave(counts, 0, 100)
        return [row for row, place in zip(rows, places, strict=True) if place.source == "code"]

    assert code({"web": 80, "code": 20}) == code({"synthetic": 50, "web": 30, "code": 20})


def test_a_variants_mixture_is_its_recipes(shards: dict[SourceName, Shard]):
    asked = recipe(model={"context": CONTEXT})  # 320 sequences
    mixture = variant_mixture(asked, asked.variants[0], shards)
    assert mixture.counts == {"synthetic": 160, "web": 96, "code": 64}
    assert mixture.window(Place("web", 0)) == epoch_order(3, "web", 0, mixture.windows["web"])[0]


def test_a_source_repeated_beyond_the_cap_is_a_warning_with_figures():
    variants = [
        {"name": "books", "mixture": {"synthetic": 0.8, "code": 0.2}},
        {"name": "web", "mixture": {"web": 0.8, "code": 0.2}},
    ]
    train = {"tokens": 10_000, "batch_tokens": 160, "max_epochs": 4}
    asked = recipe(model={"context": CONTEXT}, train=train, variants=variants)
    mixed = mixed_portions(asked, {"synthetic": 1000, "web": 100_000, "code": 1000})
    (books, _), (_, code) = mixed["books"], mixed["web"]
    # 62 batches of 10 sequences: 496 of textbooks, in windows of which there are 62.
    assert (books.tokens, books.available, books.share, books.passes) == (496 * 16, 1000, 0.8, 8.0)
    assert code.passes == 2.0
    warnings = repetition_warnings(asked, mixed)
    assert warnings["web"] == []
    (sentence,) = warnings["books"]
    assert sentence.startswith(
        "synthetic is seen 8.0 times, more than train.max_epochs (4): 7,936 tokens out of 1,000."
    )
    assert "Collect more (synth.tokens), or lower train.tokens to 4,800 for every variant." in sentence


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_that_a_warning_advises_keeps_within_the_cap(seed: int):
    rng = random.Random(seed)
    train = {"tokens": 10_000_000, "batch_tokens": CONTEXT * rng.choice((1, 8, 50)), "max_epochs": rng.uniform(0.5, 5)}
    variants = [{"name": f"v{n}", "mixture": _random_shares(100 * seed + n)} for n in range(3)]
    available: dict[SourceName, int] = {source: rng.randrange(20_000, 200_000) for source in SOURCES}

    def mixed(tokens: int) -> tuple[Recipe, dict[str, list[Portion]]]:
        asked = recipe(model={"context": CONTEXT}, train={**train, "tokens": tokens}, variants=variants)
        return asked, mixed_portions(asked, available)

    assert any(repetition_warnings(*mixed(10_000_000)).values())
    fits = largest_budget(*mixed(10_000_000))
    assert not any(repetition_warnings(*mixed(fits)).values())
    slightly_more = round(1.02 * fits) + 2 * train["batch_tokens"]  # it is not needlessly small
    assert any(repetition_warnings(*mixed(slightly_more)).values())


def test_no_budget_is_advised_where_one_batch_is_too_much():
    asked = recipe(train={"max_epochs": 1})
    (sentence,) = repetition_warnings(asked, mixed_portions(asked, {"synthetic": 70, "web": 9999, "code": 9999}))[
        "mixed"
    ]
    assert sentence.endswith("Collect more (synth.tokens).")


def test_a_corpus_shorter_than_a_sequence_is_an_error():
    asked = recipe()
    with pytest.raises(PrimerError, match=r"corpus/web comes to 32 tokens, fewer than one sequence of 33") as caught:
        mixed_portions(asked, {"synthetic": 5000, "web": 32, "code": 5000})
    assert "web.characters" in caught.value.remedy


def test_every_variant_has_the_same_budget_whatever_its_sources():
    rng = random.Random(1)
    for tokens, batch in ((5120, 256), (5375, 256), (999_999, 4096)):  # rounded to whole batches alike
        variants = [{"name": f"v{n}", "mixture": _random_shares(n)} for n in range(8)]
        asked = recipe(train={"tokens": tokens, "batch_tokens": batch}, variants=variants)
        mixed = mixed_portions(asked, {source: rng.randrange(33, 10_000_000) for source in SOURCES})
        assert {sum(part.tokens for part in parts) for parts in mixed.values()} == {tokens // batch * batch}
