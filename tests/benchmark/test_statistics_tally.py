"""Counting pairs by rank and one by one gives the same counts, and leaving a unit out is leaving it out."""

from __future__ import annotations

import numpy as np
import pytest
from nlabench.benchmark.statistics import Clusters, Negatives, macro_auroc, tally
from nlabench.benchmark.statistics.jackknife import cell_effects, find_cells, sums_without

RNG = np.random.default_rng(0)
CONCEPT, PROMPT = np.repeat(np.arange(5), 12), np.tile(np.arange(6), 10)
CLUSTERS = Clusters(CONCEPT, PROMPT)
SCORES = RNG.integers(0, 6, (3, 60, 5)).astype(float)  # with many ties
CONTROLS = Negatives(RNG.integers(0, 6, (3, 12, 5)).astype(float), Clusters.of_prompts(np.tile(np.arange(6), 2)))
DESIGNS = {
    "one group": {},
    "families": {"allowed": np.equal.outer(np.arange(5) % 2, np.arange(5) % 2)},
    "strata": {"strata": RNG.integers(0, 3, 60)},
    "controls": {"negatives": CONTROLS},
}


@pytest.mark.parametrize("design", DESIGNS)
def test_pairs_counted_by_rank_are_those_compared_one_by_one(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most, chunk in ((0, 1 << 18), (10**9, 1 << 18), (10**9, 7)):
        monkeypatch.setattr(tally, "COMPARED_PER_ITEM", most)
        monkeypatch.setattr(tally, "CHUNK_PAIRS", chunk)
        found.append(macro_auroc(SCORES, CLUSTERS, **DESIGNS[design]))
    for other in found[1:]:
        for name in ("point", "by_concept", "by_prompt", "by_cell", "per_concept", "per_concept_without_prompt"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(other, name))


def test_a_prompt_left_out_is_out_on_both_sides() -> None:
    without = macro_auroc(SCORES, CLUSTERS).per_concept_without_prompt
    assert without is not None
    kept = PROMPT != 2
    alone = macro_auroc(SCORES[:, kept], Clusters(CONCEPT[kept], PROMPT[kept]), n_prompts=6).per_concept
    np.testing.assert_allclose(without[2], alone, atol=1e-12)


def test_sums_of_the_others_keep_what_cancels_at_zero() -> None:
    parts = np.array([1e16, 1.0, -1.0])
    assert sums_without(parts).tolist() == [0.0, 1e16, 1e16]
    table = RNG.normal(size=(4, 3, 2))
    np.testing.assert_allclose(sums_without(table, axis=1), table.sum(axis=1, keepdims=True) - table, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2])
def test_effects_of_cells_are_residuals_of_concepts_and_prompts(parts: int) -> None:
    """Against least squares on dummies; with two parts, no prompt of one is met by a concept of the other."""
    concept, prompt = (a.ravel() for a in np.meshgrid(np.arange(6), np.arange(9), indexing="ij"))
    kept = (concept % parts == prompt % parts) & (RNG.random(len(concept)) < 0.8)
    concept, prompt = concept[kept], prompt[kept]
    change = RNG.normal(size=(len(concept), 2))
    dummies = np.concatenate([np.equal.outer(concept, np.arange(6)), np.equal.outer(prompt, np.arange(9))], axis=1)
    fitted, _, rank, _ = np.linalg.lstsq(dummies.astype(float), change, rcond=None)
    effects, df = cell_effects(change, concept, prompt, 6, 9)
    assert df == len(concept) - rank
    wanted = np.sqrt(len(concept) / df) * (change - dummies @ fitted)
    np.testing.assert_allclose(effects[concept, prompt], wanted, atol=1e-10)


def test_cells_are_sorted_by_concept_and_nested_texts_share_one() -> None:
    cells = find_cells(Clusters(np.array([1, 0, 1, 0]), np.array([3, 5, 3, 2])))
    assert (cells.concept.tolist(), cells.prompt.tolist()) == ([0, 0, 1], [2, 5, 3])
    assert (cells.of_item.tolist(), cells.n_items.tolist()) == ([2, 1, 2, 0], [1, 1, 2])
    nested = find_cells(Clusters(np.array([1, 0, 1]), np.array([0, 1, 2]), nested=True))
    assert (nested.concept.tolist(), nested.prompt.tolist()) == ([0, 1], [-1, -1])
    free = find_cells(Clusters.of_prompts(np.array([4, 1, 4])))
    assert (free.concept.tolist(), free.prompt.tolist()) == ([-1, -1], [1, 4])
