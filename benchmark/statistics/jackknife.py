"""Leaving one concept, one prompt or one cell out: where every interval's variance comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    unique, of_item = np.unique(np.stack([clusters.concept, prompt]), axis=1, return_inverse=True)
    of_item = of_item.reshape(-1)
    return Cells(unique[0], unique[1], of_item, np.bincount(of_item).astype(np.float64))


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
    dummies = np.zeros((n_cells, n_concepts + n_prompts))
    dummies[np.arange(n_cells), concept] = 1
    dummies[np.arange(n_cells), n_concepts + prompt] = 1
    left, singular, _ = np.linalg.svd(dummies, full_matrices=False)
    basis = left[:, singular > 1e-9 * singular[0]]
    df = n_cells - basis.shape[1]
    effects = np.zeros((n_concepts, n_prompts, *change.shape[1:]))
    if df > 0:
        flat = change.reshape(n_cells, -1)
        residual = flat - basis @ (basis.T @ flat)
        effects[concept, prompt] = (np.sqrt(n_cells / df) * residual).reshape(change.shape)
    return effects, df
