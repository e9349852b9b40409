"""The verdict in words: generated from the tests, it overstates nothing and says what is within noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scored_models import guesses, judged, model, scores

from eval.compare import Documents
from eval.comparison import Comparison
from eval.scored_items import SubjectScores
from eval.verdict import Training, Verdict, figure, give_verdict


def told(
    *variants: SubjectScores, training: Mapping[str, Training] | None = None, documents: Documents | None = None
) -> tuple[Comparison, Verdict]:
    comparison = judged(*variants, documents=documents)
    return comparison, give_verdict(comparison, training or {})


def everything(verdict: Verdict) -> str:
    return " ".join((verdict.headline, *verdict.beyond_noise, *verdict.within_noise, verdict.chance, *verdict.caveats))


def test_equal_variants_are_called_different_in_about_one_run_in_twenty_at_most():
    rng, false = np.random.default_rng(0), 0
    for _ in range(30):
        text = rng.normal(2000, 300, 30)
        variants = [scores(v, guesses(rng, 0.3), bits=text + rng.normal(0, 40, 30)) for v in ("x", "y", "z")]
        comparison, verdict = told(*variants)
        false += bool(verdict.beyond_noise)
        assert bool(verdict.beyond_noise) == any(d.beyond_noise for d in comparison.differences)
    assert false <= 4  # 30 runs at 5%: more than 4 has a chance below 2%


def test_models_at_chance_are_said_to_be_at_chance():
    comparison, verdict = told(*(scores(v, guesses(np.random.default_rng(n))) for n, v in enumerate(("x", "y"))))
    assert not any(d.beyond_noise for d in comparison.differences)
    assert verdict.headline == (
        "None of the variants answers questions better than chance: the suites cannot tell them apart."
    )
    assert verdict.chance == (
        "No model is above chance in any suite or mean: what is scored there says nothing about what is known."
    )
    assert verdict.beyond_noise == ()


def test_a_truly_better_variant_is_found_and_named_with_how_much():
    rng = np.random.default_rng(1)
    comparison, verdict = told(scores("weak", guesses(rng, 0.1)), scores("strong", guesses(rng, 0.6)))
    difference = comparison.beyond_noise("mean_accuracy", "built-in")[0]
    assert (difference.first, difference.second) == ("strong", "weak")
    assert difference.estimate.low > 0.1
    assert comparison.best("mean_accuracy", "built-in") == "strong"
    points = f"{100 * difference.estimate.value:.1f}"
    assert verdict.headline == (
        f"On the mean of the built-in suites, “strong” is ahead of “weak” by {points} percentage points."
    )
    assert "“strong” in" in verdict.chance


def test_alike_accuracy_above_chance_is_within_noise_and_never_called_equal_without_a_proviso():
    rng = np.random.default_rng(2)
    shared = guesses(rng, 0.6)
    comparison, verdict = told(scores("x", shared), scores("y", shared))
    assert all(d.p == 1.0 and d.estimate.value == 0 for d in comparison.differences)
    assert (
        verdict.headline == "The variants answer questions equally well within noise, as far as these suites can tell."
    )
    assert "no difference beyond noise" in everything(verdict)


def test_a_difference_between_models_below_chance_is_no_sign_of_knowledge():
    worse = {"a": np.zeros(200), "b": np.zeros(200)}
    even = {"a": np.arange(200) % 5 == 0, "b": np.arange(200) % 5 == 0}
    _, verdict = told(scores("worse", worse), scores("even", even))
    assert "not above chance there, so this is no sign of knowledge" in verdict.headline
    assert all("no sign of knowledge" in line for line in verdict.beyond_noise)
    _, verdict = told(scores("worse", {"a": worse["a"]}), scores("even", {"a": even["a"]}))
    assert verdict.headline == (
        "Accuracy differs beyond noise in “Suite a”, and in that suite alone. But none of the variants is above chance "
        "there, so this is no sign of knowledge."
    )


def test_always_giving_the_commoner_of_two_answers_is_not_above_chance():
    # 70 of 100 answers are the first one, and the model gives that one always.
    gold = np.array([0] * 70 + [1] * 30)
    constant = model({"a": gold == 0}, choices=2)
    items = {
        k: i.model_copy(update={"gold": int(g)})
        for (k, i), g in zip(constant.questions["a"].items(), gold, strict=True)
    }
    comparison, verdict = told(SubjectScores("constant", (replace(constant, questions={"a": items}),)))
    assert comparison.suites[0].chance == 0.5
    assert comparison.suites[0].bar == 0.7
    assert not comparison.suites[0].scores["constant"].above_chance
    assert verdict.headline.endswith("it does not answer better than chance.")


def test_an_advantage_in_bits_per_byte_is_told_as_a_positive_number():
    rng = np.random.default_rng(3)
    text = rng.normal(2300, 200, 8)
    _, verdict = told(scores("x", {}, bits=text), scores("y", {}, bits=text - 300 + rng.normal(0, 30, 8)))
    assert "“y” is ahead of “x” by 0.2" in verdict.beyond_noise[0] or "by 0.3" in verdict.beyond_noise[0]
    assert verdict.caveats[-1].startswith("On held-out synthetic text, a difference below 0.")


def test_budget_and_repetition_are_told():
    variants = [scores(v, guesses(np.random.default_rng(0))) for v in ("x", "y")]
    same = {"x": Training(1000, {"web": 2.0}), "y": Training(1000, {"web": 1.0, "synthetic": 3.5})}
    _, verdict = told(*variants, training=same)
    words = everything(verdict)
    assert "trained on the same number of tokens, 1,000" in words
    assert "web 2 times in “x” and once in “y”; synthetic 3.5 times in “y”" in words
    assert "did not repeat their sources equally often" in words
    assert "one training run of each variant" in words
    _, verdict = told(*variants, training={"x": Training(1000, {"web": 2.0}), "y": Training(900, {"web": 2.0})})
    assert "The token budgets are not the same: “x” on 1,000 and “y” on 900." in everything(verdict)
    assert "web 2 times in each." in everything(verdict)
    assert "equally often" not in everything(verdict)


def test_many_differences_are_counted_not_recited():
    rng = np.random.default_rng(5)
    text = rng.normal(2300, 200, 30)
    variants = [scores(f"v{n}", {}, bits=text + 100 * n + rng.normal(0, 5, 30)) for n in range(5)]
    _, verdict = told(*variants)
    assert "10 pairs of variants differ, most of all “v0”, which is ahead of “v4” by 0.4" in verdict.beyond_noise[0]


def test_how_small_a_difference_would_go_unseen_is_said():
    rng = np.random.default_rng(3)
    c, verdict = told(*(scores(v, guesses(rng, 0.3)) for v in "xy"))
    least = next(d for d in c.detectable if d.measure == "mean_accuracy").corrected
    expected = f"With 300 items behind “Mean of the built-in suites”, a difference below {100 * least:.1f} points"
    assert expected in everything(verdict)
    seeds = [SubjectScores(v, tuple(model({"a": np.arange(30) < k}) for k in (3, 9))) for v in "xy"]
    nothing = (
        "With 30 items behind “Suite a”, no difference between two variants, however large, would be sure to be seen."
    )
    assert nothing in told(*seeds)[1].caveats
    _, one = told(scores("x", {"a": [1]}), scores("y", {"a": [0]}))
    assert "With one item behind “Suite a”, no difference" in one.caveats[-1]
    assert one.within_noise == ("No two variants differ beyond noise in the only suite.",)
    same = guesses(np.random.default_rng(1), 0.5)
    assert " 0.0 points between" not in everything(told(scores("x", same), scores("y", same))[1])


def test_seeds_are_counted_and_said_to_be_in_the_intervals():
    rng = np.random.default_rng(4)
    several = [SubjectScores(v, tuple(model(guesses(rng)) for _ in "123")) for v in "xy"]
    _, verdict = told(*several)
    assert "Each variant was trained with 3 seeds: intervals and tests hold the noise of training" in everything(
        verdict
    )
    assert "say little" not in everything(verdict)
    _, verdict = told(several[0], scores("y", guesses(rng)))
    words = everything(verdict)
    assert (
        "The number of training seeds differs (“x” 3 and “y” 1; one alone is taken to vary as the others do)" in words
    )
    assert "So few say little" in words


def test_a_benchmark_known_by_heart_is_suspected_and_an_honest_one_is_not():
    rng = np.random.default_rng(6)
    old, fresh = rng.random(800), rng.random(200)
    twins = {"fresh": "old"}
    honest = scores("honest", {"old": old < 0.4, "fresh": fresh < 0.45}, twins=twins)
    leaked = scores("leaked", {"old": old < 0.8, "fresh": fresh < 0.46}, twins=twins)
    _, verdict = told(honest, leaked)
    assert "From the fresh twin of “Suite old” to the benchmark itself, “leaked” gains" in everything(verdict)
    assert "more than “honest” does: the training text of “leaked” may hold items of that benchmark. Or skill" in (
        everything(verdict)
    )
    better = scores("better", {"old": old < 0.5, "fresh": fresh < 0.55}, twins=twins)
    assert "may hold items" not in everything(told(honest, better)[1])


def test_answers_that_are_written_are_not_measured_against_chance():
    rng = np.random.default_rng(7)
    solved = rng.random(120) < 0.3
    _, verdict = told(*(scores(v, {"code": s}, choices=0) for v, s in (("x", solved), ("y", np.zeros(120)))))
    assert verdict.chance == (
        "Of the tasks whose answers are written and cannot be guessed, the models solve in “Suite code” "
        f"“x” {100 * solved.mean():.1f}%."
    )
    assert "no sign of knowledge" not in everything(verdict)
    assert "“x” is ahead of “y”" in verdict.beyond_noise[0]
    _, none = told(*(scores(v, {"code": np.zeros(20)}, choices=0) for v in "xy"))
    assert none.chance.endswith("(one suite), none is solved.")


def test_the_field_of_topics_that_gains_most_is_named_with_how_much():
    rng = np.random.default_rng(7)
    web = rng.normal(2300, 200, 60)
    books = web - np.where(np.arange(60) < 30, 400, 0) + rng.normal(0, 40, 60)
    fields = {f"d{n:03d}": "cooking" if n < 30 else "physics" for n in range(60)}
    _, verdict = told(scores("books", {}, bits=books), scores("web", {}, bits=web), documents=Documents({}, fields))
    line = "On held-out textbooks, “books” is ahead of “web” in 1 of 2 groups of topics, most in cooking, by 0."
    assert line in everything(verdict)


def test_suites_that_are_not_shared_are_told():
    x = np.arange(40) % 2
    _, verdict = told(scores("x", {"a": x, "b": x}), scores("y", {"a": x}))
    assert "b (questions): not compared: no two models were asked the same items." in verdict.caveats
    _, verdict = told(scores("x", {"a": x}), scores("y", {"b": x}))
    assert verdict.headline == "No suite of questions was asked of two models alike."
    assert told(scores("x", {}), scores("y", {}))[1].headline == "No suite of questions was run."


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert (figure(-0.04, 1), figure(-0.06, 1)) == ("0.0", "−0.1")
