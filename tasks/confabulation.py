"""What does it claim where nothing is there?

A text claims concept c when column c passes a threshold, at which half of the *other* concepts' natural items (other
concepts, other prompts) have their own concept claimed. On concept-free arms every claim is false. Beside it,
sensitivity: how often moving the vector changes the text at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.statistics import Estimate, intervals, paired_difference
from ..benchmark.study import Study
from ..benchmark.verbalizers.asking import QUESTION

#: The share of natural items whose own concept is claimed, at which false claims are counted.
TRUE_CLAIM_RATE = 0.5


@dataclass(frozen=True)
class Confabulation:
    name: str = "confabulation"
    version: str = "1"
    question: str = "What does it claim where nothing is there?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.natural_items(study, "function") + arms.neutral_items(study, "function")
        items += arms.control_grid(study, "permuted", "readout") + arms.control_grid(study, "random", "readout")
        return items + arms.gaussian_items(study) + arms.steered_grid(study, "readout")

    def score(self, panel: Panel) -> list[MetricRow]:
        thresholds = claim_thresholds(panel)
        neutral = panel.rows(arm="neutral", kind="function")
        at_rest = self._claims(panel, neutral, thresholds)
        rows = self._rows(panel, "false_claims", at_rest, arm="neutral", n_items=len(neutral))
        true = panel.rows(arm="natural", kind="function")
        own = panel.items["concept_number"].iloc[true].to_numpy().astype(int)
        claimed = panel.own_scores(true) > thresholds[:, own]
        rows += self._rows(panel, "true_claims", panel.mean(claimed, true), arm="natural", n_items=len(true))
        for arm, r, at in _concept_free_cells(panel):
            claims = self._claims(panel, at, thresholds)
            fields: dict[str, Any] = {"arm": arm, "r": r, "n_items": len(at)}
            fields["injection"] = "none" if arm == "gaussian" else "readout"
            rows += self._rows(panel, "false_claims", claims, **fields)
            rows += self._rows(panel, "false_claims_over_neutral", paired_difference(claims, at_rest), **fields)
        return rows + self._sensitivity(panel)

    def _claims(self, panel: Panel, at: Rows, thresholds: NDArray[np.float64]) -> Estimate:
        return panel.mean(panel.by_item(at, lambda scores, _: (scores > thresholds[:, None]).mean(-1)), at)

    def _rows(self, panel: Panel, metric: str, estimate: Estimate, **fields: Any) -> list[MetricRow]:
        return [
            metric_row(interval, task=self.name, metric=metric, verbalizer=verbalizer, scorer=scorer, **fields)
            for (verbalizer, scorer), interval in zip(panel.sets, intervals(estimate), strict=True)
        ]

    def _sensitivity(self, panel: Panel) -> list[MetricRow]:
        """Share of moved items whose text is not the neutral text of the same prompt and position."""
        neutral = panel.rows(arm="neutral", kind="function")
        prompt = panel.items["prompt"] + "@" + panel.items["position"].astype(str)
        rows: list[MetricRow] = []
        for arm in ("steered", "permuted", "random"):
            for r in panel.strengths(arm, "readout"):
                at = panel.rows(arm=arm, injection="readout", level="grid", r=r)
                changed = np.zeros((len(panel.sets), len(at)))
                for verbalizer, texts in panel.texts.items():
                    before = {prompt.iloc[i]: texts[i] for i in neutral}
                    differs = [before.get(prompt.iloc[i]) != texts[i] for i in at]
                    changed[panel.set_numbers(verbalizer)] = differs
                estimate = panel.mean(changed, at)
                first = [panel.set_numbers(verbalizer)[0] for verbalizer in panel.texts]
                rows += [
                    metric_row(
                        interval, task=self.name, metric="changed_texts", verbalizer=panel.sets[number][0],
                        scorer="none", arm=arm, injection="readout", r=r, n_items=len(at),
                    )
                    for number, interval in enumerate(intervals(estimate))
                    if number in first
                ]  # fmt: skip
        return rows


def claim_thresholds(panel: Panel) -> NDArray[np.float64]:
    """A threshold per score set and column, chosen on the other concepts' natural items [n_sets, n_concepts]."""
    natural = panel.rows(arm="natural", kind="function")
    own = panel.own_scores(natural)
    concepts = panel.items["concept_number"].iloc[natural].to_numpy().astype(int)
    return np.stack(
        [
            np.quantile(own[:, concepts != column], 1 - TRUE_CLAIM_RATE, axis=1)
            for column in range(panel.scores.shape[-1])
        ],
        axis=1,
    )


def _concept_free_cells(panel: Panel) -> list[tuple[str, float | None, Rows]]:
    cells: list[tuple[str, float | None, Rows]] = [
        (arm, r, panel.rows(arm=arm, injection="readout", level="grid", r=r))
        for arm in ("permuted", "random")
        for r in panel.strengths(arm, "readout")
    ]
    gaussian = panel.rows(arm="gaussian")
    return [*cells, ("gaussian", None, gaussian)] if len(gaussian) else cells


TASK = Confabulation()
