"""From a transcript to metrics: what tasks measure themselves, the panel, and what they make of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .engine import Progress, Report
from .large_arrays import allocate, blocks, take
from .panel import Panel
from .records import MetricRow
from .scoring.base import DIGITS, Standardized, score_unique
from .scoring.validation import agreement
from .statistics import Weights, resample
from .task import MeasuringTask, Task
from .transcript import Measured, Transcript
from .verbalizers.asking import QUESTION

RESAMPLES = 10_000


@dataclass(frozen=True)
class Scored:
    """scores: by question and verbalizer, [n_scorers, n_items, n_concepts]; measured, and what each asks: by task.

    agreement: of each two scorers over the run's distinct texts (see `scoring.validation.agreement`). panel: of the
    texts that most tasks share.
    """

    metrics: list[MetricRow]
    scorer_names: list[str]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    measured: Mapping[str, Measured]
    asks: Mapping[str, str]
    agreement: Mapping[tuple[str, str], float]
    panel: Panel


def score_transcript(
    transcript: Transcript,
    tasks: Sequence[Task],
    scorers: Sequence[Standardized],
    report: Report = lambda _: None,
) -> Scored:
    """Score every text and compute every task's metrics. report: is told of each scorer, and of each task."""
    names = list(transcript.verbalized)
    texts = {name: transcript.texts(name) for name in names}
    flat = [text for name in names for text in texts[name]]
    table = score_unique(scorers, flat, report)
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
        task.name: round_rows(task.measure(transcript.asked(task.asks)))
        for task in tasks
        if isinstance(task, MeasuringTask)
    }
    metrics = score_tasks(tasks, panels, measured, transcript.activations.labels, report)
    agreed = agree_on_texts(scorer_names, texts, scores[QUESTION])
    asks = {task.name: task.asks for task in tasks}
    return Scored(metrics, scorer_names, scores, measured, asks, agreed, panels[QUESTION])


def make_panel(transcript: Transcript, scores: Mapping[str, NDArray[np.float64]], scorer_names: Sequence[str]) -> Panel:
    """The panel of a transcript, outliers taken out. scores: by verbalizer [n_scorers, n_items, n_concepts]."""
    texts = {name: transcript.texts(name) for name in transcript.verbalized}
    return assemble_panel(transcript.activations.labels, texts, scores, scorer_names, describe_design(transcript))


@dataclass(frozen=True)
class Design:
    """What a panel is made of beside its items and texts.

    readout_prompts: their ids, as they are numbered. excluded: per "injection/kind", concepts left out of the headline.
    """

    concepts: list[str]
    families: list[str]
    readout_prompts: list[str]
    roles: Mapping[str, str]
    excluded: Mapping[str, Mapping[str, str]]
    weights: Weights


def describe_design(transcript: Transcript) -> Design:
    """The design of a run."""
    study, roster = transcript.study, transcript.roster
    roles = {name: v.card.role for name, v in roster.verbalizers.items()} | {
        name: card.role for name, (card, _) in roster.permuted.items()
    }
    return Design(
        concepts=study.pack.names,
        families=study.pack.families,
        readout_prompts=[prompt.text.id for prompt in study.readout_prompts],
        roles=roles,
        excluded={
            f"{injection}/{kind}": {name: study.exclusion(name, injection, kind) for name in study.pack.names}
            for injection, kind in study.matched
        },
        weights=resample(len(study.pack.names), len(study.readout_prompts), RESAMPLES, study.suite.seed),
    )


def assemble_panel(
    labels: pd.DataFrame,
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, NDArray[np.float64]],
    scorer_names: Sequence[str],
    design: Design,
) -> Panel:
    """A panel, outliers taken out.

    labels: of every item; texts and scores [n_scorers, n_items, n_concepts]: by verbalizer, in the same order.
    """
    items = labels.copy()
    numbers = {name: i for i, name in enumerate(design.concepts)}
    readout = {prompt: i for i, prompt in enumerate(design.readout_prompts)}
    natural = {text: i for i, text in enumerate(sorted(items.loc[items["arm"] == "natural", "prompt"].unique()))}
    items["concept_number"] = items["concept"].map(numbers)
    items["prompt_number"] = items["prompt"].map({**natural, **readout})
    kept = find_kept(labels)
    own = [table for name in texts for table in scores[name]]
    table = allocate((len(own), len(kept), len(design.concepts)))
    for part, out in zip(own, table, strict=True):
        take(part, kept, out)
    return Panel(
        items=items.iloc[kept].reset_index(drop=True),
        scores=table,
        sets=[(name, scorer) for name in texts for scorer in scorer_names],
        texts={name: [said[i] for i in kept] for name, said in texts.items()},
        roles=design.roles,
        concepts=design.concepts,
        families=design.families,
        excluded=design.excluded,
        weights=design.weights,
    )


def find_kept(labels: pd.DataFrame) -> NDArray[np.int64]:
    """The row numbers of the items that are no outliers."""
    return np.flatnonzero(~labels["outlier"].to_numpy(dtype=bool))


def score_tasks(
    tasks: Sequence[Task],
    panels: Mapping[str, Panel],
    measured: Mapping[str, Measured],
    labels: pd.DataFrame,
    report: Report = lambda _: None,
) -> list[MetricRow]:
    """Every task's metrics, each on the panel of its question, with what it measured itself of every item."""
    kept = find_kept(labels)
    metrics = []
    for task, _ in zip(tasks, _timed([f"statistics of {task.name}" for task in tasks], report), strict=True):
        panel = panels.get(task.asks, panels[QUESTION])
        own = {n: {c: take(v, kept) for c, v in columns.items()} for n, columns in measured.get(task.name, {}).items()}
        metrics += task.score(replace(panel, measured=own))
    return metrics


def _timed(stages: Sequence[str], report: Report) -> Iterator[None]:
    """Say of each stage that it begins and, when the next is asked for (`zip` asks once more), how long it took."""
    for stage in stages:
        start = time.perf_counter()
        report(Progress(stage, 0, 1, 0, 0.0))
        yield
        report(Progress(stage, 1, 1, 1, time.perf_counter() - start))


def round_rows(measured: Measured) -> Measured:
    """What a task measured, with rows of numbers rounded as scores are: a record keeps both in float32."""

    def rounded(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        found = allocate(rows.shape)
        for block in blocks(len(rows), rows[0].nbytes if len(rows) else 1):
            np.round(rows[block], DIGITS, out=found[block])
        return found

    return {
        name: {column: rounded(v) if v.ndim > 1 else v for column, v in columns.items()}
        for name, columns in measured.items()
    }


def agree_on_texts(
    scorer_names: Sequence[str], texts: Mapping[str, Sequence[str]], scores: Mapping[str, NDArray[np.float64]]
) -> dict[tuple[str, str], float]:
    """The agreement of each two scorers over the distinct texts of all verbalizers."""
    flat = (text for said in texts.values() for text in said)
    distinct = np.array(sorted({text: i for i, text in enumerate(flat)}.values()))
    parts, start = [], 0
    for name, said in texts.items():
        parts.append((scores[name], distinct[(distinct >= start) & (distinct < start + len(said))] - start))
        start += len(said)

    n_concepts = parts[0][0].shape[2]

    def columns() -> Iterator[NDArray[np.float64]]:
        for block in blocks(n_concepts, 8 * len(scorer_names) * len(distinct)):
            some = np.concatenate([table[:, rows, block] for table, rows in parts], axis=1)
            yield from np.moveaxis(some, 2, 0)

    return agreement(scorer_names, columns())
