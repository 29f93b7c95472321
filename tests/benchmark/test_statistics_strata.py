"""Facts about AUROCs within strata: only items that share a last token (say) are compared."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nlabench.benchmark.statistics import (
    Clusters,
    Estimate,
    Negatives,
    cluster_mean,
    interval_arrays,
    macro_auroc,
    resample,
)
from nlabench.benchmark.statistics.resampling import Floats, Ints
from nlabench.benchmark.statistics.simulate import Truth, balanced_crossing, draw_population, draw_scores

CROSSED = Clusters(*balanced_crossing(6, 5, 3))
NESTED = Clusters(CROSSED.concept, np.arange(CROSSED.n_items), nested=True)
FREE = Clusters.of_prompts([0, 1, 2, 3, 4, 4, 1])


def random_scores(n_items: int = CROSSED.n_items, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(2, n_items, 6)).round(1)  # ties


def auroc_by_pairs(
    own: tuple[Floats, Clusters, Ints],
    others: tuple[Floats, Clusters, Ints] | None = None,
    concept: Floats | None = None,
    prompt: Floats | None = None,
) -> tuple[float, Floats]:
    """Macro AUROC of the first score set and A_c, pair by pair: (scores, clusters, strata) on each side."""
    concept = np.ones(6) if concept is None else concept
    prompt = np.ones(50) if prompt is None else prompt
    scores, clusters, strata = own
    other_scores, other_clusters, other_strata = others or own
    won, met = np.zeros(6), np.zeros(6)
    for i, c in enumerate(clusters.concept):
        for j, d in enumerate(other_clusters.concept):
            if c == d or strata[i] != other_strata[j]:
                continue
            weight = 1.0 if others else concept[d]
            weight *= 1.0 if clusters.nested else prompt[clusters.prompt[i]]
            weight *= 1.0 if other_clusters.nested else prompt[other_clusters.prompt[j]]
            x, y = scores[0, i, c], other_scores[0, j, c]
            won[c] += weight * ((x > y) + (x == y) / 2)
            met[c] += weight
    known = met > 0
    each = np.full(6, np.nan)
    each[known] = won[known] / met[known]
    mass = concept[known].sum()
    return (float(each[known] @ concept[known] / mass) if mass else np.nan), each


def assert_same(a: Estimate, b: Estimate) -> None:
    for field in fields(Estimate):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("clusters", [CROSSED, NESTED])
@pytest.mark.parametrize("kind", ["others", "family", "negatives"])
def test_one_stratum_is_no_stratification(clusters: Clusters, kind: str) -> None:
    scores, weights = random_scores(), resample(6, 5, 20)
    plain: dict[str, Any] = {}
    if kind == "family":
        family = np.array([0, 0, 0, 1, 1, 2])  # concept 5 is alone
        plain["allowed"] = family[:, None] == family
    alike = {**plain, "strata": np.full(clusters.n_items, 7)}
    if kind == "negatives":
        permuted = Negatives(random_scores(FREE.n_items, seed=1), FREE)
        plain["negatives"], alike["negatives"] = permuted, replace(permuted, strata=np.full(FREE.n_items, 7))
    assert_same(macro_auroc(scores, clusters, weights, **alike), macro_auroc(scores, clusters, weights, **plain))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from(["crossed", "nested"]), st.booleans())
def test_stratified_auroc_is_the_one_counted_pair_by_pair(seed: int, n: int, design: str, free: bool) -> None:
    rng = np.random.default_rng(seed)
    clusters, weights = {"crossed": CROSSED, "nested": NESTED}[design], resample(6, 5, 3, seed)
    own = (random_scores(seed=seed), clusters, rng.integers(0, n, clusters.n_items))
    others = (random_scores(FREE.n_items, seed + 1), FREE, rng.integers(0, n, FREE.n_items)) if free else None
    negatives = Negatives(*others) if others else None
    point, each = auroc_by_pairs(own, others)
    assume(np.isfinite(point))
    estimate = macro_auroc(own[0], clusters, weights, strata=own[2], negatives=negatives)
    assert estimate.point[0] == pytest.approx(point)
    assert estimate.per_concept is not None
    assert estimate.per_concept[:, 0] == pytest.approx(each, nan_ok=True)
    assert estimate.n_concepts == np.isfinite(each).sum()
    assert estimate.draws is not None
    for b in range(3):
        brute = auroc_by_pairs(own, others, weights.concept[b], weights.prompt[b])[0]
        assert estimate.draws[b, 0] == pytest.approx(brute, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("clusters", [CROSSED, NESTED])
@pytest.mark.parametrize("free", [False, True])
def test_leaving_out_a_unit_is_recomputing_without_its_items(clusters: Clusters, free: bool) -> None:
    rng = np.random.default_rng(3)
    own = (random_scores(), clusters, rng.integers(0, 3, clusters.n_items))
    others = (random_scores(FREE.n_items, 1), FREE, rng.integers(0, 3, FREE.n_items)) if free else None
    estimate = macro_auroc(own[0], clusters, strata=own[2], negatives=Negatives(*others) if others else None)

    def effects(left_out: Floats) -> Floats:
        n = len(left_out)
        return np.asarray(np.sqrt((n - 1) / n) * (left_out - left_out.mean()))

    without = np.array([auroc_by_pairs(own, others, concept=1 - np.eye(6)[c])[0] for c in range(6)])
    assert estimate.by_concept[:, 0] == pytest.approx(effects(without))
    if clusters.crossed or free:
        pairs = [auroc_by_pairs(own, others, prompt=1 - np.eye(5)[p]) for p in range(5)]
        assert estimate.by_prompt[:, 0] == pytest.approx(effects(np.array([macro for macro, _ in pairs])))
        assert estimate.per_concept_without_prompt is not None
        single = np.array([each for _, each in pairs])
        np.testing.assert_allclose(estimate.per_concept_without_prompt[..., 0], single, equal_nan=True)


def test_strata_that_are_prompts_give_the_mean_of_the_aurocs_within_prompts() -> None:
    concept, prompt = balanced_crossing(6, 5, 5)
    clusters, scores = Clusters(concept, prompt), random_scores(30)
    estimate = macro_auroc(scores, clusters, strata=prompt)
    won = np.empty((2, 30))
    for i in range(30):
        mates = (prompt == prompt[i]) & (concept != concept[i])
        x, column = scores[:, i, concept[i]][:, None], scores[:, mates, concept[i]]
        won[:, i] = ((x > column) + (x == column) / 2).mean(1)
    within = cluster_mean(won, clusters)
    for name in ("point", "by_prompt", "by_cell", "per_concept", "df_prompt", "df_cell"):
        np.testing.assert_allclose(getattr(estimate, name), getattr(within, name), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_reader_of_the_token_alone_scores_one_half_within_tokens(seed: int, n_tokens: int) -> None:
    rng = np.random.default_rng(seed)
    token = rng.integers(0, n_tokens, CROSSED.n_items)
    scores = rng.normal(size=(2, n_tokens, 6))[:, token]
    estimate = macro_auroc(scores, NESTED, resample(6, 5, 5), strata=token)
    assert (estimate.point == 0.5).all()
    assert estimate.by_concept == pytest.approx(0, abs=1e-12)


def test_a_token_that_goes_with_the_concept_pays_only_where_tokens_are_not_shared() -> None:
    token = np.where(np.random.default_rng(0).random(CROSSED.n_items) < 0.6, CROSSED.concept, 6)
    scores = np.broadcast_to((token[:, None] == np.arange(6)).astype(float), (1, CROSSED.n_items, 6))
    assert macro_auroc(scores, NESTED).point[0] > 0.7
    assert macro_auroc(scores, NESTED, strata=token).point[0] == 0.5


def test_concepts_and_prompts_without_mates_are_left_out_and_not_counted() -> None:
    concept, prompt = balanced_crossing(6, 5, 5)
    strata = np.where(prompt < 3, prompt, 100 + np.arange(30))  # at prompts 3 and 4 nobody shares a token
    strata[concept == 2] = 200  # concept 2 has a token of its own
    scores = random_scores(30)
    estimate = macro_auroc(scores, Clusters(concept, prompt), strata=strata)
    kept = (prompt < 3) & (concept != 2)
    alone = macro_auroc(scores[:, kept], Clusters(concept[kept], prompt[kept]), strata=strata[kept])
    np.testing.assert_array_equal(estimate.point, alone.point)
    np.testing.assert_allclose(interval_arrays(estimate), interval_arrays(alone))
    assert (estimate.n_concepts, estimate.n_prompts, estimate.df_concept, estimate.df_prompt) == (5, 3, 4, 2)
    assert estimate.per_concept is not None
    assert np.isnan(estimate.per_concept[:, 0]).tolist() == [False, False, True, False, False, False]
    assert estimate.by_prompt.shape == (5, 2)


@pytest.mark.parametrize("nested", [False, True])
def test_intervals_within_tokens_cover_the_truth(nested: bool) -> None:
    truth, (concept, prompt) = Truth(0.75, concept=0.5, prompt=0.5, row=0.3), balanced_crossing(16, 8, 8)
    rng, token = np.random.default_rng(0), np.random.default_rng(1).integers(0, 6, 128) if nested else prompt // 2
    clusters = Clusters(concept, np.arange(128), nested=True) if nested else Clusters(concept, prompt)
    scores = draw_scores(truth, draw_population(truth, 200, 16, 8, rng), concept, prompt, rng, nested=nested)
    scores += 2 * rng.normal(size=(200, 6, 16))[:, token]  # what each token says of each concept
    low, high, _ = interval_arrays(macro_auroc(scores, clusters, strata=token))
    assert ((low <= 0.75) & (high >= 0.75)).mean() >= 0.92


def test_strata_that_do_not_fit_are_refused() -> None:
    scores, negatives = random_scores(), Negatives(random_scores(FREE.n_items), FREE)
    with pytest.raises(ValueError, match=r"expected integers \[18\]"):
        macro_auroc(scores, CROSSED, strata=np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="expected integers"):
        macro_auroc(scores, CROSSED, strata=np.zeros(18))
    with pytest.raises(ValueError, match="expected both or neither"):
        macro_auroc(scores, CROSSED, strata=CROSSED.prompt, negatives=negatives)
    with pytest.raises(ValueError, match="No concept has both"):
        macro_auroc(scores, CROSSED, strata=np.arange(18))
