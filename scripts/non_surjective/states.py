"""Distances between streams of the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def token_distances(moved: Tensor, natural: Tensor) -> Tensor:
    """‖moved − natural‖₂ at every token [n_tokens]. moved, natural: [n_tokens, d_model]."""
    return (moved - natural).norm(dim=-1)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float:
    """The standard deviation over prompts (of the population, as the paper's error bars)."""
    middle = mean(values)
    return mean([(value - middle) ** 2 for value in values]) ** 0.5
