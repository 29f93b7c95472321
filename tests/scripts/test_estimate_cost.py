"""What a suite would cost on GPUs: arithmetic on known rates."""

from __future__ import annotations

import pytest
from estimate_cost import BANDWIDTH, FLOPS, ROWS, Shares, cost_of, measure_block, step_seconds
from nlabench.benchmark.planning import Plan, Stored
from nlabench.benchmark.subject import Subject

PLAN = Plan({"natural": 480}, 1000, 48, 480, Stored(), 0, 0, 0, 0)
PEAK = Shares(1.0, 1.0, 0.0)


def test_a_step_is_bound_by_the_weights_that_are_read_or_by_the_products() -> None:
    assert step_seconds(1e9, 2, 1, FLOPS, BANDWIDTH) == pytest.approx(2e9 / 4.8e12)
    assert step_seconds(1e9, 2, 10_000, FLOPS, BANDWIDTH) == pytest.approx(2e13 / 989e12)


def test_at_the_peaks_texts_take_their_steps_and_half_the_share_takes_twice_as_long() -> None:
    cost = cost_of(PLAN, 1e9, 16, 1, PEAK)
    assert cost is not None
    assert (cost.copies, cost.gpus, cost.in_4_bits) == (1, 1, False)
    assert cost.seconds["texts"] == pytest.approx(480 / ROWS * 120 * 2e9 / BANDWIDTH)
    slower = cost_of(PLAN, 1e9, 16, 1, Shares(1.0, 0.5, 0.0))
    assert slower is not None
    assert slower.seconds["texts"] == pytest.approx(2 * cost.seconds["texts"])
    beside = cost_of(PLAN, 1e9, 16, 1, Shares(1.0, 1.0, 1e-3))
    assert beside is not None
    assert beside.seconds["texts"] - cost.seconds["texts"] == pytest.approx(480 / ROWS * 120 * 16e-3)


def test_copies_share_the_work_and_a_split_copy_takes_its_gpus() -> None:
    one, eight = (cost_of(PLAN, 7e9, 32, n, PEAK) for n in (1, 8))
    assert one is not None
    assert eight is not None
    assert eight.copies == 8
    assert sum(one.seconds.values()) == pytest.approx(8 * sum(eight.seconds.values()))
    large, alone = cost_of(PLAN, 70e9, 80, 8, PEAK), cost_of(PLAN, 70e9, 80, 1, PEAK)
    assert large is not None
    assert alone is not None
    assert (large.copies, large.gpus, large.in_4_bits) == (2, 4, False)  # 411 GB of weights in bfloat16
    assert alone.in_4_bits
    assert cost_of(PLAN, 700e9, 80, 1, PEAK) is None


def test_what_a_block_costs_beside_its_arithmetic_is_measured(subject: Subject) -> None:
    assert 1e-5 < measure_block(subject, n_blocks=4, steps=4) < 0.5
