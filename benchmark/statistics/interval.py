"""Intervals that hold with few concepts and prompts, and the tests that go with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .estimate import Estimate
from .resampling import Floats


@dataclass(frozen=True)
class Interval:
    """A confidence interval. Bounds are nan, and `note` says why, where the design cannot support one.

    source, number: the Estimate that it was computed from and which of its sets, where it comes from `intervals`.
    """

    estimate: float
    low: float
    high: float
    se: float
    level: float
    n_concepts: int
    n_prompts: int
    note: str = ""
    source: Estimate | None = field(default=None, compare=False, repr=False)
    number: int = field(default=0, compare=False, repr=False)

    @property
    def excludes_zero(self) -> bool:
        """ "Better" or "worse" in a paired difference; never True where the bounds are nan."""
        return self.low > 0 or self.high < 0


def interval(estimate: Estimate, level: float = 0.95) -> Interval:
    """The interval of an Estimate of one set; raises ValueError for more (use `intervals`)."""
    if estimate.point.ndim:
        raise ValueError(f"The estimate has sets {list(estimate.point.shape)}; expected one. Index it: estimate[0].")
    return intervals(estimate, level)[0]


def intervals(estimate: Estimate, level: float = 0.95) -> list[Interval]:
    """One Interval per set, in C order of the set axes. See `interval_arrays` for the construction."""
    arrays = interval_arrays(estimate, level)
    unsupported = _unsupported(estimate)
    found = []
    sets = zip(estimate.point.ravel(), *(a.ravel() for a in arrays), strict=True)
    for number, (point, low, high, se) in enumerate(sets):
        note = unsupported
        if not note and se == 0:
            note = (
                "every unit is at the bound: exact bound on a mean"
                if np.isfinite(low)
                else "no variation between units"
            )
        elif not note and not np.isfinite(se):
            note = "undefined without one of the units"
        units = estimate.n_concepts, estimate.n_prompts
        found.append(Interval(float(point), float(low), float(high), float(se), level, *units, note, estimate, number))
    return found


class IntervalArrays(NamedTuple):
    """Each [*sets]."""

    low: Floats
    high: Floats
    se: Floats


def interval_arrays(estimate: Estimate, level: float = 0.95) -> IntervalArrays:
    """estimate -+ `half_width`, on the logit scale for metrics with a range, clipped to the range otherwise.

    Where every unit sits at the metric's bound (AUROC 1, rate 0), the bound is exact instead: n independent values in
    [0, 1] are all 1 with probability at most mean^n, n the fewer of concepts and prompts. Other estimates without any
    variation, and designs with a single unit, get nan bounds. Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95.")
    se, reach = np.sqrt(two_way_variance(estimate)), half_width(estimate, level)
    point, bounds = estimate.point, estimate.bounds
    if bounds is None:
        low, high = point - reach, point + reach
    elif estimate.scale == "logit":
        width = bounds[1] - bounds[0]
        share = (point - bounds[0]) / width
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            odds, spread = share / (1 - share), np.exp(reach / width / (share * (1 - share)))
            low = bounds[0] + width * (odds / (odds + spread))
            high = bounds[1] - width / (1 + odds * spread)
    else:
        low, high = np.clip(point - reach, *bounds), np.clip(point + reach, *bounds)
    low, high = (np.where(se > 0, a, np.nan) for a in (low, high))
    if bounds is not None and estimate.scale == "logit" and not _unsupported(estimate):
        units = ((estimate.n_concepts, estimate.df_concept), (estimate.n_prompts, estimate.df_prompt))
        n = min(count for count, df in units if df)
        room = (bounds[1] - bounds[0]) * (1 - ((1 - level) / 2) ** (1 / n))
        for at, (to_low, to_high) in zip(bounds, ((0.0, room), (-room, 0.0)), strict=True):
            stuck = (se == 0) & np.isclose(point, at, rtol=0, atol=1e-12)
            low, high = np.where(stuck, at + to_low, low), np.where(stuck, at + to_high, high)
    return IntervalArrays(low, high, se)


def two_way_variance(estimate: Estimate) -> Floats:
    """se^2 [*sets] = max(V_c + V_p - V_e, V_c, V_p); nan where the design has a single unit.

    Cameron, Gelbach & Miller 2011 ("Robust inference with multiway clustering", JBES 29(2)) on jackknife
    variances; V_e is the cells' own noise (see `cell_effects`). Never below either one-way variance, which the
    subtraction could reach by chance. A nested arm has V_c alone, a concept-free one V_p alone.
    """
    concept, prompt, cell = _variances(estimate)
    return np.maximum(concept + prompt - cell, np.maximum(concept, prompt))


def half_width(estimate: Estimate, level: float = 0.95) -> Floats:
    """Half the interval's width [*sets], before any change of scale; nan as in `two_way_variance`.

    sqrt(max(t_c^2 V_c + t_p^2 V_p - t_e^2 V_e, t_c^2 V_c, t_p^2 V_p)): each variance meets the t quantile of its own
    degrees of freedom, the modified large-sample interval for sums of variance components (Graybill & Wang 1980,
    "Confidence intervals on nonnegative linear combinations of variances", JASA 75(372)). Chosen by simulation
    (docs/coverage.md). One t quantile with Satterthwaite's df covered 88% at 4 prompts, since that df is itself
    estimated on 3; the fewest units' quantile for the whole is up to twice too wide where prompts hardly matter.
    On the linear scale V_c and V_p grow by n / (n - 1): a difference near 0 is skewed by its prompts, with no logit
    to take that up (16 concepts x 4 or 8 prompts that dominate: 93% without, 94% with).
    """
    return _half_width_at(estimate, np.asarray(1 - level))


def _half_width_at(estimate: Estimate, p: Floats) -> Floats:
    """`half_width` for a two-sided tail of `p`, float [] or [*sets]: in tails, since 1 - p loses a small p."""
    concept, prompt, cell = _variances(estimate)

    def reach(variance: Floats, df: int) -> Floats:
        return np.asarray(variance * (stats.t.isf(p / 2, df) ** 2 if df else 0))  # nan * 0 stays nan

    if estimate.scale == "linear":
        concept, prompt = concept * _inflation(estimate.df_concept), prompt * _inflation(estimate.df_prompt)
    concept, prompt = reach(concept, estimate.df_concept), reach(prompt, estimate.df_prompt)
    total = np.maximum(concept + prompt - reach(cell, estimate.df_cell), np.maximum(concept, prompt))
    return np.asarray(np.sqrt(total))


def _inflation(df: int) -> float:
    return (df + 1) / df if df else 1.0


def _variances(estimate: Estimate) -> tuple[Floats, Floats, Floats]:
    """V_c, V_p and V_e, each [*sets]; nan in a design that has a single concept or prompt."""
    if _unsupported(estimate):
        missing = np.full(estimate.point.shape, np.nan)
        return missing, missing, missing
    # Effects that are rounding and nothing else are no variation: an interval of width 1e-16 would look certain.
    tiny = 1e-12 * np.maximum(1, np.abs(estimate.point))

    def total(effects: Floats, axes: tuple[int, ...]) -> Floats:
        return np.asarray((np.where(np.abs(effects) <= tiny, 0.0, effects) ** 2).sum(axis=axes))

    return total(estimate.by_concept, (0,)), total(estimate.by_prompt, (0,)), total(estimate.by_cell, (0, 1))


def calibrated_draws(estimate: Estimate, level: float = 0.95) -> Floats:
    """Draws [n_resamples, *sets] recentred on the estimate and stretched to the interval's half-width.

    For functions of a metric that have no leave-one-out form (r50): their percentiles then carry the small-cluster
    correction. Clipped to the metric's range. Raises ValueError without draws.
    """
    if estimate.draws is None:
        raise ValueError("The estimate has no draws; expected them. Pass `weights=resample(...)` to the metric.")
    draws = estimate.draws.astype(np.float64)
    spread = np.nanstd(draws, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        stretch = half_width(estimate, level) / stats.norm.ppf(0.5 + level / 2) / spread
    # Without any spread (r = 0, where both arms are the same items) there is nothing to stretch.
    stretch = np.where(np.isinf(stretch) | ((spread == 0) & (not _unsupported(estimate))), 1.0, stretch)
    stretched: Floats = estimate.point + (draws - np.nanmean(draws, axis=0)) * stretch
    return stretched if estimate.bounds is None else np.clip(stretched, *estimate.bounds)


def p_values(estimate: Estimate, null: float = 0.0) -> Floats:
    """Two-sided p-values [*sets] of point = null: the level at which the interval's edge meets the null.

    So p < .05 exactly where the 95% interval excludes the null (on its scale; the null within the metric's range).
    nan where there is no interval; 1 where nothing varies and the point is the null.
    """
    point, bounds = estimate.point, estimate.bounds
    distance = np.abs(point - null)
    if estimate.scale == "logit" and bounds is not None:
        width = bounds[1] - bounds[0]
        share, target = (point - bounds[0]) / width, (null - bounds[0]) / width
        with np.errstate(invalid="ignore", divide="ignore"):
            logits = np.log(share / (1 - share)) - np.log(target / (1 - target))
            distance = np.abs(logits) * share * (1 - share) * width
    # half_width falls as p rises, so bisection finds the p at which it equals the distance.
    low, high = np.full(point.shape, -300.0), np.zeros(point.shape)  # log10 of p
    for _ in range(60):
        middle = (low + high) / 2
        wider = _half_width_at(estimate, 10**middle) > distance
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    se = np.sqrt(two_way_variance(estimate))
    return np.asarray(
        np.where(
            se > 0,
            10 ** ((low + high) / 2),
            np.where((se == 0) & np.isclose(point, null, rtol=0, atol=1e-12), 1.0, np.nan),
        )
    )


def benjamini_hochberg(p: ArrayLike, rate: float = 0.05) -> tuple[NDArray[np.bool_], Floats]:
    """Which hypotheses pass at a false discovery rate, and the adjusted p-values, both [n].

    `scipy.stats.false_discovery_control` (Benjamini & Hochberg 1995) over the p-values that exist; nan never passes
    and stays nan. Raises ValueError for values outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    known = np.isfinite(values)
    if values.ndim != 1 or (values[known] < 0).any() or (values[known] > 1).any():
        raise ValueError(f"p-values {list(values.shape)} outside [0, 1] or not [n]. Pass one p-value per hypothesis.")
    adjusted = np.full(values.shape, np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(values[known])
    return adjusted <= rate, adjusted


def _unsupported(estimate: Estimate) -> str:
    """Why no interval exists, or nothing."""
    has_concepts = len(estimate.by_concept) > 0
    if has_concepts and estimate.df_concept < 1:
        return f"{estimate.n_concepts} concept: no variance between concepts"
    if estimate.crossed_prompts and estimate.df_prompt < 1:
        return f"{estimate.n_prompts} prompt: no variance between prompts"
    return ""
