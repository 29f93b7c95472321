"""Matched evidence: the relative strength at which a steered activation holds as much of a concept as a natural one.

Evidence is the mean cosine with the concept's direction v̂, less the neutral mean. It is estimated on *probe* texts and
*reference* prompts, so that no item of the run takes part in choosing its own strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .steering import add_at_readout


@dataclass(frozen=True)
class MatchedEvidence:
    """Where steered meets natural for one concept, one injection and one kind of position.

    r: the matched strength; nan when the natural evidence is not positive or the grid ends below it.
    natural: the natural evidence (a difference of mean cosines). reason: why r is nan, else "".
    """

    concept: str
    r: float
    natural: float
    reason: str


def evidence(states: Tensor, direction: Tensor) -> Tensor:
    """The cosine of states [..., d_model] with a unit direction [d_model]."""
    cosine: Tensor = (states @ direction) / states.norm(dim=-1)
    return cosine


def match_at_readout(
    concept: str, natural: Tensor, neutral: Tensor, direction: Tensor, r_max: float
) -> MatchedEvidence:
    """Solve mean cos(h + r‖h‖v̂, v̂) - mean cos(h, v̂) = natural evidence for r, by bisection (it grows with r).

    natural: probe texts' states [n, d_model]; neutral: reference prompts' states [m, d_model].
    """
    wanted = float(evidence(natural, direction).mean() - evidence(neutral, direction).mean())
    rest = float(evidence(neutral, direction).mean())

    def gain(r: float) -> float:
        return float(evidence(add_at_readout(neutral, direction.expand_as(neutral), r), direction).mean()) - rest

    return _match(concept, wanted, gain, r_max)


def match_on_grid(
    concept: str, natural: Tensor, neutral: Tensor, direction: Tensor, grid: list[float], steered: Tensor
) -> MatchedEvidence:
    """As `match_at_readout`, on measured states: steered [n_strengths, n_prompts, d_model], whose first row is r = 0.

    Evidence between two strengths of the grid is interpolated, after a running maximum (it may dip where it saturates).
    """
    wanted = float(evidence(natural, direction).mean() - evidence(neutral, direction).mean())
    means = evidence(steered, direction).mean(-1)
    gains = torch.cummax(means - means[0], 0).values.tolist()

    def gain(r: float) -> float:
        above = next((i for i, g in enumerate(grid) if g >= r), len(grid) - 1)
        if above == 0:
            return float(gains[0])
        low, high = grid[above - 1], grid[above]
        return float(gains[above - 1] + (gains[above] - gains[above - 1]) * (r - low) / (high - low))

    return _match(concept, wanted, gain, grid[-1])


def _match(concept: str, wanted: float, gain: Callable[[float], float], r_max: float) -> MatchedEvidence:
    if wanted <= 0:
        return MatchedEvidence(concept, math.nan, wanted, "natural evidence is not positive")
    if gain(r_max) < wanted:
        return MatchedEvidence(concept, math.nan, wanted, f"matched strength leaves the grid (r > {r_max:g})")
    low, high = 0.0, r_max
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) < wanted else (low, middle)
    return MatchedEvidence(concept, high, wanted, "")
