"""The headline metric: macro AUROC over concepts, with its units of resampling."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate
from .jackknife import cell_effects, find_cells, jackknife_effects
from .means import check_finite, count_units
from .pairs import NO_PAIRS, Comparison, Negatives, compare, find_sides
from .resampling import Clusters, Floats, Floats32, Weights
from .tally import Tally, tally_pairs

# Bounds the working array [resamples, n_cells, n_sets] of a chunk: small enough to stay in a core's cache.
CHUNK_FLOATS = 1 << 20


def macro_auroc(
    scores: ArrayLike,
    clusters: Clusters,
    weights: Weights | None = None,
    *,
    allowed: ArrayLike | None = None,
    negatives: Negatives | None = None,
    strata: ArrayLike | None = None,
    n_prompts: int | None = None,
) -> Estimate:
    """AUROC of column c between items of concept c and the other concepts' items, macro over concepts.

    `scores` is [n_sets, n_items, n_concepts], one set per verbalizer x scorer; ties count 1/2. Positives of c are its
    own items. Negatives are the items of other concepts, or of those d with `allowed[c, d]` (bool [n_concepts,
    n_concepts]; a family), or, with `negatives`, the concept-free items. A concept without items or negatives is left
    out of the macro mean; its `per_concept` is nan.

    With `strata`, int [n_items], a pair counts only where both items have the same stratum (the same last token, say:
    what a text owes to the token alone then scores exactly 1/2), and A_c is c's wins over c's pairs, all strata
    together. Items without a mate are left out first, and count in no number of units.

    With `weights`, draw b is sum_c m_c A_c / sum_c m_c over concepts, where pair (i, j) weighs w_i w_j and w is concept
    multiplicity x prompt multiplicity. Copies of c are never its negatives. Nested texts weigh what their concept
    weighs: the variance between concepts already holds the variance between their texts. `negatives` weigh by prompt.
    A pair within one prompt weighs its multiplicity squared: where strata leave hardly any other pairs, draws spread
    more than the estimate does. Intervals do not read them, and `calibrated_draws` rescales them.

    Estimand: the mean over concepts and prompts drawn from their populations. Without `weights`, time grows like the
    scores' size times log n_items, and memory like one column's. Draws are chunked over resamples, but their kernel
    takes 4 * n_sets * n_cells^2 bytes. Raises ValueError for nan, shapes that do not fit, or when no concept has
    anything to be compared with.
    """
    table = np.asarray(scores)
    if table.ndim != 3:
        raise ValueError(f"Scores are {list(table.shape)}; expected [n_sets, n_items, n_concepts].")
    n_sets, _, n_concepts = table.shape
    check_finite(table, "scores", (n_sets, clusters.n_items, n_concepts))
    if clusters.concept_free:
        raise ValueError("Concept-free items have no column of their own. Pass them as negatives of an arm that has.")
    if negatives is not None and n_prompts is None and weights is None:
        n_prompts = 1 + int(max(negatives.clusters.prompt.max(), 0 if clusters.nested else clusters.prompt.max()))
    n_concepts, n_prompts = count_units(clusters, weights, n_concepts, n_prompts)
    own, others = find_sides(table, clusters, strata, negatives, weights, n_prompts)
    tally = tally_pairs(own, others, allowed, n_prompts)
    draws = None if weights is None else _draw(compare(own, others, allowed), weights)
    return _estimate(tally, own.clusters, None if others is None else others.clusters, n_prompts, draws)


def _estimate(
    tally: Tally, clusters: Clusters, negatives: Clusters | None, n_prompts: int, draws: Floats32 | None
) -> Estimate:
    per_concept = tally.all.rates()
    n_concepts, n_sets = per_concept.shape
    defined = np.flatnonzero(tally.all.pairs > 0)
    if len(defined) == 0:
        raise ValueError(NO_PAIRS)
    point = per_concept[defined].mean(axis=0)

    concepts = np.unique(clusters.concept)
    # A concept left out keeps its items as positives: its weight in the macro mean is what is 0.
    left = tally.without_concept().rates()[concepts]
    left[np.arange(len(concepts)), concepts] = np.nan
    by_concept = jackknife_effects(_mean_of_defined(left), concepts, n_concepts)

    by_prompt, by_cell = np.zeros((0, n_sets)), np.zeros((n_concepts, 0, n_sets))
    per_concept_without_prompt, df_prompt, df_cell = None, 0, 0
    crossed_prompts = clusters.crossed or negatives is not None
    if crossed_prompts:
        pools = [c.prompt for c in (clusters, clusters if negatives is None else negatives) if not c.nested]
        prompts = np.unique(np.concatenate(pools))
        single = tally.without_prompt().rates()[prompts]
        by_prompt = jackknife_effects(_mean_of_defined(single), prompts, n_prompts)
        df_prompt = len(prompts) - 1
        per_concept_without_prompt = np.full((n_prompts, *per_concept.shape), np.nan)
        per_concept_without_prompt[prompts] = single
        by_cell, df_cell = _cell_effects(tally, clusters, negatives, per_concept, per_concept_without_prompt)
    pool = negatives.pool if negatives is not None else clusters.pool
    return Estimate(
        point=point,
        by_concept=by_concept,
        by_prompt=by_prompt,
        by_cell=by_cell,
        n_concepts=len(defined),
        n_prompts=df_prompt + 1 if crossed_prompts else len(np.unique(clusters.prompt)),
        df_concept=len(defined) - 1,
        df_prompt=df_prompt,
        df_cell=df_cell,
        crossed_prompts=crossed_prompts,
        pools=(pool,) if crossed_prompts else (),
        draws=draws,
        per_concept=per_concept,
        per_concept_without_prompt=per_concept_without_prompt,
        bounds=(0.0, 1.0),
        scale="logit",
    )


def _mean_of_defined(values: Floats) -> Floats:
    """The mean over the concepts [n_rows, n_concepts, n_sets] that have a value; nan where none has."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=1) / known.sum(axis=1))


def _cell_effects(
    tally: Tally, clusters: Clusters, negatives: Clusters | None, per_concept: Floats, without_prompt: Floats
) -> tuple[Floats, int]:
    """Effects of (concept, prompt) cells, from each concept's AUROC without each prompt.

    The cell (c, p) is what column c does at prompt p, in positives *and* negatives: where a prompt shifts column c,
    both move and it cancels. Leaving out the positives alone would count that shift as noise and subtract too much.
    """
    n_concepts = len(per_concept)
    if not clusters.nested:
        cells = find_cells(clusters)
        concept, prompt = cells.concept, cells.prompt
        weight = tally.of_prompt.pairs[prompt, concept] / cells.n_items
    else:  # nested texts against concept-free items: every column meets every prompt
        assert negatives is not None
        met = find_cells(negatives)
        concept, prompt = (a.ravel() for a in np.meshgrid(np.unique(clusters.concept), met.prompt, indexing="ij"))
        weight = (tally.against_prompt.pairs[met.prompt].T / met.n_items)[np.unique(clusters.concept)].ravel()
    known = np.isfinite(without_prompt[prompt, concept]).all(axis=1) & (weight > 0)
    concept, prompt, weight = concept[known], prompt[known], weight[known]
    # A cell's weight is how many negatives an item of it meets: without strata, the same in each of a concept's cells.
    share = (weight / np.bincount(concept, weight, minlength=n_concepts)[concept])[:, None]
    n_defined = np.isfinite(per_concept[:, 0]).sum()
    # Leaving out a share of a mean moves it by share / (1 - share) of the deviation; its weight in the mean is share.
    change = (without_prompt[prompt, concept] - per_concept[concept]) * (1 - share) / n_defined
    return cell_effects(change, concept, prompt, n_concepts, len(without_prompt))


def _draw(comparison: Comparison, weights: Weights) -> Floats32:
    cells, against = comparison.positives, comparison.negatives
    ones = np.ones((weights.n_resamples, 1), dtype=np.float32)  # what a unit that is not resampled weighs

    def weigh(multiplicities: Floats32, ids: NDArray[np.int64]) -> Floats32:
        return multiplicities[:, ids] if ids[0] >= 0 else ones

    own = np.broadcast_to(weigh(weights.prompt, cells.prompt), (weights.n_resamples, len(cells)))
    other = weigh(weights.concept, against.concept) * weigh(weights.prompt, against.prompt)
    return _evaluate(comparison, own, other, weights.concept)


def _evaluate(comparison: Comparison, own: Floats32, other: Floats32, concept: Floats32) -> Floats32:
    """Macro AUROC [n_rows, n_sets] under weights of positive cells, negative cells and concepts, one row each.

    nan where no concept is left to average over.
    """
    cells, n_sets, dtype = comparison.positives, comparison.n_sets, concept.dtype
    n_rows, n_cells = own.shape
    members, opponents = comparison.members.astype(dtype), comparison.opponents.astype(dtype)
    of_concept = (comparison.group_concept[:, None] == np.arange(comparison.n_concepts)).astype(dtype)
    macro = np.empty((n_rows, n_sets), dtype=dtype)
    step = max(1, CHUNK_FLOATS // (n_cells * n_sets))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        # [rows, n_concepts], the denominators of A_c
        pairs = ((own[rows] @ members) * (other[rows] @ opponents)) @ of_concept
        wins = (other[rows] @ comparison.wins).reshape(-1, n_cells, n_sets)
        with np.errstate(invalid="ignore", divide="ignore"):
            mass = np.where(pairs > 0, concept[rows], 0)
            shares = np.where(pairs > 0, mass / pairs, 0) / mass.sum(axis=1, keepdims=True)
            each = own[rows] * shares[:, cells.concept]
            macro[rows] = np.matmul(each[:, None, :], wins)[:, 0]
    return macro
