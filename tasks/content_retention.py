"""Does the text still describe the prompt that was steered?

A prompt is identified among the other readout prompts: the AUROC of its column between texts of its own items and texts
of the other prompts' items, moved in the same way and equally far. At r = 0 that is how much of a prompt the verbalizer
says at all; along r it is what a concept, or a control direction of the same norm, leaves of it. Beside the curve of
`dose_response` it gives the trade-off: concept in, content out.

A candidate is its text up to the readout, since the activation cannot hold what follows. A text that names all prompts,
or none, is at one half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.large_arrays import allocate, blocks
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.scoring.base import score_unique
from ..benchmark.scoring.prompts import EMBEDDERS, build_prompt_scorers
from ..benchmark.statistics import Clusters, Estimate, cluster_mean, intervals, join, macro_auroc, paired_difference
from ..benchmark.study import Study
from ..benchmark.transcript import Measured, Transcript
from ..benchmark.verbalizing import read_prompts


@dataclass(frozen=True)
class _Cell:
    """Items of one arm that were moved alike.

    scores: of every item of the run [n_items, n_prompts], one table per verbalizer and scorer; rows: of the cell's.
    clusters: prompts have the columns here, so they stand where concepts stand elsewhere (see `_units`).
    """

    arm: str
    injection: str
    r: float
    rows: Rows
    clusters: Clusters
    scores: Sequence[NDArray[np.float64]]

    @property
    def prompts(self) -> NDArray[np.int64]:
        """The column of each item's own prompt [n_items]."""
        return self.clusters.concept

    @property
    def fields(self) -> dict[str, Any]:
        concepts = len(np.unique(self.clusters.prompt)) if self.arm == "steered" else 0
        counts = {"n_items": len(self.prompts), "n_concepts": concepts, "n_prompts": len(np.unique(self.prompts))}
        return {"arm": self.arm, "injection": self.injection, "r": self.r, **counts}

    def among(self, prompts: NDArray[np.int64]) -> _Cell:
        """The items of some of the prompts."""
        keep = np.isin(self.prompts, prompts)
        kept = replace(self.clusters, concept=self.prompts[keep], prompt=self.clusters.prompt[keep])
        return replace(self, clusters=kept, rows=self.rows[keep])

    def auroc(self) -> Estimate:
        table_bytes = len(self.rows) * self.scores[0][0].nbytes
        return join(
            [
                macro_auroc(np.stack([table[self.rows] for table in self.scores[some]]), self.clusters)
                for some in blocks(len(self.scores), table_bytes)
            ]
        )

    def top1(self) -> Estimate:
        """The share of items whose own prompt has the highest score; of k that tie, each has 1/k."""
        firsts = []
        for table in self.scores:
            scores = table[self.rows]
            best = scores == scores.max(-1, keepdims=True)
            firsts.append(best[np.arange(len(self.rows)), self.prompts] / best.sum(-1))
        return cluster_mean(np.stack(firsts), self.clusters)


@dataclass(frozen=True)
class ContentRetention:
    name: str = "content_retention"
    version: str = "1"
    question: str = "Does the text still describe the prompt that was steered?"
    asks: str = "In a few words, what happens in this text?"

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.neutral_items(study, "function") + arms.control_grid(study, "graft", "readout")
        for injection in ("readout", "upstream"):
            items += arms.steered_grid(study, injection)
            items += arms.control_grid(study, "permuted", injection) + arms.control_grid(study, "random", injection)
        return items

    def measure(self, transcript: Transcript) -> Measured:
        """Per verbalizer and scorer, standardized similarity with every readout prompt [n_items, n_prompts]."""
        study, labels = transcript.study, transcript.activations.labels
        reference = [text.text for text in study.pack.neutral["reference"]]
        scorers = build_prompt_scorers(candidate_prompts(study), reference)
        needed = {spec.item_id(study.suite.seed) for spec in self.items(study)}
        rows = np.flatnonzero(labels["item_id"].isin(needed).to_numpy())
        measured: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name in transcript.verbalized:
            texts = transcript.texts(name)
            measured[name] = {}
            for scorer, found in zip(scorers, score_unique(scorers, [texts[row] for row in rows]), strict=True):
                table = allocate((len(labels), len(study.readout_prompts)))
                table[:] = np.nan
                table[rows] = found
                measured[name][_column(scorer.name)] = table
        return measured

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        cells = {(cell.arm, cell.injection, cell.r): cell for cell in _cells(panel)}
        neutral = cells.get(("neutral", "none", 0.0))
        for cell in cells.values():
            auroc = cell.auroc()
            found = {"auroc": auroc, "top1": cell.top1()}
            if neutral is not None and cell is not neutral:
                found["auroc_lost"] = paired_difference(neutral.among(cell.prompts).auroc(), auroc)
            for metric, estimate in found.items():
                rows += self._rows(panel, metric, estimate, **cell.fields)
            permuted = cells.get(("permuted", cell.injection, cell.r))
            if cell.arm == "steered" and permuted is not None:
                gap = paired_difference(auroc, permuted.among(cell.prompts).auroc())
                rows += self._rows(panel, "auroc_gap", gap, **{**cell.fields, "arm": "steered-permuted"})
        return rows

    def _rows(self, panel: Panel, metric: str, estimate: Estimate, **fields: Any) -> list[MetricRow]:
        counts = {name: fields.pop(name) for name in ("n_concepts", "n_prompts")}
        return [
            metric_row(
                interval, task=self.name, metric=metric, verbalizer=verbalizer, scorer=scorer, **fields
            ).model_copy(update=counts)  # the interval's own counts are of the clusters, where prompts are columns
            for (verbalizer, scorer), interval in zip(_sets(panel), intervals(estimate), strict=True)
        ]


def candidate_prompts(study: Study) -> list[str]:
    """The text of each readout prompt up to and including the grid's readout."""
    readouts = arms.grid_readouts(study)
    places = {"prompt": [readout.text_id for readout in readouts], "position": [readout.index for readout in readouts]}
    return [prompt.text for prompt in read_prompts(pd.DataFrame(places), study)]


def _column(scorer: str) -> str:
    return f"prompts_{scorer}"


def _sets(panel: Panel) -> list[tuple[str, str]]:
    return [(verbalizer, scorer) for verbalizer in panel.measured for scorer in EMBEDDERS]


def _cells(panel: Panel) -> Iterator[_Cell]:
    """Every cell of at least two prompts."""
    tables = [panel.measured[verbalizer][_column(scorer)] for verbalizer, scorer in _sets(panel)]
    found: list[tuple[str, str, float, Rows]] = [("neutral", "none", 0.0, panel.rows(arm="neutral"))]
    found += [
        (arm, injection, r, panel.rows(arm=arm, injection=injection, level="grid", r=r))
        for injection in ("readout", "upstream")
        for arm in ("steered", "permuted", "random", "graft")
        for r in panel.strengths(arm, injection)
    ]
    for arm, injection, r, rows in found:
        rows = rows[np.isfinite(tables[0][rows]).all(-1)]  # another task's items of the arm were not measured
        if panel.items["prompt_number"].iloc[rows].nunique() > 1:
            yield _Cell(arm, injection, r, rows, _units(panel, arm, rows), tables)


def _units(panel: Panel, arm: str, rows: Rows) -> Clusters:
    """What is resampled: prompts, which have the columns, crossed with what the items were moved toward.

    That is the concept, or the control direction. Several prompts share a direction, and one that wipes out more than
    another does so in all of them: with prompts as the only units, simulated 95% intervals then hold 76%; crossed they
    hold 97% or more, and are 1.2 to 1.8 times as wide as need be. A graft moves each prompt along a line of its own.
    """
    prompts = panel.items["prompt_number"].iloc[rows].to_numpy().astype(np.int64)
    if arm in ("neutral", "graft"):
        return Clusters(prompts, np.arange(len(prompts)), nested=True)
    moved = panel.items["concept_number" if arm == "steered" else "draw"].iloc[rows].to_numpy().astype(np.int64)
    return Clusters(prompts, moved, pool="concepts" if arm == "steered" else f"{arm} directions")


TASK = ContentRetention()
