"""Facts about matched evidence: steered at the matched strength holds what the natural activations hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlabench.benchmark.evidence import evidence, match_at_readout, match_on_grid
from nlabench.benchmark.steering import add_at_readout, random_directions
from torch import Tensor

D = 64
DIRECTION = random_directions(D, 1, seed=0)[0]


def states(n: int, lean: float, seed: int) -> Tensor:
    """n states of norms about 10 to 80, leaning by `lean` of their norm toward the direction."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, D, generator=generator) * (1 + 7 * torch.rand(n, 1, generator=generator)) * 1.3
    return add_at_readout(noise, DIRECTION.expand_as(noise), lean)


def mean_evidence(of: Tensor) -> float:
    return float(evidence(of, DIRECTION).mean())


def test_evidence_is_the_cosine_with_the_direction() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 0.0]])
    assert evidence(vectors, torch.tensor([1.0, 0.0])).tolist() == pytest.approx([0.6, 0.0, 1.0])
    assert torch.allclose(
        evidence(vectors * 100, torch.tensor([1.0, 0.0])), evidence(vectors, torch.tensor([1.0, 0.0]))
    )


@given(st.floats(0.02, 0.6), st.integers(0, 500))
def test_at_the_matched_strength_steered_holds_what_natural_holds(lean: float, seed: int) -> None:
    natural, neutral = states(40, lean, seed), states(60, 0.0, seed + 1000)
    matched = match_at_readout("c", natural, neutral, DIRECTION, 2.0)
    wanted = mean_evidence(natural) - mean_evidence(neutral)
    assert matched.natural == pytest.approx(wanted, abs=1e-6)
    if wanted <= 0:
        assert math.isnan(matched.r)
        return
    steered = add_at_readout(neutral, DIRECTION.expand_as(neutral), matched.r)
    assert mean_evidence(steered) - mean_evidence(neutral) == pytest.approx(wanted, abs=1e-5)
    assert 0 < matched.r <= 2
    assert (matched.concept, matched.reason) == ("c", "")


def test_states_that_were_steered_are_matched_at_their_own_strength() -> None:
    neutral = states(50, 0.0, 1)
    for r in (0.05, 0.3, 1.0):
        natural = add_at_readout(neutral, DIRECTION.expand_as(neutral), r)
        assert match_at_readout("c", natural, neutral, DIRECTION, 2.0).r == pytest.approx(r, abs=1e-4)


@given(st.floats(0.0, 0.6), st.integers(0, 500))
def test_natural_texts_without_evidence_are_not_matched(lean: float, seed: int) -> None:
    neutral = states(40, 0.0, seed)
    natural = add_at_readout(neutral, DIRECTION.expand_as(neutral), -lean)
    matched = match_at_readout("c", natural, neutral, DIRECTION, 2.0)
    assert math.isnan(matched.r)
    assert matched.reason == "natural evidence is not positive"
    assert matched.natural <= 0


def test_evidence_that_the_grid_does_not_reach_is_said() -> None:
    neutral = states(40, 0.0, 0)
    natural = add_at_readout(neutral, DIRECTION.expand_as(neutral), 0.9)
    matched = match_at_readout("c", natural, neutral, DIRECTION, 0.5)
    assert math.isnan(matched.r)
    assert matched.reason == "matched strength leaves the grid (r > 0.5)"
    assert matched.natural > 0
    grid = [0.0, 0.25, 0.5]
    steered = torch.stack([add_at_readout(neutral, DIRECTION.expand_as(neutral), r) for r in grid])
    assert match_on_grid("c", natural, neutral, DIRECTION, grid, steered).reason == matched.reason
    assert match_at_readout("c", natural, neutral, DIRECTION, 1.0).reason == ""


@given(st.floats(0.02, 0.7), st.integers(0, 500))
def test_the_grid_and_the_readout_agree_on_the_same_states(lean: float, seed: int) -> None:
    natural, neutral = states(40, lean, seed), states(60, 0.0, seed + 1000)
    grid = [i / 40 for i in range(61)]
    steered = torch.stack([add_at_readout(neutral, DIRECTION.expand_as(neutral), r) for r in grid])
    exact = match_at_readout("c", natural, neutral, DIRECTION, grid[-1])
    measured = match_on_grid("c", natural, neutral, DIRECTION, grid, steered)
    assert measured.reason == exact.reason
    assert measured.natural == exact.natural
    assert measured.r == pytest.approx(exact.r, abs=2e-3, nan_ok=True)


def test_on_the_grid_evidence_is_interpolated_between_the_measured_strengths() -> None:
    # Cosines 0, 0.6 and 0.8 at r = 0, 1 and 2: a natural cosine of 0.7 lies halfway between the last two.
    direction = torch.tensor([1.0, 0.0])
    neutral = torch.tensor([[0.0, 5.0]])
    steered = torch.tensor([[[0.0, 5.0]], [[3.0, 4.0]], [[4.0, 3.0]]])
    for cosine, r in ((0.3, 0.5), (0.6, 1.0), (0.7, 1.5), (0.8, 2.0)):
        natural = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]])
        assert match_on_grid("c", natural, neutral, direction, [0.0, 1.0, 2.0], steered).r == pytest.approx(r, abs=1e-4)


def test_a_dip_past_the_peak_does_not_hide_the_strength_before_it() -> None:
    direction = torch.tensor([1.0, 0.0])
    neutral = torch.tensor([[0.0, 5.0]])
    steered = torch.tensor([[[0.0, 5.0]], [[4.0, 3.0]], [[3.0, 4.0]]])  # cosines 0, 0.8, 0.6
    matched = match_on_grid("c", torch.tensor([[0.7, 0.714143]]), neutral, direction, [0.0, 1.0, 2.0], steered)
    assert matched.r == pytest.approx(0.875, abs=1e-3)


def test_the_neutral_states_own_evidence_is_taken_off_both_sides() -> None:
    # Neutral prompts that lean toward the direction raise nothing: natural ones that lean as much hold no evidence.
    neutral = states(400, 0.3, 0)
    same = match_at_readout("c", neutral.clone(), neutral, DIRECTION, 2.0)
    assert same.natural == pytest.approx(0, abs=1e-7)
    assert math.isnan(same.r)
