"""What makes a scan over the vocabulary fast: attention on one shared prefix, and matrix products by oneDNN.

A candidate is a single token after a prefix that all candidates share. Its attention is one query over the prefix's
keys and its own key, so the prefix's cache is never copied: scores of the prefix for all candidates are one matrix
product, the own score joins them before the softmax. It is registered with transformers as an attention function of
its own, so whatever family calls attention through that interface can be scanned.

torch multiplies float32 matrices by MKL, which uses half the width of the vectors of some processors. oneDNN is part of
torch too and uses all of it: the same arithmetic in float32, twice as fast there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

from .subject import Prefix, Subject, shadow_forward

ATTENTION = "nlabench_shared_prefix"

_PREFIX: ContextVar[Prefix] = ContextVar("shared_prefix")


class _OwnTokenLayer(DynamicLayer):
    """A layer that says it holds the prefix, and hands over each candidate's own key and value only."""

    def __init__(self, length: int) -> None:
        DynamicLayer.__init__(self)
        self._length = length

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length + query_length, 0


@dataclass(frozen=True)
class SharedPrefix(Prefix):
    """A prefix that every row attends to without a copy of it. Only inside `attend_to_shared_prefix`."""

    def cache(self, batch: int, room: int, n_blocks: int) -> Cache:
        return Cache(layers=[_OwnTokenLayer(len(self.ids)) for _ in range(n_blocks)])


@contextlib.contextmanager
def attend_to_shared_prefix(subject: Subject, prefix: Prefix) -> Iterator[SharedPrefix]:
    """Inside, rows of one token each attend to `prefix` and to themselves. Restores the subject's own attention."""
    config: Any = subject.backbone.config
    usual = config._attn_implementation
    token = _PREFIX.set(prefix)
    config._attn_implementation = ATTENTION
    try:
        yield SharedPrefix(prefix.ids, prefix.keys, prefix.values)
    finally:
        config._attn_implementation = usual
        _PREFIX.reset(token)


def _attend(
    module: Any,
    query: Tensor,  # [b, n_heads, 1, d_key]
    key: Tensor,  # [b, n_key_heads, 1, d_key]
    value: Tensor,  # [b, n_key_heads, 1, d_value]
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of single tokens on the shared prefix and themselves -> [b, 1, n_heads, d_value]."""
    prefix = _PREFIX.get()
    keys, values = prefix.keys[module.layer_idx][0], prefix.values[module.layer_idx][0]  # [n_key_heads, n, d]
    n_rows, (n_keys, n, width) = len(query), keys.shape
    grouped = query.reshape(n_rows, n_keys, -1, width)  # query heads that share a key head stand together
    groups = grouped.shape[2]
    by_key = grouped.transpose(0, 1).reshape(n_keys, n_rows * groups, width)
    before = torch.bmm(by_key, keys.transpose(1, 2)).view(n_keys, n_rows, groups, n)
    own = (grouped * key).sum(-1).transpose(0, 1)[..., None]
    scores = torch.cat([before, own], dim=-1) * (width**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    seen = torch.bmm(weights[..., :n].reshape(n_keys, n_rows * groups, n), values)
    out = seen.view(n_keys, n_rows, groups, -1).transpose(0, 1) + weights[..., n:].transpose(0, 1) * value
    return out.reshape(n_rows, 1, n_keys * groups, -1), None


AttentionInterface.register(ATTENTION, _attend)


# -- matrix products -----------------------------------------------------------------------------------------------

Multiply = Callable[[Tensor], Tensor]


def pack_linears(subject: Subject, last_block: int, dtype: torch.dtype, batch: int) -> dict[nn.Linear, Multiply]:
    """Every linear map of blocks 0..last_block with its product in `dtype`, weights laid out for rows in `batch`es.

    Inputs and outputs keep the subject's dtype. Empty where there is nothing to gain: on an accelerator, where float32
    is served well already, or where this build of torch has no oneDNN.
    """
    modules = [m for block in subject.blocks[: last_block + 1] for m in block.modules()]
    # Weights that accelerate brings from elsewhere when they are needed cannot be laid out beforehand.
    linears = [m for m in modules if type(m) is nn.Linear and not m.weight.is_meta]
    mkldnn: Any = torch.backends.mkldnn  # oneDNN by its old name
    if subject.device.type == "cpu" and mkldnn.is_available():
        return {linear: _pack(linear, dtype, batch) for linear in linears}
    return {} if dtype == subject.dtype else {linear: _cast(linear, dtype) for linear in linears}


def _pack(linear: nn.Linear, dtype: torch.dtype, batch: int) -> Multiply:
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), batch)
    bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def multiply(inputs: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs.to(dtype), weight, bias, "none", [], "")
        return product.to(inputs.dtype)

    return multiply


def _cast(linear: nn.Linear, dtype: torch.dtype) -> Multiply:
    weight, bias = linear.weight.detach().to(dtype), None if linear.bias is None else linear.bias.detach().to(dtype)

    def multiply(inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs.to(dtype), weight, bias).to(inputs.dtype)

    return multiply


@contextlib.contextmanager
def multiply_by(packed: dict[nn.Linear, Multiply]) -> Iterator[None]:
    """Inside, these linear maps multiply as packed."""
    with shadow_forward(packed):
        yield
