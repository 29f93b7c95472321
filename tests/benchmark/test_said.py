"""What is said and what steers, by one rule, in four cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import GateRow, SaidRow
from nlabench.benchmark.said import cross, judge_sayings
from nlabench.benchmark.statistics import resample

CONCEPTS, PROMPTS, DRAWS, STRENGTHS = 24, 8, 8, (0.3, 1.0)


def make_panel(
    said_from: dict[int, float], *, noise: float = 1.0, push: float = 0.0, gain: float = 4.0, seed: int = 0
) -> Panel:
    """Concepts that are said by `gain` standard deviations from a strength on; every score has noise of one.

    push: how far every direction, a concept's or a meaningless one, moves each column by itself, in all prompts alike.
    """
    rng = np.random.default_rng(seed)
    pushes = {(arm, k): push * rng.normal(size=CONCEPTS) for arm in ("steered", "permuted") for k in range(CONCEPTS)}
    rows = []
    for p in range(PROMPTS):
        for r in STRENGTHS:
            at = {"injection": "upstream", "level": "grid", "kind": "function", "r": r, "prompt_number": p}
            rows += [
                {"arm": "steered", "concept_number": c, "concept": f"c{c}", "draw": 0, **at} for c in range(CONCEPTS)
            ]
            rows += [
                {"arm": "permuted", "concept_number": np.nan, "concept": None, "draw": (2 * p + k) % DRAWS, **at}
                for k in range(2)
            ]
    items = pd.DataFrame(rows)
    scores = noise * rng.normal(size=(1, len(items), CONCEPTS))
    # A prompt raises or lowers every score in it: content that the permuted items share.
    scores += 5 * np.sin(items["prompt_number"].to_numpy())[None, :, None]
    for row, item in items.iterrows():
        direction = item["concept_number"] if item["arm"] == "steered" else item["draw"]
        scores[0, row] += pushes[item["arm"], int(direction)]
        if item["arm"] == "steered" and item["r"] >= said_from.get(int(item["concept_number"]), np.inf):
            scores[0, row, int(item["concept_number"])] += gain
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
    planted = {c: 0.3 if c < 6 else 1.0 for c in range(12)}
    rows = judge_sayings(make_panel(planted), "scorer", STRENGTHS)
    assert said_at(rows, 0.3) == {f"c{c}" for c in range(6)}
    assert said_at(rows, 1.0) == {f"c{c}" for c in range(12)}
    assert {row.n_prompts for row in rows} == {PROMPTS}


def test_where_nothing_is_said_the_false_discovery_rate_holds() -> None:
    with_any = sum(bool(said_at(judge_sayings(make_panel({}, seed=s), "scorer", STRENGTHS), 0.3)) for s in range(60))
    assert with_any <= 8  # 5% of 60, and chance


@pytest.mark.parametrize("push", [0.5, 3.0])
def test_a_direction_that_moves_texts_as_any_direction_does_is_not_said(push: float) -> None:
    """Pushes that hold in every prompt are no noise between prompts: with prompts as units, many would be said."""
    rows = [row for s in range(30) for row in judge_sayings(make_panel({}, push=push, seed=s), "scorer", STRENGTHS)]
    assert np.mean([row.p <= 0.05 for row in rows]) < 0.08
    assert np.mean([row.said for row in rows]) < 0.01


def test_what_is_said_beyond_what_any_direction_moves_is_found_all_the_same() -> None:
    planted = dict.fromkeys(range(12), 0.3)
    rows = judge_sayings(make_panel(planted, push=1.0, gain=8.0), "scorer", STRENGTHS)
    assert said_at(rows, 1.0) == {f"c{c}" for c in range(12)}


def test_texts_that_repeat_the_prompt_say_nothing_whatever_the_prompt_says() -> None:
    rows = judge_sayings(make_panel({}, noise=0.0), "scorer", STRENGTHS)
    assert {row.p for row in rows} == {1.0}


def test_strengths_without_upstream_items_and_other_scorers_are_left_out() -> None:
    panel = make_panel({})
    assert {row.r for row in judge_sayings(panel, "scorer", (0.1, 0.3))} == {0.3}
    assert judge_sayings(panel, "another", STRENGTHS) == []


@pytest.mark.parametrize("r", STRENGTHS)
def test_every_concept_is_in_one_of_the_four_cells(r: float) -> None:
    planted = {0: 0.3, 1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, 6: 1.0, 7: 1.0}
    said = judge_sayings(make_panel(planted), "scorer", STRENGTHS)
    gate = [
        GateRow(
            concept=f"c{c}", r=r, score=0, permuted=0, p=0, q=0, loss=1, distinct_2=1, steers=c in (0, 5), example=""
        )
        for c in range(CONCEPTS)
    ]
    cells = cross(gate, said, r)
    assert cells.steers_and_said == ["c0"]
    assert cells.steers_unsaid == ["c5"]
    assert cells.said_without_steering == ["c1", "c2", "c3", "c4"] + ([] if r == 0.3 else ["c6", "c7"])
    everyone = [*cells.steers_and_said, *cells.steers_unsaid, *cells.said_without_steering, *cells.neither]
    assert sorted(everyone) == sorted(f"c{c}" for c in range(CONCEPTS))
