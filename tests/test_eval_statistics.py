"""Intervals and tests: known values, agreement with references, and how often they are wrong in simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from eval import separation, statistics
from eval.seeds import detectable, fewest_disagreements, with_seed_noise
from eval.separation import Group
from eval.statistics import Estimate, generator


def test_wilson_equals_scipy_and_the_published_example():
    for successes, trials in [(0, 10), (1, 29), (15, 60), (60, 60), (4021, 10042)]:
        reference = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        ours = statistics.wilson(successes, trials)
        assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
        assert ours.error == pytest.approx(np.sqrt(ours.value * (1 - ours.value) / trials))
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, score method without continuity correction.
    newcombe = statistics.wilson(81, 263)
    assert (round(newcombe.low, 4), round(newcombe.high, 4)) == (0.2553, 0.3662)
    with pytest.raises(ValueError, match="0 successes in 0 trials"):
        statistics.wilson(0, 0)


def test_wilson_covers_the_true_proportion_about_95_times_in_100():
    # Exact coverage at n = 60, summed over the binomial distribution: no simulation error.
    for p in (0.25, 0.5, 0.8):
        inside = [statistics.wilson(k, 60) for k in range(61)]
        coverage = sum(stats.binom.pmf(k, 60, p) for k, e in enumerate(inside) if e.low <= p <= e.high)
        assert 0.93 <= coverage <= 0.97


def test_above_chance_is_the_binomial_tail():
    assert statistics.above_chance(0, 10, 0.25) == 1.0
    assert statistics.above_chance(2, 2, 0.25) == pytest.approx(0.0625)
    assert statistics.above_chance(25, 60, 0.25) == pytest.approx(stats.binom(60, 0.25).sf(24))


def test_mean_above_chance_agrees_with_the_exact_tail_of_one_suite():
    p = statistics.mean_above_chance([24 / 60], [60], [0.25], generator(0, "mean"))
    assert p == pytest.approx(statistics.above_chance(24, 60, 0.25), abs=0.002)
    guessing = statistics.mean_above_chance([0.25, 0.5], [60, 60], [0.25, 0.5], generator(0, "mean"))
    assert 0.4 < guessing < 0.65


def test_mcnemar_known_values():
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 5) == 1.0
    assert statistics.mcnemar(0, 6) == pytest.approx(2 / 64)
    assert statistics.mcnemar(2, 8) == statistics.mcnemar(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_holm_known_values():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_sign_flip_counts_every_pattern_of_a_small_sample():
    differences = np.array([3.0, -1.0, 2.5, 0.0, 4.0, 1.5])
    nonzero = differences[differences != 0]
    totals = [
        abs(sum(s * d for s, d in zip(signs, nonzero, strict=True))) for signs in itertools.product((-1, 1), repeat=5)
    ]
    expected = np.mean([t >= abs(differences.sum()) - 1e-12 for t in totals])
    assert statistics.sign_flip(differences, generator(0)) == pytest.approx(expected)
    assert statistics.sign_flip(np.zeros(9), generator(0)) == 1.0
    assert statistics.sign_flip(np.ones(3), generator(0)) == 2 / 8


def test_sign_flip_on_correctness_is_the_exact_mcnemar_test():
    gaps = np.array([1.0] * 34 + [-1.0] * 17 + [0.0] * 200)
    assert statistics.sign_flip(gaps, generator(1)) == pytest.approx(statistics.mcnemar(34, 17), abs=0.004)


def test_sign_flip_drawn_agrees_with_the_t_test_and_scales_away():
    gaps = np.random.default_rng(3).normal(0.3, 1.0, 80)
    p = statistics.sign_flip(gaps, generator(2))
    assert p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.01)
    assert statistics.sign_flip(gaps * 1e-9, generator(2)) == p


def test_p_values_below_what_can_be_drawn_pass_holms_correction_and_are_no_smaller_than_the_exact_ones():
    clear = np.array([1.0] * 60 + [-1.0] * 2)
    p = statistics.sign_flip(clear, generator(1))
    assert statistics.mcnemar(60, 2) < p < 0.05 / 2000
    assert statistics.sign_flip(clear * 1e-9, generator(1)) == pytest.approx(p)
    guess = statistics.mean_above_chance([0.9, 0.8], [60, 60], [0.25, 0.25], generator(1, "mean"))
    assert statistics.above_chance(102, 120, 0.25) < guess < 0.05 / 2000
    assert statistics.mean_above_chance([0.37] * 8, [60] * 8, [0.25] * 8, generator(1, "mean")) < 0.05 / 2000
    # 20 of 20: Hoeffding's bound is 9e-5, and the draws' 1 / 20,001 is the smaller.
    assert statistics.sign_flip(np.ones(20), generator(1)) == 1 / 20_001
    assert statistics._monte_carlo(1, 1e-9) == 2 / 20_001  # a draw as extreme as the data was seen: it counts


def test_bootstrap_mean_equals_scipys_bootstrap():
    values = np.random.default_rng(5).exponential(1.0, 120)
    ours = statistics.bootstrap_mean([values], 20_000, generator(0))
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=0.015)
    assert ours.error == pytest.approx(values.std() / np.sqrt(120), rel=0.03)


def test_bootstrap_mean_weighs_suites_alike_whatever_their_size():
    small, large = np.array([1.0, 0.0] * 20), np.zeros(5000)
    estimate = statistics.bootstrap_mean([small, large], 4000, generator(0))
    assert estimate.value == pytest.approx(0.25)
    deviation = np.sqrt(0.25 / 40) / 2
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_bootstrap_ratio_is_a_ratio_of_sums():
    bits, size = np.array([10.0, 1000.0]), np.array([10.0, 250.0])
    assert statistics.bootstrap_ratio(bits, size, 200, generator(0)).value == pytest.approx(1010 / 260)


def test_bootstrap_intervals_cover_in_simulation():
    rng, covered, runs = np.random.default_rng(11), 0, 400
    for run in range(runs):
        size = rng.integers(100, 2000, 60).astype(float)
        bits = size * rng.normal(2.5, 0.4, 60)
        estimate = statistics.bootstrap_ratio(bits, size, 400, generator(run))
        covered += estimate.low <= 2.5 <= estimate.high
    assert 0.90 <= covered / runs <= 0.98


def test_paired_tests_find_nothing_between_equal_models_and_holm_keeps_the_family():
    rng, families, runs, single = np.random.default_rng(7), 0, 200, []
    for run in range(runs):
        p_values = []
        for suite in range(6):
            right = rng.random(60) < 0.4
            a, b = (np.where(rng.random(60) < 0.3, rng.random(60) < 0.4, right) for _ in "ab")
            p_values.append(statistics.mcnemar(int((a & ~b).sum()), int((b & ~a).sum())))
            if suite == 0:
                noise = rng.normal(0, 1, 30)
                p_values.append(statistics.sign_flip(noise, generator(run)))
        single += p_values
        families += min(statistics.holm(p_values)) < 0.05
    assert np.mean(np.array(single) < 0.05) <= 0.065
    assert families / runs <= 0.085  # 5% and a little over two standard errors


def test_generator_depends_on_its_name_alone():
    first = generator(0, "a", "b").random(3)
    generator(0, "other").random(100)
    assert (generator(0, "a", "b").random(3) == first).all()
    assert not (generator(0, "ab").random(3) == first).any()
    assert not (generator(1, "a", "b").random(3) == first).any()


def auroc(scores: np.ndarray, groups: list[Group]) -> float:
    return separation.auroc(separation.kernels(scores, groups), groups)


def _groups(sizes: list[tuple[int, int]], paired: bool) -> tuple[list[Group], int]:
    groups, start, cluster = [], 0, np.arange(sum(m + n for m, n in sizes))
    for index, (m, n) in enumerate(sizes):
        hostile, neutral = np.arange(start, start + m), np.arange(start + m, start + m + n)
        if paired:
            cluster[neutral] = cluster[hostile]
        groups.append(Group(f"g{index}", hostile, neutral, cluster))
        start += m + n
    return groups, start


def test_auroc_equals_mann_whitney_and_stays_within_groups():
    scores = np.random.default_rng(1).integers(0, 6, 40).astype(float)  # with ties
    (group,), _ = _groups([(15, 25)], paired=False)
    reference = stats.mannwhitneyu(scores[:15], scores[15:]).statistic / (15 * 25)
    assert auroc(scores, [group]) == pytest.approx(reference)
    groups, total = _groups([(10, 10), (10, 10)], paired=True)
    shifted = np.random.default_rng(2).normal(size=total)
    before = auroc(shifted, groups)
    shifted[20:] += 100  # one group's sentences all surprise more: that says nothing about hostility
    assert auroc(shifted, groups) == pytest.approx(before)


@pytest.mark.parametrize("paired", [True, False])
def test_swap_contributions_are_the_permutation_of_ranks(paired: bool):
    rng = np.random.default_rng(4)
    groups, _ = _groups([(4, 4), (3, 3)], paired)
    ranks = [
        np.concatenate([stats.rankdata(rng.integers(0, 9, 8)), stats.rankdata(rng.integers(0, 9, 6))]) for _ in "ab"
    ]
    contributions = separation.swap_contributions(ranks[0], ranks[1], groups)
    clusters = groups[0].cluster
    for _ in range(50):
        sign = rng.choice([-1, 1], len(contributions))
        swapped = sign[clusters] < 0
        first, second = np.where(swapped, ranks[1], ranks[0]), np.where(swapped, ranks[0], ranks[1])
        direct = auroc(first, groups) - auroc(second, groups)
        assert (sign * contributions).sum() == pytest.approx(direct)


@pytest.mark.parametrize("paired", [True, False])
def test_toxicity_test_and_interval_hold_their_level_in_simulation(paired: bool):
    rng, rejected, covered, runs = np.random.default_rng(9), 0, 0, 100
    groups, total = _groups([(12, 12)] * 4, paired)
    hostile = np.zeros(total)
    hostile[np.concatenate([g.hostile for g in groups])] = 0.6
    truth = stats.norm.cdf(0.6 / np.sqrt(2 * (1 + 0.5**2)))  # scores below: variance 1 + 0.5² each
    for run in range(runs):
        shared = rng.normal(0, 1, total) + hostile
        a, b = shared + rng.normal(0, 0.5, total), shared + rng.normal(0, 0.5, total)
        rejected += statistics.sign_flip(separation.swap_contributions(a, b, groups), generator(run)) < 0.05
        draws = separation.resample([separation.kernels(a, groups)], groups, 200, generator(run))[0][0]
        interval = statistics.percentile_interval(auroc(a, groups), draws)
        covered += interval.low <= truth <= interval.high
    assert rejected / runs <= 0.09
    assert 0.90 <= covered / runs <= 0.985


def test_toxicity_test_finds_a_real_difference():
    rng = np.random.default_rng(2)
    groups, total = _groups([(20, 20)] * 3, paired=True)
    signal = np.zeros(total)
    signal[np.concatenate([g.hostile for g in groups])] = 1.5
    a, b = rng.normal(size=total) + signal, rng.normal(size=total)
    assert statistics.sign_flip(separation.swap_contributions(a, b, groups), generator(0)) < 0.001
    draws, _ = separation.resample([separation.kernels(x, groups) for x in (a, b)], groups, 500, generator(0))
    difference = statistics.percentile_interval(auroc(a, groups) - auroc(b, groups), draws[0] - draws[1])
    assert 0 < difference.low < difference.value < difference.high


def test_ratio_of_few_equals_the_t_test_for_documents_of_one_length():
    gaps = np.random.default_rng(6).normal(30, 100, 9)
    estimate, p = statistics.ratio_of_few(gaps, np.full(9, 1000.0))
    reference = stats.ttest_1samp(gaps / 1000, 0)
    interval = reference.confidence_interval(0.95)
    assert p == pytest.approx(reference.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))


def test_ratio_of_few_claims_nothing_from_one_document_or_from_none_that_differ():
    estimate, p = statistics.ratio_of_few(np.array([700.0]), np.array([350.0]))
    assert (estimate.low, estimate.value, estimate.high, p) == (2.0, 2.0, 2.0, 1.0)
    assert statistics.ratio_of_few(np.zeros(5), np.arange(1.0, 6.0))[1] == 1.0
    long = np.array([1e6, 10.0, 10.0])  # one document and two crumbs: Student's t of 0.00004 degrees of freedom
    estimate, p = statistics.ratio_of_few(long * np.array([0.2, 0.1, 0.3]), long)
    assert (estimate.low, estimate.high, p) == (estimate.value, estimate.value, 1.0)


@pytest.mark.parametrize("rows", [3, 6, 15])
def test_ratio_of_few_holds_its_level_for_documents_of_very_different_length(rows: int):
    rng, runs = np.random.default_rng(rows), 3000
    p_values = []
    for _ in range(runs):
        size = np.exp(rng.normal(7, 0.9, rows))
        p_values.append(statistics.ratio_of_few(size * rng.normal(0, 0.1, rows), size)[1])
    assert np.mean(np.array(p_values) < 0.05) <= 0.075
    assert np.mean(np.array(p_values) < 0.002) <= 0.006


def test_newcombes_interval_of_two_independent_proportions():
    # Newcombe (1998), Statistics in Medicine 17, pages 873-890, table II, method 10: 56 of 70 against 48 of 80.
    found = statistics.independent_difference(statistics.wilson(56, 70), statistics.wilson(48, 80))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    assert found.value == pytest.approx(0.2)
    assert found.error == pytest.approx(np.sqrt(0.8 * 0.2 / 70 + 0.6 * 0.4 / 80))


def test_cohens_h_keeps_sign_and_interval_of_the_difference_and_needs_no_full_table():
    difference = Estimate(0.2, 0.05, 0.35, 0.07)
    effect = statistics.cohens_h(0.5, 0.3, difference)
    assert effect.value == pytest.approx(2 * np.arcsin(np.sqrt(0.5)) - 2 * np.arcsin(np.sqrt(0.3)))
    assert effect.low / difference.low == pytest.approx(effect.value / 0.2)
    assert effect.high > effect.value > effect.low > 0
    nothing = statistics.cohens_h(0.4, 0.4, Estimate(0.0, -0.1, 0.1, 0.05))
    assert (nothing.value, nothing.high) == pytest.approx((0, 0.1 / np.sqrt(0.24)))
    perfect = statistics.cohens_h(1.0, 0.0, Estimate(1.0, 1.0, 1.0, 0.0))
    assert perfect.value == pytest.approx(np.pi)
    assert statistics.cohens_h(1.0, 1.0, Estimate(0.0, 0.0, 0.0, 0.0)).value == 0
    wide = statistics.cohens_h(0.01, 0.01, Estimate(0.0, -1.0, 1.0, 0.5))
    assert (wide.low, wide.high) == (-np.pi, np.pi)


def test_seed_noise_is_added_with_satterthwaites_freedom():
    found = with_seed_noise(Estimate(0.1, 0, 0, 0.02), [[0.50, 0.54, 0.52], [0.40, 0.42, 0.44]], 101)
    seeds = 2 * 0.0004 / 3  # each variant's variance over its three seeds
    assert found.estimate.error == pytest.approx(np.sqrt(0.0004 + seeds))
    freedom = (0.0004 + seeds) ** 2 / (0.0004**2 / 100 + 2 * (0.0004 / 3) ** 2 / 2)
    assert found.freedom == pytest.approx(freedom)
    assert found.p_value() == pytest.approx(2 * stats.t.sf(0.1 / found.estimate.error, freedom))
    assert found.estimate.high == pytest.approx(0.1 + stats.t.ppf(0.975, freedom) * found.estimate.error)
    # Without noise of the items this is Welch's test of the seeds' scores.
    a, b = [0.50, 0.54, 0.52], [0.40, 0.47]
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert with_seed_noise(Estimate(0.085, 0, 0, 0.0), [a, b], np.inf).p_value() == pytest.approx(welch.pvalue)


def test_a_variant_with_one_seed_borrows_the_noise_of_the_other():
    found = with_seed_noise(Estimate(0.1, 0, 0, 0.0), [[0.50, 0.54, 0.52], [0.40]], np.inf)
    assert found.estimate.error == pytest.approx(np.sqrt(0.0004 / 3 + 0.0004))
    same = with_seed_noise(Estimate(0.0, 0, 0, 0.0), [[0.5, 0.5], [0.5, 0.5]], np.inf)
    assert (same.p_value(), same.estimate.error) == (1.0, 0.0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_seeds_test_holds_its_level_where_the_items_alone_would_not(seeds: int):
    """docs/statistics.md has the whole simulation, of which this is one scene: a spread of 1.4 points, 500 items."""
    rng, runs, items = np.random.default_rng(seeds), 600, 500
    both = {"items and seeds": 0, "items": 0}
    for _ in range(runs):
        difficulty = rng.normal(0, 1.2, items)
        right = []
        for _ in "ab":
            level = difficulty + rng.normal(0, 0.3, items) + rng.normal(0, 0.08, (seeds, 1))
            noise = rng.normal(0, 1, (seeds, items))
            right.append((rng.random((seeds, items)) < 1 / (1 + np.exp(-level - noise))).astype(float))
        gap = right[0].mean(axis=0) - right[1].mean(axis=0)
        estimate = Estimate(gap.mean(), 0, 0, gap.std(ddof=1) / np.sqrt(items))
        both["items and seeds"] += (
            with_seed_noise(estimate, [list(r.mean(axis=1)) for r in right], items).p_value() < 0.05
        )
        both["items"] += statistics.normal_p(estimate) < 0.05
    assert both["items and seeds"] / runs <= 0.045
    assert both["items"] / runs >= 0.07


def test_detectable_is_what_a_normal_test_finds_four_times_in_five():
    least = detectable(0.02, np.inf, 0.05)
    assert least == pytest.approx((1.959964 + 0.841621) * 0.02, rel=1e-5)
    found = np.abs(np.random.default_rng(0).normal(least, 0.02, 20_000) / 0.02) > 1.959964
    assert found.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.5, 30.0])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_detectable_with_few_seeds_is_what_students_test_finds_four_times_in_five(freedom: float, level: float):
    power = stats.nct.sf(stats.t.ppf(1 - level / 2, freedom), freedom, detectable(1.0, freedom, level))
    assert power == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize(("items", "level"), [(50, 0.05), (50, 0.05 / 400), (3000, 0.001)])
def test_an_exact_mcnemar_test_finds_a_one_sided_share_of_disagreements_four_times_in_five(items: int, level: float):
    share = fewest_disagreements(items, level)
    found = [k for k in range(min(items, 200) + 1) if statistics.mcnemar(k, 0) < level]
    assert sum(stats.binom.pmf(k, items, share) for k in found) == pytest.approx(0.8, abs=1e-6)
    assert fewest_disagreements(5, 0.05) == 1.0  # 2 / 2^5 is more than 0.05
