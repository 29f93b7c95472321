"""Arrays that grow with a run's items: in memory while they are small, else in a file that the system pages in and out.

The scores of a run are a number per item, concept, scorer and verbalizer, by far the most of what it computes. In a
file they take no memory that others need: the system keeps what fits and writes the rest back. The file has no name and
goes with the process.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .assets import cache_folder
from .errors import NoRoom

#: Bytes of an array that is still held in memory. What is computed on larger ones goes in blocks of about this size.
LARGEST_IN_MEMORY = 2**26


def allocate(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """An array of zeros, to be filled part by part.

    A large one lies in a file in the cache's folder: the system's own folder for temporary files is memory on many
    machines.

    Raises:
        NoRoom: the disk has no room for it, or the folder cannot be written to.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes <= LARGEST_IN_MEMORY:
        return np.zeros(shape, dtype)
    folder = cache_folder() / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Room is taken at once: a write to a mapped file that finds the disk full kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
            return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)
    except OSError as error:
        raise NoRoom(
            f"{n_bytes / 2**30:.1f} GiB of scores do not fit in {folder}: {error.strerror or error}. Make room there, "
            "or name a folder on another disk in $NLABENCH_CACHE, and run again: finished work is kept."
        ) from error


def take(array: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Rows of an array along its first axis, in memory or in a file as their size demands; into `out` where given."""
    shape = (len(rows), *array.shape[1:])
    found = allocate(shape, array.dtype) if out is None else out
    for block in blocks(len(rows), array.itemsize * math.prod(shape[1:])):
        found[block] = array[rows[block]]
    return found


def blocks(n: int, row_bytes: int) -> Iterator[slice]:
    """Slices of n rows of so many bytes each, none larger than `LARGEST_IN_MEMORY` (but for a row that is)."""
    step = max(1, LARGEST_IN_MEMORY // max(1, row_bytes))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
