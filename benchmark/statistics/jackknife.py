"""Leaving one concept, one prompt or one cell out: where every interval's variance comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from .resampling import Clusters, Floats, Ints


@dataclass(frozen=True)
class Cells:
    """The (concept, prompt) cells of a design, sorted by concept: the finest unit that a weight applies to.

    A nested arm has one cell per concept: its texts stand and fall with their concept. A concept-free arm has one per
    prompt.
    """

    concept: Ints  # [n_cells]; -1 for a concept-free arm
    prompt: Ints  # [n_cells]; -1 where texts are nested
    of_item: Ints  # [n_items], the index of each item's cell
    n_items: Floats  # [n_cells]

    def __len__(self) -> int:
        return len(self.concept)


def find_cells(clusters: Clusters) -> Cells:
    prompt = np.full_like(clusters.prompt, -1) if clusters.nested else clusters.prompt
    n_prompts = int(prompt.max()) + 2  # -1 is one of them; one number per cell sorts faster than two
    unique, of_item, n_items = np.unique(
        (clusters.concept + 1) * n_prompts + prompt + 1, return_inverse=True, return_counts=True
    )
    return Cells(unique // n_prompts - 1, unique % n_prompts - 1, of_item, n_items.astype(np.float64))


def sums_without(parts: Floats, axis: int = 0) -> Floats:
    """The sum of all the others in the place of each of `parts` along an axis.

    Added up from both ends and not subtracted from the whole: what cancels in the others stays 0.
    """
    moved = np.moveaxis(parts, axis, 0)
    before, after = np.zeros_like(moved), np.zeros_like(moved)
    np.cumsum(moved[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumsum(moved[:0:-1], axis=0)[::-1]
    return np.moveaxis(before + after, 0, axis)


def jackknife_effects(left_out: Floats, present: Ints, n_units: int) -> Floats:
    """Effects [n_units, *sets] whose sum of squares is the delete-one variance, (n - 1)/n * sum (t_i - mean)^2.

    `left_out` is [len(present), *sets], the statistic without each unit that is present; absent units have no effect.
    With a single unit the variance is not estimable and the effect is nan. (Efron & Stein 1981: biased upwards, if
    at all.)
    """
    effects = np.zeros((n_units, *left_out.shape[1:]))
    n = len(present)
    effects[present] = np.sqrt((n - 1) / n) * (left_out - left_out.mean(axis=0)) if n > 1 else np.nan
    return effects


def cell_effects(change: Floats, concept: Ints, prompt: Ints, n_concepts: int, n_prompts: int) -> tuple[Floats, int]:
    """Effects [n_concepts, n_prompts, *sets] of what is specific to a cell, and their degrees of freedom.

    `change` is [n_cells, *sets], each cell's contribution to the statistic. Concept and prompt main effects are
    projected out, so that the sum of squares estimates the variance of the cells' own noise alone: the part that the
    concept variance and the prompt variance both contain (V_cp in Cameron, Gelbach & Miller 2011, "Robust inference
    with multiway clustering", JBES 29(2); there main effects stay in, which biases V_c + V_p - V_cp down by
    1/n_prompts of the concept variance, and by as much the other way).
    """
    n_cells = len(concept)
    if n_cells == 0:
        return np.zeros((n_concepts, n_prompts, *change.shape[1:])), 0
    residual, rank = _without_main_effects(change.reshape(n_cells, -1), concept, prompt)
    df = n_cells - rank
    effects = np.zeros((n_concepts, n_prompts, *change.shape[1:]))
    if df > 0:
        effects[concept, prompt] = (np.sqrt(n_cells / df) * residual).reshape(change.shape)
    return effects, df


def _without_main_effects(values: Floats, concept: Ints, prompt: Ints) -> tuple[Floats, int]:
    """Values [n_cells, n] less what concepts and prompts explain additively, and how many parameters that took.

    Least squares with the side that has more units eliminated, so that what is solved for is the other's alone.
    """
    sides = [np.unique(unit, return_inverse=True)[1] for unit in (concept, prompt)]
    few, many = sorted(sides, key=lambda unit: int(unit.max()))
    n_few, n_many = int(few.max()) + 1, int(many.max()) + 1
    design = csr_array((np.ones(len(few)), (few, many)), shape=(n_few, n_many))
    of_many = np.bincount(many).astype(np.float64)[:, None]
    # What remains of the cells of `few` where the means of `many` are taken out, as [n_few, n_few] and [n_few, n].
    left = np.diag(np.bincount(few).astype(np.float64)) - (design @ (design.T / of_many)).todense()
    means = _sum_by(values, many, n_many) / of_many
    effects = np.zeros((n_few, values.shape[1]))
    # Units without a path of cells between them have no common level: one direction of each part is free.
    n_parts, part = connected_components(design @ design.T, directed=False)
    wanted = _sum_by(values, few, n_few) - design @ means
    for number in range(n_parts):
        inside = np.flatnonzero(part == number)[1:]  # the first one's effect is 0
        effects[inside] = np.linalg.solve(left[np.ix_(inside, inside)], wanted[inside])
    residual = values - effects[few] - (means - (design.T @ effects) / of_many)[many]
    return residual, n_few + n_many - n_parts


def _sum_by(values: Floats, unit: Ints, n_units: int) -> Floats:
    sums = csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(n_units, len(unit))) @ values
    return np.asarray(sums)
