"""Privileged information: what a verbalizer's text says beyond what the words of the prompt give away."""

from __future__ import annotations

from typing import Any

from ..findings import Place, strongest_readers
from ..records import MetricRow, Result
from .cells import injections
from .shown import figure, in_reading_order, role_of


def privileged_information(result: Result) -> dict[str, Any] | None:
    """Per scorer and verbalizer, an entry per cell with the strongest reader of text there and the lead over it.

    None where the task did not run.
    """
    by_scorer: dict[str, list[MetricRow]] = {}
    for row in result.metrics:
        if row.task == "privileged_information":
            by_scorer.setdefault(row.scorer, []).append(row)
    if not by_scorer:
        return None
    return {
        "injections": injections(row for rows in by_scorer.values() for row in rows),
        "scorers": [{"scorer": scorer, **_of_scorer(result, rows)} for scorer, rows in by_scorer.items()],
    }


def _of_scorer(result: Result, rows: list[MetricRow]) -> dict[str, Any]:
    readers = {name for name, record in result.verbalizers.items() if role_of(record) == "reader"}
    strongest = strongest_readers(rows, readers)
    metrics = {"auroc_same_tokens": "auroc", "told_from_neutral": "told"}
    cells: dict[tuple[str, Place], dict[str, Any]] = {}
    for row in rows:
        arm, injection, r = place = _place(row)
        here = cells.setdefault((row.verbalizer, place), {"arm": arm, "injection": injection, "r": r, "n": row.n_items})
        if row.metric in metrics:
            here[metrics[row.metric]] = figure(row)
        elif row.metric == "information_over_text" and place in strongest and row.versus == strongest[place][0]:
            here["over"] = figure(row)
            here["strongest"] = strongest[place]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for (name, _), cell in cells.items():
        by_name.setdefault(name, []).append(cell)
    in_order = [name for name in in_reading_order(result.verbalizers) if name in by_name]
    return {
        "verbalizers": [{"verbalizer": name, "cells": by_name[name]} for name in in_order if name not in readers],
        "readers": [{"verbalizer": name, "cells": by_name[name]} for name in in_order if name in readers],
    }


def _place(row: MetricRow) -> Place:
    return row.arm, row.injection, row.r
