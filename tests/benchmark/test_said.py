"""What is said and what steers, by one rule, in four cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import GateRow, SaidRow
from nlabench.benchmark.said import cross, judge_sayings
from nlabench.benchmark.statistics import resample

CONCEPTS, PROMPTS, STRENGTHS = 12, 6, (0.3, 1.0)


def make_panel(said_from: dict[int, float], *, noise: float = 1.0, seed: int = 0) -> Panel:
    """Concepts that are said by three standard deviations from a strength on; every score has noise of one."""
    rows = []
    for p in range(PROMPTS):
        for r in STRENGTHS:
            at = {"injection": "upstream", "level": "grid", "kind": "function", "r": r, "prompt_number": p}
            rows += [{"arm": "steered", "concept_number": c, "concept": f"c{c}", **at} for c in range(CONCEPTS)]
            rows += [{"arm": "permuted", "concept_number": np.nan, "concept": None, **at} for _ in range(2)]
    items = pd.DataFrame(rows)
    scores = noise * np.random.default_rng(seed).normal(size=(1, len(items), CONCEPTS))
    # A prompt raises or lowers every score in it: content that the permuted items share.
    scores += 5 * np.sin(items["prompt_number"].to_numpy())[None, :, None]
    for row, item in items.iterrows():
        if item["arm"] == "steered" and item["r"] >= said_from.get(int(item["concept_number"]), np.inf):
            scores[0, row, int(item["concept_number"])] += 3.0
    names = [f"c{c}" for c in range(CONCEPTS)]
    return Panel(
        items,
        scores,
        [("mine", "scorer")],
        {},
        {"mine": "submitted"},
        names,
        names,
        {},
        resample(CONCEPTS, PROMPTS, 10),
    )


def said_at(rows: list[SaidRow], r: float) -> set[str]:
    return {row.concept for row in rows if row.said and row.r == r}


def test_what_is_said_is_found_from_its_strength_on_and_nothing_else() -> None:
    rows = judge_sayings(make_panel({0: 0.3, 1: 1.0, 2: 1.0}), "scorer", STRENGTHS)
    assert said_at(rows, 0.3) == {"c0"}
    assert said_at(rows, 1.0) == {"c0", "c1", "c2"}
    assert {row.n_prompts for row in rows} == {PROMPTS}


def test_where_nothing_is_said_the_false_discovery_rate_holds() -> None:
    with_any = sum(bool(said_at(judge_sayings(make_panel({}, seed=s), "scorer", STRENGTHS), 0.3)) for s in range(60))
    assert with_any <= 8  # 5% of 60, and chance


def test_texts_that_repeat_the_prompt_say_nothing_whatever_the_prompt_says() -> None:
    rows = judge_sayings(make_panel({}, noise=0.0), "scorer", STRENGTHS)
    assert {row.p for row in rows} == {1.0}


def test_strengths_without_upstream_items_and_other_scorers_are_left_out() -> None:
    panel = make_panel({})
    assert {row.r for row in judge_sayings(panel, "scorer", (0.1, 0.3))} == {0.3}
    assert judge_sayings(panel, "another", STRENGTHS) == []


@pytest.mark.parametrize("r", STRENGTHS)
def test_every_concept_is_in_one_of_the_four_cells(r: float) -> None:
    said = judge_sayings(make_panel({0: 0.3, 1: 1.0, 2: 1.0}), "scorer", STRENGTHS)
    gate = [
        GateRow(
            concept=f"c{c}", r=r, score=0, permuted=0, p=0, q=0, loss=1, distinct_2=1, steers=c in (0, 5), example=""
        )
        for c in range(CONCEPTS)
    ]
    cells = cross(gate, said, r)
    assert cells.steers_and_said == ["c0"]
    assert cells.steers_unsaid == ["c5"]
    assert cells.said_without_steering == ([] if r == 0.3 else ["c1", "c2"])
    everyone = [*cells.steers_and_said, *cells.steers_unsaid, *cells.said_without_steering, *cells.neither]
    assert sorted(everyone) == sorted(f"c{c}" for c in range(CONCEPTS))
