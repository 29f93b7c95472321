"""The page's fixed tables: geometry of the arms, what was excluded, and everything in the provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..records import Result
from .headline import ENDS
from .shown import in_reading_order, role_of, rounded

ARM_MEANINGS = {
    "natural": "a text that expresses the concept was read",
    "steered": "a neutral prompt was read, and the concept's direction was added",
    "permuted": "as steered, with a direction made from shuffled labels: the primary control",
    "random": "as steered, with a random direction of the same length",
    "graft": "as steered, toward another neutral prompt's activation",
    "graft_concept": "as steered, toward a natural state of the concept",
    "neutral": "the neutral prompt alone, r = 0",
    "gaussian": "noise of the stream's median norm: no prompt at all",
}


def geometry(result: Result) -> list[dict[str, Any]]:
    """One row per cell of items: where its activations lie. Arms in the order of `ARM_MEANINGS`."""
    order = {arm: number for number, arm in enumerate(ARM_MEANINGS)}
    rows = sorted(
        result.arms,
        key=lambda a: (order.get(a.arm, 99), a.injection, a.level != "grid", a.kind, -1.0 if a.r is None else a.r),
    )
    return [
        row.model_dump() | {key: rounded(getattr(row, key)) for key in ("norm", "displacement", "angle", "evidence")}
        for row in rows
    ]


def excluded_concepts(result: Result) -> list[dict[str, Any]]:
    """Per injection and kind of position: the concepts left out of the headline, by reason."""
    found = []
    present = {key for concept in result.concepts for key in concept.excluded}
    keys = [key for key in ENDS if key in present] + sorted(present - set(ENDS))
    for key in keys:
        left_out = [(concept.title, concept.excluded[key]) for concept in result.concepts if key in concept.excluded]
        kept = len(result.concepts) - len(left_out)
        found.append({"end": ENDS.get(key, key), "left_out": left_out, "kept": kept, "of": len(result.concepts)})
    return found


def verbalizer_rows(result: Result) -> list[dict[str, Any]]:
    """Every verbalizer as a program, in reading order: card, counts, speed, warnings."""
    return [
        {"name": name, "role": role_of(result.verbalizers[name]), "record": result.verbalizers[name]}
        for name in in_reading_order(result.verbalizers)
    ]


def provenance_rows(result: Result) -> list[tuple[str, str]]:
    """Every recorded setting as (dotted path, value)."""
    return list(_flatten(result.provenance.model_dump(mode="json"), ""))


def _flatten(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, json.dumps(value, ensure_ascii=False)
