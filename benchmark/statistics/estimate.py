"""A metric's value together with what its uncertainty is computed from, so that differences stay paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .resampling import Floats, Floats32

Scale = Literal["logit", "linear"]


@dataclass(frozen=True)
class Estimate:
    """A metric of one or more score sets, with each unit's leave-one-out effect and the bootstrap draws.

    The trailing axes ("sets") are the same in every array: usually [n_sets], one per verbalizer x scorer; [n_sets,
    n_strengths] after `stack`. The effects are scaled so that their sum of squares is a variance:
    `(by_concept ** 2).sum(0)` is the jackknife variance between concepts. Because every effect belongs to a unit, and
    a unit has the same index everywhere, subtracting two Estimates gives the paired difference exactly.
    """

    point: Floats  # [*sets]
    by_concept: Floats  # [n_concepts, *sets], effect of leaving a concept out; [0, *sets] for a concept-free arm
    by_prompt: Floats  # [n_prompts, *sets], effect of leaving a prompt out; [0, *sets] where texts are nested
    by_cell: Floats  # [n_concepts, n_prompts, *sets], effect of a cell beyond its concept's and its prompt's
    n_concepts: int  # concepts that the value rests on
    n_prompts: int  # prompts (nested: texts) that it rests on
    df_concept: int  # degrees of freedom of each variance; 0: not estimable, or not part of the design
    df_prompt: int
    df_cell: int
    crossed_prompts: bool  # prompts are a unit of resampling of their own
    pools: tuple[str, ...] = ()  # the prompt pools that by_prompt runs over
    draws: Floats32 | None = None  # [n_resamples, *sets]; nan where a resample left nothing to compare
    per_concept: Floats | None = None  # [n_concepts, *sets]; nan where a concept's value is undefined
    per_concept_without_prompt: Floats | None = None  # [n_prompts, n_concepts, *sets]; nan for an unused prompt
    bounds: tuple[float, float] | None = None  # the metric's range
    scale: Scale = "linear"  # on which its interval is built

    def __getitem__(self, key: int | slice | list[int]) -> Estimate:
        """Select from the first set axis: one verbalizer x scorer, or several."""
        return _map(self, lambda a, lead: a[(slice(None),) * lead + (key,)])

    def at(self, number: int) -> Estimate:
        """The one set of this number, in C order of the set axes."""
        return _map(self, lambda a, lead: a.reshape(*a.shape[:lead], self.point.size)[..., number])


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, unit by unit: what concepts (and prompts, where both use one pool) share cancels.

    Steered - natural: the arms share concepts. The natural arm's texts are nested, so its text noise is already in
    its concepts' effects; only the steered arm adds prompt effects. Two different pools of prompts are independent and
    both count. Draws are subtracted row by row, which is paired only if both came from the same `Weights`.

    Raises ValueError where the two do not have the same sets, concepts, pool sizes or number of draws.
    """
    if a.point.shape != b.point.shape:
        raise ValueError(f"Sets {list(a.point.shape)} and {list(b.point.shape)}; expected the same. Index both alike.")
    if len(a.by_concept) and len(b.by_concept) and len(a.by_concept) != len(b.by_concept):
        raise ValueError(
            f"{len(a.by_concept)} and {len(b.by_concept)} concepts; expected the same, numbered alike. "
            "Restrict both to the concepts that they share."
        )
    if a.draws is not None and b.draws is not None and len(a.draws) != len(b.draws):
        raise ValueError(f"{len(a.draws)} and {len(b.draws)} draws; expected draws from the same Weights.")
    draws = None if a.draws is None or b.draws is None else a.draws - b.draws
    by_prompt, by_cell, pools = _subtract_prompts(a, b)
    both = a.per_concept is not None and b.per_concept is not None
    return Estimate(
        point=a.point - b.point,
        by_concept=_subtract(a.by_concept, b.by_concept),
        by_prompt=by_prompt,
        by_cell=by_cell,
        n_concepts=_fewest(a.n_concepts, b.n_concepts),
        n_prompts=_fewest(*(e.n_prompts for e in (a, b) if e.crossed_prompts or not by_prompt.size)),
        df_concept=_fewest(a.df_concept, b.df_concept),
        df_prompt=_fewest(a.df_prompt, b.df_prompt),
        df_cell=_fewest(a.df_cell, b.df_cell),
        crossed_prompts=a.crossed_prompts or b.crossed_prompts,
        pools=pools,
        draws=draws,
        per_concept=a.per_concept - b.per_concept if both else None,  # type: ignore[operator]
        bounds=None if a.bounds is None or b.bounds is None else (a.bounds[0] - b.bounds[1], a.bounds[1] - b.bounds[0]),
        scale="linear",
    )


def stack(estimates: Sequence[Estimate]) -> Estimate:
    """Join Estimates of one design along a new last axis: a curve over strengths, point [*sets, n_strengths].

    Raises ValueError where there are none, or where their designs (units, pools, draws) differ in size.
    """
    if not estimates:
        raise ValueError("Nothing to stack; expected one Estimate per strength.")
    first = estimates[0]
    for other in estimates[1:]:
        same_units = other.by_cell.shape == first.by_cell.shape and other.by_prompt.shape == first.by_prompt.shape
        if not same_units or other.by_concept.shape != first.by_concept.shape or other.pools != first.pools:
            raise ValueError(
                f"Units {list(first.by_cell.shape)} of {first.pools} and {list(other.by_cell.shape)} of {other.pools}; "
                "expected the same concepts and prompts at every strength."
            )

    def on_new_axis(name: str) -> Floats | None:
        arrays = [getattr(e, name) for e in estimates]
        return None if any(a is None for a in arrays) else np.stack(arrays, axis=-1)

    joined: dict[str, Any] = {name: on_new_axis(name) for name in _LEADING_AXES}
    fewest: dict[str, Any] = {n: min(getattr(e, n) for e in estimates) for n in _COUNTS}
    return replace(first, **joined, **fewest)


def join(estimates: Sequence[Estimate]) -> Estimate:
    """The sets of several Estimates of one metric on the same items, one after another along the first set axis.

    Raises ValueError where there are none.
    """
    if not estimates:
        raise ValueError("Nothing to join; expected one Estimate or more.")
    arrays = {name: [getattr(e, name) for e in estimates] for name in _LEADING_AXES}
    joined: dict[str, Any] = {
        name: None if parts[0] is None else np.concatenate(parts, axis=_LEADING_AXES[name])
        for name, parts in arrays.items()
    }
    return estimates[0] if len(estimates) == 1 else replace(estimates[0], **joined)


def contrast(estimate: Estimate, coefficients: ArrayLike) -> Estimate:
    """The weighted sum over the last set axis (an area, a slope, a mean over strengths), carried through exactly.

    `coefficients` is float [n_last]. Raises ValueError where the length differs from the last axis.
    """
    weights = np.asarray(coefficients, dtype=np.float64)
    if estimate.point.ndim == 0 or weights.shape != estimate.point.shape[-1:]:
        raise ValueError(
            f"Coefficients {list(weights.shape)} for sets {list(estimate.point.shape)}; expected one each."
        )
    bounds = None
    if estimate.bounds is not None:
        ends = np.multiply.outer(weights, np.asarray(estimate.bounds))
        bounds = (float(ends.min(axis=1).sum()), float(ends.max(axis=1).sum()))
    combined = _map(estimate, lambda a, lead: (a @ weights).astype(a.dtype))
    return replace(combined, bounds=bounds, scale="linear")


_LEADING_AXES = {
    "point": 0, "by_concept": 1, "by_prompt": 1, "by_cell": 2,
    "draws": 1, "per_concept": 1, "per_concept_without_prompt": 2,
}  # fmt: skip
_COUNTS = ("n_concepts", "n_prompts", "df_concept", "df_prompt", "df_cell")


def _map(estimate: Estimate, change: Callable[[Floats, int], Floats]) -> Estimate:
    arrays = {name: (getattr(estimate, name), lead) for name, lead in _LEADING_AXES.items()}
    changed: dict[str, Any] = {n: None if a is None else np.asarray(change(a, lead)) for n, (a, lead) in arrays.items()}
    return replace(estimate, **changed)


def _subtract(a: Floats, b: Floats) -> Floats:
    if not a.size or not b.size:
        return a if a.size else -b
    return a - b


def _subtract_prompts(a: Estimate, b: Estimate) -> tuple[Floats, Floats, tuple[str, ...]]:
    if a.pools == b.pools or not a.pools or not b.pools:
        if a.pools and b.pools and len(a.by_prompt) != len(b.by_prompt):
            raise ValueError(
                f"{len(a.by_prompt)} and {len(b.by_prompt)} prompts in pool {a.pools[0]!r}; expected the same pool. "
                "Pass n_prompts, or name the pools apart in Clusters(pool=...)."
            )
        return _subtract(a.by_prompt, b.by_prompt), _subtract(a.by_cell, b.by_cell), a.pools or b.pools
    if set(a.pools) & set(b.pools):
        raise ValueError(f"Prompt pools {a.pools} and {b.pools} overlap in part. Subtract Estimates of one pool first.")
    cells = [a.by_cell, -b.by_cell]
    if a.by_cell.shape[0] != b.by_cell.shape[0]:  # one of them is concept-free and has no cells
        cells = [c for c in cells if c.size]
    by_cell = np.concatenate(cells, axis=1) if cells else a.by_cell
    return np.concatenate([a.by_prompt, -b.by_prompt]), by_cell, a.pools + b.pools


def _fewest(*counts: int) -> int:
    return min((c for c in counts if c > 0), default=0)
