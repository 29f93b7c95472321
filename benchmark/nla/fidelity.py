"""How well vectors are reconstructed: the contract's metrics, which compare directions and no lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normalize_vectors(vectors: Tensor) -> Tensor:
    """Every vector [n, d] at L2 = √d, float32: the scale at which the contract compares. A zero vector stays zero."""
    directions: Tensor = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return directions * math.sqrt(vectors.shape[-1])


def mse_nrm(predicted: Tensor, golds: Tensor) -> Tensor:
    """Mean squared difference of two vectors at L2 = √d: 2(1 − cos), from 0 to 4. [n, d] and [n, d] -> [n]."""
    return (normalize_vectors(predicted) - normalize_vectors(golds)).square().mean(-1)


def spread_nrm(golds: Tensor, mean: Tensor) -> Tensor:
    """Mean squared difference of normalised golds [n, d] from a mean [d] -> [n]: what knowing nothing leaves over.

    mean: of normalised vectors, *not* normalised itself: a normalised mean makes the spread larger, and every share of
    it that is explained too (.94 in place of .73 on a released NLA). Take it from vectors that are not scored.
    """
    return (normalize_vectors(golds) - mean).square().mean(-1)


def fve_nrm(predicted: Tensor, golds: Tensor, mean: Tensor) -> float:
    """Fraction of variance explained: 1 − mean of `mse_nrm` / mean of `spread_nrm` (the contract's definition)."""
    return float(1 - mse_nrm(predicted, golds).mean() / spread_nrm(golds, mean).mean())
