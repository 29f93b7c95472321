"""The on-disk store: content-addressed files that are whole or absent.

A key is the sha256 of everything that decides the content, with the version of the algorithm among it. A file is
written beside its place and renamed, so a killed process leaves nothing half-written; it carries the hash of its own
payload, so a damaged file is noticed, set aside and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy

from .errors import BadInput

Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]


def content_key(**parts: Any) -> str:
    """The key of a piece of work: a hash of its parts (anything that json can write)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def array_fingerprint(array: np.ndarray[Any, np.dtype[Any]]) -> str:
    """A hash of an array's dtype, shape and bytes."""
    found = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    found.update(
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    )  # not a copy: all vectors of a run are hashed
    return found.hexdigest()[:32]


@dataclass(frozen=True)
class Payload:
    """What a piece of work leaves: named arrays, and a record that json can write."""

    arrays: Arrays
    record: Any = None


@dataclass(frozen=True)
class Store:
    """A folder of payloads by kind and key. Many processes may share it."""

    root: Path
    say: Callable[[str], None] = print

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}.safetensors"

    def has(self, kind: str, key: str) -> bool:
        """Whether a file is there (it is checked when it is read)."""
        return self.path(kind, key).exists()

    def get(self, kind: str, key: str) -> Payload | None:
        """The payload, or None when it is absent or damaged (a damaged file is removed, and that is said)."""
        path = self.path(kind, key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
            arrays = safetensors.numpy.load(content)
            payload = Payload(arrays, json.loads(header["record"]))
            if header["sha256"] == _digest(payload):
                return payload
        except Exception as error:  # every way in which bytes can be wrong means the same thing here
            self.say(f"cache file {path.name} cannot be read ({type(error).__name__}); computing it again")
        else:
            self.say(f"cache file {path.name} is damaged (its hash differs); computing it again")
        path.unlink(missing_ok=True)
        return None

    def put(self, kind: str, key: str, payload: Payload) -> None:
        """Write a payload atomically.

        Raises:
            BadInput: the disk is full or not writable.
        """
        path = self.path(kind, key)
        metadata = {"record": json.dumps(payload.record), "sha256": _digest(payload)}
        # safetensors writes a view (transposed, strided) in the order in which it lies in memory, not in its own.
        arrays = {name: np.asarray(array, order="C") for name, array in payload.arrays.items()}
        content = safetensors.numpy.save(arrays, metadata)
        write_atomically(path, content)


def _digest(payload: Payload) -> str:
    parts = {name: array_fingerprint(array) for name, array in sorted(payload.arrays.items())}
    record = json.loads(json.dumps(payload.record))  # as it is read back: json turns a number that is a key into text
    return hashlib.sha256(json.dumps([parts, record], sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is whole or absent, whatever happens meanwhile.

    Raises:
        BadInput: the disk is full or the folder is not writable; nothing that was there is lost.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, f"{len(data):,} bytes were to go there. ") as file:
        file.write(data)


@contextmanager
def replacing(path: Path, size: str = "") -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` once it is whole, and leaves nothing where it is not.

    size: what is known of how much is written, for the error.

    Raises:
        BadInput: the disk is full or the folder is not writable; nothing that was there is lost.
    """
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        scratch = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except OSError as error:
        raise BadInput(
            f"{path} could not be written: {error.strerror or error}. {size}Make room or choose another folder "
            "(--out, or $NLABENCH_CACHE for the cache) and run the same command again: finished work is kept."
        ) from error
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def merge_arrays(parts: list[Mapping[str, Any]]) -> Arrays:
    """Concatenate arrays of the same names along their first axis."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
