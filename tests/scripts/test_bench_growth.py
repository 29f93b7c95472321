"""The synthetic study is laid out as a run's, every stage does what it says, and slopes are slopes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_growth import Measured, find_exponent, measure_here
from growth.stages import STAGES, Given
from growth.synthetic import Plan, draw_labels, draw_scores, draw_texts, number_concepts, plan_study
from nlabench.benchmark.stored_run import LABELS

PLAN = Plan(concepts=6, prompts=8)


def test_study_is_the_smallest_of_its_concepts_with_so_many_items() -> None:
    for n in (1_000, 30_000):
        plan = plan_study(n, 16)
        assert plan.n_items >= n > Plan(16, plan.prompts - 1).n_items
    assert len(draw_labels(PLAN)) == PLAN.n_items


def test_labels_are_those_of_a_run() -> None:
    labels = draw_labels(PLAN)
    assert set(labels) == set(LABELS)
    assert set(labels["arm"]) == {"natural", "steered", "permuted", "random", "neutral"}
    assert labels["item_id"].is_monotonic_increasing
    assert labels["item_id"].is_unique
    natural = labels[labels["arm"] == "natural"]
    readouts = set(natural["prompt"] + "@" + natural["position"].astype(str))
    assert set(labels.loc[labels["level"] == "matched", "pair"].dropna()) == readouts
    assert draw_labels(PLAN).equals(labels)


def test_scores_are_of_the_items_concept_for_all_but_the_floor() -> None:
    labels = draw_labels(PLAN)
    scores, own = draw_scores(labels, 6, 2), number_concepts(labels)
    assert {name: table.shape for name, table in scores.items()} == dict.fromkeys(scores, (2, len(labels), 6))
    natural = np.flatnonzero(labels["arm"] == "natural")
    assert scores["probe-ceiling"][0, natural, own[natural]].mean() > 1
    assert not scores["constant"].any()
    assert len(set(draw_texts(labels)["synthetic"])) == len(labels)


def test_every_stage_but_the_scorers_does_its_part_of_one_run(tmp_path: Path) -> None:
    given = Given(PLAN, resamples=20, n_scorers=1, distinct=10, folder=tmp_path)
    notes = {stage: measure_here(stage, given).note for stage in STAGES if stage != "scoring"}
    assert notes["reading a run"] == f"{PLAN.n_items} items of 3 verbalizers"
    rows = json.loads((tmp_path / "dose_response.json").read_text())
    assert {row["verbalizer"] for row in rows} == {"synthetic", "probe-ceiling", "constant"}
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert "nothing here is a result about a verbalizer" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "site/v").iterdir())) == 1


def test_exponent_of_what_is_linear_is_one_and_of_what_is_quadratic_two() -> None:
    small, large = Measured(10, 1.0, cpu=1.0), Measured(100, 9.0, cpu=10.0)
    assert find_exponent(small, large, 10) == pytest.approx(1)
    assert find_exponent(small, Measured(100, 90.0, cpu=100.0), 10) == pytest.approx(2)
    assert find_exponent(None, large, 1) is None
    assert find_exponent(Measured(10, None), large, 10) is None
