"""Put AR(text) back into the subject: does it still compute the same?

The reconstruction takes the place of the vector that was read, at its site and position, scaled to that vector's norm
(an AR has no scale), and the subject runs on. `kl_closed`: of what mean-ablation does to the next token's distribution,
how much does not happen. `loss_closed`: the same of the loss on the tokens that follow. The vector that was read is at
1, the mean at 0, and a vector that is worse than the mean below. A moved activation is compared with its own run, and
with the plain one, of the prompt before anything was added: a text that tells of the prompt and not of what was added
closes the more of the second, and no more of the first than the unmoved state itself does (`kl_closed.plain_state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.round_trip import make_round_trips
from ..benchmark.statistics import Estimate, intervals, paired_difference
from ..benchmark.study import Study
from ..benchmark.text_controls import control_texts
from ..benchmark.transcript import OF_VECTORS, Measured, NamedReconstructor, Transcript
from ..benchmark.verbalizers.asking import QUESTION

Floats = NDArray[np.float64]

#: The suffix of the control that is no text: the state before anything was added, put in the place of a moved one.
PLAIN_STATE = ".plain_state"


@dataclass(frozen=True)
class FunctionalRoundTrip:
    name: str = "functional_round_trip"
    version: str = "1"
    question: str = "Put AR(text) back into the subject: does it still compute the same?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        return arms.mid_items(study)

    def measure(self, transcript: Transcript) -> Measured:
        """Divergences and losses in nats; nan for items without text to follow.

        Of vectors: `kl_mean` (KL(own run ‖ mean-ablated)), `kl_plain_mean` (KL(plain ‖ mean-ablated)), `kl_plain_moved`
        (KL(plain ‖ own run): what moving did), `kl.plain_state` and `loss.plain_state` (the plain state put back),
        `loss_original`, `loss_mean`. Of a reconstructing verbalizer and each of its controls: `kl` and `kl_plain`
        (KL(own run, plain run ‖ reconstruction put back), `loss`. Of an item that was not moved the plain run is its
        own.

        The mean is of neutral *reference* states at function words, as it is. Scaled to the item's norm it would be a
        direction that is put back, and knowing the norm is knowing something: to ablate is to leave what all states
        share, and that mean is shorter than any of them.
        """
        rows = np.flatnonzero((transcript.activations.labels["kind"] == "mid").to_numpy())
        measured: dict[str, dict[str, Floats]] = {}
        for by in transcript.reconstructors if len(rows) else []:
            of_vectors, of_texts = _put_back(transcript, by, rows)
            measured[OF_VECTORS], measured[by.name] = of_vectors, of_texts
        return measured

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for verbalizer in panel.measured:
            if verbalizer == OF_VECTORS:
                continue
            for fields, at in _cells(panel):
                for metric, shares in _shares(panel, verbalizer, at, moved=fields["injection"] != "none").items():
                    rows += self._share_rows(metric, shares, verbalizer, fields)
                rows += self._scale_rows(panel, verbalizer, at, fields)
            rows += self._gap_rows(panel, verbalizer)
        return rows

    def _share_rows(
        self, metric: str, shares: Mapping[str, Estimate], verbalizer: str, fields: dict[str, Any]
    ) -> list[MetricRow]:
        """The verbalizer's own share, its controls' ("kl_closed.constant_text"), and its lead over each of them."""
        names: dict[str, Any] = {"task": self.name, "verbalizer": verbalizer, "scorer": "none", **fields}
        if not shares:
            return [MetricRow(metric=metric, value=None, note="mean-ablation does no sure harm here", **names)]
        rows = []
        for suffix, estimate in shares.items():
            rows.append(metric_row(intervals(estimate)[0], metric=metric + suffix, **names))
            if suffix:
                lead = intervals(paired_difference(shares[""], estimate))[0]
                rows.append(metric_row(lead, metric=f"{metric}_lead", versus=suffix[1:], **names))
        return rows

    def _scale_rows(self, panel: Panel, verbalizer: str, at: Rows, fields: dict[str, Any]) -> list[MetricRow]:
        """Mean divergences and losses: a share of next to nothing is next to nothing."""
        own, vectors = panel.measured[verbalizer], panel.measured[OF_VECTORS]
        means = {"kl": own["kl"], "kl_mean": vectors["kl_mean"], "loss": own["loss"]}
        means |= {name: vectors[name] for name in ("loss_mean", "loss_original")}
        if fields["injection"] != "none":
            means |= {"kl_plain": own["kl_plain"], "kl_plain_mean": vectors["kl_plain_mean"]}
            means |= {"kl_plain_moved": vectors["kl_plain_moved"], "loss_plain": vectors["loss.plain_state"]}
        names: dict[str, Any] = {"task": self.name, "verbalizer": verbalizer, "scorer": "none", **fields}
        estimates = panel.mean(np.stack([values[at] for values in means.values()]), at, bounds=None)
        return [
            metric_row(interval, metric=metric, **names)
            for metric, interval in zip(means, intervals(estimates), strict=True)
        ]

    def _gap_rows(self, panel: Panel, verbalizer: str) -> list[MetricRow]:
        """Steered - natural at matched evidence, on the concepts of the headline and on pairs of one word."""
        steered, natural = _pairs(panel)
        if not len(steered):
            return []
        rows = []
        by_arm = [_shares(panel, verbalizer, at, moved=False) for at in (steered, natural)]
        for metric in ("kl_closed", "loss_closed"):
            if by_arm[0][metric] and by_arm[1][metric]:
                gap = paired_difference(by_arm[0][metric][""], by_arm[1][metric][""])
                rows.append(
                    metric_row(
                        intervals(gap)[0], task=self.name, metric=f"{metric}_gap", verbalizer=verbalizer,
                        scorer="none", arm="steered-natural", injection="readout", level="matched", kind="mid",
                        n_items=len(steered) + len(natural),
                    )
                )  # fmt: skip
        return rows


def _put_back(
    transcript: Transcript, by: NamedReconstructor, rows: NDArray[np.int64]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The columns of vectors and those of a verbalizer (see `measure`), each [n_items of the run]."""
    study, activations = transcript.study, transcript.activations
    readouts = [activations.specs[row].readout for row in rows]
    own = activations.vectors[rows]
    mean = study.neutral_states("reference", "function").mean(0)
    plain = torch.stack([study.state(readout) for readout in readouts])
    put = {"original": own, "plain": plain, "mean": mean.expand_as(own), **_reconstructions(transcript, by, rows)}
    stage = f"{by.name} (round trips of vectors)"
    found = make_round_trips(study, readouts, own, torch.stack(list(put.values()), dim=1), transcript.engine, stage)

    def column(values: Floats, name: str) -> Floats:
        placed = np.full(len(activations.specs), np.nan)
        placed[rows] = values[:, list(put).index(name)]
        return placed

    of_vectors = {
        "kl_mean": column(found.kl, "mean"),
        "kl_plain_mean": column(found.kl_plain, "mean"),
        "kl_plain_moved": column(found.kl_plain, "original"),
        "kl.plain_state": column(found.kl, "plain"),
        "loss.plain_state": column(found.loss, "plain"),
        "loss_original": column(found.loss, "original"),
        "loss_mean": column(found.loss, "mean"),
    }
    of_texts = {}
    for suffix in [name for name in put if name not in ("original", "plain", "mean")]:
        of_texts["kl" + suffix] = column(found.kl, suffix)
        of_texts["kl_plain" + suffix] = column(found.kl_plain, suffix)
        of_texts["loss" + suffix] = column(found.loss, suffix)
    return of_vectors, of_texts


def _reconstructions(transcript: Transcript, by: NamedReconstructor, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """By suffix, what stands in for items [n, d_model]: of the verbalizer's own texts (""), of each control's, and of
    the own texts by the run's second reconstructor. Each is as long as the vector that was read; zero stays zero."""
    norms = transcript.activations.vectors[rows].norm(dim=-1, keepdim=True)

    def rebuild(reconstructor: NamedReconstructor, texts: list[str]) -> Tensor:
        made = transcript.reconstruct(reconstructor, [texts[row] for row in rows])
        scaled: Tensor = torch.nn.functional.normalize(made, dim=-1) * norms
        return scaled

    own = transcript.texts(by.name)
    found = {"": rebuild(by, own)}
    for control, texts in control_texts(transcript, by).items():
        found[f".{control}"] = rebuild(by, texts)
    if transcript.evaluator is not None:
        found[".second_reconstructor"] = rebuild(transcript.evaluator, own)
    return found


def _shares(panel: Panel, verbalizer: str, at: Rows, *, moved: bool) -> dict[str, dict[str, Estimate]]:
    """Per metric, the share that is closed, by suffix; nothing where mean-ablation does no sure harm.

    moved: the items were, so that they have a plain run besides, and the plain state is a control.
    """
    own, vectors = panel.measured[verbalizer], panel.measured[OF_VECTORS]
    nothing = np.zeros(len(panel.items))
    ends = {
        "kl_closed": ("kl", vectors["kl_mean"], nothing),
        "loss_closed": ("loss", vectors["loss_mean"], vectors["loss_original"]),
    }
    if moved:
        ends["kl_closed_to_plain"] = ("kl_plain", vectors["kl_plain_mean"], nothing)
        ends["loss_closed_to_plain"] = ("loss", vectors["loss_mean"], vectors["loss.plain_state"])
    shares: dict[str, dict[str, Estimate]] = {}
    for metric, (name, worst, best) in ends.items():
        values = {column.removeprefix(name): v for column, v in own.items() if column.partition(".")[0] == name}
        if moved and not metric.endswith("to_plain"):  # to its own run the plain state is at 1
            values[PLAIN_STATE] = vectors[name + PLAIN_STATE]
        harm = (worst - best)[at]
        harms = _does_sure_harm(panel, harm, at)
        shares[metric] = {suffix: panel.ratio((worst - v)[at], harm, at) for suffix, v in values.items() if harms}
    return shares


def _does_sure_harm(panel: Panel, harm: Floats, at: Rows) -> bool:
    """Whether the mean of harm [n_items] is above 0: no item has less, or the interval says so.

    A share of what cannot be told from 0 may be anything (Fieller 1954: its interval has no ends). Divergences are
    never below 0; a loss that was raised by moving the state can be lowered by the mean.
    """
    if (harm >= 0).all():
        return bool(harm.sum() > 0)
    return intervals(panel.mean(harm, at, bounds=None))[0].low > 0


def _pairs(panel: Panel) -> tuple[Rows, Rows]:
    """Steered items at matched evidence and their natural partners, in one order: both there, and read at one word."""
    concepts = panel.included("readout", "function")
    natural = panel.rows(arm="natural", kind="mid", concepts=concepts)
    items = panel.items
    place = items["prompt"] + "@" + items["position"].astype(str)
    partner = dict(zip(place.iloc[natural], natural, strict=True))
    pairs = [
        (row, partner[items["pair"].iloc[row]])
        for row in panel.rows(arm="steered", injection="readout", level="matched", kind="mid", concepts=concepts)
        if items["pair"].iloc[row] in partner
        and items["word"].iloc[row] == items["word"].iloc[partner[items["pair"].iloc[row]]]
    ]
    steered, of_steered = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return steered, of_steered


def _cells(panel: Panel) -> list[tuple[dict[str, Any], Rows]]:
    """The cells of items with text to follow, each with the fields of its rows."""
    cells: list[tuple[dict[str, Any], Rows]] = []

    def add(arm: str, r: float | None = None, **more: str) -> None:
        strength: dict[str, Any] = {} if r is None else {"r": r}
        at = panel.rows(kind="mid", arm=arm, **more, **strength)
        if len(at):
            cells.append(({"arm": arm, "kind": "mid", "r": r, "n_items": len(at), **more}, at))

    for arm in ("natural", "neutral"):
        add(arm, injection="none", level="grid")
    add("steered", injection="readout", level="matched")
    for arm in ("steered", "permuted"):
        for r in panel.strengths(arm, "readout", kind="mid"):
            add(arm, r, injection="readout", level="grid")
    return cells


TASK = FunctionalRoundTrip()
