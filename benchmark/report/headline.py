"""Natural against steered at matched evidence: the data of the headline's plot and table."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..records import MetricRow, Result
from .shown import cell, first, in_reading_order

TASK = "concept_identification"

#: Where a comparison can be made, in the order in which it is offered, and what to call it.
ENDS = {
    "readout/function": "at the readout, function words (headline)",
    "readout/final": "at the readout, last token",
    "upstream/function": "upstream, function words",
}

#: What the headline is made of, by task: metrics of other tasks have the same names.
METRICS = {
    TASK: {"auroc_in_pairs", "auroc_gap", "place", "place_in_pairs"},
    "dose_response": {"r50"},
    "confabulation": {"false_claims_over_neutral"},
}


def headline(result: Result) -> dict[str, Any]:
    """Per end ("injection/kind") and scorer: one row per verbalizer, and how many pairs and concepts it stands on."""
    paired = [row for row in result.metrics if row.task == TASK and row.metric == "auroc_in_pairs"]
    present = {f"{row.injection}/{row.kind}" for row in paired}
    ends = [end for end in ENDS if end in present] or ["readout/function"]
    names, r = in_reading_order(result.verbalizers), usual_strength(result)
    # By score set first: a full run has tens of thousands of rows, and few of them are in the headline.
    by_set: dict[tuple[str, str], list[MetricRow]] = {}
    for row in result.metrics:
        if row.task in METRICS and row.metric in METRICS[row.task] and row.group is None:
            by_set.setdefault((row.verbalizer, row.scorer), []).append(row)
    return {
        "ends": [{"key": end, "title": ENDS[end]} for end in ends],
        "rows": {
            end: {
                scorer.name: [_row(name, by_set.get((name, scorer.name), []), end, r) for name in names]
                for scorer in result.scorers
            }
            for end in ends
        },
        "basis": {end: _basis(paired, end) | {"left_out": left_out(result, end)} for end in ends},
        "false_claims_r": r,
    }


def _row(name: str, own: list[MetricRow], end: str, r: float | None) -> dict[str, Any]:
    """One verbalizer's comparison at one end. own: its metric rows of one scorer; r: where false claims are shown."""
    injection, _, kind = end.partition("/")
    at = {"injection": injection, "level": "matched", "kind": kind}
    natural = _pick(own, metric="auroc_in_pairs", arm="natural", **at)
    steered = _pick(own, metric="auroc_in_pairs", arm="steered", **at)
    return {
        "verbalizer": name,
        "natural": cell(natural),
        "steered": cell(steered),
        "gap": cell(_pick(own, metric="auroc_gap", **at)),
        "place_natural": cell(_place(own, natural)),
        "place_steered": cell(_place(own, steered)),
        "r50": cell(_pick(own, metric="r50", injection=injection)),
        "false_claims": cell(_pick(own, metric="false_claims_over_neutral", arm="permuted", r=r)),
    }


def _pick(rows: list[MetricRow], **conditions: Any) -> MetricRow | None:
    return first([row for row in rows if all(getattr(row, key) == value for key, value in conditions.items())])


def _place(rows: list[MetricRow], of: MetricRow | None) -> MetricRow | None:
    """The place that belongs to an AUROC: of a cell's items, or of those in pairs."""
    if of is None:
        return None
    at = {
        "metric": of.metric.replace("auroc", "place"),
        "arm": of.arm,
        "injection": of.injection,
        "level": of.level,
        "kind": of.kind,
    }
    return _pick(rows, **at)


def left_out(result: Result, end: str) -> str:
    """The concepts that are not in the headline at one end, each with its reason; those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for concept in result.concepts:
        if reason := concept.excluded.get(end):
            by_reason.setdefault(reason, []).append(concept.name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


def _basis(paired: list[MetricRow], end: str) -> dict[str, Any]:
    row = first([row for row in paired if f"{row.injection}/{row.kind}" == end])
    return {"pairs": row.n_items, "concepts": row.n_concepts, "prompts": row.n_prompts} if row else {}


def usual_strength(result: Result) -> float | None:
    """The grid's strength that is nearest to the median matched one: where false claims are shown in the headline."""
    matched = [r for c in result.concepts if (r := c.matched_r.get("readout/function")) is not None]
    grid = {row.r for row in result.metrics if row.metric == "false_claims_over_neutral" and row.r is not None}
    if not matched or not grid:
        return min(grid, default=None)
    return min(grid, key=lambda r: (abs(r - median(matched)), r))
