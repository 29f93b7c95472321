from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch
from nlabench.benchmark.memory import halve_on_overflow, ran_out_of_memory


def add(first: list[int], second: list[int]) -> list[int]:
    return first + second


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize("room", [3, 10, 11])
def test_whatever_fits_the_results_are_those_of_the_whole_in_order(
    room: int, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    batches: list[int] = []

    def double(numbers: Sequence[int]) -> list[int]:
        if len(numbers) > room:
            raise error("no room")
        batches.append(len(numbers))
        return [2 * number for number in numbers]

    with caplog.at_level(logging.WARNING):
        assert halve_on_overflow(double, range(11), add, "numbers") == list(range(0, 22, 2))
    assert max(batches) <= room
    assert bool(caplog.messages) == (room < 11)
    assert caplog.messages[:1] == ["memory did not hold 11 numbers at once; they are halved"][: len(caplog.messages)]


def test_what_does_not_fit_alone_is_an_error() -> None:
    def refuse(numbers: Sequence[int]) -> list[int]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        halve_on_overflow(refuse, range(4), add, "numbers")


def test_another_error_halves_nothing() -> None:
    tries: list[int] = []

    def fail(numbers: Sequence[int]) -> list[int]:
        tries.append(len(numbers))
        raise RuntimeError("a shape")

    with pytest.raises(RuntimeError, match="a shape"):
        halve_on_overflow(fail, range(4), add, "numbers")
    assert tries == [4]
    assert not ran_out_of_memory(RuntimeError("out of memory"))
