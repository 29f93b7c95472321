"""A result of a private pack without what would tell the pack: the entry of it holds numbers and no words.

Concepts and families are numbered in the pack's order, which paired differences need. What stays of the pack is its
file's name, its fingerprint, and the lengths of directions.
"""

from __future__ import annotations

import re

from ..benchmark import findings
from ..benchmark.records import MetricRow, Result

#: What stands for the pack's source.
PRIVATE = "private"


def redact(result: Result) -> Result:
    """The result without names, descriptions and texts; redacted again, it stays the same."""
    concepts = {concept.name: f"concept {i}" for i, concept in enumerate(result.concepts, 1)}
    groups = {family: f"family {i}" for i, family in enumerate(dict.fromkeys(c.family for c in result.concepts), 1)}
    groups |= concepts
    redacted = result.model_copy(
        update={
            "provenance": result.provenance.model_copy(
                update={"arguments": {"pack": PRIVATE}, "readout_prompts": _number(result.provenance.readout_prompts)}
            ),
            "scorers": [
                scorer.model_copy(update={"weakest": [(concepts.get(c, ""), value) for c, value in scorer.weakest]})
                for scorer in result.scorers
            ],
            "verbalizers": {
                other: record.model_copy(
                    update={
                        "card": {key: value for key, value in record.card.items() if key != "settings"},
                        "first_error": "", "warnings": [], "questions": {},
                    }
                )
                for other, record in result.verbalizers.items()
            },
            "concepts": [
                concept.model_copy(
                    update={
                        "name": concepts[concept.name], "title": concepts[concept.name], "description": "",
                        "family": groups[concept.family],
                    }
                )
                for concept in result.concepts
            ],
            "gate": [
                row.model_copy(update={"concept": concepts.get(row.concept, ""), "example": ""}) for row in result.gate
            ],
            "said": [row.model_copy(update={"concept": concepts.get(row.concept, "")}) for row in result.said],
            "measured": {},
            "metrics": [_redact_row(row, groups) for row in result.metrics],
        }
    )  # fmt: skip
    return redacted.model_copy(update={"findings": findings.find(redacted)})


def _redact_row(row: MetricRow, groups: dict[str, str]) -> MetricRow:
    return row if row.group is None else row.model_copy(update={"group": groups.get(row.group, "")})


def _number(prompts: list[str]) -> list[str]:
    """Ids of prompts, which say a number and no more; others than `load_pack` gives are numbered anew."""
    return [p if re.fullmatch(r"neutral/readout/\d+", p) else f"neutral/readout/{i}" for i, p in enumerate(prompts)]
