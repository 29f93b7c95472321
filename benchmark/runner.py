"""A run: plan, read, move, verbalize, score, record. Every stage resumes from the store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import findings
from .assets import cache_folder
from .behaviour import run_gate
from .concepts import ConceptPack, load_pack
from .engine import Engine, EngineSettings, Report, open_engine
from .extraction import Activations, make_activations
from .item_table import ITEMS_FILE
from .loading import DEFAULT_SUBJECT, count_gpus, load_subject
from .looking_ahead import Ahead, look_ahead
from .planning import Plan, make_plan, plan_items
from .recording import (
    record_arms,
    record_concept,
    record_measured,
    record_provenance,
    record_scorer,
    record_verbalizer,
    tabulate_items,
)
from .records import GateRow, Result, finite, write_result
from .roster import QUICK, WITHOUT_FLOORS, Roster, load_roster, roster_names
from .said import judge_sayings
from .scored import RESAMPLES, score_transcript
from .scoring.base import DEFAULT_SCORERS, load_scorers
from .scoring.validation import validate_scorer
from .store import Store, replacing, write_atomically
from .study import Study, complete_study, sketch_study
from .suites import Suite, load_suite
from .task import MeasuringTask, Task, load_tasks
from .transcript import Transcript, load_evaluator
from .verbalizers.asking import QUESTION, Asked
from .verbalizers.base import Verbalization
from .verbalizers.registry import find_verbalizer
from .verbalizing import Verbalized, permute_texts, verbalize_items


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
    evaluator: str | None = None
    device_map: str | None = None
    quantize: str | None = None

    def loading(self) -> dict[str, Any]:
        """How the subject is loaded, as `load_subject` takes it."""
        names = ("dtype", "device", "trust_remote_code", "device_map", "quantize")
        return {name: getattr(self, name) for name in names}

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
    store: Store
    engine: Engine
    started: float
    report: Report = lambda _: None

    def measure(self, engine: Engine | None = None) -> tuple[Study, Activations]:
        """Read the pack, measure directions and matched strengths, and make the items.

        engine: the bench's by default.
        """
        by = engine or self.engine
        file = Path(self.settings.directions) if self.settings.directions else None
        study = complete_study(self.sketch, by, directions_file=file)
        return study, make_activations(study, plan_items(study, self.tasks), by)


def set_up(
    settings: RunSettings,
    *,
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
    engine: EngineSettings | None = None,
) -> Bench:
    """Load the subject, the pack and the suite, and say which items there will be.

    engine: where the work is done, this process by default; whoever asks for another one closes `Bench.engine`.

    Raises:
        BadInput: anything in the settings that cannot be used.
    """
    started = time.time()
    suite = load_suite(settings.suite)
    tasks = load_tasks(suite.tasks)
    chosen = pack or load_pack(settings.pack)
    store = Store(cache_folder() / "store", say)
    gpus = count_gpus(settings.subject, **settings.loading(), say=say) if settings.device_map else 1
    opened = open_engine(engine or EngineSettings(), store, report, settings.device, gpus)
    try:
        subject = load_subject(settings.subject, **settings.loading(), say=say)
        sketch = sketch_study(subject, chosen, suite, layer=settings.layer, injection_layer=settings.injection_layer)
    except BaseException:
        opened.close()
        raise
    return Bench(settings, suite, tasks, sketch, store, opened, started, report)


def run(
    verbalizers: Sequence[str | Any] = (),
    settings: RunSettings | None = None,
    *,
    out: Path | str = "runs/latest",
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
    show_plan: Callable[[Plan, Bench], None] | None = None,
    engine: EngineSettings | None = None,
) -> Result:
    """Score verbalizers and leave `result.json`, `items.parquet` and `report.html` in `out`.

    verbalizers: names, `module:object` strings, objects, or bare functions `list[vector] -> list[str]`; by default the
    built-in ones. The floor, the ceiling and the suite's readers of text always run beside them. engine: where the
    work is done; this process by default.

    Raises:
        BadInput: see `set_up`, `load_roster` and `verbalize_items`. Finished work is kept; the same call resumes.
    """
    for spec in verbalizers:
        if isinstance(spec, str):
            find_verbalizer(spec)  # a misspelt name costs nothing yet
    bench = set_up(settings or RunSettings(), pack=pack, say=say, report=report, engine=engine)
    with closing(bench.engine):
        ahead = None
        if show_plan:
            ahead = look_ahead(bench.store, bench.measure, lambda study: load_roster(verbalizers, study), bench.tasks)
            show_plan(plan_run(bench, verbalizers, ahead), bench)
        study, activations = bench.measure()
        roster = (ahead and ahead.roster) or load_roster(verbalizers, study)
        return complete_run(bench, study, activations, roster, Path(out))


def plan_run(bench: Bench, verbalizers: Sequence[str | Any] | None, ahead: Ahead) -> Plan:
    """What a run will make and how long it will take; those that are not known to be quick count as generating.

    verbalizers: as for `run`; None where activations are made and nothing more. ahead: what the store holds already.
    """
    names = [] if verbalizers is None else roster_names(verbalizers, bench.sketch.site, bench.suite.readers)
    generating = sum(not (isinstance(name, str) and (name in QUICK or name == "prompt-reader")) for name in names)
    floors = 2 * sum(not (isinstance(name, str) and name in WITHOUT_FLOORS) for name in names)
    # Before anything is loaded, an NLA shows by its name alone; most have an AR, which then reads what they write.
    nlas = sum(isinstance(name, str) and name.startswith("nla:") for name in names)
    return make_plan(
        ahead.study or bench.sketch, bench.tasks, bench.engine, len(names) + floors, generating,
        gated=verbalizers is not None, reads_prompts="prompt-reader" in names,
        n_reconstructing=nlas if any(isinstance(task, MeasuringTask) for task in bench.tasks) else 0,
        stored=ahead.stored,
    )  # fmt: skip


def complete_run(bench: Bench, study: Study, activations: Activations, roster: Roster, out: Path) -> Result:
    """Gate, verbalize, score and write: everything after the activations are made."""
    evaluator = load_evaluator(bench.settings.evaluator, study) if bench.settings.evaluator else None
    scorers = load_scorers(study.pack, bench.settings.scorers)
    validity = [validate_scorer(scorer, study.pack) for scorer in scorers]
    ranking = next((s for s, v in zip(scorers, validity, strict=True) if v.passes), scorers[0])
    gate = run_gate(study, ranking, bench.engine)
    transcript = Transcript(
        study=study,
        activations=activations,
        roster=roster,
        verbalized=feed(roster, activations, study, bench.engine),
        answers=ask_questions(roster, activations, study, bench.tasks, bench.engine),
        engine=bench.engine,
        evaluator=evaluator,
    )
    scored = score_transcript(transcript, bench.tasks, scorers, bench.report)
    outliers = activations.labels[activations.labels["outlier"]]
    result = Result(
        provenance=record_provenance(study, activations, bench.tasks, bench.settings.given(), bench.started, RESAMPLES),
        findings=[],
        scorers=[record_scorer(s, v) for s, v in zip(scorers, validity, strict=True)],
        scorer_agreement=[(a, b, value) for (a, b), value in scored.agreement.items()],
        verbalizers={name: record_verbalizer(name, transcript, bench.tasks) for name in transcript.verbalized},
        concepts=[record_concept(study, name) for name in study.pack.names],
        gate=[GateRow(**{**row, "loss": finite(row["loss"])}) for row in gate.to_dict("records")],
        said=judge_sayings(scored.panel, ranking.name, study.suite.gate_strengths),
        arms=record_arms(activations.labels),
        excluded_items={str(arm): int(n) for arm, n in outliers.groupby("arm").size().items()},
        measured=record_measured(scored.measured),
        metrics=scored.metrics,
    )
    result = result.model_copy(update={"findings": findings.find(result)})
    write_run(out, result, tabulate_items(transcript, scored))
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


def ask_questions(
    roster: Roster, activations: Activations, study: Study, tasks: Sequence[Task], engine: Engine
) -> dict[str, dict[str, Verbalized]]:
    """What verbalizers that answer questions say to what single tasks ask of those tasks' items: by question and name.

    An item that no task with the question needs has an empty text, which no task scores.
    """
    answerers = {name: v for name, v in roster.verbalizers.items() if isinstance(v, Asked) and not v.fixed}
    answers: dict[str, dict[str, Verbalized]] = {}
    for question in dict.fromkeys(task.asks for task in tasks if answerers and task.asks != QUESTION):
        specs = [spec for task in tasks if task.asks == question for spec in task.items(study)]
        needed = {spec.item_id(study.suite.seed) for spec in specs}
        rows = np.flatnonzero(activations.labels["item_id"].isin(needed).to_numpy())
        for name, verbalizer in answerers.items():
            part = verbalize_items(verbalizer.ask(question), activations.select(rows), study, engine)
            texts = [Verbalization("")] * len(activations.labels)
            for row, text in zip(rows, part.texts, strict=True):
                texts[row] = text
            answers.setdefault(question, {})[name] = replace(part, texts=texts)
    return answers


def write_run(folder: Path, result: Result, items: Iterable[pa.Table]) -> None:
    """Write a run's files, the result last: where `result.json` is, the run is whole. items: in blocks of rows."""
    from .report.page import render_report

    remaining = iter(items)
    first = next(remaining)
    with replacing(folder / ITEMS_FILE) as file:
        with pq.ParquetWriter(file, first.schema) as writer:
            for block in itertools.chain([first], remaining):
                writer.write_table(block)
        (folder / "result.json").unlink(missing_ok=True)  # an old one must not stand beside new items
    write_atomically(folder / "report.html", render_report(result, folder / ITEMS_FILE))
    write_result(result, folder / "result.json")
