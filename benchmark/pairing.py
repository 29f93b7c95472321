"""Two runs as two verbalizers of one panel, so that the tasks' own code gives what paired differences are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import BadInput
from .large_arrays import allocate, take
from .records import EstimatedMetric, MetricPair, MetricRow, keep_estimates
from .rescoring import find_tasks, rebuild_panels, score_recorded
from .stored_run import StoredRun
from .transcript import OF_VECTORS, Measured

#: What the two are called in the panel.
BASELINE, CANDIDATE = "baseline", "candidate"

#: How far the matched strengths of one item may lie apart. They are solved for in float32, and an item's id holds their
#: six decimals: another processor rounds the last one otherwise, and the same item then has another id.
SAME_STRENGTH = 1e-4

#: What says which item it is, beside r.
_DESIGN = ("arm", "injection", "level", "concept", "prompt", "position", "kind", "word", "draw", "pair")

#: Intervals of paired differences rest on units that are left out, not on draws; a few keep the tasks going.
_RESAMPLES = 50


def pair_metrics(
    baseline: StoredRun,
    candidate: StoredRun,
    verbalizers: tuple[str, str],
    tasks: Sequence[str],
    scorers: Sequence[str],
) -> list[MetricPair]:
    """Every metric of some tasks and scorers that a paired difference can be made of, on the items of both runs.

    verbalizers: whose, in the baseline and in the candidate. Left out are numbers without an Estimate of their own:
    those of one concept, r50, and places between floor and ceiling. What outliers are left out of either is left out.

    Raises:
        BadInput: the runs have other items, or a task cannot be scored again (see `rescoring`).
    """
    both = _stack(baseline, candidate, verbalizers, scorers)
    with keep_estimates() as kept:
        rows = score_recorded(both, find_tasks(baseline.result, tasks), rebuild_panels(both))
    values = {(_key(row), row.verbalizer): row.value for row in rows}
    found: dict[tuple[Any, ...], dict[str, EstimatedMetric]] = {}
    for metric in kept:
        key, name = _key(metric.row), metric.row.verbalizer
        value = values.get((key, name))
        # The interval of a place is shifted once it is made: it is not that of the Estimate's own value.
        if value is not None and abs(value - float(metric.estimate.point)) <= 1e-9:
            found.setdefault(key, {})[name] = metric
    return [MetricPair(two[BASELINE], two[CANDIDATE]) for two in found.values() if {BASELINE, CANDIDATE} <= two.keys()]


def match_items(baseline: StoredRun, candidate: StoredRun) -> NDArray[np.int64]:
    """The candidate's row number of each item of the baseline.

    Items are the same by their id, or else by all that they were made of (see `SAME_STRENGTH`).

    Raises:
        BadInput: an item of one is not in the other.
    """
    numbers = {item: row for row, item in enumerate(candidate.labels["item_id"])}
    matched = np.array([numbers.get(item, -1) for item in baseline.labels["item_id"]], dtype=np.int64)
    lone, others = np.flatnonzero(matched < 0), np.setdiff1d(np.arange(len(candidate.labels)), matched)
    by_design = _group_by_design(candidate.labels, others)
    for design, rows in _group_by_design(baseline.labels, lone).items():
        mates = by_design.pop(design, [])
        for row, mate in zip(rows, mates, strict=False):
            if abs(baseline.labels["r"].iloc[row] - candidate.labels["r"].iloc[mate]) <= SAME_STRENGTH:
                matched[row] = mate
    missing, foreign = np.flatnonzero(matched < 0), np.setdiff1d(np.arange(len(candidate.labels)), matched)
    if len(missing) or len(foreign):
        where, item = (
            ("baseline", baseline.labels.iloc[missing[0]])
            if len(missing)
            else ("candidate", candidate.labels.iloc[foreign[0]])
        )
        raise BadInput(
            f"The runs do not have the same items: {len(missing)} of the baseline's are not in the candidate and "
            f"{len(foreign)} the other way round, such as {item['item_id']} of the {where} ({item['arm']}, "
            f"{item['prompt']}, r {item['r']:g}). Runs are compared item by item; run the candidate with the "
            "baseline's suite, pack, directions and version of nlabench."
        )
    return matched


def _group_by_design(labels: pd.DataFrame, rows: NDArray[np.int64]) -> dict[tuple[str, ...], list[int]]:
    """Row numbers by what the items are made of, those of one group by rising r."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in sorted(rows.tolist(), key=lambda row: float(labels["r"].iloc[row])):
        item = labels.iloc[row]
        groups.setdefault(tuple(str(item[column]) for column in _DESIGN), []).append(row)
    return groups


@dataclass(frozen=True)
class _Half:
    """One verbalizer of one run, under the name that it has in the panel, its items in the panel's order."""

    run: StoredRun
    verbalizer: str
    name: str
    order: NDArray[np.int64]

    def texts(self, question: str) -> dict[str, list[str]]:
        said = self.run.texts.get(question, {}).get(self.verbalizer)
        return {} if said is None else {self.name: [said[row] for row in self.order]}

    def scores(self, question: str, scorers: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        table = self.run.scores.get(question, {}).get(self.verbalizer)
        numbers = [[scorer.name for scorer in self.run.result.scorers].index(name) for name in scorers]
        if table is None:
            return {}
        chosen = allocate((len(numbers), len(self.order), table.shape[2]))
        for number, out in zip(numbers, chosen, strict=True):
            take(table[number], self.order, out)
        return {self.name: chosen}

    def measured(self, task: str) -> dict[str, dict[str, NDArray[np.float64]]]:
        columns = self.run.measured.get(task, {}).get(self.verbalizer)
        return {} if columns is None else {self.name: {c: take(v, self.order) for c, v in columns.items()}}


def _stack(
    baseline: StoredRun, candidate: StoredRun, verbalizers: tuple[str, str], scorers: Sequence[str]
) -> StoredRun:
    """A run of two verbalizers: the baseline's, and the candidate's in the baseline's order of items."""
    order = match_items(baseline, candidate)
    halves = (
        _Half(baseline, verbalizers[0], BASELINE, np.arange(len(order))),
        _Half(candidate, verbalizers[1], CANDIDATE, order),
    )
    result, record = baseline.result, baseline.result.verbalizers[verbalizers[0]]
    under_test = record.model_copy(update={"card": {**record.card, "role": "submitted"}})
    by_name = {scorer.name: scorer for scorer in result.scorers}
    outlier = baseline.labels["outlier"].to_numpy() | candidate.labels["outlier"].to_numpy()[order]
    questions = list(dict.fromkeys([*baseline.texts, *candidate.texts]))
    measured: dict[str, Measured] = {
        task: {
            **{name: columns for name, columns in by_verbalizer.items() if name == OF_VECTORS},
            **halves[0].measured(task),
            **halves[1].measured(task),
        }
        for task, by_verbalizer in baseline.measured.items()
    }
    return replace(
        baseline,
        result=result.model_copy(
            update={
                "verbalizers": {half.name: under_test for half in halves},
                "scorers": [by_name[name] for name in scorers],
                "provenance": result.provenance.model_copy(update={"resamples": _RESAMPLES}),
            }
        ),
        labels=baseline.labels.assign(outlier=outlier),
        texts={question: halves[0].texts(question) | halves[1].texts(question) for question in questions},
        scores={
            question: halves[0].scores(question, scorers) | halves[1].scores(question, scorers)
            for question in questions
        },
        measured=measured,
    )


def _key(row: MetricRow) -> tuple[Any, ...]:
    return (
        row.task, row.metric, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group, row.versus,
    )  # fmt: skip
