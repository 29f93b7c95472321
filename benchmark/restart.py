"""Upstream steering without running anything twice: the blocks before the injection run once per prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .subject import Prefix, Subject

#: Size of one restarted batch, in tokens (rows times prompt length). Batches are padded to it, so it is small.
TOKENS_PER_RESTART = 512


@torch.inference_mode()
def restart_upstream(
    subject: Subject, prefix: Prefix, ids: Sequence[int], shifts: Tensor, injection_layer: int, site_layer: int
) -> Tensor:
    """Add each shift after block `injection_layer`, at every token past the prefix, and read the last token's site.

    ids: the prompt up to and including its readout token. shifts: [n, d_model] (λ·v̂), float32.
    Returns [n, d_model], float32 on the CPU. A zero shift takes the same path as any other row.
    """
    tokens = torch.tensor([list(ids)], device=subject.device)
    once = subject.run(tokens, torch.ones_like(tokens), capture=[injection_layer], prefix=prefix)[injection_layer]
    rows = max(1, TOKENS_PER_RESTART // len(ids))
    read = []
    for batch in torch.split(shifts.to(once), rows):
        # A batch of another size can be multiplied by another kernel and differ in the last bit: every batch of a
        # prompt has the same number of rows, the spare ones thrown away, so a state does not depend on its company.
        padded = torch.cat([batch, batch.new_zeros(rows - len(batch), len(batch[0]))])
        states = once + padded[:, None]
        repeated = tokens.expand(len(padded), -1)
        streams = subject.run(
            repeated, torch.ones_like(repeated), capture=[site_layer], prefix=prefix, enter=(injection_layer, states)
        )
        read.append(streams[site_layer][: len(batch), -1].float().cpu())
    return torch.cat(read)
