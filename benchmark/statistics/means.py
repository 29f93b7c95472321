"""Means (rates, MRR, top-1) and ratios of sums (explained variance) with concepts and prompts as units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from .estimate import Estimate
from .jackknife import Cells, cell_effects, find_cells, jackknife_effects, sums_without
from .resampling import Clusters, Floats, Weights

#: Bounds the weights [resamples, n_cells] of a chunk of draws.
CHUNK_FLOATS = 1 << 22


def cluster_mean(
    values: ArrayLike,
    clusters: Clusters,
    weights: Weights | None = None,
    *,
    n_concepts: int | None = None,
    n_prompts: int | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Estimate:
    """The mean over items of `values` [n_sets, n_items] (or [n_items], one set), every item weighing the same.

    `n_concepts` and `n_prompts` are the run's, where this arm does not use them all (default: those of `weights`, else
    the highest id + 1). `bounds` is the metric's range; None for an unbounded one. A metric with bounds gets its
    interval on the logit scale.
    With `weights`, draws are sum(w x) / sum(w), w = concept multiplicity x prompt multiplicity (nested: concept only).

    Raises ValueError for nan or infinite values, values outside the bounds, or shapes that do not fit.
    """
    table = _as_table(values, "values", clusters)
    if bounds is not None and (table.min() < bounds[0] or table.max() > bounds[1]):
        raise ValueError(f"Values run from {table.min():g} to {table.max():g}; expected {bounds}. Pass `bounds`.")
    ones = np.ones(clusters.n_items)
    mean = cluster_ratio(values, ones, clusters, weights, n_concepts=n_concepts, n_prompts=n_prompts)
    return replace(mean, bounds=bounds, scale="linear" if bounds is None else "logit")


def cluster_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Clusters,
    weights: Weights | None = None,
    *,
    n_concepts: int | None = None,
    n_prompts: int | None = None,
) -> Estimate:
    """Sum over items of `numerators` / sum over items of `denominators`, with the units and draws of `cluster_mean`.

    `numerators` is [n_sets, n_items] (or [n_items], one set), `denominators` [n_items], or like the numerators. An
    explained variance is the ratio of (spread - squared error) to spread. Not a mean of ratios: an item weighs its
    denominator. The interval is the delta method's, through the jackknife; docs/coverage.md says how it holds.

    One item's denominator may be negative (it was displaced the other way), their total may not hinge on one unit:
    a ratio whose denominators sum to 0, or to the other sign than all of them, is nan within a concept, in a draw or
    without a unit; and where it is nan without a unit, there is no interval.

    Raises ValueError for nan or infinite values, denominators that sum to 0, or shapes that do not fit.
    """
    table, below = _as_table(numerators, "numerators", clusters), _as_table(denominators, "denominators", clusters)
    if len(below) not in (1, len(table)):
        raise ValueError(f"{len(table)} sets of numerators and {len(below)} of denominators; expected as many, or one.")
    n_concepts, n_prompts = count_units(clusters, weights, n_concepts, n_prompts)
    cells = find_cells(clusters)
    sums, sizes = _sum_by_cell(table, cells), _sum_by_cell(below, cells)
    total = sizes.sum(axis=0)
    if (total == 0).any():
        raise ValueError(
            f"Denominators sum to 0 in {int((total == 0).sum())} of {len(total)} sets; expected a total away from 0. "
            "Leave out arms in which nothing varies or moves."
        )

    def divide(above: Floats, left: Floats) -> Floats:
        return np.asarray(above / np.where(left * total > 0, left, np.nan))

    n_sets = len(table)
    point = sums.sum(axis=0) / total
    by_concept, by_prompt = np.zeros((0, n_sets)), np.zeros((0, n_sets))
    by_cell, df_cell = np.zeros((0, 0, n_sets)), 0
    per_concept, without_prompt = None, None
    concepts, of_concept = np.unique(cells.concept, return_inverse=True)
    prompts, of_prompt = np.unique(cells.prompt, return_inverse=True)
    # [n_concepts, n_prompts, *]: a design has few cells that are not there
    crossing = [np.zeros((len(concepts), len(prompts), part.shape[1])) for part in (sums, sizes)]
    for whole, part in zip(crossing, (sums, sizes), strict=True):
        whole[of_concept, of_prompt] = part
    if not clusters.concept_free:
        own = [whole.sum(axis=1) for whole in crossing]
        by_concept = jackknife_effects(divide(*map(sums_without, own)), concepts, n_concepts)
        by_cell = np.zeros((n_concepts, 0, n_sets))
        per_concept = np.full((n_concepts, n_sets), np.nan)
        per_concept[concepts] = divide(*own)
    if not clusters.nested:
        of_prompts = [sums_without(whole.sum(axis=0)) for whole in crossing]
        by_prompt = jackknife_effects(divide(*of_prompts), prompts, n_prompts)
    if clusters.crossed:
        without = divide(sums_without(sums), sums_without(sizes)) if len(cells) > 1 else point[None]
        # Leaving out a share of a mean moves it by share / (1 - share) of the deviation; its weight in it is share.
        # For a ratio, (without - point) (1 - share) is the influence (num_c - R den_c) / sum(den), but for the sign.
        # Cells weigh their items' mean denominator: 1 / k each in a mean, however many items they hold.
        weight = sizes / cells.n_items[:, None]
        change = (without - point) * (1 - weight / weight.sum(axis=0))
        by_cell, df_cell = cell_effects(change, cells.concept, cells.prompt, n_concepts, n_prompts)
        without_prompt = np.full((n_prompts, n_concepts, n_sets), np.nan)
        without_prompt[np.ix_(prompts, concepts)] = divide(*(sums_without(w, axis=1) for w in crossing)).swapaxes(0, 1)
    draws = None
    if weights is not None:
        draws = np.empty((weights.n_resamples, n_sets), dtype=np.float32)
        step = max(1, CHUNK_FLOATS // len(cells))
        for start in range(0, weights.n_resamples, step):
            rows = slice(start, start + step)
            cell_weights = np.ones((len(draws[rows]), len(cells)), dtype=np.float32)
            if not clusters.concept_free:
                cell_weights *= weights.concept[rows, cells.concept]
            if not clusters.nested:
                cell_weights *= weights.prompt[rows, cells.prompt]
            draws[rows] = divide(cell_weights @ sums, cell_weights @ sizes)
    estimate = Estimate(
        point=point,
        by_concept=by_concept,
        by_prompt=by_prompt,
        by_cell=by_cell,
        n_concepts=0 if clusters.concept_free else len(concepts),
        n_prompts=len(np.unique(clusters.prompt)),
        df_concept=0 if clusters.concept_free else len(concepts) - 1,
        df_prompt=0 if clusters.nested else len(prompts) - 1,
        df_cell=df_cell,
        crossed_prompts=not clusters.nested,
        pools=() if clusters.nested else (clusters.pool,),
        draws=draws,
        per_concept=per_concept,
        per_concept_without_prompt=without_prompt,
    )
    return estimate[0] if np.ndim(numerators) == 1 else estimate


def _sum_by_cell(table: Floats, cells: Cells) -> Floats:
    """The sums of [n_sets, n_items] over each cell's items [n_cells, n_sets]."""
    return np.stack([np.bincount(cells.of_item, row, minlength=len(cells)) for row in table], axis=1)


def count_units(
    clusters: Clusters, weights: Weights | None, n_concepts: int | None, n_prompts: int | None
) -> tuple[int, int]:
    """The run's numbers of concepts and prompts; raises ValueError where an id or the weights do not fit them."""
    if weights is not None:
        n_concepts = weights.concept.shape[1] if n_concepts is None else n_concepts
        n_prompts = weights.prompt.shape[1] if n_prompts is None else n_prompts
        if not clusters.concept_free and weights.concept.shape[1] != n_concepts:
            raise ValueError(f"Weights of {weights.concept.shape[1]} concepts; expected {n_concepts}. Resample.")
        if not clusters.nested and weights.prompt.shape[1] != n_prompts:
            raise ValueError(f"Weights of {weights.prompt.shape[1]} prompts; expected {n_prompts}. Resample.")
    highest_concept, highest_prompt = int(clusters.concept.max()), int(clusters.prompt.max())
    n_concepts = highest_concept + 1 if n_concepts is None else n_concepts
    n_prompts = highest_prompt + 1 if n_prompts is None else n_prompts
    if highest_concept >= n_concepts or (not clusters.nested and highest_prompt >= n_prompts):
        raise ValueError(
            f"Ids up to concept {highest_concept} and prompt {highest_prompt}; the run has {n_concepts} concepts and "
            f"{n_prompts} prompts. Number units from 0, alike in every arm."
        )
    return n_concepts, n_prompts


def _as_table(values: ArrayLike, name: str, clusters: Clusters) -> Floats:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    check_finite(table, name, (table.shape[0], clusters.n_items))
    return table


def check_finite(array: Floats, name: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a wrong shape, or for nan: a missing score is missing data and never a number."""
    if array.shape != shape:
        raise ValueError(f"{name} are {list(array.shape)}; expected {list(shape)}.")
    if array.size == 0:
        raise ValueError(f"{name} are empty {list(array.shape)}; expected at least one set and one item.")
    bad = sum(int((~np.isfinite(part)).sum()) for part in array)
    if bad:
        raise ValueError(
            f"{bad} of {array.size} {name} are nan or infinite; expected none. A scorer that failed leaves "
            "missing data: drop the item from every set that is compared, and report the coverage."
        )
