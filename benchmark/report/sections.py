"""The sections that a report has only where their task ran: what each is called, and where its data come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..records import Result
from .consistency import self_consistency
from .content import content_retention
from .detection import off_manifold_detection
from .information import privileged_information
from .reconstruction import reconstruction
from .round_trip import functional_round_trip


@dataclass(frozen=True)
class Section:
    """Markup in `{name}.html.j2`, drawn by `{name}.js` from `page.{name}`.

    link: its name in the navigation bar. collect: its data; None where the result has none, and no such section then.
    """

    name: str
    link: str
    collect: Callable[[Result], dict[str, Any] | None]


SECTIONS = (
    Section("content", "Content", content_retention),
    Section("information", "Beyond words", privileged_information),
    Section("reconstruction", "Reconstruction", reconstruction),
    Section("round_trip", "Round trip", functional_round_trip),
    Section("detection", "Detection", off_manifold_detection),
    Section("consistency", "Consistency", self_consistency),
)
