"""Ranking: which entries can be told apart, column by column. No column is blended with another.

Entries compare only where they were measured in the same way; `group_boards` keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..benchmark.errors import BadInput
from ..benchmark.records import finite
from ..benchmark.statistics import (
    Estimate,
    Interval,
    RankInterval,
    interval,
    interval_arrays,
    paired_difference,
    rank_intervals,
    stack,
)
from .columns import COLUMNS as COLUMNS
from .columns import Column as Column
from .columns import find_row as find_row
from .entries import Entry, metric_key
from .regression import check_comparable

#: Roles that have a rank; floors, the ceiling and readers of text are there to compare with.
RANKED_ROLES = ("submitted", "baseline")


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
    same = [e for e in among if (e.card.name, e.card.version) == (entry.card.name, entry.card.version)]
    newest = max([entry, *same], key=lambda e: (e.result.provenance.started, e.id))
    return f"superseded by {newest.id}" if newest.id != entry.id else ""


def rank(board: Board, column: Column) -> dict[str, RankInterval]:
    """The rank interval of each entry that may have one, by id; 1 is best.

    An entry without an Estimate in the column has no rank there, nor has one whose Estimate is of other units than
    most: it was not measured on the same items.
    """
    if not column.ranked:
        return {}
    groups = _group_alike(
        {
            entry.id: estimate
            for entry in board.entries
            if not why_unranked(entry, board.entries) and (estimate := find_estimate(entry, column))
        }
    )
    if not groups:
        return {}
    largest = max(groups, key=len)
    if len(largest) < 2:
        return {}  # first of one says nothing
    return dict(zip(largest, rank_estimates(list(largest.values()), column.lower_is_better), strict=True))


def rank_estimates(estimates: Sequence[Estimate], lower_is_better: bool = False) -> list[RankInterval]:
    """Rank intervals of Estimates of one set each, from paired differences over concepts and prompts.

    See `rank_intervals`. Raises ValueError where their units differ.
    """
    joined = stack(estimates)
    return rank_intervals(turn_round(joined) if lower_is_better else joined)


def turn_round(estimate: Estimate) -> Estimate:
    """The estimate of the metric turned round: more of it is what was less."""
    return replace(
        estimate, point=-estimate.point, by_concept=-estimate.by_concept, by_prompt=-estimate.by_prompt,
        by_cell=-estimate.by_cell, bounds=estimate.bounds and (-estimate.bounds[1], -estimate.bounds[0]),
        draws=None, per_concept=None, per_concept_without_prompt=None,
    )  # fmt: skip


def compare(a: Entry, b: Entry, column: Column) -> Interval | None:
    """The paired difference a - b in a column, with its interval; None where one of them has no Estimate there.

    Raises:
        BadInput: they were not measured in the same way.
    """
    check_comparable(a.result, b.result)
    mine, other = find_estimate(a, column), find_estimate(b, column)
    return None if mine is None or other is None else interval(paired_difference(mine, other))


def compare_all(board: Board, column: Column) -> dict[tuple[str, str], tuple[float, float | None, float | None]]:
    """Every pair's paired difference a - b with its bounds (None where it has none), a before b on the board.

    Pairs of which one has no Estimate in the column, or one of other units, are left out.
    """
    found: dict[tuple[str, str], tuple[float, float | None, float | None]] = {}
    estimates = {entry.id: e for entry in board.entries if (e := find_estimate(entry, column)) is not None}
    for group in _group_alike(estimates):
        ids, joined = list(group), stack(list(group.values()))
        for number, first in enumerate(ids[:-1]):
            others = ids[number + 1 :]
            difference = paired_difference(joined[[number] * len(others)], joined[number + 1 :])
            low, high, _ = interval_arrays(difference)
            for second, *numbers in zip(others, difference.point, low, high, strict=True):
                found[first, second] = float(numbers[0]), finite(float(numbers[1])), finite(float(numbers[2]))
    return found


def find_estimate(entry: Entry, column: Column) -> Estimate | None:
    """What the entry's figure in a column was computed from; None where the entry keeps nothing of it."""
    row = find_row(entry, column)
    found = entry.estimates.get(metric_key(row)) if row else None
    return found.estimate if found else None


def _group_alike(estimates: Mapping[str, Estimate]) -> list[dict[str, Estimate]]:
    """Estimates that can be subtracted, together: as many concepts and prompts, of the same pools and range.

    One without a number is in no group: it would be told apart from none, and widen every rank.
    """
    groups: dict[tuple[Any, ...], dict[str, Estimate]] = {}
    for name, e in estimates.items():
        if not np.isfinite(e.point) or e.by_cell.ndim != 2:  # files come from anybody
            continue
        units = e.n_concepts, e.n_prompts, e.df_concept, e.df_prompt, e.crossed_prompts, e.pools, e.bounds, e.scale
        shapes = e.by_concept.shape, e.by_prompt.shape, e.by_cell.shape
        groups.setdefault((units, shapes), {})[name] = e
    return list(groups.values())


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
