"""Facts about what a run writes down of its verbalizers and their texts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.recording import record_verbalizer, tabulate_items
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.scored import Scored
from nlabench.benchmark.transcript import OF_VECTORS, Transcript
from nlabench.benchmark.verbalizers.asking import QUESTION, Asked
from nlabench.benchmark.verbalizers.base import Verbalization, VerbalizerCard
from nlabench.benchmark.verbalizing import Verbalized

ITEMS = Activations(torch.eye(3), pd.DataFrame({"item_id": ["a", "b", "c"], "position": [60, 70, 80]}))
SCORES = np.zeros((1, 3, 2))
PANEL: Any = None  # what is written down of items and texts needs none


class Fixed:
    card = VerbalizerCard(name="fixed")

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return ["text"] * len(batch)


def transcribe(*texts: Verbalization, verbalizer: Any = None) -> Transcript:
    verbalizer = verbalizer or Fixed()
    said = Verbalized(list(texts), 1.0, len(texts), None, None)
    study: Any = None  # these cards have no least position
    return Transcript(study, ITEMS, Roster({"fixed": verbalizer}, {}), {"fixed": said}, {}, engine=study)


def score(**measured: Any) -> Scored:
    return Scored([], ["scorer"], {QUESTION: {"fixed": SCORES}}, measured, dict.fromkeys(measured, QUESTION), {}, PANEL)


def tabulate(transcript: Transcript, scored: Scored) -> pd.DataFrame:
    return pa.concat_tables(tabulate_items(transcript, scored)).to_pandas()


def test_flags_of_texts_are_counted_in_the_verbalizers_warnings() -> None:
    said = transcribe(
        Verbalization("one", flags=("cut off",)), Verbalization("two"), Verbalization("three", flags=("cut off", "odd"))
    )
    assert record_verbalizer("fixed", said, []).warnings == ["2 of 3 texts: cut off", "1 of 3 texts: odd"]


def test_further_samples_stand_in_the_table_of_items_where_there_are_any() -> None:
    sampled = transcribe(*(Verbalization(text, samples=(text * 2, text * 3)) for text in "xyz"))
    table = tabulate(sampled, score())
    assert table["text"].tolist() == ["x", "y", "z"]
    assert [list(samples) for samples in table["samples"]] == [["xx", "xxx"], ["yy", "yyy"], ["zz", "zzz"]]
    assert "samples" not in tabulate(transcribe(*(Verbalization(text) for text in "xyz")), score())


def test_what_a_task_measured_stands_beside_the_texts_under_its_name() -> None:
    said = transcribe(*(Verbalization(text) for text in "xyz"))
    values = {"fixed": {"cosine": np.array([0.1, np.nan, 0.3])}, OF_VECTORS: {"norm": np.ones(3)}}
    table = tabulate(said, score(reconstruction=values))
    assert table["reconstruction.cosine"].tolist() == pytest.approx([0.1, np.nan, 0.3], nan_ok=True)
    assert table["reconstruction.norm"].tolist() == [1, 1, 1]


class Oracle:
    card = VerbalizerCard(name="fixed")

    def answer(self, batch: ActivationBatch, question: str) -> list[str]:
        return [question] * len(batch)


def test_answers_to_a_tasks_own_question_are_rows_of_their_own_and_the_questions_are_recorded() -> None:
    asked = Asked(Oracle())
    said = transcribe(*(Verbalization(text) for text in "xyz"), verbalizer=asked)
    answers = Verbalized([Verbalization("a"), Verbalization(""), Verbalization("b")], 1.0, 2, None, None)
    said = replace(said, answers={"Why?": {"fixed": answers}})
    values = {"other": {"fixed": {"value": np.array([1.0, np.nan, 2.0])}}}
    scores = {QUESTION: {"fixed": SCORES}, "Why?": {"fixed": SCORES}}
    both = Scored([], ["scorer"], scores, values, {"other": "Why?"}, {}, PANEL)
    table = tabulate(said, both)
    assert table["text"].tolist() == ["x", "y", "z", "a", "", "b"]
    assert table["question"].tolist() == [QUESTION] * 3 + ["Why?"] * 3
    # What the task measured of its answers stands beside them, and not beside the other texts.
    assert table["other.value"].tolist() == pytest.approx([np.nan] * 3 + [1.0, np.nan, 2.0], nan_ok=True)
    tasks: Any = [SimpleNamespace(name="one", asks=QUESTION), SimpleNamespace(name="other", asks="Why?")]
    assert record_verbalizer("fixed", said, tasks).questions == {"one": QUESTION, "other": "Why?"}
    failed = replace(answers, texts=[Verbalization("", error="out of luck"), *answers.texts[1:]])
    record = record_verbalizer("fixed", replace(said, answers={"Why?": {"fixed": failed}}), tasks)
    assert (record.n_failed, record.first_error) == (1, "out of luck")
    chosen = transcribe(Verbalization("x"), verbalizer=Asked(Oracle(), "Who?", fixed=True))
    assert record_verbalizer("fixed", chosen, tasks).questions == {"one": "Who?", "other": "Who?"}
