"""Ranking: which entries can be told apart, column by column. No column is blended with another.

Entries compare only where they were measured in the same way; `group_boards` keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..benchmark.errors import BadInput
from ..benchmark.records import MetricRow
from ..benchmark.statistics import Estimate, Interval, RankInterval, interval, paired_difference, rank_intervals
from .entries import Entry, metric_key
from .regression import check_comparable

#: Roles that have a rank; floors, the ceiling and readers of text are there to compare with.
RANKED_ROLES = ("submitted", "baseline")


@dataclass(frozen=True)
class Column:
    """A column of the board: one metric of each entry. ranked: whether more (or less) of it is better by itself."""

    name: str
    title: str
    task: str
    metric: str
    arm: str
    injection: str = "readout"
    level: str = "matched"
    r: float | None = None
    lower_is_better: bool = False
    ranked: bool = True


#: In this order. A gap near 0 is no merit by itself: who names nothing has none. So it has no rank.
COLUMNS = (
    Column("steered", "steered", "concept_identification", "auroc_in_pairs", "steered"),
    Column("natural", "natural", "concept_identification", "auroc_in_pairs", "natural"),
    Column("gap", "gap", "concept_identification", "auroc_gap", "steered-natural", ranked=False),
    Column(
        "false_claims", "false claims", "confabulation", "false_claims", "permuted", level="grid", r=0.3,
        lower_is_better=True,
    ),
    Column("r50", "r50", "dose_response", "r50", "steered", level="grid", lower_is_better=True, ranked=False),
)  # fmt: skip


@dataclass(frozen=True)
class Board:
    """Entries that were measured in the same way, in the order in which they were read."""

    title: str
    entries: tuple[Entry, ...]


def group_boards(entries: Sequence[Entry]) -> list[Board]:
    """Entries by what was measured: suite and version, subject, site, pack, scorers. See `check_comparable`."""
    groups: list[list[Entry]] = []
    for entry in entries:
        for group in groups:
            if _are_comparable(group[0], entry):
                group.append(entry)
                break
        else:
            groups.append([entry])
    return [Board(_title(group[0]), tuple(group)) for group in groups]


def find_row(entry: Entry, column: Column) -> MetricRow | None:
    """The entry's figure in a column, by its headline scorer; None where its run has none."""
    return entry.result.one(
        task=column.task, metric=column.metric, verbalizer=entry.card.name, scorer=entry.result.headline_scorer,
        arm=column.arm, injection=column.injection, level=column.level, kind="function", r=column.r, group=None,
        versus=None,
    )  # fmt: skip


def why_unranked(entry: Entry, among: Sequence[Entry] = ()) -> str:
    """Why an entry has no rank, or nothing. among: the board's entries, of which the newest of a version counts."""
    if entry.card.role not in RANKED_ROLES:
        return entry.card.role
    record = entry.result.verbalizers[entry.card.name]
    if record.n_failed:
        return f"failed on {record.n_failed} items"
    n_items = sum(arm.n_items for arm in entry.result.arms)
    if record.n_texts != n_items:
        return f"{record.n_texts} of {n_items} items"
    newer = [
        other
        for other in among
        if (other.card.name, other.card.version) == (entry.card.name, entry.card.version)
        and (other.result.provenance.started, other.id) > (entry.result.provenance.started, entry.id)
    ]
    newest = max(newer, key=lambda other: (other.result.provenance.started, other.id), default=None)
    return f"superseded by {newest.id}" if newest else ""


def rank(board: Board, column: Column) -> dict[str, RankInterval]:
    """The rank interval of each entry that may have one, by id; 1 is best.

    From paired differences over concepts and prompts: see `rank_intervals`. An entry without an Estimate in the column
    has no rank there.
    """
    estimates = {
        entry.id: estimate
        for entry in board.entries
        if column.ranked and not why_unranked(entry, board.entries) and (estimate := _find_estimate(entry, column))
    }
    if not estimates:
        return {}
    joined = _join(list(estimates.values()))
    if column.lower_is_better:
        joined = replace(
            joined, point=-joined.point, by_concept=-joined.by_concept, by_prompt=-joined.by_prompt,
            by_cell=-joined.by_cell, bounds=None if joined.bounds is None else (-joined.bounds[1], -joined.bounds[0]),
        )  # fmt: skip
    return dict(zip(estimates, rank_intervals(joined), strict=True))


def compare(a: Entry, b: Entry, column: Column) -> Interval | None:
    """The paired difference a - b in a column, with its interval; None where one of them has no Estimate there.

    Raises:
        BadInput: they were not measured in the same way.
    """
    check_comparable(a.result, b.result)
    mine, other = _find_estimate(a, column), _find_estimate(b, column)
    return None if mine is None or other is None else interval(paired_difference(mine, other))


def _find_estimate(entry: Entry, column: Column) -> Estimate | None:
    row = find_row(entry, column)
    found = entry.estimates.get(metric_key(row)) if row else None
    return found.estimate if found else None


def _join(estimates: Sequence[Estimate]) -> Estimate:
    """One Estimate with a set for each entry."""
    arrays: dict[str, Any] = {
        name: np.stack([getattr(e, name) for e in estimates], axis=-1)
        for name in ("point", "by_concept", "by_prompt", "by_cell")
    }
    counts: dict[str, Any] = {
        name: min(getattr(e, name) for e in estimates)
        for name in ("n_concepts", "n_prompts", "df_concept", "df_prompt", "df_cell")
    }
    return replace(estimates[0], **arrays, **counts)


def _are_comparable(a: Entry, b: Entry) -> bool:
    try:
        check_comparable(a.result, b.result)
    except BadInput:
        return False
    return True


def _title(entry: Entry) -> str:
    made = entry.result.provenance
    return (
        f"{made.subject}, block {made.layer} of {made.subject_blocks}, suite {made.suite.get('name')} "
        f"(version {made.suite.get('version')}), pack {made.pack}"
    )
