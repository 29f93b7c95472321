"""A verbalizer as a function. This one only says where a vector is largest: put your own reading in its place."""

from __future__ import annotations

import torch


def describe(vectors: list[torch.Tensor]) -> list[str]:
    """One text per vector, in the same order.

    Each vector is a float32 tensor [d_model] on the CPU: the residual stream at the run's site, at its raw scale.
    """
    stacked = torch.stack(vectors)  # [n_vectors, d_model]
    largest = stacked.abs().topk(3).indices  # a model of yours would be called here, on all of them at once
    return [f"a vector that is largest at coordinates {', '.join(map(str, row))}" for row in largest.tolist()]
