"""Dose and response: how each verbalizer's texts, and the subject's behaviour, change with the relative strength."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..behaviour import FALSE_DISCOVERY_RATE, LEAST_DISTINCT_2, MOST_LOSS
from ..records import GateRow, MetricRow, Result
from .shown import cell, first, rounded

CURVE = "steered_against_permuted"


def dose_response(result: Result) -> dict[str, Any]:
    """Per injection: the strengths, and per scorer and verbalizer the curve, r50, monotonicity and area."""
    rows = [row for row in result.metrics if row.task == "dose_response" and row.group is None]
    # By cell first: scanning all rows for every verbalizer and strength takes seconds on a full suite.
    by_cell: dict[tuple[str, str, str], list[MetricRow]] = {}
    for row in rows:
        by_cell.setdefault((row.injection, row.scorer, row.verbalizer), []).append(row)
    return {
        injection: {
            "strengths": _strengths(rows, injection),
            "curves": {
                scorer.name: {
                    name: _curve(by_cell.get((injection, scorer.name, name), [])) for name in result.verbalizers
                }
                for scorer in result.scorers
            },
        }
        for injection in ("readout", "upstream")
        if _strengths(rows, injection)
    }


def gate_by_strength(result: Result) -> list[dict[str, Any]]:
    """Per strength of the behaviour gate: how many concepts steer, of how many, and the answers' mean loss."""
    found = []
    for r in sorted({row.r for row in result.gate}):
        here = [row for row in result.gate if row.r == r]
        losses = [row.loss for row in here if row.loss is not None]
        found.append(
            {
                "r": r,
                "steers": sum(row.steers for row in here),
                "of": len(here),
                "loss": rounded(sum(losses) / len(losses)) if losses else None,
                "losses": len(losses),
            }
        )
    return found


def failed_conditions(row: GateRow, bounds: Mapping[str, float]) -> list[str]:
    """Which of the gate's conditions a direction does not meet at one strength, in words. bounds: the record's."""
    rate = bounds.get("false_discovery_rate", FALSE_DISCOVERY_RATE)
    most_loss = bounds.get("most_loss", MOST_LOSS)
    failed = []
    if row.q > rate or row.score <= row.permuted:
        failed.append("no more than permuted directions do")
    if row.loss is None or row.loss > most_loss:
        failed.append("no loss was measured" if row.loss is None else f"loss over {most_loss:g}")
    if row.distinct_2 < bounds.get("least_distinct_2", LEAST_DISTINCT_2):
        failed.append("it repeats itself")
    return failed


def steering_strengths(gate: list[GateRow], concept: str) -> list[float]:
    """The strengths at which a concept's direction passed the gate."""
    return sorted(row.r for row in gate if row.concept == concept and row.steers)


def _strengths(rows: list[MetricRow], injection: str) -> list[float]:
    return sorted({row.r for row in rows if row.metric == CURVE and row.injection == injection and row.r is not None})


def _curve(rows: list[MetricRow]) -> dict[str, Any]:
    points = sorted((row for row in rows if row.metric == CURVE), key=lambda row: row.r or 0.0)
    return {"points": [cell(row) for row in points]} | {
        metric: cell(first([row for row in rows if row.metric == metric])) for metric in ("r50", "monotonicity", "area")
    }
