"""Is the right concept in the text?

Natural items against steered ones, at matched evidence and over the grid, with the controls beside them. The headline
is the paired difference of AUROCs, steered - natural, on token-matched pairs at function words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..benchmark import arms
from ..benchmark.activations import Injection, ItemSpec, PositionKind
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.statistics import Estimate, contrast, intervals, paired_difference, stack
from ..benchmark.study import Study
from ..benchmark.verbalizers.asking import QUESTION

#: Where the ceiling is nearer to the floor than this, a place between them means nothing.
LEAST_ROOM = 0.1

ENDS: tuple[tuple[Injection, PositionKind], ...] = (
    ("readout", "function"), ("readout", "final"), ("upstream", "function"),
)  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """Items of one arm that are scored together."""

    arm: str
    injection: str
    level: str
    kind: str
    r: float | None
    rows: Rows
    permuted: Rows  # the permuted arm at the same strength; empty where there is none

    def fields(self) -> dict[str, Any]:
        return {
            "arm": self.arm, "injection": self.injection, "level": self.level, "kind": self.kind, "r": self.r,
            "n_items": len(self.rows),
        }  # fmt: skip


@dataclass(frozen=True)
class ConceptIdentification:
    name: str = "concept_identification"
    version: str = "2"  # 2: ties in a row count their expected reciprocal rank
    question: str = "Is the right concept in the text?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.natural_items(study, "function") + arms.natural_items(study, "final")
        for injection, kind in ENDS:
            items += arms.matched_items(study, injection, kind)
        for injection in ("readout", "upstream"):
            items += arms.steered_grid(study, injection) + arms.control_grid(study, "permuted", injection)
            items += arms.matched_controls(study, injection)
        items += arms.control_grid(study, "random", "readout") + arms.control_grid(study, "random", "upstream")
        items += arms.control_grid(study, "graft", "readout") + arms.graft_concept_items(study)
        return items + arms.neutral_items(study, "function") + arms.neutral_items(study, "final")

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for cell in _cells(panel):
            rows += self._cell_metrics(panel, cell)
        for injection, kind in ENDS:
            rows += self._gaps(panel, injection, kind)
        return rows

    def _cell_metrics(self, panel: Panel, cell: _Cell) -> list[MetricRow]:
        identified = panel.auroc(cell.rows)
        found = {"auroc": identified}
        same_family = np.equal.outer(np.array(panel.families), np.array(panel.families))
        present = panel.items["concept"].iloc[cell.rows].unique()
        kin = [panel.families[panel.concepts.index(c)] for c in present]
        if len(kin) > len(set(kin)):
            found["auroc_within_family"] = panel.auroc(cell.rows, allowed=same_family)
        if len(cell.permuted):
            found["auroc_against_permuted"] = panel.against(cell.rows, cell.permuted)
        found["top1"] = panel.mean(panel.own_is_first(cell.rows), cell.rows)
        found["mrr"] = panel.mean(panel.reciprocal_ranks(cell.rows), cell.rows)
        rows = [row for metric, estimate in found.items() for row in self._rows(panel, metric, estimate, cell.fields())]
        rows += self._places(panel, "place", identified, cell.fields())
        if cell.kind == "function" and (cell.arm == "natural" or cell.level == "matched"):
            rows += self._leads(panel, identified, cell.fields())
        if cell.level != "grid" or cell.arm == "natural":
            rows += self._by_concept(panel, identified, cell)
        return rows

    def _rows(self, panel: Panel, metric: str, estimate: Estimate, fields: dict[str, Any]) -> list[MetricRow]:
        return [
            metric_row(interval, task=self.name, metric=metric, verbalizer=verbalizer, scorer=scorer, **fields)
            for (verbalizer, scorer), interval in zip(panel.sets, intervals(estimate), strict=True)
        ]

    def _by_concept(self, panel: Panel, estimate: Estimate, cell: _Cell) -> list[MetricRow]:
        assert estimate.per_concept is not None
        fields = {**cell.fields(), "n_items": 0}
        return [
            MetricRow(
                task=self.name, metric="auroc", verbalizer=verbalizer, scorer=scorer, group=concept,
                value=float(value), note="one concept: no interval", **fields,
            )
            for concept, values in zip(panel.concepts, estimate.per_concept, strict=True)
            for (verbalizer, scorer), value in zip(panel.sets, values, strict=True)
            if np.isfinite(value)
        ]  # fmt: skip

    def _leads(self, panel: Panel, estimate: Estimate, fields: dict[str, Any]) -> list[MetricRow]:
        """AUROC less another verbalizer's on the same items, for every verbalizer that is no control.

        The floors that are made of a third one's texts say nothing about the two.
        """
        rows = []
        for number, (verbalizer, scorer) in enumerate(panel.sets):
            if panel.roles[verbalizer] not in ("submitted", "baseline"):
                continue
            for other, (versus, same) in enumerate(panel.sets):
                if same != scorer or versus == verbalizer:
                    continue
                if panel.roles[versus] != "floor" or ":" not in versus or versus.partition(":")[2] == verbalizer:
                    lead = intervals(paired_difference(estimate[number], estimate[other]))[0]
                    names = {"verbalizer": verbalizer, "scorer": scorer, "versus": versus}
                    rows.append(metric_row(lead, task=self.name, metric="auroc_lead", **names, **fields))
        return rows

    def _places(self, panel: Panel, metric: str, estimate: Estimate, fields: dict[str, Any]) -> list[MetricRow]:
        """(value - floor) / (ceiling - floor), floor: `constant`; ceiling: the probe on the same vectors."""
        role = {role: name for name, role in panel.roles.items() if role == "ceiling"}
        if "ceiling" not in role or "constant" not in panel.roles:
            return []
        rows = []
        for number, (verbalizer, scorer) in enumerate(panel.sets):
            ceiling = panel.sets.index((role["ceiling"], scorer))
            floor = panel.sets.index(("constant", scorer))
            if number in (ceiling, floor):
                continue
            names: dict[str, Any] = {"task": self.name, "metric": metric, "verbalizer": verbalizer, "scorer": scorer}
            room = float(estimate.point[ceiling] - estimate.point[floor])
            if room < LEAST_ROOM:
                note = f"the ceiling is only {room:.2f} above the floor"
                rows.append(MetricRow(**names, **fields, value=None, note=note))
                continue
            place = float((estimate.point[number] - estimate.point[floor]) / room)
            # Fieller: the place p is where value - p·ceiling - (1 - p)·floor crosses 0; its spread there is p's.
            three = stack([estimate[number], estimate[ceiling], estimate[floor]])
            around = intervals(contrast(three, np.array([1, -place, place - 1]) / room))[0]
            rows.append(
                metric_row(around, **names, **fields).model_copy(
                    update={"value": place, "low": _add(place, around.low), "high": _add(place, around.high)}
                )
            )
        return rows

    def _gaps(self, panel: Panel, injection: Injection, kind: PositionKind) -> list[MetricRow]:
        """Steered - natural at matched evidence, on the concepts that are in the headline, and on the same pairs."""
        concepts = panel.included(injection, kind)
        steered = panel.rows(arm="steered", injection=injection, level="matched", kind=kind, concepts=concepts)
        partners = set(panel.items["pair"].iloc[steered])
        natural = panel.rows(arm="natural", kind=kind, concepts=concepts)
        key = panel.items["prompt"] + "@" + panel.items["position"].astype(str)
        natural = natural[key.iloc[natural].isin(partners).to_numpy()]
        if kind == "function":
            # Both sides of a pair, on one word: a partner that is an outlier, or another word, takes the pair out.
            words = dict(zip(key.iloc[natural], panel.items["word"].iloc[natural], strict=True))
            own = panel.items["word"].iloc[steered]
            matched = [
                words.get(pair) == word for pair, word in zip(panel.items["pair"].iloc[steered], own, strict=True)
            ]
            steered = steered[np.array(matched, dtype=bool)]
            partners = set(panel.items["pair"].iloc[steered])
            natural = natural[key.iloc[natural].isin(partners).to_numpy()]
        if len(set(panel.items["concept"].iloc[steered])) < 2 or len(natural) == 0:
            return []
        rows: list[MetricRow] = []
        fields: dict[str, Any] = {"injection": injection, "level": "matched", "kind": kind, "r": None}
        measures: dict[str, Callable[[Rows], Estimate]] = {
            "auroc": panel.auroc,
            "mrr": lambda r: panel.mean(panel.reciprocal_ranks(r), r),
        }
        for metric, measure in measures.items():
            by_arm = {"steered": measure(steered), "natural": measure(natural)}
            gap = paired_difference(by_arm["steered"], by_arm["natural"])
            fields["n_items"] = len(steered) + len(natural)
            rows += self._rows(panel, f"{metric}_gap", gap, {**fields, "arm": "steered-natural"})
            for arm, estimate in by_arm.items():
                fields["n_items"] = len(steered) if arm == "steered" else len(natural)
                rows += self._rows(panel, f"{metric}_in_pairs", estimate, {**fields, "arm": arm})
                if metric == "auroc":
                    rows += self._places(panel, "place_in_pairs", estimate, {**fields, "arm": arm})
        return rows


def _cells(panel: Panel) -> Iterator[_Cell]:
    """Every cell of labelled items that this run made, those with fewer than two concepts left out."""
    none = np.array([], dtype=np.int64)
    cells = [
        _Cell("natural", "none", "grid", kind, None, panel.rows(arm="natural", kind=kind), none)
        for kind in ("function", "final")
    ]
    for injection in ("readout", "upstream"):
        for r in panel.strengths("steered", injection):
            at: dict[str, Any] = {"injection": injection, "level": "grid", "r": r}
            permuted = panel.rows(arm="permuted", **at)
            cells.append(_Cell("steered", injection, "grid", "function", r, panel.rows(arm="steered", **at), permuted))
    for injection, kind in ENDS:
        matched = panel.rows(arm="steered", injection=injection, level="matched", kind=kind)
        permuted = panel.rows(arm="permuted", injection=injection, level="matched") if kind == "function" else none
        cells.append(_Cell("steered", injection, "matched", kind, None, matched, permuted))
    for level in ("matched", "full"):
        graft = panel.rows(arm="graft_concept", level=level)
        cells.append(_Cell("graft_concept", "readout", level, "function", None, graft, none))
    for cell in cells:
        if panel.items["concept"].iloc[cell.rows].nunique() > 1:
            yield cell


def _add(place: float, bound: float) -> float | None:
    return float(place + bound) if np.isfinite(bound) else None


TASK = ConceptIdentification()
