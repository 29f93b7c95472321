"""How often each concept's items win their pairs, in all and with each unit: what leaving a unit out takes away.

An AUROC without a concept or a prompt is all wins less that unit's over all pairs less that unit's. Wins are whole
halves, so nothing is lost in the subtraction, and no matrix of all items by all items is needed for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .pairs import Side, find_allowed
from .resampling import Floats, Ints

Values = NDArray[Any]

#: Up to this many pairs per item are compared one by one; more are counted by rank, which costs a sort and its loop.
COMPARED_PER_ITEM = 64
#: Bounds what pairs that are compared one by one take, [n_sets, n_pairs]: small enough to stay in a core's cache.
CHUNK_PAIRS = 1 << 18


@dataclass(frozen=True)
class Counts:
    """Of every concept: pairs that its items are in, and those that they win (ties 1/2)."""

    wins: Floats  # [*units, n_concepts, n_sets]
    pairs: Floats  # [*units, n_concepts]

    def rates(self) -> Floats:
        """Wins / pairs, nan where there are no pairs [*units, n_concepts, n_sets]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.wins / self.pairs[..., None])

    def without(self, *parts: Counts) -> Counts:
        wins, pairs = self.wins, self.pairs
        for part in parts:
            wins, pairs = wins - part.wins, pairs - part.pairs
        return Counts(wins, pairs)

    def plus(self, part: Counts) -> Counts:
        return Counts(self.wins + part.wins, self.pairs + part.pairs)


@dataclass(frozen=True)
class Tally:
    """all: [n_concepts]; against_concept: [n_concepts that pairs are against, n_concepts]; the rest [n_prompts, …]: of
    items at a prompt, against items at it, and both at once."""

    all: Counts
    against_concept: Counts
    of_prompt: Counts
    against_prompt: Counts
    within_prompt: Counts

    def without_concept(self) -> Counts:
        """Without each concept among those that items are compared with."""
        return self.all.without(self.against_concept)

    def without_prompt(self) -> Counts:
        """Without each prompt on both sides."""
        return self.all.without(self.of_prompt, self.against_prompt).plus(self.within_prompt)


def tally_pairs(own: Side, others: Side | None, allowed: ArrayLike | None, n_prompts: int) -> Tally:
    """Count the pairs of each concept's items with their negatives.

    own, others: as `find_sides` gives them. allowed: as in `macro_auroc`. Takes time like the scores' size, times the
    logarithm of the number of items, and memory like that of one concept's column.
    """
    n_sets, _, n_concepts = own.scores.shape
    against = own if others is None else others
    mask = find_allowed(against, n_concepts, allowed, mutual=others is None)
    n_prompts = max(n_prompts, 1)
    empty = [((), n_sets), ((n_concepts,), n_sets), *3 * [((n_prompts,), n_sets)]]
    found = Tally(*(Counts(np.zeros((*lead, n_concepts, n)), np.zeros((*lead, n_concepts))) for lead, n in empty))
    for c, mine in _by_concept(own):
        rivals = np.flatnonzero(mask[:, c])
        if not len(rivals):
            continue
        x, y = own.scores[:, mine, c], against.scores[:, rivals, c]
        at, met_at = own.clusters.prompt[mine], against.clusters.prompt[rivals]
        won, lost = _count(x, own.strata[mine], y, against.strata[rivals])
        found.all.wins[c], found.all.pairs[c] = won.wins.sum(axis=1), won.pairs.sum()
        if others is None:
            _add(found.against_concept, c, against.clusters.concept[rivals], lost)
        if not own.clusters.nested:
            _add(found.of_prompt, c, at, won)
        if not against.clusters.nested:
            _add(found.against_prompt, c, met_at, lost)
        if not (own.clusters.nested or against.clusters.nested):
            together, _ = _count(x, own.strata[mine] * n_prompts + at, y, against.strata[rivals] * n_prompts + met_at)
            _add(found.within_prompt, c, at, together)
    return found


@dataclass(frozen=True)
class _PerItem:
    wins: Floats  # [n_sets, n_items]
    pairs: Ints  # [n_items]


def _by_concept(side: Side) -> Iterator[tuple[int, Ints]]:
    order = np.argsort(side.clusters.concept, kind="stable")
    concepts, starts = np.unique(side.clusters.concept[order], return_index=True)
    yield from zip(concepts.tolist(), np.split(order, starts[1:]), strict=True)


def _add(counts: Counts, c: int, units: Ints, items: _PerItem) -> None:
    """Add up a concept's counts by the items' units."""
    order = np.argsort(units, kind="stable")
    found, starts = np.unique(units[order], return_index=True)
    counts.wins[found, c] = np.add.reduceat(items.wins[:, order], starts, axis=1).T
    counts.pairs[found, c] = np.add.reduceat(items.pairs[order], starts)


def _count(x: Values, of_x: Ints, y: Values, of_y: Ints) -> tuple[_PerItem, _PerItem]:
    """For each of `x` [n_sets, k] what it wins over those of `y` [n_sets, m] in its group, and for each of `y` what is
    won over it. of_x, of_y: the groups."""
    order_x, order_y = np.argsort(of_x, kind="stable"), np.argsort(of_y, kind="stable")
    grouped_x = _Grouped.by(x[:, order_x], of_x[order_x], of_y[order_y])
    grouped_y = _Grouped.by(y[:, order_y], of_y[order_y], of_x[order_x])
    few = grouped_x.mates.sum() <= COMPARED_PER_ITEM * (len(of_x) + len(of_y))
    won, lost = (_compare if few else _rank)(grouped_x, grouped_y)
    back_x, back_y = np.argsort(order_x), np.argsort(order_y)
    return _PerItem(won[:, back_x], grouped_x.mates[back_x]), _PerItem(lost[:, back_y], grouped_y.mates[back_y])


@dataclass(frozen=True)
class _Grouped:
    """One side, sorted by group; first, mates: where an item's group begins on the other side, and its size there."""

    values: Values  # [n_sets, n_items]
    group: Ints
    first: Ints
    mates: Ints

    @classmethod
    def by(cls, values: Values, group: Ints, other: Ints) -> _Grouped:
        first = np.searchsorted(other, group, "left")
        return cls(values, group, first, np.searchsorted(other, group, "right") - first)


def _compare(x: _Grouped, y: _Grouped) -> tuple[Floats, Floats]:
    """Every pair by itself, in chunks."""
    won, lost = np.zeros(x.values.shape), np.zeros(y.values.shape)
    ends = np.cumsum(x.mates)
    step = max(1, CHUNK_PAIRS // len(x.values))
    for start in range(0, int(ends[-1]), step):
        pair = np.arange(start, min(start + step, int(ends[-1])))
        i = np.searchsorted(ends, pair, "right")
        j = x.first[i] + pair - (ends[i] - x.mates[i])
        a, b = x.values[:, i], y.values[:, j]
        halves = (a > b) + (a == b) * 0.5
        for counts, item, order in ((won, i, slice(None)), (lost, j, np.argsort(j, kind="stable"))):
            items, starts = np.unique(item[order], return_index=True)
            counts[:, items] += np.add.reduceat(halves[:, order], starts, axis=1)
    return won, lost


def _rank(x: _Grouped, y: _Grouped) -> tuple[Floats, Floats]:
    """By where each of `y` stands among the sorted `x` of its group, one set at a time."""
    won, lost = np.zeros(x.values.shape), np.zeros(y.values.shape)
    k, groups = x.values.shape[1], np.unique(np.concatenate([x.group, y.group]), return_inverse=True)[1]
    for number, (own, other) in enumerate(zip(x.values, y.values, strict=True)):
        # Places in the stead of values, so that they can rise from group to group.
        place = np.unique(np.concatenate([own, other]), return_inverse=True)[1] + len(groups) * groups
        order = np.argsort(place[:k], kind="stable")
        sorted_x = place[:k][order]
        below, upto = (np.searchsorted(sorted_x, place[k:], side) for side in ("left", "right"))
        lost[number] = y.first + y.mates - (below + upto) / 2
        # Of y, those of earlier groups too stand before an x: x.first of them.
        passed = np.cumsum(np.bincount(below, minlength=k + 1) + np.bincount(upto, minlength=k + 1))[:k]
        won[number, order] = passed / 2 - x.first
    return won, lost
