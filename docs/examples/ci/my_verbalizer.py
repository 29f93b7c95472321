"""The verbalizer of this repository. Yours would load its weights here."""

from __future__ import annotations

import torch


def describe(vectors: list[torch.Tensor]) -> list[str]:
    """One text per vector: where it is largest."""
    largest = torch.stack(vectors).abs().topk(3).indices
    return [f"a vector that is largest at coordinates {', '.join(map(str, row))}" for row in largest.tolist()]
