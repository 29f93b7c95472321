"""Two runs in one panel: which items are the same, and which metrics have a paired difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.pairing import match_items, pair_metrics
from nlabench.benchmark.records import MetricPair, read_result
from nlabench.benchmark.statistics import intervals, paired_difference
from nlabench.benchmark.stored_run import StoredRun, read_run

TASKS = ["concept_identification", "confabulation"]


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> StoredRun:
    texts = {"mine": say_planted(0.1), "other": say_planted(0.6, seed=1)}
    return read_run(write_planted_run(tmp_path_factory.mktemp("run"), texts))


def relabel(run: StoredRun, change: Callable[[pd.DataFrame], pd.DataFrame]) -> StoredRun:
    return replace(run, labels=change(run.labels.copy()))


def rename(rows: pd.Series, by: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Another last decimal of r, and with it another id."""

    def change(labels: pd.DataFrame) -> pd.DataFrame:
        labels.loc[rows, "r"] += by
        labels.loc[rows, "item_id"] = "f" + labels.loc[rows, "item_id"]
        return labels

    return change


def test_an_item_whose_strength_differs_in_the_last_decimal_is_the_same_item(stored: StoredRun) -> None:
    matched = stored.labels["level"] == "matched"
    other = relabel(stored, rename(matched, 1e-6))
    order = match_items(stored, other)
    assert order.tolist() == list(range(len(stored.labels)))
    with pytest.raises(BadInput, match=f"{matched.sum()} of the baseline's are not in the candidate"):
        match_items(stored, relabel(stored, rename(matched, 1e-3)))


def test_items_that_share_all_but_their_strength_are_matched_by_it(stored: StoredRun) -> None:
    """Two permuted items of one readout, beside two steered ones of different matched strengths."""

    def two(labels: pd.DataFrame) -> pd.DataFrame:
        rows = labels.index[labels["arm"] == "permuted"][:2]
        labels.loc[rows, ["prompt", "level"]] = ["p0", "matched"]
        labels.loc[rows, "r"] = [0.05, 0.08]
        return labels

    run = relabel(stored, two)
    swapped = run.labels.iloc[::-1].reset_index(drop=True)
    other = replace(run, labels=rename(swapped["level"] == "matched", -1e-6)(swapped))
    order = match_items(run, other)
    assert np.allclose(other.labels["r"].to_numpy()[order], run.labels["r"], atol=2e-6)
    assert len(set(order)) == len(order)


def key(pair: MetricPair) -> tuple[object, ...]:
    row = pair.baseline.row
    return row.task, row.metric, row.arm, row.injection, row.level, row.r


def test_pairs_hold_what_the_run_recorded_of_each_and_nothing_of_one_concept(stored: StoredRun) -> None:
    pairs = pair_metrics(stored, stored, ("mine", "other"), TASKS, ["words"])
    result = read_result(stored.file.with_name("result.json"))
    for pair in pairs:
        for metric, name in ((pair.baseline, "mine"), (pair.candidate, "other")):
            row = metric.row
            fields = {
                f: getattr(row, f) for f in ("task", "metric", "scorer", "arm", "injection", "level", "kind", "r")
            }
            recorded = result.one(**fields, verbalizer=name, group=None, versus=None)
            assert recorded is not None
            assert recorded.value == pytest.approx(float(metric.estimate.point), abs=1e-12)
            assert recorded.value == pytest.approx(row.value)
    assert {"auroc_in_pairs", "auroc_gap", "mrr", "false_claims"} <= {pair.baseline.row.metric for pair in pairs}
    assert not {"place", "place_in_pairs", "auroc_lead"} & {pair.baseline.row.metric for pair in pairs}


def test_the_difference_is_the_lead_that_a_run_of_both_records(stored: StoredRun) -> None:
    """Where a task itself pairs verbalizers of one run, pairing two runs gives its interval."""
    pairs = {key(pair): pair for pair in pair_metrics(stored, stored, ("mine", "other"), TASKS, ["words"])}
    pair = pairs["concept_identification", "auroc", "natural", "none", "grid", None]
    (found,) = intervals(paired_difference(pair.candidate.estimate, pair.baseline.estimate))
    lead = read_result(stored.file.with_name("result.json")).one(
        metric="auroc_lead", verbalizer="other", versus="mine", arm="natural"
    )
    assert lead is not None
    assert (found.estimate, found.low, found.high) == pytest.approx((lead.value, lead.low, lead.high))


def test_the_order_of_the_candidates_items_changes_nothing(stored: StoredRun) -> None:
    order = np.random.default_rng(0).permutation(len(stored.labels))
    shuffled = replace(
        stored,
        labels=stored.labels.iloc[order].reset_index(drop=True),
        texts={q: {n: [t[i] for i in order] for n, t in said.items()} for q, said in stored.texts.items()},
        scores={q: {n: s[:, order] for n, s in scores.items()} for q, scores in stored.scores.items()},
    )
    for pair in pair_metrics(stored, shuffled, ("mine", "mine"), TASKS, ["words"]):
        difference = paired_difference(pair.candidate.estimate, pair.baseline.estimate)
        assert float(difference.point) == 0
        assert not difference.by_concept.any()
        assert not difference.by_prompt.any()


def test_an_outlier_of_either_is_left_out_of_both(stored: StoredRun) -> None:
    def mark(labels: pd.DataFrame) -> pd.DataFrame:
        labels.loc[labels.index[labels["arm"] == "natural"][0], "outlier"] = True
        return labels

    n = {}
    for name, pair in (("none", (stored, stored)), ("one", (stored, relabel(stored, mark)))):
        pairs = {key(p): p for p in pair_metrics(*pair, ("mine", "mine"), TASKS, ["words"])}
        n[name] = pairs["concept_identification", "auroc", "natural", "none", "grid", None].baseline.row.n_items
    assert n["one"] == n["none"] - 1
