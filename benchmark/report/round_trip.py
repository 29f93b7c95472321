"""The functional round trip: what the subject goes on to compute with the reconstruction in the vector's place."""

from __future__ import annotations

from typing import Any

from ..records import Result
from .cells import by_verbalizer
from .reconstruction import CONTROL_MEANINGS
from .shown import in_reading_order


def functional_round_trip(result: Result) -> dict[str, Any] | None:
    """Per verbalizer with a reconstructor, its shares by cell; None where there are none."""
    rows = [row for row in result.metrics if row.task == "functional_round_trip"]
    found = by_verbalizer(rows, in_reading_order(result.verbalizers))
    return {"verbalizers": found, "controls": CONTROL_MEANINGS} if found else None
