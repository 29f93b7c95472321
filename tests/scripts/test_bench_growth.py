"""The synthetic study is laid out as a run's, every stage does what it says, and slopes are slopes."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bench_growth import Measured, find_exponent, measure_here
from growth.stages import STAGES, Given
from growth.synthetic import Plan, describe, draw_labels, draw_scores, draw_texts, number_concepts, plan_study
from nlabench.benchmark import item_table, large_arrays, recording
from nlabench.benchmark.item_table import LABELS
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.report import examples
from nlabench.benchmark.scored import assemble_panel
from nlabench.benchmark.task import load_tasks

NO_NUMBERS = {"value": None, "low": None, "high": None}
TASKS = ("concept_identification", "dose_response", "confabulation")
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


def make_panel(n_items: int, n_scorers: int) -> Panel:
    plan = plan_study(n_items, 16)
    labels = draw_labels(plan)
    names = [f"drawn-{number}" for number in range(n_scorers)]
    scores = draw_scores(labels, plan.concepts, n_scorers)
    return assemble_panel(labels, draw_texts(labels), scores, names, describe(plan, 50))


def test_metrics_of_scores_in_files_are_the_same_but_for_the_order_of_sums(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 1 << 14)
    monkeypatch.setenv("NLABENCH_CACHE", str(tmp_path))
    in_files = make_panel(1_500, 2)
    of_files = score(in_files)
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 1 << 30)
    in_memory = make_panel(1_500, 2)
    assert isinstance(in_files.scores.base, np.memmap)
    assert not isinstance(in_memory.scores.base, np.memmap)
    assert np.array_equal(in_files.scores, in_memory.scores)
    of_memory = score(in_memory)
    assert [row.model_copy(update=NO_NUMBERS) for row in of_memory] == [
        row.model_copy(update=NO_NUMBERS) for row in of_files
    ]
    for name in NO_NUMBERS:
        found, expected = (np.array([getattr(row, name) for row in rows], float) for rows in (of_files, of_memory))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def score(panel: Panel) -> list[MetricRow]:
    return [row for task in load_tasks(TASKS) for row in task.score(panel)]


@pytest.mark.parametrize("stage", ["panel", "writing a run", "reading a run"])
def test_memory_of_a_stage_does_not_grow_with_the_scores(
    stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Chunks as small beside this study as they are beside a large one.
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 1 << 18)
    for module in (item_table, recording, examples):
        monkeypatch.setattr(module, "ROWS_AT_A_TIME", 256)
    monkeypatch.setenv("NLABENCH_CACHE", str(tmp_path))
    plan, peaks = plan_study(2_000, 12), []
    for n_scorers in (1, 9):
        given = Given(plan, resamples=20, n_scorers=n_scorers, distinct=10, folder=tmp_path / str(n_scorers))
        given.folder.mkdir()
        if stage == "reading a run":
            STAGES["writing a run"](given)()
        peaks.append(trace_peak(STAGES[stage](given)))
    few, many = (3 * n_scorers * plan.n_items * plan.concepts * 8 for n_scorers in (1, 9))
    assert many - few > 4 << 20
    assert peaks[1] - peaks[0] < (many - few) / 10


def trace_peak(work: Callable[[], object]) -> int:
    """The most bytes that Python, numpy and Arrow hold beyond what they held before; pages of files are not in it."""
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
