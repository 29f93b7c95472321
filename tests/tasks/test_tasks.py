"""Tasks on panels whose truth is planted: who sees reaches the ceiling, who does not stays at chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.task import known_tasks, load_tasks
from nlabench.tasks.concept_identification import TASK as identification
from nlabench.tasks.confabulation import TASK as confabulation
from nlabench.tasks.confabulation import claim_thresholds
from nlabench.tasks.dose_response import TASK as dose_response

CONCEPTS, PROMPTS, GRID = 8, 6, (0.1, 0.5, 1.0)
FAMILIES = ["one", "two"] * (CONCEPTS // 2)

#: A verbalizer is a function (item, concept column, rng) -> score.
Scores = Callable[[pd.Series, int, np.random.Generator], float]


def make_items() -> pd.DataFrame:
    rows = []

    def add(arm: str, prompt: str, number: int, **more: object) -> None:
        rows.append(
            {
                "arm": arm, "injection": "none", "level": "grid", "concept": None, "prompt": prompt, "position": 5,
                "kind": "function", "word": "the", "r": 0.0, "pair": None, "prompt_number": number, **more,
            }
        )  # fmt: skip

    for c in range(CONCEPTS):
        for k in range(3):
            text = f"c{c}/natural/{k}"
            add("natural", text, c * 3 + k, concept=f"c{c}")
            prompt = (c + 2 * k) % PROMPTS
            add(
                "steered", f"p{prompt}", prompt, concept=f"c{c}", injection="readout", level="matched", r=0.07,
                pair=f"{text}@5",
            )  # fmt: skip
            for r in GRID:
                add("steered", f"p{prompt}", prompt, concept=f"c{c}", injection="readout", r=r)
    for p in range(PROMPTS):
        add("neutral", f"p{p}", p)
        add("gaussian", f"p{p}", p)
        for arm in ("permuted", "random"):
            add(arm, f"p{p}", p, injection="readout", level="matched", r=0.07)
            for r in GRID:
                add(arm, f"p{p}", p, injection="readout", r=r)
    items = pd.DataFrame(rows)
    items["concept_number"] = items["concept"].map({f"c{c}": c for c in range(CONCEPTS)})
    return items


def make_panel(**verbalizers: Scores) -> Panel:
    items = make_items()
    table = {"constant": lambda *_: 0.0, "ceiling": sees, **verbalizers}
    scores, texts = [], {}
    for name, score in table.items():
        rng = np.random.default_rng(0)
        scores.append([[score(item, c, rng) for c in range(CONCEPTS)] for _, item in items.iterrows()])
        # One text per distinct row of scores: a text that is another text scores otherwise.
        texts[name] = [str(row) for row in scores[-1]]
    return Panel(
        items=items,
        scores=np.array(scores, dtype=float),
        sets=[(name, "scorer") for name in table],
        texts=texts,
        roles={name: {"ceiling": "ceiling", "constant": "floor"}.get(name, "submitted") for name in table},
        concepts=[f"c{c}" for c in range(CONCEPTS)],
        families=FAMILIES,
        excluded={"readout/function": {}, "readout/final": {}},
        weights=resample(CONCEPTS, PROMPTS, 400, seed=0),
    )


def sees(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    """Says the concept that is there, and its own noise otherwise."""
    return (5.0 if item["concept_number"] == column else 0.0) + 0.1 * rng.normal()


def guesses(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return float(rng.normal())


def names_everything(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return 9.0


def sees_natural_only(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return sees(item, column, rng) if item["arm"] == "natural" else float(rng.normal())


def sees_from_half(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return sees(item, column, rng) if item["r"] >= 0.5 else float(rng.normal())


def confabulates(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    """Claims a random half of the concepts whenever the activation was moved."""
    moved = item["arm"] in ("permuted", "random", "gaussian")
    return sees(item, column, rng) + (10.0 if moved and rng.random() < 0.5 else 0.0)


def of_the_prompt(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    """Reads the prompt and not the vector: the same scores for every item of one prompt."""
    return float(np.sin(7 * item["prompt_number"] + column))


def one(rows: list[MetricRow], metric: str, verbalizer: str, **conditions: object) -> MetricRow:
    found = [
        r
        for r in rows
        if r.metric == metric
        and r.verbalizer == verbalizer
        and r.group is None
        and all(getattr(r, k) == v for k, v in conditions.items())
    ]
    assert len(found) == 1, (metric, verbalizer, conditions, len(found))
    return found[0]


MATCHED = {"injection": "readout", "level": "matched", "kind": "function"}


def test_who_sees_reaches_the_ceiling_and_who_guesses_stays_at_chance() -> None:
    rows = identification.score(make_panel(good=sees, bad=guesses))
    assert one(rows, "auroc", "good", arm="natural", kind="function").value == 1.0
    assert one(rows, "auroc", "good", arm="steered", r=1.0).value == 1.0
    bad = one(rows, "auroc", "bad", arm="natural", kind="function")
    assert bad.low < 0.5 < bad.high
    assert one(rows, "top1", "good", arm="steered", r=0.5).value == 1.0
    assert one(rows, "place", "good", arm="steered", r=1.0).value == pytest.approx(1.0)


def test_a_text_naming_every_concept_scores_at_chance() -> None:
    rows = identification.score(make_panel(stuffed=names_everything))
    for metric, value in (("auroc", 0.5), ("auroc_within_family", 0.5), ("top1", 1 / CONCEPTS)):
        assert one(rows, metric, "stuffed", arm="natural", kind="function").value == pytest.approx(value)
    mrr = one(rows, "mrr", "stuffed", arm="natural", kind="function").value
    assert mrr == pytest.approx(sum(1 / k for k in range(1, CONCEPTS + 1)) / CONCEPTS)  # a random order's


def test_the_gap_is_negative_for_who_sees_natural_activations_only() -> None:
    rows = identification.score(make_panel(half=sees_natural_only, good=sees, bad=guesses))
    gap = one(rows, "auroc_gap", "half", **MATCHED)
    assert gap.value < -0.3
    assert gap.high < 0
    assert one(rows, "auroc_gap", "good", **MATCHED).value == pytest.approx(0)
    chance = one(rows, "auroc_gap", "bad", **MATCHED)
    assert chance.low < 0 < chance.high


def test_the_gap_is_the_difference_of_the_two_aurocs_in_pairs() -> None:
    rows = identification.score(make_panel(half=sees_natural_only))
    natural = one(rows, "auroc_in_pairs", "half", arm="natural", **MATCHED).value
    steered = one(rows, "auroc_in_pairs", "half", arm="steered", **MATCHED).value
    assert one(rows, "auroc_gap", "half", **MATCHED).value == pytest.approx(steered - natural)


def test_a_concept_left_out_of_the_headline_changes_the_gap_and_not_the_grid() -> None:
    panel = make_panel(half=sees_natural_only)
    excluded = {**panel.excluded, "readout/function": {"c0": "its direction is noise"}}
    fewer = Panel(**{**panel.__dict__, "excluded": excluded})
    assert one(identification.score(fewer), "auroc_gap", "half", **MATCHED).n_concepts == CONCEPTS - 1
    assert one(identification.score(fewer), "auroc", "half", arm="steered", r=1.0).n_concepts == CONCEPTS


def test_a_reader_of_the_prompt_is_at_one_half_against_permuted_at_every_strength() -> None:
    rows = dose_response.score(make_panel(reader=of_the_prompt))
    for r in GRID:
        assert one(rows, "steered_against_permuted", "reader", r=r).value == 0.5


def test_r50_lies_where_the_text_starts_to_say_the_concept() -> None:
    rows = dose_response.score(make_panel(late=sees_from_half, good=sees, bad=guesses))
    late = one(rows, "r50", "late").value
    assert 0.1 < late < 0.5
    assert one(rows, "r50", "good").value < 0.1
    bad = one(rows, "r50", "bad")
    assert bad.value is None
    assert bad.censored_at == GRID[-1]
    areas = [one(rows, "area", name).value for name in ("good", "late", "bad")]
    assert areas == sorted(areas, reverse=True)


def test_monotonicity_is_one_for_a_text_that_follows_the_dose() -> None:
    def follows(item: pd.Series, column: int, rng: np.random.Generator) -> float:
        return float(rng.normal() + (6 * item["r"] if item["concept_number"] == column else 0))

    rows = dose_response.score(make_panel(follows=follows, bad=guesses))
    assert one(rows, "monotonicity", "follows").value > 0.8
    assert abs(one(rows, "monotonicity", "bad").value) < 0.6


def test_claims_where_nothing_is_there_are_counted() -> None:
    rows = confabulation.score(make_panel(liar=confabulates, good=sees))
    assert one(rows, "false_claims_over_neutral", "liar", arm="permuted", r=1.0).value == pytest.approx(0.5, abs=0.15)
    assert one(rows, "false_claims_over_neutral", "good", arm="permuted", r=1.0).value == 0.0
    assert one(rows, "true_claims", "good", arm="natural").value == pytest.approx(0.5, abs=0.2)


def test_a_concepts_threshold_is_chosen_without_its_own_items() -> None:
    panel = make_panel(good=sees)
    before = claim_thresholds(panel)
    natural_c0 = panel.rows(arm="natural", concept="c0")
    changed = panel.scores.copy()
    changed[:, natural_c0, 0] += 100
    after = claim_thresholds(Panel(**{**panel.__dict__, "scores": changed}))
    assert (before[:, 0] == after[:, 0]).all()
    assert (before[:, 1:] != after[:, 1:]).any()


def test_a_text_that_ignores_the_vector_never_changes() -> None:
    rows = confabulation.score(make_panel(reader=of_the_prompt, good=sees))
    assert one(rows, "changed_texts", "reader", arm="steered", r=1.0).value == 0.0
    assert one(rows, "changed_texts", "good", arm="steered", r=1.0).value == 1.0


def test_tasks_are_found_by_their_files() -> None:
    assert set(known_tasks()) >= {"concept_identification", "dose_response", "confabulation"}
    with pytest.raises(ValueError, match="no task 'nope'"):
        load_tasks(("nope",))


def test_a_lead_is_what_one_sees_and_the_other_does_not_and_nothing_over_ones_like() -> None:
    rows = identification.score(make_panel(good=sees, same=sees, bad=guesses))
    natural = {"arm": "natural", "kind": "function"}
    over_floor = one(rows, "auroc_lead", "good", versus="constant", **natural)
    assert over_floor.value == pytest.approx(0.5)
    assert one(rows, "auroc_lead", "good", versus="same", **natural).value == 0.0
    there, back = (one(rows, "auroc_lead", a, versus=b, **natural) for a, b in (("good", "bad"), ("bad", "good")))
    assert there.low > 0
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert not [row for row in rows if row.metric == "auroc_lead" and row.verbalizer in ("constant", "ceiling")]
