"""How much of identification does a reader of *text* reach?

An activation holds its prompt's last tokens, and who reads those knows something of the concept without looking at the
vector. So items are compared with items that share their tokens: natural items with natural items at the same word,
steered items with items steered another way, and not at all, at the same place of the same prompt. What a verbalizer
reaches there beyond the readers of text is information that the text does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..benchmark import arms
from ..benchmark.activations import ItemSpec
from ..benchmark.panel import Panel, Rows
from ..benchmark.records import MetricRow, metric_row
from ..benchmark.statistics import Estimate, intervals, paired_difference
from ..benchmark.study import Study
from ..benchmark.verbalizers.asking import QUESTION


@dataclass(frozen=True)
class PrivilegedInformation:
    name: str = "privileged_information"
    version: str = "1"
    question: str = "Where the words are the same and the activation is not, does the text differ as it should?"
    asks: str = QUESTION

    def items(self, study: Study) -> list[ItemSpec]:
        items = arms.natural_items(study, "function") + arms.neutral_items(study, "function")
        for injection in ("readout", "upstream"):
            items += arms.steered_grid(study, injection)
        return items

    def score(self, panel: Panel) -> list[MetricRow]:
        natural = panel.rows(arm="natural")
        rows = self._same_tokens(panel, natural, panel.items["word"], arm="natural")
        place = panel.items["prompt"] + "@" + panel.items["position"].astype(str)
        neutral = panel.rows(arm="neutral")
        for injection in ("readout", "upstream"):
            for r in panel.strengths("steered", injection):
                at = panel.rows(arm="steered", injection=injection, level="grid", r=r)
                fields: dict[str, Any] = {"arm": "steered", "injection": injection, "r": r}
                rows += self._same_tokens(panel, at, place, **fields)
                told = panel.against(at, neutral, same=("prompt", "position"))
                rows += self._rows(panel, "told_from_neutral", told, n_items=len(at), **fields)
        return rows

    def _same_tokens(self, panel: Panel, at: Rows, tokens: pd.Series, **fields: Any) -> list[MetricRow]:
        """AUROC among items that share their tokens, and its lead over each reader of text.

        A reader of the last token is at one half exactly: it says the same of all that it is compared with.
        """
        strata = pd.factorize(tokens.iloc[at])[0].astype(np.int64)
        if not _comparable(panel, at, strata):
            return []
        estimate = panel.auroc(at, strata=strata)
        fields["n_items"] = len(at)
        rows = self._rows(panel, "auroc_same_tokens", estimate, **fields)
        for other, (reader, scorer) in enumerate(panel.sets):
            if panel.roles[reader] != "reader":
                continue
            for number, (verbalizer, same) in enumerate(panel.sets):
                if same == scorer:
                    lead = intervals(paired_difference(estimate[number], estimate[other]))[0]
                    names = {"verbalizer": verbalizer, "scorer": scorer, "versus": reader}
                    rows.append(metric_row(lead, task=self.name, metric="information_over_text", **names, **fields))
        return rows

    def _rows(self, panel: Panel, metric: str, estimate: Estimate, **fields: Any) -> list[MetricRow]:
        return [
            metric_row(interval, task=self.name, metric=metric, verbalizer=verbalizer, scorer=scorer, **fields)
            for (verbalizer, scorer), interval in zip(panel.sets, intervals(estimate), strict=True)
        ]


def _comparable(panel: Panel, at: Rows, strata: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    """Whether at least two concepts have an item that shares its tokens with another concept's."""
    concepts = pd.Series(panel.items["concept"].iloc[at].to_numpy())
    shared = concepts.groupby(strata).transform("nunique") > 1
    return int(concepts[shared].nunique()) > 1


TASK = PrivilegedInformation()
