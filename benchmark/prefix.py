"""First tokens that many rows share: their key-value cache, computed once, and a batch's cache that starts with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class Prefix:
    """Token ids that come first in every row, with their key-value cache, computed once.

    keys, values: per block, [1, n_heads, n_tokens, d_head]; blocks past `last_block` are absent.
    """

    ids: tuple[int, ...]
    keys: tuple[Tensor, ...] = field(repr=False)
    values: tuple[Tensor, ...] = field(repr=False)

    def cache(self, batch: int, room: int, n_blocks: int) -> Cache:
        """A cache for `batch` rows that starts with this prefix and has room for `room` tokens in all."""
        layers: list[Any] = [
            _PreallocatedLayer(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1), room)
            for k, v in zip(self.keys, self.values, strict=True)
        ]
        layers += [_PreallocatedLayer(room=room) for _ in range(n_blocks - len(layers))]
        return Cache(layers=layers)

    def on(self, devices: Sequence[torch.device]) -> Prefix:
        """This prefix with each block's part on that block's device; itself where it is there already."""
        if all(k.device == device for k, device in zip(self.keys, devices, strict=False)):
            return self
        moved = (tuple(t.to(d) for t, d in zip(part, devices, strict=False)) for part in (self.keys, self.values))
        return replace(self, keys=next(moved), values=next(moved))


class _PreallocatedLayer(DynamicLayer):
    """A key-value layer that writes in place: DynamicLayer copies the whole cache at every token."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None, room: int = 0) -> None:
        DynamicLayer.__init__(self)
        self._length = 0
        self._room = room
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.update(keys, values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, length, width = key_states.shape
        room = max(self._room, length)
        self._keys = key_states.new_empty(batch, heads, room, width)
        self._values = value_states.new_empty(batch, value_states.shape[1], room, value_states.shape[3])
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[-2]
        self._keys[:, :, self._length : end] = key_states
        self._values[:, :, self._length : end] = value_states
        self._length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._length

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            here = indices.to(self._keys.device)  # of a subject that is split, this block may be on another device
            self._keys, self._values = self._keys[here], self._values[here]
            self.keys, self.values = self._keys[:, :, : self._length], self._values[:, :, : self._length]
