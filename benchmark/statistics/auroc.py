"""The headline metric: macro AUROC over concepts, with its units of resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate
from .jackknife import Cells, cell_effects, find_cells, jackknife_effects
from .means import check_finite, count_units
from .resampling import Clusters, Floats, Floats32, Weights

# Bounds the working array [resamples, n_cells, n_sets] of a chunk: small enough to stay in a core's cache.
CHUNK_FLOATS = 1 << 20


@dataclass(frozen=True)
class Negatives:
    """Concept-free items (permuted, random, neutral) that every concept's items are compared with."""

    scores: ArrayLike  # [n_sets, n_negatives, n_concepts]
    clusters: Clusters  # concept-free: Clusters.of_prompts(...)


def macro_auroc(
    scores: ArrayLike,
    clusters: Clusters,
    weights: Weights | None = None,
    *,
    allowed: ArrayLike | None = None,
    negatives: Negatives | None = None,
    n_prompts: int | None = None,
) -> Estimate:
    """AUROC of column c between items of concept c and the other concepts' items, macro over concepts.

    `scores` is [n_sets, n_items, n_concepts], one set per verbalizer x scorer; ties count 1/2. Positives of c are its
    own items. Negatives are the items of other concepts, or of those d with `allowed[c, d]` (bool [n_concepts,
    n_concepts]; a family), or, with `negatives`, the concept-free items. A concept without items or negatives is left
    out of the macro mean; its `per_concept` is nan.

    With `weights`, draw b is sum_c m_c A_c / sum_c m_c over concepts, where pair (i, j) weighs w_i w_j and w is concept
    multiplicity x prompt multiplicity. Copies of c are never its negatives. Nested texts weigh what their concept
    weighs: the variance between concepts already holds the variance between their texts. `negatives` weigh by prompt.

    Estimand: the mean over concepts and prompts drawn from their populations. Chunked over resamples; the kernel takes
    4 * n_sets * n_cells^2 bytes. Raises ValueError for nan, shapes that do not fit, or when no concept has anything to
    be compared with.
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
    comparison = _compare(table, clusters, allowed, negatives, n_concepts, n_prompts, weights)
    return _estimate(comparison, clusters, negatives, weights, n_prompts)


@dataclass(frozen=True)
class _Comparison:
    """Pair counts by cell. `wins` sums to exact halves below 2^23, so float32 holds it and its 0/1 sums exactly."""

    positives: Cells
    negatives: Cells
    wins: Floats32  # [n_negative_cells, n_positive_cells * n_sets]: pairs that the positive wins, ties 1/2
    opponents: Floats  # [n_negative_cells, n_concepts]: items that are negatives of each concept
    n_concepts: int
    n_sets: int


def _compare(
    scores: NDArray[Any],
    clusters: Clusters,
    allowed: ArrayLike | None,
    negatives: Negatives | None,
    n_concepts: int,
    n_prompts: int,
    weights: Weights | None,
) -> _Comparison:
    n_sets = len(scores)
    positives = find_cells(clusters)
    if negatives is None:
        against, other_scores = positives, scores
        other_of_item = positives.of_item
        mask = np.ones((n_concepts, n_concepts), dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
        if mask.shape != (n_concepts, n_concepts):
            raise ValueError(
                f"`allowed` is {list(mask.shape)}; expected [{n_concepts}, {n_concepts}], concept by concept."
            )
        mask = mask & ~np.eye(n_concepts, dtype=bool)
        opponents = against.n_items[:, None] * mask[:, against.concept].T
    else:
        if allowed is not None:
            raise ValueError("`allowed` selects concepts and `negatives` have none. Pass one of the two.")
        if not negatives.clusters.concept_free:
            raise ValueError("Negatives have concepts; expected concept-free items. Use Clusters.of_prompts(prompt).")
        if not clusters.nested and negatives.clusters.pool != clusters.pool:
            raise ValueError(
                f"Items read pool {clusters.pool!r} and negatives {negatives.clusters.pool!r}; expected one pool."
            )
        other_scores = np.asarray(negatives.scores)
        check_finite(other_scores, "negative scores", (n_sets, negatives.clusters.n_items, n_concepts))
        count_units(negatives.clusters, weights, n_concepts, n_prompts)
        against = find_cells(negatives.clusters)
        other_of_item = against.of_item
        opponents = np.repeat(against.n_items[:, None], n_concepts, axis=1)
    # Sorted by cell, sums over a cell's items are sums over a run of neighbours.
    order = np.argsort(other_of_item, kind="stable")
    starts = np.concatenate([[0], np.cumsum(against.n_items)[:-1]]).astype(np.int64)
    wins = np.zeros((len(against), len(positives), n_sets), dtype=np.float32)
    for c in np.unique(clusters.concept):
        mine = np.flatnonzero(clusters.concept == c)
        column, own = other_scores[:, order, c], scores[:, mine, c]
        for item in range(len(mine)):  # one item at a time: bounds memory at [n_sets, n_negatives]
            x = own[:, item, None]
            halves = (x > column).astype(np.float32) + (x == column) * np.float32(0.5)
            wins[:, positives.of_item[mine[item]]] += np.add.reduceat(halves, starts, axis=1).T
    wins *= (opponents[:, positives.concept] > 0)[:, :, None]
    return _Comparison(positives, against, wins.reshape(len(against), -1), opponents, n_concepts, n_sets)


def _estimate(
    comparison: _Comparison, clusters: Clusters, negatives: Negatives | None, weights: Weights | None, n_prompts: int
) -> Estimate:
    cells, against, n_concepts = comparison.positives, comparison.negatives, comparison.n_concepts
    ones, others = np.ones((1, len(cells))), np.ones((1, len(against)))
    every = np.ones((1, n_concepts))
    per_concept = _evaluate(comparison, ones, others, every, per_concept=True)[1][0]
    defined = np.flatnonzero(np.isfinite(per_concept[:, 0]))
    if len(defined) == 0:
        raise ValueError("No concept has both items and negatives. Check `allowed`, and that the arm has two concepts.")
    point = per_concept[defined].mean(axis=0)

    concepts = np.unique(cells.concept)
    keep = (cells.concept != concepts[:, None]).astype(np.float64)
    keep_concept = (np.arange(n_concepts) != concepts[:, None]).astype(np.float64)
    # A concept left out keeps weight 1 as a positive: its weight in the macro mean is what is 0.
    keep_other = keep if negatives is None else np.ones((len(concepts), len(against)))
    without_concept = _evaluate(comparison, np.ones_like(keep), keep_other, keep_concept)
    by_concept = jackknife_effects(without_concept, concepts, n_concepts)

    by_prompt, by_cell = np.zeros((0, comparison.n_sets)), np.zeros((n_concepts, 0, comparison.n_sets))
    per_concept_without_prompt, df_prompt, df_cell = None, 0, 0
    crossed_prompts = clusters.crossed or negatives is not None
    if crossed_prompts:
        prompts = np.union1d(against.prompt[against.prompt >= 0], cells.prompt[cells.prompt >= 0])
        keep, keep_other = (
            (c.prompt != prompts[:, None]).astype(np.float64) if len(c) else c.n_items for c in (cells, against)
        )
        without_prompt, single = _evaluate(
            comparison, keep, keep_other, np.ones((len(prompts), n_concepts)), per_concept=True
        )
        by_prompt = jackknife_effects(without_prompt, prompts, n_prompts)
        df_prompt = len(prompts) - 1
        per_concept_without_prompt = np.broadcast_to(per_concept, (n_prompts, *per_concept.shape)).copy()
        per_concept_without_prompt[prompts] = single
        by_cell, df_cell = _cell_effects(comparison, per_concept, per_concept_without_prompt, prompts)
    pool = negatives.clusters.pool if negatives is not None else clusters.pool
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
        draws=None if weights is None else _draw(comparison, weights),
        per_concept=per_concept,
        per_concept_without_prompt=per_concept_without_prompt,
        bounds=(0.0, 1.0),
        scale="logit",
    )


def _cell_effects(
    comparison: _Comparison, per_concept: Floats, without_prompt: Floats, prompts: NDArray[np.int64]
) -> tuple[Floats, int]:
    """Effects of (concept, prompt) cells, from each concept's AUROC without each prompt.

    The cell (c, p) is what column c does at prompt p, in positives *and* negatives: where a prompt shifts column c,
    both move and it cancels. Leaving out the positives alone would count that shift as noise and subtract too much.
    """
    cells, n_concepts = comparison.positives, comparison.n_concepts
    if cells.prompt[0] >= 0:
        concept, prompt = cells.concept, cells.prompt
    else:  # nested texts against concept-free items: every column meets every prompt
        concept, prompt = (a.ravel() for a in np.meshgrid(np.unique(cells.concept), prompts, indexing="ij"))
    known = np.isfinite(without_prompt[prompt, concept]).all(axis=1)
    concept, prompt = concept[known], prompt[known]
    n_read = np.bincount(concept, minlength=n_concepts)[concept, None]
    n_defined = np.isfinite(per_concept[:, 0]).sum()
    # Leaving out one of k moves a mean by 1/(k - 1) of the deviation; its weight in the mean is 1/k.
    change = (without_prompt[prompt, concept] - per_concept[concept]) * (n_read - 1) / n_read / n_defined
    return cell_effects(change, concept, prompt, n_concepts, len(without_prompt))


def _draw(comparison: _Comparison, weights: Weights) -> Floats32:
    cells, against = comparison.positives, comparison.negatives
    ones = np.ones((weights.n_resamples, 1), dtype=np.float32)  # what a unit that is not resampled weighs

    def weigh(multiplicities: Floats32, ids: NDArray[np.int64]) -> Floats32:
        return multiplicities[:, ids] if ids[0] >= 0 else ones

    own = np.broadcast_to(weigh(weights.prompt, cells.prompt), (weights.n_resamples, len(cells)))
    other = weigh(weights.concept, against.concept) * weigh(weights.prompt, against.prompt)
    return _evaluate(comparison, own, other, weights.concept)


@overload
def _evaluate(
    comparison: _Comparison,
    own: NDArray[Any],
    other: NDArray[Any],
    concept: NDArray[Any],
    per_concept: Literal[False] = False,
) -> NDArray[Any]: ...
@overload
def _evaluate(
    comparison: _Comparison, own: NDArray[Any], other: NDArray[Any], concept: NDArray[Any], per_concept: Literal[True]
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def _evaluate(
    comparison: _Comparison, own: NDArray[Any], other: NDArray[Any], concept: NDArray[Any], per_concept: bool = False
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Macro AUROC [n_rows, n_sets] under weights of positive cells, negative cells and concepts, one row each.

    Computes in the dtype of `concept`. With `per_concept`, also A_c [n_rows, n_concepts, n_sets]. nan where no concept
    is left to average over.
    """
    cells, n_sets, dtype = comparison.positives, comparison.n_sets, concept.dtype
    n_rows, n_cells = own.shape
    membership = np.zeros((n_cells, comparison.n_concepts), dtype=dtype)
    membership[np.arange(n_cells), cells.concept] = cells.n_items
    opponents = comparison.opponents.astype(dtype)
    firsts = np.flatnonzero(np.diff(cells.concept, prepend=-1))
    macro = np.empty((n_rows, n_sets), dtype=dtype)
    single = np.full((n_rows, comparison.n_concepts, n_sets), np.nan, dtype=dtype) if per_concept else None
    step = max(1, CHUNK_FLOATS // (n_cells * n_sets))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        pairs = (own[rows] @ membership) * (other[rows] @ opponents)  # [rows, n_concepts], the denominators of A_c
        wins = (other[rows].astype(np.float32) @ comparison.wins).reshape(-1, n_cells, n_sets)
        with np.errstate(invalid="ignore", divide="ignore"):
            mass = np.where(pairs > 0, concept[rows], 0)
            shares = np.where(pairs > 0, mass / pairs, 0) / mass.sum(axis=1, keepdims=True)
            each = own[rows] * shares[:, cells.concept]
            macro[rows] = np.matmul(each[:, None, :], wins.astype(dtype, copy=False))[:, 0]
            if single is not None:
                won = np.add.reduceat(own[rows][:, :, None] * wins, firsts, axis=1)
                single[rows, cells.concept[firsts]] = won / pairs[:, cells.concept[firsts], None]
    return macro if single is None else (macro, single)
