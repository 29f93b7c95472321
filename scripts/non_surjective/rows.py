"""What an experiment hands back: our rows beside the published ones, and everything that was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: "no figure": rerun, and nothing was published that it could be held against.
Verdict = Literal["same", "same shape", "differs", "not rerun", "no figure"]


@dataclass(frozen=True)
class Row:
    """One published figure or statement, beside ours.

    verdict: `same` (the figure agrees within a stated tolerance, or the counts are equal), `same shape` (a stated
    property, computed from the data, holds as published), `differs` (it does not), `not rerun`, `no figure` (nothing
    was published to compare with). why: the rule that gave the verdict and the figures it was applied to.
    """

    what: str
    published: str
    ours: str
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Outcome:
    """One table reproduced. data: JSON-able, everything measured. draw: the figure, in the paper's form."""

    table: str
    title: str
    rows: list[Row]
    data: dict[str, Any]
    draw: Callable[[Figure], None] | None = None
    notes: list[str] = field(default_factory=list)
