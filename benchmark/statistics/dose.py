"""Dose response: the strength at half effect, monotonicity, and the area between two curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .estimate import Estimate, contrast, paired_difference
from .interval import Interval, calibrated_draws
from .jackknife import jackknife_effects
from .resampling import Floats


def r50(strengths: ArrayLike, curve: ArrayLike, ceiling: ArrayLike, floor: ArrayLike | None = None) -> Floats:
    """The strength [...] at which the isotonic fit of `curve` [..., R] crosses halfway between floor and ceiling.

    `strengths` [R] rise from r = 0, in units of the activation's norm; `floor` [...] defaults to the fit at the first
    strength. Linear interpolation between strengths; where the fit already starts above halfway, the first strength.
    inf where it is never reached (censored: "> r_max"); nan where the ceiling is not above the floor or the curve is
    nan. Raises ValueError for strengths that do not rise or do not fit the curve.
    """
    r, fit = _as_strengths(strengths), fit_isotonic(curve)
    if fit.shape[-1:] != r.shape:
        raise ValueError(f"Curve {list(fit.shape)} over {len(r)} strengths; expected [..., {len(r)}].")
    base = fit[..., 0] if floor is None else np.asarray(floor, dtype=np.float64)
    top = np.asarray(ceiling, dtype=np.float64)
    half = (base + top) / 2
    half, base, top = (np.broadcast_to(a, fit.shape[:-1]) for a in (half, base, top))
    reached = fit >= half[..., None]
    after = np.argmax(reached, axis=-1)
    before = np.maximum(after - 1, 0)

    def pick(a: Floats, index: NDArray[Any]) -> Floats:
        return np.asarray(np.take_along_axis(a, index[..., None], axis=-1)[..., 0])

    with np.errstate(invalid="ignore", divide="ignore"):
        rise = pick(fit, after) - pick(fit, before)
        share = np.where(rise > 0, (half - pick(fit, before)) / rise, 0.0)
        crossing = r[before] + share * (r[after] - r[before])
    crossing = np.where(reached.any(axis=-1), crossing, np.inf)
    return np.where(~np.isfinite(fit).all(axis=-1) | ~(top > base), np.nan, crossing)


def fit_isotonic(curve: ArrayLike) -> Floats:
    """The non-decreasing least-squares fit of `curve` [..., R], R > 0, with equal weights.

    The min-max form of pool adjacent violators (Barlow et al. 1972): fit_k = max over i <= k of min over
    j >= k of mean(y_i .. y_j). O(R^2) array operations over all curves at once; R is a handful of strengths.
    """
    y = np.asarray(curve, dtype=np.float64)
    n = y.shape[-1]
    sums = np.concatenate([np.zeros((*y.shape[:-1], 1)), np.cumsum(y, axis=-1)], axis=-1)
    fit = np.full(y.shape, -np.inf)
    for i in range(n):
        means = (sums[..., i + 1 :] - sums[..., i : i + 1]) / np.arange(1, n - i + 1)
        lowest_from = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fit[..., i:] = np.maximum(fit[..., i:], lowest_from)
    return fit


def r50_interval(
    strengths: ArrayLike,
    curve: Estimate,
    ceiling: Estimate | float,
    floor: Estimate | float | None = None,
    level: float = 0.95,
) -> Interval:
    """r50 of a stacked `curve` (point [R], with draws) and the percentiles of r50 over its calibrated draws.

    `ceiling` and `floor` (point [], same Weights) vary with the draws where they are Estimates. A bound may be inf:
    "> r_max"; censored draws count as inf and are never dropped. Draws with no room between floor and ceiling count
    as inf too: there is no strength at which the effect is halfway. Raises ValueError without draws.
    """
    parts = [curve, *(p for p in (ceiling, floor) if isinstance(p, Estimate))]
    if curve.point.ndim != 1 or any(p.point.ndim for p in parts[1:]):
        raise ValueError(f"The curve has sets {list(curve.point.shape)}; expected [n_strengths]. Index it: curve[0].")
    draws = calibrated_draws(curve, level)

    def points(part: Estimate | float | None) -> ArrayLike | None:
        return part.point if isinstance(part, Estimate) else part

    def over_draws(part: Estimate | float | None) -> ArrayLike | None:
        return calibrated_draws(part, level) if isinstance(part, Estimate) else part

    ceiling_point, ceiling_draws = points(ceiling), over_draws(ceiling)
    assert ceiling_point is not None
    assert ceiling_draws is not None
    estimate = float(r50(strengths, curve.point, ceiling_point, points(floor)))
    found = r50(strengths, draws, ceiling_draws, over_draws(floor))
    usable = np.isfinite(draws).all(axis=-1)
    found = np.where(np.isnan(found), np.inf, found)[usable]
    note = ""
    if np.isnan(estimate) or not found.size:
        low = high = float("nan")
        note = "the ceiling is not above the floor"
    else:
        # Order statistics and no interpolation: between a number and inf there is nothing to interpolate.
        low = float(np.quantile(found, 0.5 - level / 2, method="lower"))
        high = float(np.quantile(found, 0.5 + level / 2, method="higher"))
        if np.isinf(estimate) or np.isinf(high):
            r_max, missed = _as_strengths(strengths)[-1], np.isinf(found).mean()
            note = f"censored at {r_max:g}: halfway is not reached in {missed:.0%} of draws"
    finite = found[np.isfinite(found)]
    se = float(finite.std()) if finite.size == found.size and finite.size else float("nan")
    return Interval(estimate, low, high, se, level, curve.n_concepts, curve.n_prompts, note=note)


def monotonicity(strengths: ArrayLike, curve: Estimate) -> Estimate:
    """Mean over concepts of Spearman's rank correlation of each concept's curve with r, in [-1, 1].

    `curve` is stacked Estimates of `macro_auroc` or `cluster_mean`, point [*sets, R] (of a paired difference, prompts
    are no units); the result is
    [*sets], with leave-one-out effects and no draws. A flat curve counts as 0. When a concept is left out, the others'
    curves are kept as they are, although they lose negatives: a second-order change. Raises ValueError where the curve
    has no per-concept values.
    """
    r = _as_strengths(strengths)
    if curve.per_concept is None:
        raise ValueError("The curve has no per-concept values. Stack Estimates of an arm that has concepts.")
    defined = np.flatnonzero(np.isfinite(curve.per_concept).reshape(len(curve.per_concept), -1).all(axis=1))
    if not defined.size:
        raise ValueError("No concept has a value at every strength; expected at least one.")
    each = spearman_with(r, curve.per_concept[defined])  # [n_defined, *sets]
    n, n_concepts, sets = len(defined), len(curve.per_concept), each.shape[1:]
    point = each.mean(axis=0)
    left_out = (each.sum(axis=0) - each) / max(n - 1, 1)
    by_prompt, by_cell = np.zeros((0, *sets)), np.zeros((n_concepts, 0, *sets))
    df_prompt = 0
    if curve.crossed_prompts and curve.per_concept_without_prompt is not None:
        without = curve.per_concept_without_prompt[:, defined]
        present = np.isfinite(without).reshape(len(without), -1).any(axis=1)  # by the design: alike in every set
        without = np.where(np.isfinite(without), without, curve.per_concept[defined])
        change = spearman_with(r, without) - each  # [n_prompts, n_defined, *sets]
        used = np.flatnonzero(present)
        by_prompt = jackknife_effects(change[used].mean(axis=1), used, len(without))
        # A rank correlation of one concept jumps when a prompt is left out: nothing to subtract its noise by. Without
        # the cells' part the interval counts that noise twice, which is conservative.
        by_cell = np.zeros((n_concepts, len(without), *sets))
        df_prompt = max(len(used) - 1, 0)
    return Estimate(
        point=point,
        by_concept=jackknife_effects(left_out, defined, n_concepts),
        by_prompt=by_prompt,
        by_cell=by_cell,
        n_concepts=n,
        n_prompts=curve.n_prompts,
        df_concept=n - 1,
        df_prompt=df_prompt,
        df_cell=0,
        crossed_prompts=bool(by_prompt.size),
        pools=curve.pools if by_prompt.size else (),
        per_concept=np.full((n_concepts, *sets), np.nan),
        bounds=(-1.0, 1.0),
        scale="linear",
    )


def area_between(strengths: ArrayLike, upper: Estimate, lower: Estimate) -> Estimate:
    """The area between two stacked curves, point [*sets]: trapezoids over r, divided by the range of r.

    In units of the metric: the mean vertical distance. Raises ValueError where the curves do not fit each other.
    """
    r = _as_strengths(strengths)
    steps = np.diff(r)
    widths = np.zeros_like(r)
    widths[:-1] += steps / 2
    widths[1:] += steps / 2
    return contrast(paired_difference(upper, lower), widths / (r[-1] - r[0]))


def spearman_with(strengths: Floats, curves: Floats) -> Floats:
    """Spearman's correlation [...] of `curves` [..., R] with the rising strengths; 0 for a flat curve."""
    x = stats.rankdata(strengths) - (len(strengths) + 1) / 2
    # Sums over more sets at once round otherwise: what differs past the twelfth digit is a tie.
    y = stats.rankdata(np.round(curves, 12), axis=-1) - (len(strengths) + 1) / 2
    spread = np.sqrt((x**2).sum() * (y**2).sum(axis=-1))
    return np.asarray(np.where(spread > 0, (y @ x) / np.where(spread > 0, spread, 1), 0.0))


def _as_strengths(strengths: ArrayLike) -> Floats:
    r = np.asarray(strengths, dtype=np.float64)
    if r.ndim != 1 or len(r) < 2 or not (np.diff(r) > 0).all():
        raise ValueError(f"Strengths {r.tolist()}; expected at least two, rising. Sort them, and the curve with them.")
    return r
