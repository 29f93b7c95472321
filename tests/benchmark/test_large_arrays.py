"""What does not fit in memory lies in a file, and is used like any other array."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nlabench.benchmark import large_arrays
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.large_arrays import allocate, blocks, take


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing above 16 KiB fits; returns the folder of what does not."""
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 1 << 14)
    monkeypatch.setenv("NLABENCH_CACHE", str(tmp_path))
    return tmp_path / "scratch"


def test_what_is_large_lies_in_a_file_without_a_name(small_memory: Path) -> None:
    small, large = allocate((2, 3)), allocate((100, 100), np.float32)
    assert small_memory.exists()
    assert list(small_memory.iterdir()) == []
    assert isinstance(large.base, np.memmap)
    assert not isinstance(small.base, np.memmap)
    for array in (small, large):
        assert not array.any()
        array[1, 2] = 7
        assert array.sum() == 7
    assert large.dtype == np.float32


def test_rows_are_taken_as_by_an_index(small_memory: Path) -> None:
    table = np.random.default_rng(0).normal(size=(500, 30))
    rows = np.random.default_rng(1).integers(0, 500, 700)
    assert np.array_equal(take(table, rows), table[rows])
    assert np.array_equal(take(table[:, 0], rows), table[rows, 0])
    assert take(table, rows[:0]).shape == (0, 30)
    out = np.empty((2, 700, 30))
    take(table, rows, out[1])
    assert np.array_equal(out[1], table[rows])


@given(st.integers(0, 10_000), st.integers(0, 1 << 28))
def test_blocks_are_all_rows_once_and_no_larger_than_fits(n: int, row_bytes: int) -> None:
    found = list(blocks(n, row_bytes))
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(n))
    assert all((b.stop - b.start) * row_bytes <= large_arrays.LARGEST_IN_MEMORY or b.stop - b.start == 1 for b in found)


def test_full_disk_is_said_before_anything_is_written(small_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BadInput, match=r"GiB of scores do not fit in .*scratch: No space left.*NLABENCH_CACHE"):
        allocate((1000, 1000))
