from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from train_samples import make_shards, recipe, texts

from primer.errors import PrimerError
from train.mixture import Mixture, counts, epoch_order, interleave, variant_mixture
from train.shards import Shard
from train.tokenizer import trained_tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer({"web": lambda: iter(texts("web", 60))}, 300)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Shard]:
    return make_shards(tmp_path_factory.mktemp("tokens"), tokenizer, {"synthetic": 20, "web": 9, "code": 6})


def _random_shares(seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    weights = [rng.random() ** 3 + 1e-3 for _ in range(3)]
    return dict(zip(("synthetic", "web", "code"), (w / sum(weights) for w in weights), strict=True))


@pytest.mark.parametrize(
    "shares",
    [{"web": 1.0}, {"web": 0.8, "code": 0.2}, {"web": 0.4, "synthetic": 0.4, "code": 0.2}, {"web": 1.0, "code": 0.0}]
    + [_random_shares(seed) for seed in range(6)],
)
def test_shares_hold_at_every_prefix_to_within_one_sequence(shares: dict[str, float]):
    seen: Counter[str] = Counter()
    for place, item in enumerate(interleave(shares, 0, 3000), start=1):
        assert item.number == seen[item.source]  # each source's sequences follow one another without a gap
        seen[item.source] += 1
        for source, share in shares.items():
            assert abs(seen[source] - share * place) <= 1
    assert counts(shares, 3000) == {source: n for source, n in seen.items() if n}


def test_order_is_the_same_from_anywhere():
    shares = _random_shares(11)
    whole = interleave(shares, 0, 700)
    for start in (0, 1, 2, 13, 350, 699):
        assert interleave(shares, start, 700) == whole[start:]
    far = 70_000_000  # phi-1.5's budget has 73 million sequences
    assert interleave(shares, far, far + 50)[20:] == interleave(shares, far + 20, far + 50)
    assert sum(counts(shares, far).values()) == far


def test_each_epoch_sees_every_window_once_in_a_new_order(shards: dict[str, Shard]):
    mixture = Mixture(shards, {"web": 1.0}, CONTEXT, seed=5)
    windows = (len(shards["web"]) - 1) // CONTEXT
    tokens = np.asarray(shards["web"].tokens).astype(int)
    expected = {tuple(tokens[w * CONTEXT : w * CONTEXT + CONTEXT + 1]) for w in range(windows)}
    first, second = mixture.sequences(0, windows), mixture.sequences(windows, 2 * windows)
    assert {tuple(row) for row in first.tolist()} == expected == {tuple(row) for row in second.tolist()}
    assert first.tolist() != second.tolist()
    assert not np.array_equal(first, Mixture(shards, {"web": 1.0}, CONTEXT, seed=6).sequences(0, windows))


def test_the_order_of_an_epoch_never_changes():
    # Whatever the version of numpy or of this code: a checkpoint from before must go on with the same data.
    assert epoch_order(5, "web", 0, 1000)[:6].tolist() == [896, 172, 865, 294, 675, 248]
    assert sorted(epoch_order(5, "web", 0, 1000)) == list(range(1000))
    assert epoch_order(5, "code", 0, 1000).tolist() != epoch_order(5, "web", 0, 1000).tolist()


def test_sequences_are_a_pure_function_of_the_place(shards: dict[str, Shard]):
    shares = {"web": 0.4, "synthetic": 0.4, "code": 0.2}
    whole = Mixture(shards, shares, CONTEXT, seed=5).sequences(0, 300)
    assert whole.shape == (300, CONTEXT + 1)
    for start, stop in ((0, 3), (299, 300), (150, 171), (7, 250)):
        assert np.array_equal(Mixture(shards, shares, CONTEXT, seed=5).sequences(start, stop), whole[start:stop])


def test_a_source_gives_every_variant_the_same_sequences(shards: dict[str, Shard]):
    def code(shares: dict[str, float]) -> list[list[int]]:
        mixture = Mixture(shards, shares, CONTEXT, seed=5)
        places = interleave(shares, 0, 100)
        rows = mixture.sequences(0, 100).tolist()
        return [row for row, place in zip(rows, places, strict=True) if place.source == "code"]

    assert code({"web": 0.8, "code": 0.2}) == code({"synthetic": 0.8, "code": 0.2})


def test_budget_beyond_the_allowed_epochs_is_an_error_with_figures(shards: dict[str, Shard]):
    mixture = Mixture(shards, {"web": 0.8, "code": 0.2}, CONTEXT, seed=0)
    windows = mixture.windows["web"]
    fits = int(windows * 4 / 0.8) - 4
    mixture.check(fits, 4.0, "web")
    with pytest.raises(PrimerError) as caught:
        mixture.check(fits * 2, 4.0, "web")
    assert f"corpus/web has {windows * CONTEXT:,}" in caught.value.problem
    assert "8.0 times" in caught.value.problem
    assert "web.characters" in caught.value.remedy
    assert "train.tokens" in caught.value.remedy
    assert mixture.epochs(fits)["web"] == pytest.approx(4.0, abs=0.1)


def test_a_corpus_shorter_than_a_sequence_is_an_error(tmp_path: Path, tokenizer: Tokenizer):
    shards = make_shards(tmp_path, tokenizer, {"web": 1})
    with pytest.raises(PrimerError, match=r"fewer than one sequence of 4,097"):
        Mixture(shards, {"web": 1.0}, 4096, seed=0).check(1, 4.0, "web")


def test_the_budget_that_the_error_advises_is_accepted(shards: dict[str, Shard]):
    asked = recipe(model={"context": CONTEXT}, train={"tokens": 10_000_000, "batch_tokens": CONTEXT})
    mixture = variant_mixture(asked, asked.variants[0], shards)
    with pytest.raises(PrimerError) as caught:
        mixture.check(10_000_000 // CONTEXT, 2.0, "mixed")
    advised = int(caught.value.remedy.split("train.tokens to ")[1].split(", or raise")[0].replace(",", ""))
    mixture.check(advised // CONTEXT, 2.0, "mixed")
    assert max(mixture.epochs(advised // CONTEXT).values()) > 1.9  # and not needlessly small
