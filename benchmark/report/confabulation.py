"""What is claimed where nothing is there: false claims by arm and strength, and whether texts change at all."""

from __future__ import annotations

from typing import Any

from ..records import MetricRow, Result
from .shown import cell

METRICS = ("false_claims", "false_claims_over_neutral", "true_claims", "changed_texts")


def confabulation(result: Result) -> dict[str, Any]:
    """Per scorer and verbalizer: one entry per arm and strength, with every metric measured there."""
    cells: dict[tuple[str, str], list[MetricRow]] = {}
    for row in result.metrics:
        if row.task == "confabulation" and row.metric in METRICS and row.group is None:
            cells.setdefault((row.scorer, row.verbalizer), []).append(row)
    return {
        scorer.name: {
            # Whether a text changed needs no scorer: those rows carry the scorer "none".
            name: _by_arm(cells.get((scorer.name, name), []) + cells.get(("none", name), []))
            for name in result.verbalizers
        }
        for scorer in result.scorers
        if any(of == scorer.name for of, _ in cells)
    }


def _by_arm(rows: list[MetricRow]) -> list[dict[str, Any]]:
    order = ("natural", "neutral", "permuted", "random", "gaussian", "steered")
    arms: dict[tuple[str, float | None], dict[str, Any]] = {}
    for row in rows:
        here = arms.setdefault((row.arm, row.r), {"arm": row.arm, "r": row.r, "n": row.n_items})
        here[row.metric] = cell(row)
    return sorted(arms.values(), key=lambda a: (order.index(a["arm"]) if a["arm"] in order else 9, a["r"] or 0.0))
