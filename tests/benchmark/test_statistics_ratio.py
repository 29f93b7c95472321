"""Facts about ratios of sums: explained variance, shares of a displacement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nlabench.benchmark.statistics import (
    Clusters,
    Estimate,
    cluster_mean,
    cluster_ratio,
    interval,
    interval_arrays,
    intervals,
    paired_difference,
    resample,
)
from nlabench.benchmark.statistics.resampling import Floats
from nlabench.benchmark.statistics.simulate import RatioTruth, balanced_crossing, draw_errors

CROSSED = Clusters(*balanced_crossing(6, 5, 3))
NESTED = Clusters(CROSSED.concept, np.arange(CROSSED.n_items), nested=True)
FREE = Clusters.of_prompts(CROSSED.prompt)
ARRAYS = ("point", "by_concept", "by_prompt", "by_cell", "draws", "per_concept")


def errors_and_spreads(n_sets: int = 2, seed: int = 0) -> tuple[Floats, Floats]:
    truth, rng = RatioTruth(0.6, concept=0.3, prompt=0.3), np.random.default_rng(seed)
    return draw_errors(truth, n_sets, CROSSED.concept, CROSSED.prompt, rng)


def assert_same(a: Estimate, b: Estimate) -> None:
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=1e-6 if name == "draws" else 1e-9, atol=1e-12)


@pytest.mark.parametrize("clusters", [CROSSED, NESTED, FREE])
def test_a_ratio_to_ones_is_the_mean(clusters: Clusters) -> None:
    values, _ = errors_and_spreads()
    weights = resample(6, CROSSED.n_items if clusters.nested else 5, 20)
    mean = cluster_mean(values, clusters, weights, bounds=None)
    for ones in (np.ones(clusters.n_items), np.ones(values.shape)):
        assert_same(cluster_ratio(values, ones, clusters, weights), mean)
    assert cluster_ratio(values[0], ones[0], clusters).point.shape == ()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_the_unit_of_both_sums_does_not_matter(unit: float, sign: int) -> None:
    errors, spreads = errors_and_spreads()
    weights = resample(6, 5, 10)
    scaled = cluster_ratio(sign * unit * errors, sign * unit * spreads, CROSSED, weights)
    assert_same(scaled, cluster_ratio(errors, spreads, CROSSED, weights))


def test_items_that_all_have_one_ratio_leave_nothing_to_vary() -> None:
    _, spreads = errors_and_spreads()
    estimate = cluster_ratio(0.3 * spreads, spreads, CROSSED)
    assert estimate.point == pytest.approx(0.3)
    assert estimate.per_concept == pytest.approx(0.3)
    for effects in (estimate.by_concept, estimate.by_prompt, estimate.by_cell):
        assert effects == pytest.approx(0, abs=1e-12)


def test_draws_and_concepts_have_the_ratio_of_their_items() -> None:
    errors, spreads = errors_and_spreads()
    weights = resample(6, 5, 30)
    estimate = cluster_ratio(spreads - errors, spreads, CROSSED, weights)
    assert estimate.point == pytest.approx(1 - errors.sum(1) / spreads.sum(1))
    times = weights.concept[:, CROSSED.concept] * weights.prompt[:, CROSSED.prompt]
    assert estimate.draws is not None
    np.testing.assert_allclose(estimate.draws, 1 - (times @ errors.T) / (times @ spreads.T), atol=1e-6)
    assert estimate.per_concept is not None
    for c in range(6):
        mine = CROSSED.concept == c
        assert estimate.per_concept[c] == pytest.approx(1 - errors[:, mine].sum(1) / spreads[:, mine].sum(1))


def test_leaving_out_a_unit_is_the_ratio_without_its_items() -> None:
    errors, spreads = errors_and_spreads(n_sets=1)
    estimate = cluster_ratio(errors, spreads, CROSSED)
    for effects, ids in ((estimate.by_concept, CROSSED.concept), (estimate.by_prompt, CROSSED.prompt)):
        left_out = np.array([errors[0, ids != u].sum() / spreads[0, ids != u].sum() for u in np.unique(ids)])
        n = len(left_out)
        assert effects[:, 0] == pytest.approx(np.sqrt((n - 1) / n) * (left_out - left_out.mean()))


def test_the_variances_are_the_delta_methods() -> None:
    concept, prompt = balanced_crossing(40, 30, 30)
    rng = np.random.default_rng(0)
    errors, spreads = draw_errors(RatioTruth(0.6, concept=0.3, prompt=0.3), 1, concept, prompt, rng)
    estimate = cluster_ratio(errors, spreads, Clusters(concept, prompt))
    # The influence of an item on sum(x) / sum(y) is (x - R y) / sum(y): here one item is one cell.
    influence = (errors - estimate.point[:, None] * spreads)[0] / spreads.sum()
    for effects, ids in ((estimate.by_concept, concept), (estimate.by_prompt, prompt)):
        summed = np.bincount(ids, influence)
        assert (effects**2).sum() == pytest.approx((summed**2).sum() * len(summed) / (len(summed) - 1), rel=0.03)
    table = np.zeros((40, 30))
    table[concept, prompt] = influence
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    assert (estimate.by_cell**2).sum() == pytest.approx((residual**2).sum() * 1200 / (39 * 29), rel=1e-6)


def test_the_cells_hold_the_variance_of_items_that_weigh_differently() -> None:
    concept, prompt = balanced_crossing(16, 12, 12)
    errors, spreads = draw_errors(RatioTruth(0.6, noise=0.8), 2000, concept, prompt, np.random.default_rng(0))
    estimate = cluster_ratio(errors, spreads, Clusters(concept, prompt))
    assert (estimate.by_cell**2).sum(axis=(0, 1)).mean() == pytest.approx(estimate.point.var(), rel=0.1)


@pytest.mark.parametrize("nested", [False, True])
def test_intervals_cover_the_explained_variance(nested: bool) -> None:
    concept, prompt = balanced_crossing(16, 6, 6)
    truth, ids = RatioTruth(0.6, concept=0.3, prompt=0.3), np.arange(len(concept)) if nested else prompt
    errors, spreads = draw_errors(truth, 400, concept, ids, np.random.default_rng(0))
    low, high, _ = interval_arrays(cluster_ratio(spreads - errors, spreads, Clusters(concept, ids, nested=nested)))
    assert ((low <= 0.6) & (high >= 0.6)).mean() >= 0.92


def test_intervals_cover_a_share_of_displacements_some_of_which_point_the_other_way() -> None:
    concept, prompt = balanced_crossing(16, 6, 6)
    rng = np.random.default_rng(0)

    def draw(by_concept: float, by_prompt: float, by_item: float) -> Floats:
        parts = by_concept * rng.normal(size=(400, 16))[:, concept] + by_prompt * rng.normal(size=(400, 6))[:, prompt]
        return np.asarray(parts + by_item * rng.normal(size=(400, 96)))

    moved = 1 + draw(0.5, 0.3, 0.8)
    assert (moved < 0).mean() > 0.1
    low, high, _ = interval_arrays(cluster_ratio(0.4 * moved + draw(0.2, 0.2, 0.4), moved, Clusters(concept, prompt)))
    assert ((low <= 0.4) & (high >= 0.4)).mean() >= 0.92


def test_two_verbalizers_that_share_their_spreads_are_compared_in_pairs() -> None:
    errors, spreads = errors_and_spreads(n_sets=1)
    both = cluster_ratio(np.concatenate([spreads - errors, spreads - 1.1 * errors]), spreads[0], CROSSED)
    gap = interval(paired_difference(both[0], both[1]))
    assert gap.low > 0
    assert gap.se < interval(both[0]).se / 5


def test_a_total_that_hinges_on_one_unit_has_no_interval() -> None:
    moved = np.where(CROSSED.concept == 0, 9.0, -1.0)  # 27 from the first concept, -15 from the rest
    estimate = cluster_ratio(np.ones((1, CROSSED.n_items)), moved, CROSSED, resample(6, 5, 50))
    assert estimate.point[0] == pytest.approx(18 / 12)
    assert estimate.per_concept is not None
    assert np.isfinite(estimate.per_concept[:, 0]).tolist() == [True] + [False] * 5
    assert estimate.draws is not None
    assert np.isnan(estimate.draws).any()
    found = intervals(estimate)[0]
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert found.note == "undefined without one of the units"


def test_denominators_without_a_total_are_refused() -> None:
    values = np.ones((2, CROSSED.n_items))
    moved = np.tile([1.0, -1.0], CROSSED.n_items // 2)
    with pytest.raises(ValueError, match="sum to 0 in 1 of 1 sets"):
        cluster_ratio(values, moved, CROSSED)
    with pytest.raises(ValueError, match="missing data"):
        cluster_ratio(values, np.full(CROSSED.n_items, np.inf), CROSSED)
    with pytest.raises(ValueError, match="2 sets of numerators and 3 of denominators"):
        cluster_ratio(values, np.ones((3, CROSSED.n_items)), CROSSED)
    with pytest.raises(ValueError, match="denominators are"):
        cluster_ratio(values, np.ones(4), CROSSED)
