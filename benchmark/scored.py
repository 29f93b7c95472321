"""From a transcript to metrics: what tasks measure themselves, the panel, and what they make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .panel import Panel
from .records import MetricRow
from .scoring.base import Standardized, score_unique
from .scoring.validation import agreement
from .statistics import resample
from .task import MeasuringTask, Task
from .transcript import Measured, Transcript
from .verbalizers.asking import QUESTION

RESAMPLES = 10_000


@dataclass(frozen=True)
class Scored:
    """scores: by question and verbalizer, [n_scorers, n_items, n_concepts]; measured: by task.

    agreement: of each two scorers over the run's distinct texts (see `scoring.validation.agreement`).
    """

    metrics: list[MetricRow]
    scorer_names: list[str]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    measured: Mapping[str, Measured]
    agreement: Mapping[tuple[str, str], float]


def score_transcript(transcript: Transcript, tasks: Sequence[Task], scorers: Sequence[Standardized]) -> Scored:
    """Score every text and compute every task's metrics."""
    names = list(transcript.verbalized)
    texts = {name: transcript.texts(name) for name in names}
    flat = [text for name in names for text in texts[name]]
    table = score_unique(scorers, flat)  # [n_scorers, n_verbalizers * n_items, n_concepts]
    distinct = sorted({text: i for i, text in enumerate(flat)}.values())
    scorer_names = [scorer.name for scorer in scorers]
    scores = {QUESTION: dict(zip(names, np.split(table, len(names), axis=1), strict=True))}
    for question, answers in transcript.answers.items():
        asked = transcript.asked(question)
        scores[question] = {name: score_unique(scorers, asked.texts(name)) for name in answers}
    panels = {
        question: make_panel(transcript.asked(question), {**scores[QUESTION], **scores[question]}, scorer_names)
        for question in scores
    }
    measured = {
        task.name: task.measure(transcript.asked(task.asks)) for task in tasks if isinstance(task, MeasuringTask)
    }
    kept = np.flatnonzero(~transcript.activations.labels["outlier"].to_numpy())
    metrics = []
    for task in tasks:
        panel = panels.get(task.asks, panels[QUESTION])
        own = {name: {c: v[kept] for c, v in columns.items()} for name, columns in measured.get(task.name, {}).items()}
        metrics += task.score(replace(panel, measured=own))
    return Scored(metrics, scorer_names, scores, measured, agreement(scorer_names, table[:, distinct]))


def make_panel(transcript: Transcript, scores: Mapping[str, NDArray[np.float64]], scorer_names: Sequence[str]) -> Panel:
    """The panel of a transcript, outliers taken out. scores: by verbalizer [n_scorers, n_items, n_concepts]."""
    study, roster = transcript.study, transcript.roster
    items = transcript.activations.labels.copy()
    numbers = {name: i for i, name in enumerate(study.pack.names)}
    readout = {prompt.text.id: i for i, prompt in enumerate(study.readout_prompts)}
    natural = {text: i for i, text in enumerate(sorted(items.loc[items["arm"] == "natural", "prompt"].unique()))}
    items["concept_number"] = items["concept"].map(numbers)
    items["prompt_number"] = items["prompt"].map({**natural, **readout})
    kept = np.flatnonzero(~items["outlier"].to_numpy())
    names = list(transcript.verbalized)
    roles = {name: v.card.role for name, v in roster.verbalizers.items()} | {
        name: card.role for name, (card, _) in roster.permuted.items()
    }
    texts = {name: transcript.texts(name) for name in names}
    return Panel(
        items=items.iloc[kept].reset_index(drop=True),
        scores=np.concatenate([scores[name] for name in names])[:, kept],
        sets=[(name, scorer) for name in names for scorer in scorer_names],
        texts={name: [texts[name][i] for i in kept] for name in names},
        roles=roles,
        concepts=study.pack.names,
        families=study.pack.families,
        excluded={
            f"{injection}/{kind}": {name: study.exclusion(name, injection, kind) for name in study.pack.names}
            for injection, kind in study.matched
        },
        weights=resample(len(study.pack.names), len(study.readout_prompts), RESAMPLES, study.suite.seed),
    )
