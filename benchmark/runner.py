"""A run: plan, read, move, verbalize, score, record. Every stage resumes from the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import findings
from .assets import cache_folder
from .behaviour import run_gate
from .concepts import ConceptPack, load_pack
from .engine import Engine, LocalEngine, Report
from .extraction import Activations, make_activations
from .panel import Panel
from .planning import Plan, make_plan, plan_items
from .recording import (
    record_arms,
    record_concept,
    record_provenance,
    record_scorer,
    record_verbalizer,
    tabulate_items,
)
from .records import (
    GateRow,
    MetricRow,
    Result,
    finite,
    write_result,
)
from .roster import QUICK, WITHOUT_FLOORS, Roster, load_roster, roster_names
from .scoring.base import DEFAULT_SCORERS, Standardized, load_scorers, score_unique
from .scoring.validation import ScorerValidity, agreement, validate_scorer
from .statistics import resample
from .store import Store, write_atomically
from .study import Study, complete_study, sketch_study
from .subject import DEFAULT_SUBJECT, load_subject
from .suites import Suite, load_suite
from .task import Task, load_tasks
from .verbalizers.registry import find_verbalizer
from .verbalizing import Verbalized, permute_texts, verbalize_items

RESAMPLES = 10_000


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; with the code and the weights, this decides every number."""

    subject: str = DEFAULT_SUBJECT
    suite: str = "quick"
    pack: str = "core"
    layer: int | None = None
    injection_layer: int | None = None
    directions: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    scorers: tuple[str, ...] = DEFAULT_SCORERS

    def given(self) -> dict[str, Any]:
        """The settings that were given, and not left at their defaults."""
        return {k: v for k, v in asdict(self).items() if v != getattr(RunSettings(), k)}


@dataclass(frozen=True)
class Bench:
    """A run that is set up: everything but the verbalizers."""

    settings: RunSettings
    suite: Suite
    tasks: list[Task]
    sketch: Study
    engine: Engine
    started: float

    def measure(self) -> tuple[Study, Activations]:
        """Read the pack, measure directions and matched strengths, and make the items."""
        file = Path(self.settings.directions) if self.settings.directions else None
        study = complete_study(self.sketch, self.engine, directions_file=file)
        return study, make_activations(study, plan_items(study, self.tasks), self.engine)


def set_up(
    settings: RunSettings,
    *,
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
) -> Bench:
    """Load the subject, the pack and the suite, and say which items there will be.

    Raises:
        BadInput: anything in the settings that cannot be used.
    """
    started = time.time()
    suite = load_suite(settings.suite)
    tasks = load_tasks(suite.tasks)
    chosen = pack or load_pack(settings.pack)
    subject = load_subject(
        settings.subject, dtype=settings.dtype, device=settings.device,
        trust_remote_code=settings.trust_remote_code, say=say,
    )  # fmt: skip
    sketch = sketch_study(subject, chosen, suite, layer=settings.layer, injection_layer=settings.injection_layer)
    engine = LocalEngine(Store(cache_folder() / "store", say), report)
    return Bench(settings, suite, tasks, sketch, engine, started)


def run(
    verbalizers: Sequence[str | Any] = (),
    settings: RunSettings | None = None,
    *,
    out: Path | str = "runs/latest",
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
    show_plan: Callable[[Plan, Bench], None] = lambda *_: None,
) -> Result:
    """Score verbalizers and leave `result.json`, `items.parquet` and `report.html` in `out`.

    verbalizers: names, `module:object` strings, objects, or bare functions `list[vector] -> list[str]`; by default the
    built-in ones. The floor, the ceiling and a reader of the last token always run beside them.

    Raises:
        BadInput: see `set_up`, `load_roster` and `verbalize_items`. Finished work is kept; the same call resumes.
    """
    for spec in verbalizers:
        if isinstance(spec, str):
            find_verbalizer(spec)  # a misspelt name costs nothing yet
    bench = set_up(settings or RunSettings(), pack=pack, say=say, report=report)
    show_plan(plan_run(bench, verbalizers), bench)
    study, activations = bench.measure()
    return complete_run(bench, study, activations, load_roster(verbalizers, study), Path(out))


def plan_run(bench: Bench, verbalizers: Sequence[str | Any]) -> Plan:
    """What a run will make and how long it will take; those that are not known to be quick count as generating."""
    names = roster_names(verbalizers, bench.sketch.site)
    generating = sum(not (isinstance(name, str) and (name in QUICK or name == "prompt-reader")) for name in names)
    floors = 2 * sum(not (isinstance(name, str) and name in WITHOUT_FLOORS) for name in names)
    reads = "prompt-reader" in names
    return make_plan(bench.sketch, bench.tasks, len(names) + floors, generating, reads_prompts=reads)


def complete_run(bench: Bench, study: Study, activations: Activations, roster: Roster, out: Path) -> Result:
    """Gate, verbalize, score and write: everything after the activations are made."""
    scorers = load_scorers(study.pack, bench.settings.scorers)
    validity = [validate_scorer(scorer, study.pack) for scorer in scorers]
    ranking = next((s for s, v in zip(scorers, validity, strict=True) if v.passes), scorers[0])
    gate = run_gate(study, ranking, bench.engine)
    texts = feed(roster, activations, study, bench.engine)
    result, items = score_texts(bench, study, activations, roster, texts, scorers, validity, gate)
    write_run(out, result, items)
    return result


def feed(roster: Roster, activations: Activations, study: Study, engine: Engine) -> dict[str, Verbalized]:
    """Every verbalizer's texts, by name, in the items' order."""
    texts: dict[str, Verbalized] = {}
    for name, verbalizer in roster.verbalizers.items():
        texts[name] = verbalize_items(verbalizer, activations, study, engine)
    for name, (_, source) in roster.permuted.items():
        permuted = permute_texts(texts[source].texts, activations.labels, study.suite.seed)
        texts[name] = replace(texts[source], texts=permuted, seconds=0.0, rerun_checked=None, rerun_agreed=None)
    return texts


def score_texts(
    bench: Bench,
    study: Study,
    activations: Activations,
    roster: Roster,
    texts: Mapping[str, Verbalized],
    scorers: Sequence[Standardized],
    validity: Sequence[ScorerValidity],
    gate: pd.DataFrame,
) -> tuple[Result, pd.DataFrame]:
    """The result of a run, and its items (labels, texts and score rows) as one table."""
    names = list(texts)
    flat = [v.text for name in names for v in texts[name].texts]
    scores = score_unique(scorers, flat)  # [n_scorers, n_verbalizers * n_items, n_concepts]
    distinct = sorted({text: i for i, text in enumerate(flat)}.values())
    scorer_names = [scorer.name for scorer in scorers]
    shaped = scores.reshape(len(scorers), len(names), len(activations.labels), -1).transpose(1, 0, 2, 3)
    panel = make_panel(study, activations, roster, texts, shaped, scorer_names)
    metrics: list[MetricRow] = [row for task in bench.tasks for row in task.score(panel)]
    outliers = activations.labels[activations.labels["outlier"]]
    result = Result(
        provenance=record_provenance(study, activations, bench.tasks, bench.settings.given(), bench.started, RESAMPLES),
        findings=[],
        scorers=[record_scorer(s, v) for s, v in zip(scorers, validity, strict=True)],
        scorer_agreement=[(a, b, value) for (a, b), value in agreement(scorer_names, scores[:, distinct]).items()],
        verbalizers={name: record_verbalizer(name, roster, texts[name], study, activations) for name in names},
        concepts=[record_concept(study, name) for name in study.pack.names],
        gate=[GateRow(**{**row, "loss": finite(row["loss"])}) for row in gate.to_dict("records")],
        arms=record_arms(activations.labels),
        excluded_items={str(arm): int(n) for arm, n in outliers.groupby("arm").size().items()},
        metrics=metrics,
    )
    result = result.model_copy(update={"findings": findings.find(result)})
    return result, tabulate_items(activations, texts, shaped, scorer_names)


def make_panel(
    study: Study,
    activations: Activations,
    roster: Roster,
    texts: Mapping[str, Verbalized],
    scores: np.ndarray[Any, np.dtype[np.float64]],
    scorer_names: Sequence[str],
) -> Panel:
    """The panel of a run. scores: [n_verbalizers, n_scorers, n_items, n_concepts]; outliers are taken out here."""
    items = activations.labels.copy()
    numbers = {name: i for i, name in enumerate(study.pack.names)}
    readout = {prompt.text.id: i for i, prompt in enumerate(study.readout_prompts)}
    natural = {text: i for i, text in enumerate(sorted(items.loc[items["arm"] == "natural", "prompt"].unique()))}
    items["concept_number"] = items["concept"].map(numbers)
    items["prompt_number"] = items["prompt"].map({**natural, **readout})
    kept = np.flatnonzero(~items["outlier"].to_numpy())
    names = list(texts)
    roles = {name: v.card.role for name, v in roster.verbalizers.items()} | {
        name: card.role for name, (card, _) in roster.permuted.items()
    }
    return Panel(
        items=items.iloc[kept].reset_index(drop=True),
        scores=scores.reshape(-1, *scores.shape[2:])[:, kept],
        sets=[(name, scorer) for name in names for scorer in scorer_names],
        texts={name: [texts[name].texts[i].text for i in kept] for name in names},
        roles=roles,
        concepts=study.pack.names,
        families=study.pack.families,
        excluded={
            f"{injection}/{kind}": {name: study.exclusion(name, injection, kind) for name in study.pack.names}
            for injection, kind in study.matched
        },
        weights=resample(len(study.pack.names), len(study.readout_prompts), RESAMPLES, study.suite.seed),
    )


def write_run(folder: Path, result: Result, items: pd.DataFrame) -> None:
    """Write a run's files, the result last: where `result.json` is, the run is whole."""
    from .report.page import render_report

    (folder / "result.json").unlink(missing_ok=True)  # an old one must not stand beside new items
    buffer = items.to_parquet(None, index=False)
    assert isinstance(buffer, bytes)
    write_atomically(folder / "items.parquet", buffer)
    write_atomically(folder / "report.html", render_report(result, items))
    write_result(result, folder / "result.json")
