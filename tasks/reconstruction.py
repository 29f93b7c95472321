"""Does the text carry the vector?

AR(text) against the vector that was read, by direction (mse and cosine at L2 = √d, as the released NLAs are trained and
reported). The fraction of variance explained is taken three times: `fve` as the contract has it, about the unnormalised
held-out mean of the same arm and strength, to be read beside published figures; `fve_over_mean` over that mean's own
direction, so that a reconstructor that always gives it is at 0; `fve_over_rock` over a mean that knows the concept too.
`fve_unmoved` is against the unsteered activation. Beside them the share of a displacement that comes back when the text
of the moved activation takes the place of the unmoved one's. Every figure has its controls: what texts score that say
nothing of the vector, and what is left of the text without its quotes or in other words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.extraction import readout_direction
from ..benchmark.held_out import held_out_means
from ..benchmark.nla.fidelity import mse_nrm, normalize_vectors, spread_nrm
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.rewriting import paraphrase, strip_quotes
from ..benchmark.statistics import Estimate, intervals, paired_difference
from ..benchmark.study import Study
from ..benchmark.text_controls import control_texts
from ..benchmark.transcript import OF_VECTORS, Measured, NamedReconstructor, Transcript
from ..benchmark.verbalizers.asking import QUESTION

Floats = NDArray[np.float64]

#: Arms that hold a displacement along a direction.
MOVED = ("steered", "permuted", "random", "graft", "graft_concept")


@dataclass(frozen=True)
class Reconstruction:
    name: str = "reconstruction"
    version: str = "1"
    question: str = "Does the text carry the vector?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.natural_items(study, "function") + arms.neutral_items(study, "function")
        items += arms.matched_items(study, "readout", "function") + arms.steered_grid(study, "readout")
        items += arms.control_grid(study, "permuted", "readout") + arms.control_grid(study, "random", "readout")
        items += arms.control_grid(study, "graft", "readout") + arms.graft_concept_items(study)
        return items + arms.gaussian_items(study)

    def measure(self, transcript: Transcript) -> Measured:
        study, activations = transcript.study, transcript.activations
        wanted = set(self.items(study))
        rows = np.array([row for row, spec in enumerate(activations.specs) if spec in wanted])
        specs = [activations.specs[row] for row in rows]
        place = _Place(len(activations.labels), rows)
        vectors = activations.vectors[rows]
        unmoved = torch.stack([study.state(spec.readout) for spec in specs])
        of_cell, of_treatment = held_out_means(study, specs)
        neutral = normalize_vectors(study.neutral_states("reference", "function")).mean(0)
        moved = np.array([spec.arm in MOVED and spec.level == "grid" for spec in specs])
        directions = torch.stack(
            [readout_direction(study, spec) if is_moved else torch.zeros(study.site.d_model)
             for spec, is_moved in zip(specs, moved, strict=True)]
        )  # fmt: skip
        partners = _neutral_partners(specs)
        measured: dict[str, dict[str, Floats]] = {
            OF_VECTORS: {
                "spread": place(spread_nrm(vectors, of_cell)),
                "mse_mean": place(mse_nrm(of_cell, vectors)),
                "mse_rock": place(mse_nrm(of_treatment, vectors)),
                "spread_unmoved": place(spread_nrm(unmoved, neutral), moved),
                "displacement": place(_along(vectors, unmoved, directions), moved & (partners >= 0)),
            }
        }
        # Rewritten texts are read for the items of the headline alone: each is another pass of the AR.
        headline = np.array([spec.arm == "natural" or spec.level == "matched" for spec in specs])
        for by in transcript.reconstructors:
            columns: dict[str, Floats] = {}
            for suffix, made, among in _reconstructions(transcript, by, rows, headline):
                columns["mse" + suffix] = place(mse_nrm(made, vectors), among)
                columns["cosine" + suffix] = place(torch.cosine_similarity(made, vectors).clamp(-1, 1), among)
                columns["mse_unmoved" + suffix] = place(mse_nrm(made, unmoved), moved & among)
                back = _along(made, made[partners], directions)
                columns["recovered" + suffix] = place(back, moved & among & (partners >= 0))
            measured[by.name] = columns
        return measured

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for verbalizer in panel.measured:
            if verbalizer == OF_VECTORS:
                continue
            for fields, at in _cells(panel):
                rows += self._fidelity(panel, verbalizer, at, fields)
                if fields["arm"] in MOVED and fields["level"] == "grid":
                    rows += self._of_the_move(panel, verbalizer, at, fields)
        return rows

    def _fidelity(self, panel: Panel, verbalizer: str, at: Rows, fields: dict[str, Any]) -> list[MetricRow]:
        own, vectors = panel.measured[verbalizer], panel.measured[OF_VECTORS]
        rows = []
        for metric, total in (("fve", "spread"), ("fve_over_mean", "mse_mean"), ("fve_over_rock", "mse_rock")):
            shares = _shares(panel, at, own, "mse", vectors[total], explained=True)
            rows += self._rows(metric, shares, verbalizer, fields)
        cosine = {
            column.removeprefix("cosine"): panel.mean(own[column][at], at, bounds=(-1.0, 1.0))
            for column in own
            if column.startswith("cosine") and np.isfinite(own[column][at]).all()
        }
        return rows + self._rows("cosine", cosine, verbalizer, fields)

    def _of_the_move(self, panel: Panel, verbalizer: str, at: Rows, fields: dict[str, Any]) -> list[MetricRow]:
        own, vectors = panel.measured[verbalizer], panel.measured[OF_VECTORS]
        unmoved = _shares(panel, at, own, "mse_unmoved", vectors["spread_unmoved"], explained=True)
        rows = self._rows("fve_unmoved", unmoved, verbalizer, fields)
        paired = at[np.isfinite(vectors["displacement"][at])]
        if len(paired):
            recovered = _shares(panel, paired, own, "recovered", vectors["displacement"], explained=False)
            rows += self._rows("displacement_recovered", recovered, verbalizer, {**fields, "n_items": len(paired)})
        return rows

    def _rows(
        self, metric: str, estimates: Mapping[str, Estimate], verbalizer: str, fields: dict[str, Any]
    ) -> list[MetricRow]:
        """The verbalizer's own figure, its controls' ("fve.constant_text"), and its lead over each of them."""
        names: dict[str, Any] = {"task": self.name, "verbalizer": verbalizer, "scorer": "none", **fields}
        rows = []
        for suffix, estimate in estimates.items():
            rows.append(metric_row(intervals(estimate)[0], metric=metric + suffix, **names))
            if suffix:
                lead = intervals(paired_difference(estimates[""], estimate))[0]
                rows.append(metric_row(lead, metric=f"{metric}_lead", versus=suffix[1:], **names))
        return rows


@dataclass(frozen=True)
class _Place:
    """Puts values of some items where all items of the run stand; nan elsewhere."""

    n_items: int
    rows: NDArray[np.int64]

    def __call__(self, values: Tensor, among: NDArray[np.bool_] | None = None) -> Floats:
        placed = np.full(self.n_items, np.nan)
        kept = np.ones(len(self.rows), dtype=bool) if among is None else among
        placed[self.rows[kept]] = values.double().numpy()[kept]
        return placed


def _reconstructions(
    transcript: Transcript, by: NamedReconstructor, rows: NDArray[np.int64], headline: NDArray[np.bool_]
) -> Sequence[tuple[str, Tensor, NDArray[np.bool_]]]:
    """(suffix, vectors [n, d_model], which items) of the verbalizer's own texts ("") and of each control."""

    def at_rows(texts: Sequence[str]) -> list[str]:
        return [texts[row] for row in rows]

    own = at_rows(transcript.texts(by.name))
    everywhere = np.ones(len(rows), dtype=bool)
    found = [("", transcript.reconstruct(by, own), everywhere)]
    for control, texts in control_texts(transcript, by).items():
        found.append((f".{control}", transcript.reconstruct(by, at_rows(texts)), everywhere))
    for control, rewrite in (("quotes_stripped", strip_quotes), ("paraphrased", paraphrase)):
        texts = [rewrite(text) if chosen else text for text, chosen in zip(own, headline, strict=True)]
        found.append((f".{control}", transcript.reconstruct(by, texts), headline))
    if transcript.evaluator is not None:
        found.append((".second_reconstructor", transcript.reconstruct(transcript.evaluator, own), everywhere))
    return found


def _neutral_partners(specs: Sequence[ItemSpec]) -> NDArray[np.int64]:
    """Per item, the neutral item of the same readout; -1 where there is none."""
    neutral = {spec.readout: number for number, spec in enumerate(specs) if spec.arm == "neutral"}
    return np.array([neutral.get(spec.readout, -1) for spec in specs])


def _along(vectors: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """⟨v − o, v̂⟩ of vectors and origins at L2 = √d [n, d_model] -> [n]."""
    return ((normalize_vectors(vectors) - normalize_vectors(origins)) * directions).sum(-1)


def _shares(
    panel: Panel, at: Rows, columns: Mapping[str, Floats], name: str, totals: Floats, *, explained: bool
) -> dict[str, Estimate]:
    """Σ column / Σ total over items (explained: 1 less that), by suffix of the column."""
    found = {}
    for column, values in columns.items():
        if column.partition(".")[0] == name and np.isfinite(values[at]).all():
            parts = totals[at] - values[at] if explained else values[at]
            found[column.removeprefix(name)] = panel.ratio(parts, totals[at], at)
    return found


def _cells(panel: Panel) -> list[tuple[dict[str, Any], Rows]]:
    """Cells of measured items that share arm, level and (on the grid) r, with the fields of their rows."""
    measured = np.isfinite(panel.measured[OF_VECTORS]["spread"])
    items = panel.items[measured]
    strength = items["r"].where((items["level"] == "grid") & (items["injection"] != "none"), -1.0)
    cells = []
    for (arm, injection, level, r), group in items.groupby(
        [items["arm"], items["injection"], items["level"], strength]
    ):
        at = group.index.to_numpy()
        fields = {
            "arm": arm, "injection": injection, "level": level, "r": None if r < 0 else float(r), "n_items": len(at),
        }  # fmt: skip
        cells.append((fields, at))
    return cells


TASK = Reconstruction()
