"""Can anything tell a moved activation from an unmoved one?

Per detector, the AUROC of moved items of one arm and r against the *same readout prompts* unmoved, so that what is
detected is no content: of the vector alone (see `detectors`), of the vector and the prompt that it was read in
(`inversion_detector`), of its text (AR cosine, log-probability), and what a verbalizer says itself where it offers a
`detect()`. What moved an item is its unit beside the prompt: the concept, the
drawn direction (permuted, random), or the prompt whose state it was moved toward (graft).

The answer that is known is at r = 0. The arms' own items at r = 0 would be the very items that they are compared with,
at one half whatever the detector. So unmoved items are compared with *other* unmoved ones: every other readout prompt,
in the study's order, against the rest. With 12 prompts that is six against six, and the interval is as wide as six
prompts allow; what it must do is hold one half. Other function words of the same prompts would be more items, but of
other places in the text, which a detector may tell apart although nothing was moved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.detectors import OF_THE_VECTOR, ask_detector, find_detector, unmoved_states
from ..benchmark.engine import Chunk
from ..benchmark.extraction import Activations, graft_target
from ..benchmark.inversion_detector import can_scan, measure_inversion, plan_scans
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.statistics import (
    Clusters,
    Estimate,
    Negatives,
    intervals,
    macro_auroc,
    monotonicity,
    paired_difference,
    stack,
)
from ..benchmark.study import CONTROL_DRAWS, Study
from ..benchmark.text_controls import control_texts
from ..benchmark.transcript import OF_VECTORS, Measured, Transcript
from ..benchmark.verbalizers.asking import QUESTION
from ..benchmark.verbalizers.base import Verbalization

Floats = NDArray[np.float64]

#: In the place of a verbalizer's name, where a detector needs none.
NO_VERBALIZER = "none"

#: The one detector that is given more than a verbalizer is.
SEES_PROMPT = "inversion_ratio"


@dataclass(frozen=True)
class OffManifoldDetection:
    name: str = "off_manifold_detection"
    version: str = "2"  # 2: the interval of monotonicity hangs on no other verbalizer
    question: str = "Can anything tell a moved activation from an unmoved one?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.neutral_items(study, "function") + arms.natural_items(study, "function")
        for injection in ("readout", "upstream"):
            items += arms.steered_grid(study, injection)
            items += arms.control_grid(study, "permuted", injection) + arms.control_grid(study, "random", injection)
        return items + arms.control_grid(study, "graft", "readout")

    def plan_scans(self, study: Study, activations: Activations) -> list[Chunk]:
        """As `measure` makes them; none where the subject is not in float32."""
        rows = self._own_rows(study, activations)
        specs = [activations.specs[row] for row in rows]
        return plan_scans(study, specs, activations.vectors[rows]) if can_scan(study) else []

    def _own_rows(self, study: Study, activations: Activations) -> Rows:
        wanted = set(self.items(study))
        return np.array([row for row, spec in enumerate(activations.specs) if spec in wanted])

    def measure(self, transcript: Transcript) -> Measured:
        study, activations = transcript.study, transcript.activations
        rows = self._own_rows(study, activations)
        vectors = activations.vectors[rows]

        def place(values: Floats) -> Floats:
            placed = np.full(len(activations.labels), np.nan)
            placed[rows] = values
            return placed

        unmoved = unmoved_states(study)
        measured: dict[str, dict[str, Floats]] = {
            OF_VECTORS: {name: place(detect(unmoved, vectors)) for name, detect in OF_THE_VECTOR.items()}
        }
        if can_scan(study):
            specs = [activations.specs[row] for row in rows]
            measured[OF_VECTORS][SEES_PROMPT] = place(measure_inversion(study, specs, vectors, transcript.engine))
        for by in transcript.reconstructors:
            controls = {f"ar_cosine.{name}": texts for name, texts in control_texts(transcript, by).items()}
            for column, texts in {"ar_cosine": transcript.texts(by.name), **controls}.items():
                made = transcript.reconstruct(by, [texts[row] for row in rows])
                cosine = torch.cosine_similarity(made.double(), vectors.double()).numpy()
                measured.setdefault(by.name, {})[column] = place(1 - cosine)
        for name, verbalizer in transcript.roster.verbalizers.items():
            columns = measured.setdefault(name, {})
            surprise = measure_surprise([transcript.verbalized[name].texts[row] for row in rows])
            # A floor says one text of every vector: it detects nothing, whatever its log-probability.
            if verbalizer.card.role != "floor" and surprise is not None:
                columns["text_logprob"] = place(surprise)
            detector = find_detector(verbalizer)
            if detector is not None:
                found = ask_detector(verbalizer, detector, vectors, study.site, transcript.engine)
                columns["detect"] = place(found)
        return measured

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for detections in _detections(panel):
            unmoved = detections.rows(panel, arm="neutral")
            unmoved = unmoved[np.argsort(_prompts(panel, unmoved))]
            for injection in ("readout", "upstream"):
                for arm in ("steered", "permuted", "random", "graft"):
                    rows += self._moved(panel, detections, unmoved, arm=arm, injection=injection)
            rows += self._natural(panel, detections, unmoved) + self._nothing(panel, detections, unmoved)
        return rows

    def _moved(self, panel: Panel, detections: _Detections, unmoved: Rows, **cell: str) -> list[MetricRow]:
        """An arm over its grid of r, each step over the same prompts at r = 0, and how steadily detection grows."""
        rows: list[MetricRow] = []
        strengths: list[float] = [0.0]
        curve: list[Estimate] = []
        for r in panel.strengths(**cell):
            at = detections.rows(panel, level="grid", r=r, **cell)
            # An item that was moved from one without a value has no place on the curve at r = 0.
            at = at[np.isin(_prompts(panel, at), _prompts(panel, unmoved))]
            if not len(at):
                continue
            clusters, n_units = _units(panel, at)
            if not curve:
                rest = unmoved[np.searchsorted(_prompts(panel, unmoved), _prompts(panel, at))]
                curve.append(_detect(panel, detections, rest, unmoved, clusters, n_units))
            strengths.append(r)
            curve.append(_detect(panel, detections, at, unmoved, clusters, n_units))
            fields: dict[str, Any] = {"r": r, "n_items": len(at), **cell}
            rows += self._rows(detections, "auroc", curve[-1], **fields)
            rows += self._rows(detections, "auroc_over_neutral", paired_difference(curve[-1], curve[0]), **fields)
        if len(curve) > 2:
            rows += self._rows(detections, "monotonicity", monotonicity(strengths, stack(curve)), **cell)
        return rows

    def _natural(self, panel: Panel, detections: _Detections, unmoved: Rows) -> list[MetricRow]:
        natural = detections.rows(panel, arm="natural")
        if not len(natural) or not len(unmoved):
            return []
        found = _detect(panel, detections, natural, unmoved, panel.clusters(natural), len(panel.concepts))
        note = "unmoved both: texts of a concept against neutral prompts, so what is detected is content"
        return self._rows(detections, "auroc", found, arm="natural", n_items=len(natural), note=note)

    def _nothing(self, panel: Panel, detections: _Detections, unmoved: Rows) -> list[MetricRow]:
        """Unmoved prompts against other unmoved prompts: two samples, whose every prompt is a unit of its own."""
        number = _prompts(panel, unmoved)
        one, other = unmoved[number % 2 == 0], unmoved[number % 2 == 1]
        if not len(one) or not len(other):
            return []
        prompts = _prompts(panel, one)
        clusters = Clusters(prompts, prompts, nested=True)
        found = _detect(panel, detections, one, other, clusters, panel.weights.prompt.shape[1])
        note = "nothing was moved: every other readout prompt against the rest"
        return self._rows(detections, "auroc", found, arm="neutral", r=0.0, n_items=len(unmoved), note=note)

    def _rows(self, detections: _Detections, metric: str, estimate: Estimate, **fields: Any) -> list[MetricRow]:
        """Per detector a row; of a control of it ("auroc.constant_text") one more, and the detector's lead over it."""
        note = "; ".join(part for part in (fields.pop("note", ""), detections.note) if part)
        rows = []
        for number, (verbalizer, column) in enumerate(detections.names):
            detector, _, control = column.partition(".")
            names: dict[str, Any] = {"task": self.name, "verbalizer": verbalizer, "scorer": detector, **fields}
            suffix = f".{control}" if control else ""
            rows.append(metric_row(intervals(estimate[number])[0], metric=metric + suffix, note=note, **names))
            if control and metric == "auroc":
                own = detections.names.index((verbalizer, detector))
                lead = intervals(paired_difference(estimate[own], estimate[number]))[0]
                rows.append(metric_row(lead, metric="auroc_lead", versus=control, note=note, **names))
        return rows


@dataclass(frozen=True)
class _Detections:
    """Detectors that have a value for the same items. names: (verbalizer, column); values: [n_detectors, n_items]."""

    names: list[tuple[str, str]]
    values: Floats
    note: str

    def rows(self, panel: Panel, **conditions: Any) -> Rows:
        """The rows that fit and have a value."""
        at = panel.rows(**conditions)
        present: Rows = at[np.isfinite(self.values[0, at])]
        return present


def measure_surprise(said: Sequence[Verbalization]) -> Floats | None:
    """−log p of each text under its verbalizer, in nats per byte of UTF-8 [n]; None where texts have no probability.

    Per byte, as language models of different tokens are compared (Gao et al. 2020, "The Pile", section 3.1): the total
    grows with the text, and would take any change of length for surprise. nan where there is no text.
    """
    texts = [text for text in said if text.error is None]
    if not texts or any(text.logprob is None or not math.isfinite(text.logprob) for text in texts):
        return None
    return np.array(
        [
            math.nan if text.logprob is None or text.error is not None
            else -text.logprob / max(len(text.text.encode()), 1)
            for text in said
        ]
    )  # fmt: skip


def _detections(panel: Panel) -> Iterator[_Detections]:
    """Detectors by the items that they have a value for: all that were measured, or those with a text of their own.

    The one that sees prompts stands apart, with a note that says so.
    """
    columns = {(name, column): values for name, own in panel.measured.items() for column, values in own.items()}
    measured = np.isfinite(next(iter(panel.measured[OF_VECTORS].values())))
    alike: dict[tuple[bool, bytes], list[tuple[str, str]]] = {}
    for key, values in columns.items():
        alike.setdefault((key[1] == SEES_PROMPT, np.isfinite(values).tobytes()), []).append(key)
    for (sees_prompt, _), keys in alike.items():
        values = np.stack([columns[key] for key in keys])
        missing = int((measured & ~np.isfinite(values[0])).sum())
        note = f"{missing} of {measured.sum()} items have no text and are left out" if missing else ""
        if sees_prompt:
            note = (
                "it is given the prompt before the readout, which no other detector sees"
                f"; {missing} of {measured.sum()} items (natural texts) would each need a scan and have no value"
            )
        yield _Detections([(name or NO_VERBALIZER, column) for name, column in keys], values, note)


def _detect(
    panel: Panel, detections: _Detections, moved: Rows, unmoved: Rows, clusters: Clusters, n_units: int
) -> Estimate:
    """AUROC of moved against unmoved items, macro over what moved them [n_detectors]."""

    def as_columns(rows: Rows) -> Floats:
        """A detector's value stands in every unit's column: what is asked is the same of all."""
        values = detections.values[:, rows, None]
        return np.broadcast_to(values, (*values.shape[:2], n_units))

    against = Negatives(as_columns(unmoved), Clusters.of_prompts(_prompts(panel, unmoved)))
    n_prompts = panel.weights.prompt.shape[1]
    return macro_auroc(as_columns(moved), clusters, negatives=against, n_prompts=n_prompts)


def _units(panel: Panel, at: Rows) -> tuple[Clusters, int]:
    """The units of moved items of one arm, prompts crossed with what moved them, and how many of the latter there are.

    A graft's draw is no direction but says which prompt it was moved toward.
    """
    items, prompts, n_prompts = panel.items.iloc[at], _prompts(panel, at), panel.weights.prompt.shape[1]
    arm = items["arm"].iloc[0]
    if arm == "steered":
        return panel.clusters(at), len(panel.concepts)
    draws = items["draw"].to_numpy().astype(np.int64)
    if arm == "graft":
        targets = [graft_target(prompt, draw, n_prompts) for prompt, draw in zip(prompts, draws, strict=True)]
        return Clusters(np.array(targets), prompts), n_prompts
    return Clusters(draws, prompts), CONTROL_DRAWS


def _prompts(panel: Panel, at: Rows) -> NDArray[np.int64]:
    return np.asarray(panel.items["prompt_number"].iloc[at].to_numpy().astype(np.int64))


TASK = OffManifoldDetection()
