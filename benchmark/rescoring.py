"""Every number of a run again, from its `result.json` and `items.parquet` alone: no subject, no verbalizer.

The panel is put together from the record, and the tasks of the record score it. Texts can be scored again with the
scorers of the record. What a task measured itself (a reconstruction needs the reconstructor) is taken as it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import findings
from .concepts import ConceptPack, load_pack
from .errors import BadInput, NoRoom
from .large_arrays import blocks
from .panel import Panel
from .recording import record_arms
from .records import MetricRow, Result
from .said import judge_sayings
from .scored import Design, agree_on_texts, assemble_panel, score_tasks
from .scoring.base import Standardized, load_scorers, score_unique
from .statistics import resample
from .stored_run import StoredRun
from .task import Task, load_tasks
from .verbalizers.asking import QUESTION

#: How far a number may lie from its record where nothing but the sums' order differs: stored scores, scored again.
SAME_SCORES = 1e-6

#: How far a score may lie from its record when its text is scored again, in standard deviations of the reference
#: texts' scores: embedders compute in float32, and another processor rounds otherwise. And how far a metric may then.
SAME_TEXTS = 1e-3

#: More than any run takes, and few enough to draw.
MOST_RESAMPLES = 100_000


def rescore(run: StoredRun) -> Result:
    """The run's result with every number that follows from its items computed again.

    Those are the metrics, what is said, the arms' geometry, the scorers' agreement and the findings. From a run that
    `score_texts_again` gave, they follow from its texts.

    Raises:
        BadInput: see `rebuild_panels`, `find_tasks` and `score_recorded`.
    """
    result, tasks, panels = run.result, find_tasks(run.result), rebuild_panels(run)
    scorers = [scorer.name for scorer in result.scorers]
    agreement = agree_on_texts(scorers, run.texts[QUESTION], run.scores[QUESTION])
    outliers = run.labels[run.labels["outlier"]]
    found = result.model_copy(
        update={
            "metrics": score_recorded(run, tasks, panels),
            "said": judge_sayings(
                panels[QUESTION], result.headline_scorer, result.provenance.suite.get("gate_strengths", ())
            ),
            "arms": record_arms(run.labels),
            "scorer_agreement": [(a, b, value) for (a, b), value in agreement.items()],
            "excluded_items": {str(arm): int(n) for arm, n in outliers.groupby("arm").size().items()},
        }
    )
    return found.model_copy(update={"findings": findings.find(found)})


def score_recorded(run: StoredRun, tasks: Sequence[Task], panels: Mapping[str, Panel]) -> list[MetricRow]:
    """The metrics of some of the run's tasks on its panels.

    Raises:
        BadInput: a task makes nothing of the items. They come from a file, and a task trusts those of a run.
    """
    metrics = []
    for task in tasks:
        try:
            metrics += score_tasks([task], panels, run.measured, run.labels)
        except NoRoom:
            raise
        except Exception as error:
            raise BadInput(
                f"The task {task.name} cannot score the items of {run.file}: {type(error).__name__}: {error}. It "
                "expects what its own items and measurements leave in a run; take the file as the run wrote it, or run "
                "again: finished work is kept."
            ) from error
    return metrics


def rebuild_panels(run: StoredRun) -> dict[str, Panel]:
    """The run's panels, by question. Each is the one that its tasks scored in the run, but for `measured`.

    Raises:
        BadInput: the record does not say in which order prompts were resampled.
    """
    design, scorers = recorded_design(run), [scorer.name for scorer in run.result.scorers]
    texts, scores = run.texts[QUESTION], run.scores[QUESTION]
    return {
        question: assemble_panel(
            run.labels, {**texts, **run.texts[question]}, {**scores, **run.scores[question]}, scorers, design
        )
        for question in run.texts
    }


def recorded_design(run: StoredRun) -> Design:
    """What the record says of a panel beside its items and texts."""
    result, provenance = run.result, run.result.provenance
    prompts = provenance.readout_prompts
    if not prompts:
        raise BadInput(
            f"The result beside {run.file} does not say in which order its readout prompts are numbered: an earlier "
            f"nlabench ({provenance.nlabench}) wrote it. Run it again: finished work is kept."
        )
    if not (0 < provenance.resamples <= MOST_RESAMPLES and provenance.seed >= 0):
        raise BadInput(
            f"The result beside {run.file} has {provenance.resamples} resamples of the seed {provenance.seed}; "
            f"expected 1 to {MOST_RESAMPLES:,} and a seed from 0. Take the file as the run wrote it."
        )
    moved, concepts = run.labels[run.labels["arm"] != "natural"], [concept.name for concept in result.concepts]
    strange = (set(moved["prompt"]) - set(prompts)) | (set(run.labels["concept"].dropna()) - set(concepts))
    if strange:
        raise BadInput(
            f"{run.file} has items of {sorted(strange)[0]!r}; expected the readout prompts and concepts that its "
            "result.json names. Keep the two files of a run together."
        )
    ends = dict.fromkeys(end for concept in result.concepts for end in concept.matched_r)
    return Design(
        concepts=concepts,
        families=[concept.family for concept in result.concepts],
        readout_prompts=prompts,
        roles={name: str(record.card.get("role", "submitted")) for name, record in result.verbalizers.items()},
        excluded={end: {concept.name: concept.excluded.get(end, "") for concept in result.concepts} for end in ends},
        weights=resample(len(result.concepts), len(prompts), provenance.resamples, provenance.seed),
    )


def find_tasks(result: Result, names: Sequence[str] | None = None) -> list[Task]:
    """The tasks of a record, or some of them.

    Raises:
        BadInput: a task is not installed, or in another version than the record's.
    """
    recorded = result.provenance.tasks
    missing = [name for name in names or () if name not in recorded]
    if missing:
        raise BadInput(
            f"The run has no task {missing[0]!r}. It has {', '.join(recorded)}; add it to the suite's `tasks` and run."
        )
    tasks = load_tasks(tuple(recorded if names is None else names))
    for task in tasks:
        if task.version != recorded[task.name]:
            raise BadInput(
                f"The result's {task.name} is of version {recorded[task.name]}; version {task.version} is installed, "
                "and versions are never compared. Take the nlabench that made it "
                f"({result.provenance.nlabench}), or run it again."
            )
    return tasks


def score_texts_again(
    run: StoredRun, pack: ConceptPack | None = None, scorers: Sequence[Standardized] | None = None
) -> StoredRun:
    """The run with the scores that its texts get from the record's scorers, each distinct text scored once.

    pack: where the record's is not at hand. scorers: what `find_scorers` found, where that is done already.

    Raises:
        BadInput: see `find_scorers`.
    """
    chosen = find_scorers(run.result, pack) if scorers is None else scorers
    flat = [text for by_name in run.texts.values() for texts in by_name.values() for text in texts]
    table = score_unique(chosen, flat)
    n_items, scores, start = len(run.labels), dict[str, dict[str, NDArray[np.float64]]](), 0
    for question, by_name in run.texts.items():
        scores[question] = {}
        for name in by_name:
            scores[question][name] = table[:, start : start + n_items]
            start += n_items
    return replace(run, scores=scores)


def find_scorers(result: Result, pack: ConceptPack | None = None) -> list[Standardized]:
    """The scorers of a record, built for its pack.

    Raises:
        BadInput: the pack is not at hand or is another one, or a scorer is not installed or is another one.
    """
    provenance = result.provenance
    source = str(provenance.arguments.get("pack", "core"))
    try:
        chosen = (pack or load_pack(source)).select(len(result.concepts))
    except BadInput as error:
        raise BadInput(
            f"The result's pack {provenance.pack!r} is not at hand: {error} Scoring texts again needs it."
        ) from error
    if chosen.fingerprint() != provenance.pack_fingerprint:
        raise BadInput(
            f"The pack {chosen.name!r} has the fingerprint {chosen.fingerprint()}; the result was made with "
            f"{provenance.pack_fingerprint} ({provenance.pack!r}). Give the pack that it was made with."
        )
    scorers = load_scorers(chosen, [scorer.name for scorer in result.scorers])
    for scorer, recorded in zip(scorers, result.scorers, strict=True):
        if scorer.fingerprint != recorded.fingerprint:
            raise BadInput(
                f"The scorer {scorer.name!r} has the fingerprint {scorer.fingerprint}; the result was scored with "
                f"{recorded.fingerprint}. Take the nlabench that made it ({provenance.nlabench}), or run it again."
            )
    return scorers


@dataclass(frozen=True)
class Discrepancy:
    """A number that is not what a record says. `found` is None where there is no such number."""

    where: str
    recorded: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.where}: recorded {self.recorded}, found {self.found}"


def find_changed_scores(recorded: StoredRun, again: StoredRun, tolerance: float = SAME_TEXTS) -> list[Discrepancy]:
    """Texts whose scores are further from their record than the tolerance, each with the concept that is furthest."""
    found = []
    concepts, scorers = [c.name for c in recorded.result.concepts], [s.name for s in recorded.result.scorers]
    for question, by_name in recorded.scores.items():
        for name, stored in by_name.items():
            anew = again.scores[question][name]
            furthest = np.empty(stored.shape[:2])
            for block in blocks(stored.shape[1], stored[:, 0].nbytes):
                furthest[:, block] = np.abs(anew[:, block] - stored[:, block]).max(-1)
            for scorer, item in np.argwhere(furthest > tolerance):
                concept = int(np.abs(anew[scorer, item] - stored[scorer, item]).argmax())
                found.append(
                    Discrepancy(
                        f"{name}, item {recorded.labels['item_id'].iloc[item]}, score_{scorers[scorer]} of "
                        f"{concepts[concept]!r}",
                        float(stored[scorer, item, concept]),
                        float(anew[scorer, item, concept]),
                    )
                )
    return found


def find_discrepancies(recorded: Result, found: Result, tolerance: float = SAME_SCORES) -> list[Discrepancy]:
    """Metrics of a record that are not what was computed again: values and bounds of intervals, missing and extra rows.

    tolerance: `SAME_SCORES`, or `SAME_TEXTS` where texts were scored again.
    """
    rows = {_key(row): row for row in recorded.metrics}
    anew = {_key(row): row for row in found.metrics}
    wrong = []
    for key in dict.fromkeys([*rows, *anew]):
        where = ", ".join(str(part) for part in key if part is not None)
        if key not in rows or key not in anew:
            wrong.append(Discrepancy(where, "a row" if key in rows else None, "a row" if key in anew else None))
            continue
        for name in ("value", "low", "high", "censored_at", "n_items", "n_concepts", "n_prompts"):
            a, b = getattr(rows[key], name), getattr(anew[key], name)
            if (a is None) != (b is None) or (a is not None and abs(a - b) > tolerance):
                wrong.append(Discrepancy(f"{where}: {name}", a, b))
    return wrong


def _key(row: MetricRow) -> tuple[Any, ...]:
    return (
        row.task, row.metric, row.verbalizer, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group,
        row.versus,
    )  # fmt: skip
