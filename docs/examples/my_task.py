"""A task of one's own, in one file: does the text get shorter when the activation is moved?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nlabench.benchmark import arms
from nlabench.benchmark.activations import ItemSpec
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow, metric_row
from nlabench.benchmark.statistics import intervals, paired_difference
from nlabench.benchmark.study import Study
from nlabench.benchmark.transcript import Measured, Transcript
from nlabench.benchmark.verbalizers.asking import QUESTION


@dataclass(frozen=True)
class TextLength:
    name: str = "text_length"
    version: str = "1"  # a new one whenever its numbers change: versions are never compared
    question: str = "Does the text get shorter when the activation is moved?"
    asks: str = QUESTION  # of verbalizers that answer questions; another sentence, if it needs one

    def items(self, study: Study) -> list[ItemSpec]:
        """What it looks at. Items that another task asks for as well are made and verbalized once."""
        moved = arms.steered_grid(study, "readout") + arms.control_grid(study, "permuted", "readout")
        return arms.neutral_items(study, "function") + moved

    def measure(self, transcript: Transcript) -> Measured:
        """Numbers per item, in the items' order. A task that needs nothing but scores has no `measure`."""
        return {
            name: {"words": np.array([len(text.split()) for text in transcript.texts(name)], dtype=np.float64)}
            for name in transcript.verbalized
        }

    def score(self, panel: Panel) -> list[MetricRow]:
        """Every number with its interval, whose units are concepts and prompts."""
        rows = []
        neutral = panel.rows(arm="neutral")
        for verbalizer, columns in panel.measured.items():
            words = columns["words"]
            at_rest = panel.mean(words[neutral], neutral, bounds=None)
            for arm in ("steered", "permuted"):
                for r in panel.strengths(arm, "readout"):
                    at = panel.rows(arm=arm, injection="readout", level="grid", r=r)
                    change = paired_difference(panel.mean(words[at], at, bounds=None), at_rest)
                    names = {"task": self.name, "metric": "words_over_neutral", "verbalizer": verbalizer}
                    cell = {"scorer": "none", "arm": arm, "injection": "readout", "r": r, "n_items": len(at)}
                    rows.append(metric_row(intervals(change)[0], **names, **cell))
        return rows


TASK = TextLength()
