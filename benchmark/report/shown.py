"""How numbers are shown: a metric row as the page's compact cell, and numbers as text where the page is static."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records import MetricRow, VerbalizerRecord

DASH = "—"

#: Roles in the order in which a reader meets them: what is tested first, then what brackets it.
ROLES = ("submitted", "baseline", "ceiling", "reader", "floor")

ROLE_MEANINGS = {
    "submitted": "under test",
    "baseline": "a simple method that ships with nlabench",
    "ceiling": "a linear probe on the same vectors: how much there is to be said",
    "reader": "reads the prompt and not the vector: how much the words alone give away",
    "floor": "says nothing of its vector: what no content scores",
}


def role_of(record: VerbalizerRecord) -> str:
    """The role on a verbalizer's card."""
    return str(record.card.get("role", "submitted"))


def in_reading_order(verbalizers: dict[str, VerbalizerRecord]) -> list[str]:
    """Verbalizers' names by role, and in the result's order within one."""
    known = {role: number for number, role in enumerate(ROLES)}
    return sorted(verbalizers, key=lambda name: known.get(role_of(verbalizers[name]), len(known)))


def cell(row: MetricRow | None) -> dict[str, Any] | None:
    """What the page needs of a metric row: value, low, high, counts and note; empty fields are left out."""
    if row is None:
        return None
    numbers = {"r": row.r, "beyond": row.censored_at}
    counts = {"n": row.n_items, "concepts": row.n_concepts, "prompts": row.n_prompts}
    return (
        figure(row)
        | {key: n for key, n in numbers.items() if n is not None}
        | {key: n for key, n in counts.items() if n}
    )


def figure(row: MetricRow) -> dict[str, Any]:
    """Value, low, high and note of a metric row whose cell is known from where it stands; empty ones are left out."""
    numbers = {"v": rounded(row.value), "lo": rounded(row.low), "hi": rounded(row.high)}
    return {key: n for key, n in numbers.items() if n is not None} | ({"note": row.note} if row.note else {})


def rounded(number: float | None) -> float | None:
    """Four decimals: more than any interval here can tell apart."""
    return None if number is None else round(number, 4)


def first(rows: Sequence[MetricRow]) -> MetricRow | None:
    """The first of the rows that fit, or None."""
    return rows[0] if rows else None


def show_number(number: float | None, digits: int = 2) -> str:
    """A number with fixed decimals; a dash where there is none."""
    return DASH if number is None else f"{number:,.{digits}f}".replace("-", "−")


def show_percent(share: float) -> str:
    """A share as a whole number of percent, the sign set apart as on the rest of the page."""
    return f"{100 * share:.0f} %"


def show_strength(r: float | None) -> str:
    """A relative strength with as many digits as it was given."""
    return DASH if r is None else f"{r:g}"


def show_duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{hours} h" * (hours > 0), f"{minutes} min" * (minutes > 0), f"{rest} s" * (rest > 0 or seconds < 60))
    return " ".join(part for part in parts if part)
