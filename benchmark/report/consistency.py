"""Self-consistency: how alike several texts of one vector are, over how alike texts of different vectors are."""

from __future__ import annotations

from typing import Any

from ..records import Result
from .cells import by_verbalizer
from .shown import in_reading_order


def self_consistency(result: Result) -> dict[str, Any] | None:
    """Per verbalizer that wrote several texts of an item, its agreement by cell; None where there is none."""
    rows = [row for row in result.metrics if row.task == "self_consistency"]
    found = by_verbalizer(rows, in_reading_order(result.verbalizers))
    return {"verbalizers": found} if found else None
