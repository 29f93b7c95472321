"""Facts about the estimates, intervals, dose responses and ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nlabench.benchmark.statistics import (
    Clusters,
    Estimate,
    Negatives,
    area_between,
    benjamini_hochberg,
    calibrated_draws,
    cluster_mean,
    contrast,
    fit_isotonic,
    interval,
    interval_arrays,
    intervals,
    macro_auroc,
    monotonicity,
    p_values,
    paired_difference,
    r50,
    r50_interval,
    rank_intervals,
    resample,
    stack,
)
from nlabench.benchmark.statistics.resampling import Floats, Weights
from nlabench.benchmark.statistics.simulate import Truth, balanced_crossing, draw_population, draw_scores
from sklearn.metrics import roc_auc_score

CROSSED = Clusters(*balanced_crossing(6, 5, 3))


def random_scores(clusters: Clusters = CROSSED, n_sets: int = 2, n_concepts: int = 6, seed: int = 0) -> Floats:
    scores = np.random.default_rng(seed).normal(size=(n_sets, clusters.n_items, n_concepts)).round(1)  # ties
    scores[:, np.arange(clusters.n_items), clusters.concept] += 0.8
    return scores


def auroc_by_repetition(scores: Floats, clusters: Clusters, concept: Floats, prompt: Floats) -> float:
    """Macro AUROC of one score set [n_items, n_concepts] after repeating every item by its weight."""
    times = (concept[clusters.concept] * prompt[clusters.prompt]).astype(int)
    rows = np.repeat(np.arange(clusters.n_items), times)
    values, weights = [], []
    for c in range(scores.shape[1]):
        own = clusters.concept[rows] == c
        if own.any() and not own.all():
            values.append(roc_auc_score(own, scores[rows, c]))
            weights.append(concept[c])
    return float(np.average(values, weights=weights))


# AUROC


def test_perfect_separation_scores_one_and_ties_score_half() -> None:
    own = np.zeros((1, CROSSED.n_items, 6))
    own[0, np.arange(CROSSED.n_items), CROSSED.concept] = 1
    assert macro_auroc(own, CROSSED).point[0] == 1
    assert macro_auroc(-own, CROSSED).point[0] == 0
    assert macro_auroc(np.zeros_like(own), CROSSED).point[0] == 0.5


def test_a_text_that_names_every_concept_scores_at_chance() -> None:
    clusters = Clusters(*balanced_crossing(6, 5, 5))
    columns = np.random.default_rng(0).normal(size=6)
    scores = np.broadcast_to(columns, (1, clusters.n_items, 6))
    assert macro_auroc(scores, clusters).point[0] == 0.5


def test_macro_auroc_agrees_with_sklearn() -> None:
    scores = random_scores()
    estimate = macro_auroc(scores, CROSSED)
    for s in range(2):
        each = [roc_auc_score(CROSSED.concept == c, scores[s, :, c]) for c in range(6)]
        assert estimate.point[s] == pytest.approx(np.mean(each))
        assert estimate.per_concept is not None
        assert estimate.per_concept[:, s] == pytest.approx(each)


def test_a_draw_is_the_auroc_of_the_repeated_items() -> None:
    scores, weights = random_scores(), resample(6, 5, 40, seed=3)
    draws = macro_auroc(scores, CROSSED, weights).draws
    assert draws is not None
    for b in range(40):
        brute = auroc_by_repetition(scores[1], CROSSED, weights.concept[b], weights.prompt[b])
        assert draws[b, 1] == pytest.approx(brute, abs=1e-5)


def test_leaving_out_a_prompt_is_the_auroc_without_its_items() -> None:
    scores = random_scores()
    estimate = macro_auroc(scores, CROSSED)
    left_out = [auroc_by_repetition(scores[0], CROSSED, np.ones(6), 1.0 - np.eye(5)[p]) for p in range(5)]
    expected = np.sqrt(4 / 5) * (np.array(left_out) - np.mean(left_out))
    assert estimate.by_prompt[:, 0] == pytest.approx(expected)


def test_several_items_in_a_cell_count_like_items() -> None:
    twice = Clusters(np.repeat(CROSSED.concept, 2), np.repeat(CROSSED.prompt, 2))
    scores, weights = random_scores(twice), resample(6, 5, 10, seed=1)
    draws = macro_auroc(scores, twice, weights).draws
    assert draws is not None
    for b in range(10):
        brute = auroc_by_repetition(scores[0], twice, weights.concept[b], weights.prompt[b])
        assert draws[b, 0] == pytest.approx(brute, abs=1e-5)


def test_the_order_of_items_changes_nothing() -> None:
    order = np.random.default_rng(0).permutation(CROSSED.n_items)
    shuffled = Clusters(CROSSED.concept[order], CROSSED.prompt[order])
    scores, weights = random_scores(), resample(6, 5, 20)
    a, b = macro_auroc(scores, CROSSED, weights), macro_auroc(scores[:, order], shuffled, weights)
    for name in ("point", "by_concept", "by_prompt", "by_cell", "draws"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-6)


def test_within_families_only_siblings_are_negatives() -> None:
    family = np.array([0, 0, 0, 1, 1, 2])  # concept 5 is alone: no negatives, left out
    scores = random_scores()
    estimate = macro_auroc(scores, CROSSED, allowed=family[:, None] == family)
    each = []
    for c in range(5):
        rows = family[CROSSED.concept] == family[c]
        each.append(roc_auc_score(CROSSED.concept[rows] == c, scores[0, rows, c]))
    assert estimate.point[0] == pytest.approx(np.mean(each))
    assert estimate.n_concepts == 5
    assert estimate.per_concept is not None
    assert np.isnan(estimate.per_concept[5, 0])


def test_permuted_negatives_are_shared_by_all_concepts() -> None:
    scores = random_scores()
    permuted = np.random.default_rng(9).normal(size=(2, 5, 6)).round(1)
    weights = resample(6, 5, 20, seed=2)
    negatives = Negatives(permuted, Clusters.of_prompts(np.arange(5)))
    estimate = macro_auroc(scores, CROSSED, weights, negatives=negatives)
    each = []
    for c in range(6):
        own = scores[0, CROSSED.concept == c, c]
        labels = np.r_[np.ones(len(own)), np.zeros(5)]
        each.append(roc_auc_score(labels, np.r_[own, permuted[0, :, c]]))
    assert estimate.point[0] == pytest.approx(np.mean(each))
    assert estimate.draws is not None
    for b in range(20):
        values, masses = [], []
        for c in range(6):
            mine = CROSSED.concept == c
            w = np.r_[weights.prompt[b][CROSSED.prompt[mine]], weights.prompt[b]]
            labels = np.r_[np.ones(mine.sum()), np.zeros(5)]
            if w[labels == 1].sum() and weights.concept[b, c]:
                values.append(roc_auc_score(labels, np.r_[scores[0, mine, c], permuted[0, :, c]], sample_weight=w))
                masses.append(weights.concept[b, c])
        assert estimate.draws[b, 0] == pytest.approx(np.average(values, weights=masses), abs=1e-5)
    nested = Clusters(CROSSED.concept, np.arange(CROSSED.n_items), nested=True)
    assert macro_auroc(scores, nested, negatives=negatives).point[0] == pytest.approx(estimate.point[0])


scores_strategy = arrays(np.float64, (1, CROSSED.n_items, 6), elements=st.integers(-4, 4).map(float))


@settings(max_examples=25, deadline=None)
@given(scores_strategy)
def test_auroc_is_invariant_to_monotone_transforms(scores: Floats) -> None:
    weights = resample(6, 5, 8)
    a, b = macro_auroc(scores, CROSSED, weights), macro_auroc(np.exp(scores / 2) + 3, CROSSED, weights)
    np.testing.assert_array_equal(a.point, b.point)
    np.testing.assert_array_equal(a.draws, b.draws)


@settings(max_examples=25, deadline=None)
@given(scores_strategy)
def test_negated_scores_give_the_complement(scores: Floats) -> None:
    weights = resample(6, 5, 8)
    a, b = macro_auroc(scores, CROSSED, weights), macro_auroc(-scores, CROSSED, weights)
    np.testing.assert_allclose(a.point, 1 - b.point)
    assert a.draws is not None
    assert b.draws is not None
    np.testing.assert_allclose(a.draws, 1 - b.draws, atol=1e-5)
    np.testing.assert_allclose(a.by_concept, -b.by_concept, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(scores_strategy)
def test_weights_of_one_give_the_estimate(scores: Floats) -> None:
    ones = Weights(np.ones((1, 6), np.float32), np.ones((1, 5), np.float32), seed=0)
    estimate = macro_auroc(scores, CROSSED, ones)
    assert estimate.draws is not None
    np.testing.assert_allclose(estimate.draws[0], estimate.point, atol=1e-6)


# Means and resampling


def test_resampling_depends_on_the_seed_alone_and_keeps_the_number_of_units() -> None:
    a, b, more = resample(6, 5, 30, seed=1), resample(6, 5, 30, seed=1), resample(6, 9, 30, seed=1)
    np.testing.assert_array_equal(a.prompt, b.prompt)
    np.testing.assert_array_equal(a.concept, more.concept)
    assert (a.concept.sum(axis=1) == 6).all()
    assert (a.prompt.sum(axis=1) == 5).all()
    assert not np.array_equal(a.concept, resample(6, 5, 30, seed=2).concept)


def test_a_mean_draw_is_the_mean_of_the_repeated_items() -> None:
    values, weights = np.random.default_rng(0).random(CROSSED.n_items), resample(6, 5, 30)
    estimate = cluster_mean(values, CROSSED, weights)
    assert estimate.point == pytest.approx(values.mean())
    times = weights.concept[:, CROSSED.concept] * weights.prompt[:, CROSSED.prompt]
    assert estimate.draws is not None
    np.testing.assert_allclose(estimate.draws, (times @ values) / times.sum(axis=1), atol=1e-6)


def test_a_mean_over_prompts_alone_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=(1, 8))
    estimate = cluster_mean(values, Clusters.of_prompts(np.arange(8)), bounds=None)
    assert np.sqrt((estimate.by_prompt**2).sum()) == pytest.approx(values.std(ddof=1) / np.sqrt(8))


def test_additive_concept_and_prompt_effects_leave_nothing_to_the_cells() -> None:
    rng = np.random.default_rng(0)
    concept, prompt = balanced_crossing(6, 5, 5)
    values = rng.random(6)[concept] / 2 + rng.random(5)[prompt] / 2
    estimate = cluster_mean(values, Clusters(concept, prompt))
    assert estimate.by_cell == pytest.approx(0, abs=1e-12)
    assert estimate.df_cell == 20


# Intervals


def test_a_paired_difference_of_equal_scores_is_zero_and_of_shifted_ones_is_certain() -> None:
    rng = np.random.default_rng(0)
    concept = np.repeat(np.arange(8), 6)
    clusters = Clusters(concept, np.tile(np.arange(6), 8))
    values = 0.3 + 0.4 * rng.random(8)[concept]
    weights = resample(8, 6, 200)
    better = cluster_mean(values + 0.1 + 0.01 * rng.normal(size=48), clusters, weights)
    worse = cluster_mean(values, clusters, weights)
    difference = paired_difference(better, worse)
    assert interval(difference).excludes_zero
    assert interval(difference).se < interval(worse).se / 10
    same = interval(paired_difference(worse, worse))
    assert same.estimate == 0
    assert not same.excludes_zero
    assert np.isnan(same.low)
    assert same.note


def test_steered_minus_natural_has_the_steered_arms_prompts() -> None:
    scores = random_scores()
    natural = Clusters(CROSSED.concept, np.arange(CROSSED.n_items), nested=True)
    weights = resample(6, 5, 50)
    steered, nested = macro_auroc(scores, CROSSED, weights), macro_auroc(scores[::-1], natural, weights)
    assert nested.by_prompt.size == 0
    assert nested.df_prompt == 0
    there, back = paired_difference(steered, nested), paired_difference(nested, steered)
    np.testing.assert_array_equal(there.by_prompt, steered.by_prompt)
    np.testing.assert_allclose(there.point, -back.point)
    low, high, _ = interval_arrays(there)
    low_back, high_back, _ = interval_arrays(back)
    np.testing.assert_allclose(low, -high_back)
    np.testing.assert_allclose(high, -low_back)
    assert interval(there[0]).n_prompts == 5


def test_two_prompt_pools_are_independent() -> None:
    values = np.random.default_rng(0).random((2, CROSSED.n_items))
    a = cluster_mean(values[0], CROSSED)
    b = cluster_mean(values[1], replace(CROSSED, pool="chat"))
    difference = paired_difference(a, b)
    assert difference.pools == ("readout", "chat")
    assert (difference.by_prompt**2).sum() == pytest.approx((a.by_prompt**2).sum() + (b.by_prompt**2).sum())


def test_every_unit_at_the_bound_gets_an_exact_bound_and_never_a_point() -> None:
    found = interval(cluster_mean(np.zeros(CROSSED.n_items), CROSSED))
    assert (found.low, found.se) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert found.note


def test_scores_that_never_vary_have_no_interval() -> None:
    found = interval(macro_auroc(np.zeros((1, CROSSED.n_items, 6)), CROSSED)[0])
    assert found.estimate == 0.5
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert found.note == "no variation between units"


@pytest.mark.parametrize("unit", ["concept", "prompt"])
def test_a_single_unit_has_no_interval(unit: str) -> None:
    zeros, ids = np.zeros(6, dtype=int), np.arange(6)
    clusters = Clusters(zeros, ids) if unit == "concept" else Clusters(ids, zeros)
    found = interval(cluster_mean(np.random.default_rng(0).random(6), clusters))
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert np.isnan(found.se)
    assert found.note == f"1 {unit}: no variance between {unit}s"


def test_two_concepts_have_an_auroc_but_no_interval() -> None:
    clusters = Clusters(*balanced_crossing(2, 4, 4))
    found = interval(macro_auroc(random_scores(clusters, 1, 2), clusters)[0])
    assert np.isfinite(found.estimate)
    assert np.isnan(found.low)


def test_intervals_stay_inside_the_metrics_range() -> None:
    for seed in range(20):
        values = (np.random.default_rng(seed).random(CROSSED.n_items) < 0.97).astype(float)
        found = interval(cluster_mean(values, CROSSED))
        assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_p_is_below_alpha_exactly_where_the_interval_excludes_the_null() -> None:
    estimate = macro_auroc(random_scores(n_sets=30) - 0.25, CROSSED)
    other = macro_auroc(random_scores(n_sets=30, seed=1), CROSSED)
    for tested, null in ((paired_difference(estimate, other), 0.0), (estimate, 0.6)):
        low, high, _ = interval_arrays(tested)
        np.testing.assert_array_equal(p_values(tested, null) < 0.05, (low > null) | (high < null))


def test_benjamini_hochberg_keeps_missing_tests_missing() -> None:
    passed, adjusted = benjamini_hochberg([0.001, np.nan, 0.02, 0.8])
    assert passed.tolist() == [True, False, True, False]
    assert adjusted[[0, 2, 3]] == pytest.approx([0.003, 0.03, 0.8])
    assert np.isnan(adjusted[1])


def test_calibrated_draws_have_the_intervals_width() -> None:
    estimate = paired_difference(
        macro_auroc(random_scores(), CROSSED, resample(6, 5, 4000)),
        macro_auroc(random_scores(seed=1), CROSSED, resample(6, 5, 4000)),
    )
    low, high, _ = interval_arrays(estimate)
    spread = 2 * 1.96 * np.nanstd(calibrated_draws(estimate), axis=0)
    np.testing.assert_allclose(spread, high - low, rtol=0.01)


def test_intervals_cover_the_truth_at_quick_size() -> None:
    truth, (concept, prompt) = Truth(0.8, concept=0.5, prompt=0.5, shift=0.3, row=0.3), balanced_crossing(12, 12, 6)
    rng = np.random.default_rng(0)
    population = draw_population(truth, 200, 12, 12, rng)
    scores = draw_scores(truth, population, concept, prompt, rng)
    low, high, _ = interval_arrays(macro_auroc(scores, Clusters(concept, prompt)))
    assert ((low <= 0.8) & (high >= 0.8)).mean() >= 0.92


def test_the_simulated_truth_is_the_auroc_of_a_large_population() -> None:
    rng = np.random.default_rng(0)
    truth, (concept, prompt) = (
        Truth(0.8, concept=0.5, prompt=0.3, shift=0.3, similarity=0.4, row=0.5),
        (
            np.repeat(np.arange(150), 8),
            rng.integers(0, 400, size=1200),
        ),
    )
    population = draw_population(truth, 3, 150, 400, rng)
    estimate = macro_auroc(
        draw_scores(truth, population, concept, prompt, rng), Clusters(concept, prompt, nested=False)
    )
    assert estimate.point.mean() == pytest.approx(0.8, abs=0.02)


# Dose response


def test_r50_is_the_crossing_halfway_to_the_ceiling() -> None:
    strengths = [0, 0.1, 0.2, 0.4]
    assert r50(strengths, [0.5, 0.6, 0.8, 0.9], ceiling=0.9) == pytest.approx(0.15)
    assert r50(strengths, [0.0, 0.0, 0.0, 1.0], ceiling=1.0) == pytest.approx(0.3)
    assert r50(strengths, [0.0, 0.5, 0.5, 1.0], ceiling=1.0) == pytest.approx(0.1)
    assert r50(strengths, [0.2, 0.6, 0.8, 0.9], ceiling=1.0, floor=0.0) == pytest.approx(0.075)


def test_r50_that_is_never_reached_is_censored_and_without_room_undefined() -> None:
    strengths = [0, 0.1, 0.2]
    assert r50(strengths, [0.5, 0.5, 0.55], ceiling=1.0) == np.inf
    assert np.isnan(r50(strengths, [0.5, 0.6, 0.7], ceiling=0.5))
    assert np.isnan(r50(strengths, [0.5, np.nan, 0.7], ceiling=1.0))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (3, 6), elements=st.floats(-5, 5)))
def test_isotonic_fit_is_sklearns(curves: Floats) -> None:
    from sklearn.isotonic import isotonic_regression

    expected = [isotonic_regression(curve) for curve in curves]
    np.testing.assert_allclose(fit_isotonic(curves), expected, atol=1e-9)


def dose_curve(heights: list[float], seed: int = 0) -> tuple[list[float], list[Floats]]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(heights), 1, CROSSED.n_items, 6))
    for r, height in enumerate(heights):
        scores[r, 0, np.arange(CROSSED.n_items), CROSSED.concept] += height
    return list(np.arange(len(heights)) / 10), list(scores)


def test_r50_interval_holds_its_estimate_and_may_be_censored_above() -> None:
    weights = resample(6, 5, 500)
    strengths, scores = dose_curve([0, 1, 2, 4])
    curve = stack([macro_auroc(s, CROSSED, weights)[0] for s in scores])
    found = r50_interval(strengths, curve, ceiling=1.0)
    assert found.low <= found.estimate <= found.high < np.inf
    strengths, scores = dose_curve([0, 0, 0.1, 0.3])
    weak = r50_interval(strengths, stack([macro_auroc(s, CROSSED, weights)[0] for s in scores]), ceiling=1.0)
    assert weak.high == np.inf
    assert "censored at 0.3" in weak.note


def test_a_rising_curve_is_monotone_and_a_flat_one_is_not() -> None:
    strengths, scores = dose_curve([0, 2, 4, 8])
    rising = monotonicity(strengths, stack([macro_auroc(s, CROSSED) for s in scores]))
    assert rising.point.shape == (1,)
    assert rising.point[0] > 0.8
    flat = stack([macro_auroc(np.zeros_like(s), CROSSED) for s in scores])
    assert monotonicity(strengths, flat).point[0] == 0
    falling = stack([macro_auroc(-s, CROSSED) for s in scores])
    gap = paired_difference(rising, monotonicity(strengths, falling))[0]
    assert interval(gap).excludes_zero


def test_monotonicity_of_a_set_hangs_on_no_other_set() -> None:
    """A prompt whose loss changes nothing in this set's curves counts, whether or not it changes another's."""
    concept = np.repeat(np.arange(6), 2)
    clusters = Clusters(concept, (concept + np.tile([0, 1], 6)) % 6)
    steady = np.linspace(0.2, 0.8, 4)[:, None, None] * np.ones((1, 12))
    steady[2, 0, 0] = 0  # of the steady set, prompts 0 and 1 alone change a curve
    unsteady = np.random.default_rng(0).random((4, 1, 12))

    def trend(values: Floats) -> Estimate:
        return monotonicity([0, 0.1, 0.2, 0.3], stack([cluster_mean(v, clusters, n_prompts=8) for v in values]))

    together, alone = trend(np.concatenate([steady, unsteady], axis=1)), trend(steady)
    for name in ("point", "by_concept", "by_prompt", "by_cell"):
        np.testing.assert_allclose(getattr(together[0], name), getattr(alone[0], name), atol=1e-12)
    assert together.df_prompt == alone.df_prompt == 5
    assert (alone.by_prompt[6:] == 0).all()  # two prompts of the run are not in this arm
    assert (alone.by_prompt[2:6] != 0).all()


def test_area_between_parallel_curves_is_their_distance() -> None:
    values = np.full((1, CROSSED.n_items), 0.2)
    low = stack([cluster_mean(values, CROSSED)] * 3)
    high = stack([cluster_mean(values + 0.5, CROSSED)] * 3)
    assert area_between([0, 0.1, 0.4], high, low).point[0] == pytest.approx(0.5)


def test_a_contrast_of_estimates_is_the_estimate_of_the_contrast() -> None:
    values, weights = np.random.default_rng(0).random((2, 1, CROSSED.n_items)), resample(6, 5, 20)
    both = stack([cluster_mean(v, CROSSED, weights) for v in values])
    direct = cluster_mean(values[0] - 2 * values[1], CROSSED, weights, bounds=(-2, 1))
    combined = contrast(both, [1, -2])
    assert combined.bounds == (-2, 1)
    for name in ("point", "by_concept", "by_prompt", "by_cell", "draws"):
        np.testing.assert_allclose(getattr(combined, name), getattr(direct, name), atol=1e-6)


# Ranks


def test_entries_share_a_rank_exactly_where_they_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.normal(size=(4, CROSSED.n_items))
    estimate = cluster_mean(np.array([0.9, 0.5, 0.5, 0.1])[:, None] + noise, CROSSED, bounds=None)
    found = [(r.best, r.worst) for r in rank_intervals(estimate)]
    assert found == [(1, 1), (2, 3), (2, 3), (4, 4)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_rank_intervals_overlap_for_each_pair_that_is_not_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(7, 1)) * 0.3 + rng.normal(size=(7, CROSSED.n_items)) * rng.random((7, 1))
    estimate = cluster_mean(values, CROSSED, bounds=None)
    ranks = rank_intervals(estimate)
    for i in range(7):
        assert 1 <= ranks[i].best <= ranks[i].worst <= 7
        for j in range(i):
            if not interval(paired_difference(estimate[i], estimate[j])).excludes_zero:
                assert ranks[i].best <= ranks[j].worst
                assert ranks[j].best <= ranks[i].worst


# Errors


def test_missing_scores_are_refused_and_never_scored() -> None:
    scores = random_scores()
    scores[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="missing data"):
        macro_auroc(scores, CROSSED)
    with pytest.raises(ValueError, match="missing data"):
        cluster_mean(np.full(CROSSED.n_items, np.nan), CROSSED)


def test_designs_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="under two concepts"):
        Clusters(np.array([0, 1]), np.array([0, 0]), nested=True)
    with pytest.raises(ValueError, match="concept-free"):
        Clusters(np.array([0, -1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="Weights of 5 concepts"):
        macro_auroc(random_scores(), CROSSED, resample(5, 5, 10))
    with pytest.raises(ValueError, match="No concept has both"):
        macro_auroc(random_scores(), CROSSED, allowed=np.eye(6))
    a, b = (macro_auroc(random_scores(), CROSSED, resample(6, 5, n)) for n in (10, 20))
    with pytest.raises(ValueError, match="same Weights"):
        paired_difference(a, b)
    with pytest.raises(ValueError, match="expected one"):
        interval(macro_auroc(random_scores(), CROSSED))
    assert len(intervals(macro_auroc(random_scores(), CROSSED))) == 2
