"""Off-manifold detection: what tells a moved activation from an unmoved one, by detector."""

from __future__ import annotations

from typing import Any

from ..records import MetricRow, Result
from .cells import gather, injections
from .reconstruction import CONTROL_MEANINGS
from .shown import in_reading_order

#: What a detector's value is, in words; detectors of the vector alone come first.
DETECTOR_MEANINGS = {
    "mahalanobis": "Mahalanobis distance from unmoved states",
    "nearest_neighbours": "distance to the nearest unmoved states",
    "norm": "length of the vector",
    "inversion_ratio": "how little the nearest token's state stands out, tried after the item's own prompt",
    "ar_cosine": "how far the reconstruction of its text is from the vector",
    "text_logprob": "how unlikely its text is under its verbalizer",
    "detect": "what the verbalizer itself answers",
}


def off_manifold_detection(result: Result) -> dict[str, Any] | None:
    """Per detector and the verbalizer that it needs (or null), its AUROC by cell; None where the task did not run."""
    found: dict[tuple[str, str], list[MetricRow]] = {}
    for row in result.metrics:
        # Of a control the page shows how well it detects, and the lead over it; the rest is in `result.json`.
        if row.task == "off_manifold_detection" and ("." not in row.metric or row.metric.startswith("auroc.")):
            found.setdefault((row.scorer, row.verbalizer), []).append(row)
    if not found:
        return None
    detectors, names = list(DETECTOR_MEANINGS), in_reading_order(result.verbalizers)

    def in_order(key: tuple[str, str]) -> tuple[int, str, int]:
        detector, name = key
        known = detectors.index(detector) if detector in detectors else len(detectors)
        return known, detector, names.index(name) if name in names else -1

    return {
        "injections": injections(row for rows in found.values() for row in rows),
        "controls": CONTROL_MEANINGS,
        "detectors": [
            {
                "detector": key[0],
                "meaning": DETECTOR_MEANINGS.get(key[0], ""),
                "verbalizer": key[1] if key[1] in result.verbalizers else None,
                "cells": gather(found[key]),
            }
            for key in sorted(found, key=in_order)
        ],
    }
