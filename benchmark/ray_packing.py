"""How a chunk's work travels: a small pickle that refers to what many chunks share, each of which travels once.

A subject that `load_subject` loaded does not travel at all: whoever unpacks it loads the same weights from the same
place, and checks that they are the same.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from ray.cloudpickle import CloudPickler
from torch import Tensor, nn

from .errors import BadInput
from .loading import load_subject
from .study import Readings, Study
from .subject import Prefix, Recipe, Subject

#: An object with a card and one of these is a verbalizer, which may hold anything: a model, what a user closed over.
_HOLDERS = ("verbalize", "answer", "read", "detect")

#: Bytes. torch allocates at multiples of it; a tensor that was mapped from a file lies anywhere.
_ALIGNMENT = 64

_SHARED = (Subject, Study, Readings, Prefix, nn.Module)


class Packer:
    """State: the shared objects so far, and where each lies.

    put: stores a pickle for all workers and returns the reference to it.
    """

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self._keys: dict[int, str] = {}
        self._needs: dict[str, list[str]] = {}
        self._alive: list[Any] = []  # an object that is gone would leave its id to another one
        self.references: dict[str, Any] = {}

    def pack(self, work: Callable[[], Any]) -> tuple[bytes, list[str]]:
        """The pickle of a function, and the keys of all that it refers to, each after those that it refers to itself.

        Raises:
            Exception: whatever pickle raises for what cannot be pickled (a lock, an open file).
        """
        return self._pickle(work)

    def _pickle(self, root: Any) -> tuple[bytes, list[str]]:
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, root, self._share)
        pickler.dump(root)  # type: ignore[no-untyped-call]
        keys = dict.fromkeys(key for named in pickler.named for key in (*self._needs[named], named))
        return buffer.getvalue(), list(keys)

    def _share(self, thing: Any) -> str | None:
        key = self._keys.get(id(thing))
        if key is None:
            key = self._keys[id(thing)] = f"{type(thing).__name__}-{len(self._keys)}"
            self._alive.append(thing)
            try:
                pickled, needs = self._pickle(thing)
            except BaseException:
                del self._keys[id(thing)]
                raise
            self._needs[key] = needs
            self.references[key] = self._put(pickled)
        return key if key in self.references else None  # None inside itself: it is then written where it stands


class _Pickler(CloudPickler):
    def __init__(self, file: io.BytesIO, root: Any, share: Callable[[Any], str | None]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)  # type: ignore[no-untyped-call]
        self._root, self._share = root, share
        self.named: dict[str, None] = {}

    def persistent_id(self, thing: Any) -> str | None:
        # A model's parts stay with it: who holds it knows them as parts of one whole.
        inside = isinstance(thing, nn.Module) and isinstance(self._root, Subject | nn.Module)
        if thing is self._root or inside or not _is_shared(thing):
            return None
        key = self._share(thing)
        if key is not None:
            self.named[key] = None
        return key

    def reducer_override(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is Tensor:
            return _restore_tensor, (*_tensor_bytes(thing), thing.device.type)
        if kind is Subject and thing.recipe is not None:
            return _load_again, (thing.recipe, thing.name, thing.fingerprint)
        if kind is functools._lru_cache_wrapper and not _can_be_imported(thing):
            return _restore_cached, (thing.__wrapped__, thing.cache_parameters())
        return super().reducer_override(thing)  # type: ignore[no-untyped-call]


def _is_shared(thing: Any) -> bool:
    kind = type(thing)
    if kind is functools._lru_cache_wrapper:
        return not _can_be_imported(thing)
    if kind is type or isinstance(thing, _SHARED):
        return kind is not type
    carded = hasattr(kind, "card") or "card" in getattr(thing, "__dict__", ())
    # A verbalizer, or a reconstructor (which needs no card).
    return hasattr(kind, "reconstruct") or (carded and any(hasattr(kind, name) for name in _HOLDERS))


def _can_be_imported(thing: Any) -> bool:
    return getattr(sys.modules.get(thing.__module__), thing.__qualname__, None) is thing


def _tensor_bytes(tensor: Tensor) -> tuple[bytes, torch.dtype, tuple[int, ...], int]:
    # A row of a large tensor must not bring the whole of it along, which is how torch pickles views.
    plain = tensor.detach().cpu().contiguous()
    offset = plain.data_ptr() % _ALIGNMENT
    return plain.flatten().view(torch.uint8).numpy().tobytes(), tensor.dtype, tuple(tensor.shape), offset


def _restore_tensor(content: bytes, dtype: torch.dtype, shape: tuple[int, ...], offset: int, device: str) -> Tensor:
    if not content:
        return torch.empty(shape, dtype=dtype, device=device)
    # Aligned as it was: how weights lie in memory decides in which order a product of one row is summed.
    start = offset if offset % dtype.itemsize == 0 else 0
    room = torch.empty(start + len(content), dtype=torch.uint8)[start:]
    room.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return room.view(dtype).reshape(shape).to(device)


def _restore_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _load_again(recipe: Recipe, name: str, fingerprint: str) -> Subject:
    subject = load_subject(
        recipe.spec, dtype=recipe.dtype, device=recipe.device, trust_remote_code=recipe.trust_remote_code,
        device_map=recipe.device_map, quantize=recipe.quantize,
    )  # fmt: skip
    if subject.recipe is None or subject.recipe.fingerprint != recipe.fingerprint:
        raise BadInput(
            f"A worker loaded {recipe.spec!r} and found other weights than the run has (fingerprint "
            f"{subject.fingerprint}, expected {recipe.fingerprint}). Give every machine the same files: a folder that "
            "they share, or a hub id with its revision (id@revision)."
        )
    return replace(subject, name=name, fingerprint=fingerprint)
