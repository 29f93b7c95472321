"""Metric rows gathered by the cell of items that they are of: an arm, its injection, its level and its strength."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..records import MetricRow
from .shown import figure

#: The order in which a reader meets the arms: what nobody moved, what was moved, and noise.
ARMS = ("natural", "neutral", "steered", "permuted", "random", "graft", "graft_concept", "gaussian")
_ORDER = {arm: number for number, arm in enumerate(ARMS)}


def by_verbalizer(rows: Iterable[MetricRow], names: Iterable[str]) -> list[dict[str, Any]]:
    """The cells of every verbalizer that has rows, in the order of the names."""
    found: dict[str, list[MetricRow]] = {}
    for row in rows:
        found.setdefault(row.verbalizer, []).append(row)
    return [{"verbalizer": name, "cells": gather(found[name])} for name in names if name in found]


def gather(rows: Iterable[MetricRow]) -> list[dict[str, Any]]:
    """One entry per cell, in reading order: its fields, `figures` as {metric: {control: figure}} and `leads` alike.

    A figure of its own stands under the control "", one of a control ("fve.constant_text") under the control's name. A
    difference of two arms ("steered-natural") stands in the first one's cell.
    """
    cells: dict[tuple[str, str, str, float | None], dict[str, Any]] = {}
    for row in rows:
        arm = row.arm.partition("-")[0]
        key = (arm, row.injection, row.level, row.r)
        start = {"arm": arm, "injection": row.injection, "level": row.level, "r": row.r, "n": 0}
        here = cells.setdefault(key, {**start, "figures": {}, "leads": {}})
        metric, _, control = row.metric.partition(".")
        if row.arm == arm:
            here["n"] = max(here["n"], row.n_items)
        if row.versus is None:
            here["figures"].setdefault(metric, {})[control] = figure(row)
        else:
            here["leads"].setdefault(metric.removesuffix("_lead"), {})[row.versus] = figure(row)
    return [cells[key] for key in sorted(cells, key=_in_reading_order)]


def injections(rows: Iterable[MetricRow]) -> list[str]:
    """Where the items of the rows were moved, the readout first."""
    present = {row.injection for row in rows}
    return [injection for injection in ("readout", "upstream") if injection in present]


def _in_reading_order(key: tuple[str, str, str, float | None]) -> tuple[Any, ...]:
    arm, injection, level, r = key
    return _ORDER.get(arm, len(_ORDER)), arm, injection, level == "grid", level, -1.0 if r is None else r
