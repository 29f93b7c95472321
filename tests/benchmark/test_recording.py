"""Facts about what a run writes down of its verbalizers and their texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from nlabench.benchmark.activations import ActivationBatch
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.recording import record_verbalizer, tabulate_items
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.verbalizers.base import Verbalization, VerbalizerCard
from nlabench.benchmark.verbalizing import Verbalized

ITEMS = Activations(torch.eye(3), pd.DataFrame({"item_id": ["a", "b", "c"], "position": [60, 70, 80]}))
SCORES = np.zeros((1, 1, 3, 2))


class Fixed:
    card = VerbalizerCard(name="fixed")

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return ["text"] * len(batch)


def verbalized(*texts: Verbalization) -> Verbalized:
    return Verbalized(list(texts), 1.0, len(texts), None, None)


def test_flags_of_texts_are_counted_in_the_verbalizers_warnings() -> None:
    said = verbalized(
        Verbalization("one", flags=("cut off",)), Verbalization("two"), Verbalization("three", flags=("cut off", "odd"))
    )
    study: Any = None  # this card has no least position
    record = record_verbalizer("fixed", Roster({"fixed": Fixed()}, {}), said, study, ITEMS)
    assert record.warnings == ["2 of 3 texts: cut off", "1 of 3 texts: odd"]


def test_further_samples_stand_in_the_table_of_items_where_there_are_any() -> None:
    sampled = verbalized(*(Verbalization(text, samples=(text * 2, text * 3)) for text in "xyz"))
    table = tabulate_items(ITEMS, {"fixed": sampled}, SCORES, ["scorer"])
    assert table["text"].tolist() == ["x", "y", "z"]
    assert table["samples"].tolist() == [["xx", "xxx"], ["yy", "yyy"], ["zz", "zzz"]]
    single = verbalized(*(Verbalization(text) for text in "xyz"))
    assert "samples" not in tabulate_items(ITEMS, {"fixed": single}, SCORES, ["scorer"])
