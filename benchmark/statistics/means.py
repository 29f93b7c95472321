"""Mean-type metrics (rates, MRR, top-1) with concepts and prompts as units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, Scale
from .jackknife import cell_effects, find_cells, jackknife_effects
from .resampling import Clusters, Floats, Weights


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
    table = np.asarray(values, dtype=np.float64)
    squeeze = table.ndim == 1
    table = np.atleast_2d(table)
    check_finite(table, "values", (table.shape[0], clusters.n_items))
    if bounds is not None and (table.min() < bounds[0] or table.max() > bounds[1]):
        raise ValueError(f"Values run from {table.min():g} to {table.max():g}; expected {bounds}. Pass `bounds`.")
    n_concepts, n_prompts = count_units(clusters, weights, n_concepts, n_prompts)
    cells = find_cells(clusters)
    sums = np.zeros((len(cells), table.shape[0]))
    np.add.at(sums, cells.of_item, table.T)

    def evaluate(cell_weights: NDArray[Any]) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray(cell_weights @ sums / (cell_weights @ cells.n_items)[:, None])

    n_sets = table.shape[0]
    point = sums.sum(axis=0) / cells.n_items.sum()
    by_concept, by_prompt = np.zeros((0, n_sets)), np.zeros((0, n_sets))
    by_cell, df_cell = np.zeros((0, 0, n_sets)), 0
    concepts, prompts = np.unique(cells.concept), np.unique(cells.prompt)
    if not clusters.concept_free:
        by_concept = jackknife_effects(evaluate(cells.concept != concepts[:, None]), concepts, n_concepts)
        by_cell = np.zeros((n_concepts, 0, n_sets))
    if not clusters.nested:
        by_prompt = jackknife_effects(evaluate(cells.prompt != prompts[:, None]), prompts, n_prompts)
    if clusters.crossed:
        without = evaluate(~np.eye(len(cells), dtype=bool)) if len(cells) > 1 else point[None]
        # Leaving out one of k moves a mean by 1/(k - 1) of the deviation; its weight in the mean is 1/k.
        change = (without - point) * (len(cells) - 1) / len(cells)
        by_cell, df_cell = cell_effects(change, cells.concept, cells.prompt, n_concepts, n_prompts)
    draws = None
    if weights is not None:
        cell_weights = np.ones((weights.n_resamples, len(cells)), dtype=np.float32)
        if not clusters.concept_free:
            cell_weights *= weights.concept[:, cells.concept]
        if not clusters.nested:
            cell_weights *= weights.prompt[:, cells.prompt]
        draws = evaluate(cell_weights).astype(np.float32)
    per_concept = None
    if not clusters.concept_free:
        per_concept = np.full((n_concepts, n_sets), np.nan)
        per_concept[concepts] = evaluate(cells.concept == concepts[:, None])
    scale: Scale = "linear" if bounds is None else "logit"
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
        bounds=bounds,
        scale=scale,
    )
    return estimate[0] if squeeze else estimate


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


def check_finite(array: Floats, name: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a wrong shape, or for nan: a missing score is missing data and never a number."""
    if array.shape != shape:
        raise ValueError(f"{name} are {list(array.shape)}; expected {list(shape)}.")
    if array.size == 0:
        raise ValueError(f"{name} are empty {list(array.shape)}; expected at least one set and one item.")
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {bad.size} {name} are nan or infinite; expected none. A scorer that failed leaves "
            "missing data: drop the item from every set that is compared, and report the coverage."
        )
