"""The behaviour gate's verdicts, on answers whose scores are made up."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nlabench.benchmark import behaviour
from nlabench.benchmark.behaviour import exceeds, run_gate
from nlabench.benchmark.store import Payload
from numpy.typing import NDArray

CONCEPTS, DRAWS, REQUESTS, STRENGTHS = 12, 8, 6, (0.3, 1.0)


class Numbers:
    """Scores answers that are numbers of rows in a table [n_answers, n_concepts]."""

    name = fingerprint = "numbers"

    def __init__(self, table: NDArray[np.float64]) -> None:
        self.table = table

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return self.table[[int(text) for text in texts]]


def judge(monkeypatch: pytest.MonkeyPatch, *, push: float, gain: float = 0.0, loss: float = 1.0, seed: int = 0) -> Any:
    """The gate where every direction pushes every column by a number of its own, in all requests alike.

    gain: what the first three concepts' directions add to their own columns at the second strength.
    """
    rng = np.random.default_rng(seed)
    names = [f"c{c}" for c in range(CONCEPTS)]
    suite = SimpleNamespace(gate_requests=REQUESTS, gate_strengths=STRENGTHS, gate_permuted_draws=DRAWS)
    subject = SimpleNamespace(d_model=2)
    directions = {name: SimpleNamespace(vector=torch.zeros(2)) for name in names}
    study: Any = SimpleNamespace(
        suite=suite, subject=subject, pack=SimpleNamespace(names=names), upstream_directions=directions,
        permuted_upstream=torch.zeros(DRAWS, 2),
    )  # fmt: skip
    n_plan = (CONCEPTS + DRAWS) * len(STRENGTHS) + 1
    table = push * rng.normal(size=(n_plan, CONCEPTS)) + 0.2 * rng.normal(size=(REQUESTS, n_plan, CONCEPTS))
    for c in range(3):
        table[:, c * len(STRENGTHS) + 1, c] += gain
    payloads = [
        Payload(
            {"loss": np.full(n_plan, loss)}, {"texts": [str(q * n_plan + i) for i in range(n_plan)]}
        )
        for q in range(REQUESTS)
    ]  # fmt: skip
    monkeypatch.setattr(behaviour, "plan_gate", lambda _: [])
    engine: Any = SimpleNamespace(run=lambda *_: payloads)
    return run_gate(study, Numbers(table.reshape(-1, CONCEPTS)), engine)


def test_a_direction_that_moves_answers_as_any_direction_does_is_not_said_to_steer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pushes are alike in all requests: with requests as units, about half of the columns would rise for certain."""
    tables = [judge(monkeypatch, push=3.0, seed=s) for s in range(40)]
    p = np.concatenate([table["p"] for table in tables])
    assert 0.03 < (p <= 0.05).mean() < 0.07
    assert sum(table["steers"].any() for table in tables) <= 6  # 5% of 40, and chance


def test_what_goes_beyond_what_any_direction_does_steers_at_its_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    table = judge(monkeypatch, push=0.3, gain=6.0)
    steering = table[table["steers"]]
    assert set(zip(steering["concept"], steering["r"], strict=True)) == {(f"c{c}", 1.0) for c in range(3)}
    assert (table["q"] >= table["p"]).all()
    assert not judge(monkeypatch, push=0.3, gain=6.0, loss=behaviour.MOST_LOSS + 0.1)["steers"].any()


def test_p_is_that_of_one_more_draw_and_holds_where_nothing_varies() -> None:
    rng = np.random.default_rng(1)
    p = np.array([exceeds(draws[0], draws[1:]) for draws in rng.normal(2, 5, size=(4000, 9))])
    for level in (0.01, 0.05, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 4000))
    assert exceeds(1.0, np.full(8, 1.0)) == 1.0
    assert exceeds(1.1, np.full(8, 1.0)) == pytest.approx(1 / 9)  # a rank's, and never certain
    assert exceeds(0.9, np.full(8, 1.0)) == 1.0
