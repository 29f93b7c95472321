"""The pairs that an AUROC counts: whose score is compared with whose, and how often the positive wins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .jackknife import Cells, find_cells
from .means import check_finite, count_units
from .resampling import Clusters, Floats, Floats32, Ints, Weights

NO_PAIRS = "No concept has both items and negatives. Check `allowed`, `strata`, and that the arm has two concepts."


@dataclass(frozen=True)
class Negatives:
    """Concept-free items (permuted, random, neutral) that every concept's items are compared with."""

    scores: ArrayLike  # [n_sets, n_negatives, n_concepts]
    clusters: Clusters  # concept-free: Clusters.of_prompts(...)
    strata: ArrayLike | None = None  # int [n_negatives], numbered as the positives' strata


@dataclass(frozen=True)
class Side:
    """The items on one side of a comparison."""

    scores: NDArray[Any]  # [n_sets, n_items, n_concepts]
    clusters: Clusters
    strata: Ints  # [n_items]; all 0 where items are not stratified

    def select(self, keep: NDArray[np.bool_]) -> Side:
        if keep.all():
            return self
        if not keep.any():
            raise ValueError(NO_PAIRS)
        clusters = replace(self.clusters, concept=self.clusters.concept[keep], prompt=self.clusters.prompt[keep])
        return Side(self.scores[:, keep], clusters, self.strata[keep])


@dataclass(frozen=True)
class Comparison:
    """Pair counts. `wins` sums to exact halves below 2^23, so float32 holds it and its 0/1 sums exactly.

    Weights apply to cells, and a pair exists within a stratum: items of one cell may lie in several. So pairs are
    counted by group, the items of one concept in one stratum, which all meet the same negatives. Without strata the
    groups are the concepts.
    """

    positives: Cells
    negatives: Cells
    wins: Floats32  # [n_negative_cells, n_positive_cells * n_sets]: pairs that the positive wins, ties 1/2
    group_concept: Ints  # [n_groups], rising
    members: Floats  # [n_positive_cells, n_groups]: items of the cell that are in the group
    opponents: Floats  # [n_negative_cells, n_groups]: items of the cell that are negatives of the group
    n_concepts: int
    n_sets: int


def find_sides(
    scores: NDArray[Any],
    clusters: Clusters,
    strata: ArrayLike | None,
    negatives: Negatives | None,
    weights: Weights | None,
    n_prompts: int,
) -> tuple[Side, Side | None]:
    """Positives and concept-free negatives (None: items are each other's), without the items that meet nobody.

    An item that shares its stratum with no item to compare it with is in no pair: it goes before units are counted,
    so that degrees of freedom are those of the units that the value rests on.
    """
    own = Side(scores, clusters, _as_strata(strata, clusters.n_items))
    if negatives is None:
        concepts_in = np.unique(np.stack([own.strata, clusters.concept]), axis=1)[0]
        strata_met, n_concepts_in = np.unique(concepts_in, return_counts=True)
        return own.select(np.isin(own.strata, strata_met[n_concepts_in > 1])), None
    if not negatives.clusters.concept_free:
        raise ValueError("Negatives have concepts; expected concept-free items. Use Clusters.of_prompts(prompt).")
    if not clusters.nested and negatives.clusters.pool != clusters.pool:
        raise ValueError(
            f"Items read pool {clusters.pool!r} and negatives {negatives.clusters.pool!r}; expected one pool."
        )
    if (strata is None) != (negatives.strata is None):
        raise ValueError("Only one of items and negatives has strata; expected both or neither. Pass them for both.")
    other_scores, n_negatives = np.asarray(negatives.scores), negatives.clusters.n_items
    check_finite(other_scores, "negative scores", (len(scores), n_negatives, scores.shape[2]))
    count_units(negatives.clusters, weights, scores.shape[2], n_prompts)
    others = Side(other_scores, negatives.clusters, _as_strata(negatives.strata, n_negatives))
    return own.select(np.isin(own.strata, others.strata)), others.select(np.isin(others.strata, own.strata))


def compare(own: Side, others: Side | None, allowed: ArrayLike | None) -> Comparison:
    """Count the pairs of each group with each cell of negatives, and those that the positive wins."""
    n_sets, _, n_concepts = own.scores.shape
    positives = find_cells(own.clusters)
    if others is None:
        mask = find_allowed(own, n_concepts, allowed, mutual=True)
        others, against = own, positives
    else:
        mask = find_allowed(others, n_concepts, allowed, mutual=False)
        against = find_cells(others.clusters)
    mask = mask[np.unique(against.of_item, return_index=True)[1]]  # [n_negative_cells, n_concepts]
    groups, of_item = np.unique(np.stack([own.clusters.concept, own.strata]), axis=1, return_inverse=True)
    of_item = of_item.reshape(-1)
    members = np.zeros((len(positives), groups.shape[1]))
    np.add.at(members, (positives.of_item, of_item), 1)
    opponents = np.zeros((len(against), groups.shape[1]))
    wins = np.zeros((len(against), len(positives), n_sets), dtype=np.float32)
    # Sorted by cell, sums over a cell's items are sums over a run of neighbours.
    order = np.argsort(against.of_item, kind="stable")
    for stratum in np.unique(own.strata):
        mates = order[others.strata[order] == stratum]
        starts = np.flatnonzero(np.diff(against.of_item[mates], prepend=-1))
        met = slice(None) if len(starts) == len(against) else against.of_item[mates[starts]]  # a slice is faster
        for group in np.flatnonzero(groups[1] == stratum):
            opponents[met, group] = np.diff(starts, append=len(mates))
            c, mine = groups[0, group], np.flatnonzero(of_item == group)
            column, scores = others.scores[:, mates, c], own.scores[:, mine, c]
            for item in range(len(mine)):  # one item at a time: bounds memory at [n_sets, n_negatives]
                x = scores[:, item, None]
                halves = (x > column).astype(np.float32) + (x == column) * np.float32(0.5)
                wins[met, positives.of_item[mine[item]]] += np.add.reduceat(halves, starts, axis=1).T
    wins *= mask[:, positives.concept, None]
    opponents *= mask[:, groups[0]]
    return Comparison(
        positives, against, wins.reshape(len(against), -1), groups[0], members, opponents, n_concepts, n_sets
    )


def find_allowed(against: Side, n_concepts: int, allowed: ArrayLike | None, *, mutual: bool) -> NDArray[np.bool_]:
    """Which items are negatives of which concept, bool [n_items, n_concepts].

    mutual: whether items are each other's negatives, and not concept-free ones. Raises ValueError for an `allowed` that
    does not fit.
    """
    if not mutual:
        if allowed is not None:
            raise ValueError("`allowed` selects concepts and `negatives` have none. Pass one of the two.")
        return np.ones((len(against.strata), n_concepts), dtype=bool)
    mask = np.ones((n_concepts, n_concepts), dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
    if mask.shape != (n_concepts, n_concepts):
        raise ValueError(f"`allowed` is {list(mask.shape)}; expected [{n_concepts}, {n_concepts}], concept by concept.")
    return np.asarray((mask & ~np.eye(n_concepts, dtype=bool))[:, against.clusters.concept].T)


def _as_strata(strata: ArrayLike | None, n_items: int) -> Ints:
    ids = np.zeros(n_items, dtype=np.int64) if strata is None else np.asarray(strata)
    if ids.shape != (n_items,) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"Strata are {ids.dtype} {list(ids.shape)}; expected integers [{n_items}], one per item.")
    return ids.astype(np.int64)
