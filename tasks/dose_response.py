"""From which strength does the text change?

The curve is the AUROC of a concept's column between its steered items and permuted items of the same r in the same
prompt, so that what the prompt says and what moving an activation does by itself are taken out. At r = 0 both are the
neutral item: one half exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.panel import Panel
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.statistics import Estimate, area_between, intervals, monotonicity, r50_interval, stack
from ..benchmark.study import Study
from ..benchmark.verbalizers.asking import QUESTION


@dataclass(frozen=True)
class DoseResponse:
    name: str = "dose_response"
    version: str = "3"  # 2: monotonicity counts prompts; 3: those of the design, whatever is beside
    question: str = "From which strength does the text change, and how steadily?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.neutral_items(study, "function")
        for injection in ("readout", "upstream"):
            items += arms.steered_grid(study, injection)
            items += arms.control_grid(study, "permuted", injection) + arms.control_grid(study, "random", injection)
        return items

    def score(self, panel: Panel) -> list[MetricRow]:
        rows: list[MetricRow] = []
        for injection in ("readout", "upstream"):
            strengths = panel.strengths("steered", injection)
            rows += self._own_scores(panel, injection, strengths)
            if len(strengths) < 2:
                continue
            points = []
            for r in strengths:
                at: dict[str, Any] = {"injection": injection, "level": "grid", "r": r}
                points.append(panel.against(panel.rows(arm="steered", **at), panel.rows(arm="permuted", **at)))
                for (verbalizer, scorer), interval in zip(panel.sets, intervals(points[-1]), strict=True):
                    rows.append(
                        metric_row(
                            interval, task=self.name, metric="steered_against_permuted", verbalizer=verbalizer,
                            scorer=scorer, arm="steered", injection=injection, r=r,
                            n_items=len(panel.rows(arm="steered", **at)),
                        )
                    )  # fmt: skip
            rows += self._summaries(panel, injection, [0.0, *strengths], [_nothing(points[0]), *points])
        return rows

    def _summaries(
        self, panel: Panel, injection: str, strengths: list[float], points: list[Estimate]
    ) -> list[MetricRow]:
        ceiling_name = next((name for name, role in panel.roles.items() if role == "ceiling"), None)
        rows = []
        # Set by set: a curve has every unit's effect at every strength, and of all sets those are a run's largest.
        for number, (verbalizer, scorer) in enumerate(panel.sets):
            curve = stack([point[number] for point in points])
            flat = stack([_nothing(points[0][number])] * len(points))
            names: dict[str, Any] = {
                "task": self.name, "verbalizer": verbalizer, "scorer": scorer, "arm": "steered", "injection": injection,
            }  # fmt: skip
            rows.append(metric_row(intervals(monotonicity(strengths, curve))[0], metric="monotonicity", **names))
            rows.append(metric_row(intervals(area_between(strengths, curve, flat))[0], metric="area", **names))
            if ceiling_name is None or verbalizer in (ceiling_name, "constant"):
                continue
            ceiling = points[-1][panel.sets.index((ceiling_name, scorer))]
            half = r50_interval(strengths, curve, ceiling, floor=0.5)
            censored = strengths[-1] if np.isinf(half.estimate) or np.isinf(half.high) else None
            rows.append(metric_row(half, metric="r50", censored_at=censored, **names))
        return rows

    def _own_scores(self, panel: Panel, injection: str, strengths: list[float]) -> list[MetricRow]:
        """Mean standardized score per arm and r: of the own column (steered), of all columns (concept-free arms)."""
        rows = []
        for arm in ("steered", "permuted", "random"):
            for r in strengths:
                at = panel.rows(arm=arm, injection=injection, level="grid", r=r)
                if not len(at):
                    continue
                own = arm == "steered"
                values = panel.own_scores(at) if own else panel.by_item(at, lambda scores, _: scores.mean(-1))
                estimate = panel.mean(values, at, bounds=None)
                rows += [
                    metric_row(
                        interval, task=self.name, metric="mean_score", verbalizer=verbalizer, scorer=scorer, arm=arm,
                        injection=injection, r=r, n_items=len(at),
                    )
                    for (verbalizer, scorer), interval in zip(panel.sets, intervals(estimate), strict=True)
                ]  # fmt: skip
        return rows


def _nothing(like: Estimate) -> Estimate:
    """AUROC at r = 0: both arms are the neutral item, so it is one half without any spread."""

    def fill(array: Any, value: float) -> Any:
        return None if array is None else np.where(np.isnan(array), np.nan, value).astype(array.dtype)

    return replace(
        like,
        point=fill(like.point, 0.5),
        by_concept=fill(like.by_concept, 0),
        by_prompt=fill(like.by_prompt, 0),
        by_cell=fill(like.by_cell, 0),
        draws=fill(like.draws, 0.5),
        per_concept=fill(like.per_concept, 0.5),
        per_concept_without_prompt=fill(like.per_concept_without_prompt, 0.5),
    )


TASK = DoseResponse()
