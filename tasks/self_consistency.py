"""Asked again, does it say the same of the same vector?

Of verbalizers that write several samples of an item: how like each other an item's texts are, over how like they are to
texts of other vectors. The likeness that all of a verbalizer's texts share is in both and goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.scoring.base import DIGITS
from ..benchmark.scoring.embedding import MINILM, embed
from ..benchmark.statistics import Estimate, intervals
from ..benchmark.study import Study
from ..benchmark.transcript import Measured, Transcript
from ..benchmark.verbalizers.asking import QUESTION
from ..benchmark.verbalizers.base import Verbalization

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SelfConsistency:
    name: str = "self_consistency"
    version: str = "1"
    question: str = "Asked again, does it say the same of the same vector?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.natural_items(study, "function") + arms.neutral_items(study, "function")
        items += arms.steered_grid(study, "readout") + arms.control_grid(study, "permuted", "readout")
        return items + arms.gaussian_items(study)

    def measure(self, transcript: Transcript) -> Measured:
        """Per verbalizer with samples: `within` and `between` (see `compare_samples`), nan where not defined.

        Floors are left out: they say of one vector what their verbalizer said of another.
        """
        study, labels = transcript.study, transcript.activations.labels
        needed = {spec.item_id(study.suite.seed) for spec in self.items(study)}
        rows = np.flatnonzero((labels["item_id"].isin(needed) & ~labels["outlier"]).to_numpy())
        measured = {}
        for name, verbalizer in transcript.roster.verbalizers.items():
            said = transcript.verbalized[name].texts
            sampled = np.array([row for row in rows if said[row].samples], dtype=np.int64)
            if verbalizer.card.role == "floor" or not len(sampled):
                continue
            columns = {column: np.full(len(labels), np.nan) for column in ("within", "between")}
            found = compare_samples([said[row] for row in sampled], labels.iloc[sampled])
            columns["within"][sampled], columns["between"][sampled] = found
            measured[name] = columns
        return measured

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for verbalizer, columns in panel.measured.items():
            for arm, r, at in _cells(panel):
                injection = "readout" if arm in ("steered", "permuted") else "none"
                fields: dict[str, Any] = {"verbalizer": verbalizer, "arm": arm, "injection": injection, "r": r}
                within, between = columns["within"], columns["between"]
                heard = at[np.isfinite(within[at])]
                if len(heard):
                    agreement = panel.mean(within[None, heard], heard, bounds=(-1.0, 1.0))
                    rows.append(self._row("agreement", agreement, n_items=len(heard), at=len(at), **fields))
                compared = heard[np.isfinite(between[heard])]
                if len(compared):
                    over = self._over_others(panel, within[compared], between[compared], compared)
                    n_items = len(compared)
                    rows.append(self._row("agreement_over_others", over, n_items=n_items, at=len(at), **fields))
        return rows

    def _over_others(self, panel: Panel, within: Floats, between: Floats, at: Rows) -> Estimate:
        """The mean of within - between, with the effects that leaving items out has on it.

        An item is in the others' `between` as it is in its own, so that its share in the mean of `between` is twice
        what it deviates by (the projection of a U-statistic: Hoeffding 1948). The values have the same mean as
        within - between; where samples of one vector agree no more than other texts, what an item's texts have in
        common with all texts cancels in them.
        """
        return panel.mean((within - 2 * between + between.mean())[None], at, bounds=None)

    def _row(self, metric: str, estimate: Estimate, *, n_items: int, at: int, **fields: Any) -> MetricRow:
        note = f"{at - n_items} of {at} items without samples" if n_items < at else ""
        interval = intervals(estimate)[0]
        return metric_row(
            interval, task=self.name, metric=metric, scorer="embedding", n_items=n_items, note=note, **fields
        )


def compare_samples(said: list[Verbalization], labels: pd.DataFrame) -> tuple[Floats, Floats]:
    """How like each other the texts of each item are, and how like others' texts: mean cosines, each [n_items].

    said: what was said of each item, samples included; labels: of the same items. Others are items of the same arm,
    injection, level, kind and r that share neither the prompt nor what they were moved toward: those say the same with
    reason. nan where an item has one text, or no such others.
    """
    texts = [[one.text, *one.samples] for one in said]
    counts = np.array([len(own) for own in texts], dtype=np.float64)
    vectors = embed(MINILM, [text for own in texts for text in own])
    starts = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int64)
    sums = np.add.reduceat(vectors, starts)  # the mean cosine of two sets of unit vectors is that of their sums
    squares = np.add.reduceat((vectors**2).sum(-1), starts)

    cell = [labels[column] for column in ("arm", "injection", "level", "kind", "r")]
    prompt, toward = labels["prompt"], _moved_toward(labels)
    # Of a cell, all but the prompt's and the direction's; what is both was taken out twice.
    parts = ((cell, 1), ([*cell, prompt], -1), ([*cell, toward], -1), ([*cell, prompt, toward], 1))
    other_sums, other_counts = np.zeros_like(sums), np.zeros_like(counts)
    for keys, sign in parts:
        group = labels.groupby([key.to_numpy() for key in keys]).ngroup().to_numpy()
        total = np.zeros((group.max() + 1, sums.shape[1]))
        np.add.at(total, group, sums)
        other_sums += sign * total[group]
        other_counts += sign * np.bincount(group, counts)[group]
    with np.errstate(invalid="ignore", divide="ignore"):
        within = ((sums**2).sum(-1) - squares) / (counts * (counts - 1))
        between = (sums * other_sums).sum(-1) / (counts * other_counts)
    within[counts < 2], between[other_counts == 0] = np.nan, np.nan
    # Rounded as scores are: what shares a batch must not decide a digit.
    return np.round(within, DIGITS), np.round(between, DIGITS)


def _moved_toward(labels: pd.DataFrame) -> pd.Series:
    """What each item shares with others beside its prompt: a concept, a control direction, or nothing (its own id)."""
    toward = labels["concept"].where(labels["concept"].notna(), labels["item_id"])
    return toward.where(labels["arm"] != "permuted", labels["draw"].astype(str))


def _cells(panel: Panel) -> list[tuple[str, float | None, Rows]]:
    cells: list[tuple[str, float | None, Rows]] = [
        ("natural", None, panel.rows(arm="natural")),
        ("neutral", 0.0, panel.rows(arm="neutral")),
        ("gaussian", None, panel.rows(arm="gaussian")),
    ]
    return cells + [
        (arm, r, panel.rows(arm=arm, injection="readout", level="grid", r=r))
        for arm in ("steered", "permuted")
        for r in panel.strengths(arm, "readout")
    ]


TASK = SelfConsistency()
