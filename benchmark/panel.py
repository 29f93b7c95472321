"""A panel: the items of a run with every verbalizer's scores, from which tasks compute their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .large_arrays import blocks
from .statistics import Clusters, Estimate, Weights, cluster_mean, cluster_ratio, join, macro_auroc

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """items: one row per item (see `extraction`), outliers excluded, with `concept_number` and `prompt_number`.

    scores: [n_sets, n_items, n_concepts], standardized, one set per verbalizer and scorer (`sets`, in order). Of a
    large run they lie in a file (see `large_arrays`); `by_item` and `auroc` hold a part of them at a time.
    texts: per verbalizer, in the items' order. excluded: per "injection/kind", concepts left out of the headline.
    """

    items: pd.DataFrame
    scores: NDArray[np.float64]
    sets: list[tuple[str, str]]
    texts: Mapping[str, Sequence[str]]
    roles: Mapping[str, str]
    concepts: list[str]
    families: list[str]
    excluded: Mapping[str, Mapping[str, str]]
    weights: Weights
    #: What the task at hand measured itself, in the items' order: {verbalizer: {column: [n_items, ...]}}.
    measured: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)

    def rows(self, *, kind: str = "function", concepts: Sequence[str] | None = None, **conditions: Any) -> Rows:
        """Row numbers of the items of one kind of position whose columns equal the conditions.

        concepts: those that an item's concept is among.
        """
        keep = (self.items["kind"] == kind).to_numpy()
        for column, value in conditions.items():
            keep = keep & (self.items[column] == value).to_numpy()
        if concepts is not None:
            keep = keep & self.items["concept"].isin(list(concepts)).to_numpy()
        return np.flatnonzero(keep)

    def strengths(self, arm: str, injection: str, kind: str = "function") -> list[float]:
        """The grid of r that an arm was made at."""
        rows = self.rows(arm=arm, injection=injection, level="grid", kind=kind)
        return sorted(self.items["r"].iloc[rows].unique().tolist())

    def included(self, injection: str, kind: str) -> list[str]:
        """The concepts of the headline for one injection and kind of position."""
        left_out = self.excluded.get(f"{injection}/{kind}", {})
        return [name for name in self.concepts if not left_out.get(name)]

    def clusters(self, rows: Rows) -> Clusters:
        """The units of resampling of some items, all of one arm."""
        items = self.items.iloc[rows]
        prompts = items["prompt_number"].to_numpy()
        if items["concept"].isna().all():
            return Clusters.of_prompts(prompts)
        concepts = items["concept_number"].to_numpy().astype(np.int64)
        if (items["arm"] == "natural").all():
            return Clusters(concepts, prompts, nested=True, pool="natural")
        return Clusters(concepts, prompts)

    def auroc(self, rows: Rows, *, allowed: Any = None, strata: Any = None) -> Estimate:
        """Macro AUROC of own columns against other concepts' items [n_sets]; the rest as in `macro_auroc`.

        Without draws: intervals do not read them, and they are most of what an AUROC costs. A few sets at a time.
        """
        clusters, n_prompts = self.clusters(rows), self.weights.prompt.shape[1]
        return join(
            [
                macro_auroc(self.scores[some, rows], clusters, allowed=allowed, strata=strata, n_prompts=n_prompts)
                for some in blocks(len(self.sets), self.scores.itemsize * len(rows) * len(self.concepts))
            ]
        )

    def by_item(self, rows: Rows, measure: Callable[[Floats, Rows], NDArray[Any]]) -> Floats:
        """What hangs on an item's own scores alone [n_sets, n_rows], a block of items at a time.

        measure: gives it [n_sets, n_block] from the scores [n_sets, n_block, n_concepts] of some of the rows.
        """
        found = np.empty((len(self.sets), len(rows)))
        for block in blocks(len(rows), self.scores.itemsize * len(self.sets) * len(self.concepts)):
            found[:, block] = measure(self.scores[:, rows[block]], rows[block])
        return found

    def against(self, rows: Rows, controls: Rows, *, same: Sequence[str] = ("prompt", "position", "r")) -> Estimate:
        """Own column against concept-free controls *at the same readout and r*: AUROC stratified by prompt [n_sets].

        The mean over items of P(own score > the control's score), ties one half. Across prompts the prompt's own
        content would be compared too; at one readout a text that ignores the vector comes out at one half exactly. An
        item whose control was excluded as an outlier is left out. same: what an item shares with its controls.
        """
        both = self.items[list(same)].iloc[np.concatenate([rows, controls])]
        readout = both.groupby(list(same), sort=False, dropna=False).ngroup().to_numpy()
        at, met_at = readout[: len(rows)], readout[len(rows) :]
        order, known = np.argsort(met_at, kind="stable"), np.isin(at, met_at)
        rows, at, controls, met_at = rows[known], at[known], controls[order], met_at[order]
        own = self.items["concept_number"].iloc[rows].to_numpy().astype(np.int64)
        first = np.searchsorted(met_at, at)
        n_mates = np.searchsorted(met_at, at, "right") - first
        score, won = self.scores[:, rows, own], np.zeros((len(self.sets), len(rows)))
        for number in range(int(n_mates.max(initial=0))):  # the first control of every item, then the second, …
            here = np.flatnonzero(n_mates > number)
            control = self.scores[:, controls[first[here] + number], own[here]]
            won[:, here] += (score[:, here] > control) + (score[:, here] == control) / 2
        return self.mean(won / n_mates, rows, draws=True)

    def mean(
        self,
        values: NDArray[Any],
        rows: Rows,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        *,
        draws: bool = False,
    ) -> Estimate:
        """The mean over items of values [n_sets, n_items of rows].

        draws: of the bootstrap, for what has no leave-one-out form (r50). Intervals do not read them.
        """
        return cluster_mean(
            values, self.clusters(rows), self.weights if draws else None, bounds=bounds,
            n_concepts=len(self.concepts), n_prompts=self.weights.prompt.shape[1],
        )  # fmt: skip

    def ratio(self, numerators: NDArray[Any], denominators: NDArray[Any], rows: Rows) -> Estimate:
        """Sum of numerators / sum of denominators, each [n_sets, n_items of rows] or [n_items]: one set."""
        return cluster_ratio(
            numerators, denominators, self.clusters(rows),
            n_concepts=len(self.concepts), n_prompts=self.weights.prompt.shape[1],
        )  # fmt: skip

    def own_scores(self, rows: Rows) -> NDArray[np.float64]:
        """Each item's score in its own concept's column [n_sets, n_rows]."""
        own = self.items["concept_number"].iloc[rows].to_numpy().astype(np.int64)
        return np.asarray(self.scores[:, rows, own])

    def reciprocal_ranks(self, rows: Rows) -> NDArray[np.float64]:
        """1 / the rank of each item's own concept in its row, 1 is best [n_sets, n_rows].

        Ties count what a random order among them is expected to give, so a text that says nothing is at chance. (One
        over the expected rank is less: the mean of 1/k is not 1 over the mean of k.)
        """
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(self.concepts) + 1))])

        def rank(scores: Floats, at: Rows) -> Floats:
            own = self.own_scores(at)[..., None]
            above = (scores > own).sum(-1)
            tied = (scores == own).sum(-1)  # its own among them
            return np.asarray((harmonic[above + tied] - harmonic[above]) / tied)

        return self.by_item(rows, rank)

    def own_is_first(self, rows: Rows) -> Floats:
        """Whether each item's own concept has the highest score in its row; of k that tie, 1/k [n_sets, n_rows]."""

        def first(scores: Floats, at: Rows) -> Floats:
            top = scores.max(-1)
            return np.asarray((self.own_scores(at) == top) / (scores == top[..., None]).sum(-1))

        return self.by_item(rows, first)

    def set_numbers(self, verbalizer: str) -> list[int]:
        """The score sets of one verbalizer, in the scorers' order."""
        return [i for i, (name, _) in enumerate(self.sets) if name == verbalizer]
