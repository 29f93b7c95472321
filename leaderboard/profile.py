"""What an entry's own page shows beside the board's columns: curves, concepts, families, and every whole figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import stats

from ..benchmark.records import MetricRow
from ..benchmark.report.shown import rounded
from .entries import Entry

IDENTIFICATION, CONTENT, DETECTION = "concept_identification", "content_retention", "off_manifold_detection"

#: Where a concept's own value is taken: at function words, all natural items, and steered ones at matched evidence.
ENDS: dict[str, dict[str, Any]] = {
    "natural": {"arm": "natural", "injection": "none", "level": "grid"},
    "steered": {"arm": "steered", "injection": "readout", "level": "matched"},
}


def dose_curve(entry: Entry) -> list[dict[str, Any]]:
    """AUROC of steered against permuted texts by injection and relative strength r."""
    rows = _own(entry, task="dose_response", metric="steered_against_permuted")
    rows = sorted((row for row in rows if row.r is not None), key=lambda row: (row.injection, row.r))
    return [{"injection": row.injection, "r": row.r, **_figure(row)} for row in rows]


def tradeoff_curve(entry: Entry) -> list[dict[str, Any]]:
    """By r at the readout: AUROC of the concept that was added, and of the prompt that it was added to."""
    at: dict[str, Any] = {
        "arm": "steered",
        "injection": "readout",
        "level": "grid",
        "kind": "function",
        "metric": "auroc",
    }
    concept, content = ({row.r: row for row in _own(entry, task=task, **at)} for task in (IDENTIFICATION, CONTENT))
    return [
        {"r": r, **_named(concept[r], "concept"), **_named(content[r], "content")}
        for r in sorted(r for r in concept if r is not None and r in content)
    ]


def whole_rows(entry: Entry) -> list[dict[str, Any]]:
    """Every figure of all concepts, by the headline scorer or by none; a detector's metric says which it is."""
    return [
        {
            "task": row.task,
            "metric": f"{row.metric} ({row.scorer})" if row.task == DETECTION else row.metric,
            **{name: getattr(row, name) for name in ("arm", "injection", "level", "kind", "r", "group", "versus")},
            **_figure(row),
            "n_items": row.n_items,
            "note": row.note,
        }
        for row in entry.result.metrics
        if row.verbalizer == entry.card.name
        and row.group is None
        and (row.task == DETECTION or row.scorer in (entry.result.headline_scorer, "none"))
    ]


def concept_values(entry: Entry) -> list[dict[str, Any]]:
    """Each concept's AUROC at both ends, in the pack's order. Points: one concept has no interval."""
    ends = {end: _by_concept(entry, end) for end in ENDS}
    return [
        {
            "name": concept.name, "title": concept.title, "family": concept.family,
            **{end: rounded(values.get(concept.name)) for end, values in ends.items()},
        }
        for concept in entry.result.concepts
    ]  # fmt: skip


def family_means(entry: Entry) -> dict[str, dict[str, dict[str, Any]]]:
    """Each family's mean AUROC over its concepts, with a t interval between concepts; n: how many.

    Prompts are no unit of their own here: each concept's value stands on its own few, so that their part is in what
    concepts differ by. Over all concepts that interval is as wide as the two-way one, give or take a quarter.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for end in ENDS:
        values = _by_concept(entry, end)
        for family in dict.fromkeys(concept.family for concept in entry.result.concepts):
            of_family = [c.name for c in entry.result.concepts if c.family == family and c.name in values]
            if of_family:
                found.setdefault(family, {})[end] = _mean(values[name] for name in of_family)
    return found


def count_sayings(entry: Entry) -> dict[str, Any] | None:
    """How many concepts steer the subject and are said, one, or neither, at the strength at which most steer."""
    said = [row for row in entry.result.said if row.verbalizer == entry.card.name]
    steering: dict[float, dict[str, bool]] = {}
    for gate in entry.result.gate:
        steering.setdefault(gate.r, {})[gate.concept] = gate.steers
    r = max({row.r for row in said} & set(steering), key=lambda r: (sum(steering[r].values()), -r), default=None)
    if r is None:
        return None
    pairs = [(steering[r][row.concept], row.said) for row in said if row.r == r and row.concept in steering[r]]
    return {
        "r": r,
        "steers_and_said": pairs.count((True, True)),
        "steers_unsaid": pairs.count((True, False)),
        "said_without_steering": pairs.count((False, True)),
        "neither": pairs.count((False, False)),
    }


def _by_concept(entry: Entry, end: str) -> dict[str, float]:
    names = {concept.name for concept in entry.result.concepts}
    rows = _own(entry, of_all=False, task=IDENTIFICATION, metric="auroc", kind="function", **ENDS[end])
    return {str(row.group): row.value for row in rows if row.group in names and row.value is not None}


def _own(entry: Entry, *, of_all: bool = True, **conditions: Any) -> list[MetricRow]:
    """The verbalizer's rows by the headline scorer: of all concepts, or of one each."""
    fields = {"verbalizer": entry.card.name, "scorer": entry.result.headline_scorer, "versus": None, **conditions}
    return [row for row in entry.result.select(**fields) if (row.group is None) is of_all]


def _mean(values: Iterable[float]) -> dict[str, Any]:
    table = np.asarray(list(values))  # [n_concepts]
    n, mean = len(table), float(table.mean())
    reach = None if n < 2 else float(stats.t.isf(0.025, n - 1) * table.std(ddof=1) / np.sqrt(n))
    if not reach:  # one concept, or concepts that are all alike: nothing to take an interval from
        return {"value": rounded(mean), "low": None, "high": None, "n": n}
    return {"value": rounded(mean), "low": rounded(max(0, mean - reach)), "high": rounded(min(1, mean + reach)), "n": n}


def _figure(row: MetricRow) -> dict[str, float | None]:
    return {"value": rounded(row.value), "low": rounded(row.low), "high": rounded(row.high)}


def _named(row: MetricRow, name: str) -> dict[str, float | None]:
    return {name: rounded(row.value), f"{name}_low": rounded(row.low), f"{name}_high": rounded(row.high)}
