"""Reconstruction: what a reconstructor brings back of the vector from the text, and from texts that say less."""

from __future__ import annotations

from typing import Any

from ..records import MetricRow, Result
from ..text_controls import MEANINGS
from .cells import by_verbalizer
from .shown import in_reading_order

#: What stands in the place of the text that the verbalizer wrote, or of who reads it, by control.
CONTROL_MEANINGS = MEANINGS | {
    "quotes_stripped": "its own text, with what stands in quotes taken out",
    "paraphrased": "its own text, with a synonym for each word that has one",
    "second_reconstructor": "its own text, read by a reconstructor that somebody else trained",
    "plain_state": "no text: the state before anything was added",
}


def reconstruction(result: Result) -> dict[str, Any] | None:
    """Per verbalizer with a reconstructor, its figures by cell; None where there is none, or the task did not run."""
    rows = [row for row in result.metrics if row.task == "reconstruction" and _is_shown(row)]
    found = by_verbalizer(rows, in_reading_order(result.verbalizers))
    return {"verbalizers": found, "controls": CONTROL_MEANINGS} if found else None


def _is_shown(row: MetricRow) -> bool:
    """Controls of the grid are in `result.json`; the page has those of its headline, and of the displacement."""
    if row.versus is None and "." not in row.metric:
        return True
    headline = row.arm == "natural" or (row.arm == "steered" and row.level == "matched")
    return headline or row.metric.startswith("displacement_recovered")
