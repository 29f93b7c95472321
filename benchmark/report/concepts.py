"""Steers x verbalized: per concept, whether its direction steers the subject and whether texts name it."""

from __future__ import annotations

from typing import Any

from ..records import ConceptRecord, Result
from .dose import failed_conditions, steering_strengths
from .headline import TASK
from .shown import rounded


def concept_rows(result: Result) -> list[dict[str, Any]]:
    """One row per concept, in the pack's order: direction, gate, matched strengths, exclusions."""
    return [_row(result, concept) for concept in result.concepts]


def identified(result: Result) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """Per-concept AUROC as {scorer: {verbalizer: {cell: [per concept]}}}; cells "natural/kind", "injection/kind"."""
    numbers = {concept.name: i for i, concept in enumerate(result.concepts)}
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for row in result.metrics:
        if row.task != TASK or row.metric != "auroc" or row.group not in numbers:
            continue
        if row.arm == "natural" and row.injection == "none":
            key = f"natural/{row.kind}"
        elif row.arm == "steered" and row.level == "matched":
            key = f"{row.injection}/{row.kind}"
        else:
            continue
        cells = found.setdefault(row.scorer, {}).setdefault(row.verbalizer, {})
        cells.setdefault(key, [None] * len(numbers))[numbers[row.group]] = rounded(row.value)
    return found


def _row(result: Result, concept: ConceptRecord) -> dict[str, Any]:
    gate = sorted((row for row in result.gate if row.concept == concept.name), key=lambda row: row.r)
    return {
        "name": concept.name,
        "title": concept.title,
        "family": concept.family,
        "description": concept.description,
        "split_half": rounded(concept.split_half),
        "split_half_upstream": rounded(concept.split_half_upstream),
        "matched_r": {end: rounded(r) for end, r in concept.matched_r.items()},
        "excluded": concept.excluded,
        "steers": steering_strengths(result.gate, concept.name),
        "gate": [
            {
                "r": row.r, "score": rounded(row.score), "permuted": rounded(row.permuted), "q": rounded(row.q),
                "loss": rounded(row.loss), "distinct": rounded(row.distinct_2), "steers": row.steers,
                "fails": failed_conditions(row, result.provenance.gate), "example": row.example,
            }
            for row in gate
        ],
    }  # fmt: skip
