"""Drawing topics: every one once, fields dealt out evenly, weights met, the same numbers everywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from primer.errors import PrimerError
from primer.recipe import TopicWeights
from topics.sampling import TopicDraws, topic_weight
from topics.seeds import Topic, load_topics

KINDS = ("cause", "skill", "story")
LEVELS = (("early",), ("primary", "middle"), ("adult",))


def topics(fields: int = 12, least: int = 20) -> list[Topic]:
    """Fields of unlike sizes, kinds and levels crossed."""
    return [
        Topic(f"field-{f}-{i:04d}", f"field-{f}", "part", KINDS[i % 3], LEVELS[i // 3 % 3], f"Topic {f} {i}")
        for f in range(fields)
        for i in range(least + 7 * f)
    ]


def test_without_weights_every_topic_comes_once_an_epoch_in_another_order() -> None:
    draws = TopicDraws(topics(), TopicWeights(), seed=3)
    size = len(draws)
    epochs = [[draws.place(epoch * size + i)[0] for i in range(size)] for epoch in range(4)]
    for order in epochs:
        assert sorted(order) == list(range(size))
    assert len({tuple(order[:20]) for order in epochs}) == 4
    assert [draws.place(i * size + 5)[1] for i in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("weight", [2.0, 0.3, 1e-3])
def test_equal_weights_of_any_size_are_no_weights(weight: float) -> None:
    some = topics()
    weights = TopicWeights(fields={topic.field: weight for topic in some})
    plain, weighted = TopicDraws(some, TopicWeights(), 1), TopicDraws(some, weights, 1)
    assert [plain.place(i) for i in range(2 * len(plain))] == [weighted.place(i) for i in range(2 * len(plain))]


def test_any_beginning_holds_each_field_by_its_share_to_within_two() -> None:
    """Also with weights: the demo's three hundred prompts are a small picture of the list."""
    some = topics()
    for weights in (TopicWeights(), TopicWeights(fields={"field-3": 4.0}, kinds={"story": 0.5})):
        draws = TopicDraws(some, weights, seed=5)
        total = Counter(draws.topics[draws.place(i)[0]].field for i in range(len(draws)))
        seen: Counter[str] = Counter()
        for i in range(len(draws)):
            seen[draws.topics[draws.place(i)[0]].field] += 1
            for field, count in total.items():
                assert abs(seen[field] - count * (i + 1) / len(draws)) < 2


def test_weights_are_met_by_chi_squared() -> None:
    """Draws by field x kind x level against the shares that the weights say; at this seed p must be usual."""
    some = topics()
    weights = TopicWeights(
        fields={"field-2": 3.0, "field-4": 0.0, "field-5": 0.25}, kinds={"cause": 2.0}, levels={"adult": 0.5}
    )
    draws = TopicDraws(some, weights, seed=11)
    assert all(topic.field != "field-4" for topic in draws.topics)
    count = 250 * len(draws)
    cells = Counter(
        (topic.field, topic.kind, topic.levels) for topic in (draws.topics[draws.place(i)[0]] for i in range(count))
    )
    expected: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    for topic in draws.topics:
        expected[topic.field, topic.kind, topic.levels] += topic_weight(topic, weights)
    scale = count / sum(expected.values())
    keys = sorted(expected)
    observed = np.array([cells[key] for key in keys])
    wanted = np.array([expected[key] * scale for key in keys])
    result = stats.chisquare(observed, wanted * observed.sum() / wanted.sum())
    # Systematic draws scatter less than independent ones: p is near 1, never small.
    assert result.pvalue > 0.05
    wrong = wanted.copy()
    wrong[:9] *= 1.3
    assert stats.chisquare(observed, wrong * observed.sum() / wrong.sum()).pvalue < 1e-6, "the test can tell"


def test_the_order_of_an_epoch_is_fair() -> None:
    """Which topic comes first, over many seeds, is uniform within a field and by size between fields."""
    some = topics(fields=3, least=4)
    firsts: Counter[str] = Counter()
    for seed in range(1500):
        draws = TopicDraws(some, TopicWeights(), seed)
        firsts[draws.topics[draws.place(0)[0]].id] += 1
    by_field = Counter({f: sum(n for k, n in firsts.items() if k.startswith(f)) for f in {t.field for t in some}})
    for field, total in by_field.items():
        inside = [firsts[topic.id] for topic in some if topic.field == field]
        assert stats.chisquare(inside).pvalue > 1e-3, field
        assert total > 0


def test_topics_of_weight_five_come_five_times_as_often_and_their_turns_rise() -> None:
    some = topics(fields=2, least=30)
    draws = TopicDraws(some, TopicWeights(fields={"field-0": 5.0}), 7)
    order = [draws.place(i) for i in range(200 * len(draws))]
    counts = Counter(draws.topics[place].field for place, _ in order)
    sizes = Counter(topic.field for topic in some)
    ratio = (counts["field-0"] / sizes["field-0"]) / (counts["field-1"] / sizes["field-1"])
    assert ratio == pytest.approx(5.0, rel=0.01)
    turns: dict[int, list[int]] = {}
    for place, turn in order:
        turns.setdefault(place, []).append(turn)
    assert all(seen == list(range(len(seen))) for seen in turns.values()), "a topic's turns are counted one by one"
    assert [TopicDraws(some, TopicWeights(fields={"field-0": 5.0}), 7).place(i) for i in (9_000, 3)] == [
        order[9_000],
        order[3],
    ], "also where the epochs before were never drawn"


def test_draws_are_the_same_on_every_machine() -> None:
    draws = TopicDraws(topics(), TopicWeights(levels={"adult": 2.0}), seed=42)
    assert [draws.topics[draws.place(i)[0]].id for i in range(6)] == GOLDEN
    shuffled = TopicDraws(topics(), TopicWeights(levels={"adult": 2.0}), seed=42)
    ahead = [shuffled.place(i) for i in (5, 5000, 0, 999_999)]
    assert ahead == [draws.place(i) for i in (5, 5000, 0, 999_999)], "any draw, in any order, without those before it"


def test_weights_that_name_nothing_or_leave_nothing_are_errors() -> None:
    some = topics()
    for value in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match="fields"):
            TopicWeights(fields={"field-1": value})
    for weights, text in (
        (TopicWeights(fields={"feild-1": 2.0}), r"topics\.weights\.fields names 'feild-1'"),
        (TopicWeights(kinds={"stroy": 2.0}), r"(?s)kinds names 'stroy'.*story"),
        (TopicWeights(levels={"infant": 2.0}), "levels names 'infant'"),
        (TopicWeights(kinds=dict.fromkeys(KINDS, 0.0)), "has a weight above 0"),
    ):
        with pytest.raises(PrimerError, match=text):
            TopicDraws(some, weights, 0)


def test_three_hundred_draws_of_the_shipped_list_meet_every_field() -> None:
    every = load_topics()
    draws = TopicDraws(every, TopicWeights(), seed=1)
    drawn = Counter(draws.topics[draws.place(i)[0]].field for i in range(300))
    sizes = Counter(topic.field for topic in every)
    assert set(drawn) == set(sizes)
    assert all(abs(drawn[field] - 300 * size / len(every)) < 2 for field, size in sizes.items())


# What the first machine drew.
GOLDEN = ["field-10-0060", "field-6-0061", "field-7-0006", "field-5-0044", "field-2-0030", "field-0-0006"]
