"""Content and concept: what of a prompt is left in a text as a concept is moved into its activation."""

from __future__ import annotations

from typing import Any

from ..records import MetricRow, Result
from .cells import by_verbalizer, injections
from .shown import in_reading_order

METRICS = ("auroc", "auroc_lost", "auroc_gap")


def content_retention(result: Result) -> dict[str, Any] | None:
    """Per scorer of prompts and verbalizer, the retention of every arm by r; None where the task did not run."""
    by_scorer: dict[str, list[MetricRow]] = {}
    for row in result.metrics:
        if row.task == "content_retention" and row.metric in METRICS:
            by_scorer.setdefault(row.scorer, []).append(row)
    if not by_scorer:
        return None
    every = [row for rows in by_scorer.values() for row in rows]
    names = in_reading_order(result.verbalizers)
    return {
        "injections": injections(every),
        "prompts": max(row.n_prompts for row in every),
        "scorers": [
            {"scorer": scorer, "verbalizers": by_verbalizer(rows, names)} for scorer, rows in by_scorer.items()
        ],
    }
