"""The contract's reconstruction metrics on vectors whose answer is known."""

from __future__ import annotations

import pytest
import torch
from nlabench.benchmark.nla.fidelity import fve_nrm, mse_nrm, normalize_vectors

GOLDS = torch.randn(400, 24, generator=torch.Generator().manual_seed(0)) + 3.0
MEAN = normalize_vectors(torch.randn(4000, 24, generator=torch.Generator().manual_seed(1)) + 3.0).mean(0)


def test_the_vector_itself_explains_everything_at_any_length() -> None:
    assert fve_nrm(7.5 * GOLDS, GOLDS, MEAN) == pytest.approx(1.0, abs=1e-6)


def test_the_mean_explains_next_to_nothing() -> None:
    # Not exactly nothing: as a prediction it is scaled to L2 = √d, as a mean it is not.
    assert abs(fve_nrm(MEAN.expand_as(GOLDS), GOLDS, MEAN)) < 0.15


def test_a_normalised_mean_would_inflate_it() -> None:
    guess = GOLDS + torch.randn(GOLDS.shape, generator=torch.Generator().manual_seed(2))
    assert fve_nrm(guess, GOLDS, normalize_vectors(MEAN[None])[0]) > fve_nrm(guess, GOLDS, MEAN)


def test_the_error_is_twice_one_minus_the_cosine_and_four_for_the_opposite() -> None:
    cosine = torch.nn.functional.cosine_similarity(GOLDS, GOLDS.roll(1, 0), dim=-1)
    torch.testing.assert_close(mse_nrm(GOLDS, GOLDS.roll(1, 0)), 2 * (1 - cosine))
    torch.testing.assert_close(mse_nrm(-GOLDS, GOLDS), torch.full((400,), 4.0))
