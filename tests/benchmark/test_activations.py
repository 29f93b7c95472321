"""Facts about items and the vectors that a verbalizer sees."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, ItemSpec, Readout, check_vectors
from nlabench.benchmark.errors import BadInput

READOUT = Readout("french/natural/3", 7, "function", "the")


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "NaN or infinite"), (math.inf, "NaN or infinite"), (-math.inf, "NaN or infinite")]
)
def test_rows_that_are_not_finite_are_named(value: float, what: str) -> None:
    vectors = torch.ones(9, 4)
    vectors[[2, 5], 3] = value
    with pytest.raises(BadInput, match=rf"2 of 9 vectors from subject 'x' hold {what} values \(rows 2, 5\)"):
        check_vectors(vectors, "subject 'x'")


def test_rows_of_zeros_are_named_and_many_are_abridged() -> None:
    vectors = torch.ones(9, 4)
    vectors[1:8] = 0
    with pytest.raises(BadInput, match=r"7 of 9 vectors from a file hold only zeros \(rows 1, 2, 3, 4, 5, …\)"):
        check_vectors(vectors, "a file")


def test_a_small_vector_is_no_zero_vector() -> None:
    vectors = torch.zeros(3, 4)
    vectors[:, 1] = torch.tensor([1e-30, -1e-30, 1.0])
    assert check_vectors(vectors, "anywhere") is vectors
    assert len(check_vectors(torch.zeros(0, 4), "nowhere")) == 0


def test_an_items_id_tells_nothing_and_follows_the_label_and_the_seed() -> None:
    spec = ItemSpec("steered", READOUT, "readout", "french", 0.3)
    ids = {spec.item_id(0), spec.item_id(1), *(replace(spec, r=r).item_id(0) for r in (0.1, 0.30001))}
    assert len(ids) == 4
    assert spec.item_id(0) == replace(spec).item_id(0)
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids)


def test_a_verbalizer_sees_vectors_and_their_site_and_nothing_else() -> None:
    assert [field.name for field in fields(ActivationBatch)] == ["vectors", "site"]
