"""The stages of a run that are timed: each makes what it needs, which is not timed, and then does what a run does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.recording import record_arms, tabulate_items
from nlabench.benchmark.records import (
    ConceptRecord,
    MetricRow,
    Provenance,
    Result,
    ScorerRecord,
    VerbalizerRecord,
    read_result,
)
from nlabench.benchmark.report.page import render_report
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.runner import write_run
from nlabench.benchmark.scored import Scored, assemble_panel
from nlabench.benchmark.scoring.base import load_scorers, score_unique
from nlabench.benchmark.store import Payload, Store, content_key
from nlabench.benchmark.stored_run import read_run
from nlabench.benchmark.task import load_tasks
from nlabench.benchmark.transcript import Transcript
from nlabench.benchmark.verbalizers.asking import QUESTION
from nlabench.benchmark.verbalizers.base import Verbalization
from nlabench.benchmark.verbalizing import ITEMS_PER_CHUNK, Verbalized
from nlabench.leaderboard.board import build_boards
from nlabench.leaderboard.entries import ITEMS, Card, Entry, read_items
from nlabench.leaderboard.examples import pick_examples
from nlabench.leaderboard.site.pages import write_site

from .synthetic import ROLES, STRENGTHS, Plan, describe, draw_labels, draw_scores, draw_sentences, draw_texts

D_MODEL = 576  # the default subject's


@dataclass(frozen=True)
class Given:
    """What a stage is done on, and a folder that stages of one study share.

    distinct: of how many texts the scoring is timed. Every other stage has a text of its own for every item.
    """

    plan: Plan
    resamples: int
    n_scorers: int
    distinct: int
    folder: Path


#: What a stage does once it is set up; it returns what is told of it beside its time.
Work = Callable[[], dict[str, Any]]


def set_up_scoring(given: Given) -> Work:
    """`score_unique` with the default scorers of the built-in pack, of as many texts as items, few of them distinct."""
    pack = load_pack("core").select(min(given.plan.concepts, len(load_pack("core").concepts)))
    scorers = load_scorers(pack)
    texts = draw_sentences(min(given.distinct, given.plan.n_items), seed=1)
    every = [texts[i] for i in np.random.default_rng(0).integers(0, len(texts), given.plan.n_items)]
    for scorer in scorers:
        scorer.score(["once, so that models are loaded"])

    def work() -> dict[str, Any]:
        table = score_unique(scorers, every)
        return {"note": f"{len(set(every)):,} distinct texts, {table.shape[2]} concepts, {len(scorers)} scorers"}

    return work


def set_up_panel(given: Given) -> Work:
    """A panel from labels, texts and scores."""
    plan, design = given.plan, describe(given.plan, given.resamples)
    labels = draw_labels(plan)
    texts, scores = draw_texts(labels), draw_scores(labels, plan.concepts, given.n_scorers)

    def work() -> dict[str, Any]:
        panel = assemble_panel(labels, texts, scores, scorer_names(given), design)
        return {"note": f"scores {panel.scores.nbytes / 2**20:,.0f} MiB"}

    return work


def set_up_task(name: str) -> Callable[[Given], Work]:
    """The metrics of a task that measures nothing itself."""

    def set_up(given: Given) -> Work:
        plan = given.plan
        labels = draw_labels(plan)
        panel = assemble_panel(
            labels, draw_texts(labels), draw_scores(labels, plan.concepts, given.n_scorers), scorer_names(given),
            describe(plan, given.resamples),
        )  # fmt: skip
        (task,) = load_tasks((name,))

        def work() -> dict[str, Any]:
            rows = task.score(panel)
            (given.folder / f"{name}.json").write_text(json.dumps([row.model_dump() for row in rows]))
            return {"note": f"{len(rows):,} metric rows"}

        return work

    return set_up


def set_up_store(given: Given) -> Work:
    """Chunks of vectors and texts into the store, and all of them out again, as a run that resumes does."""
    texts = draw_sentences(ITEMS_PER_CHUNK)
    vectors = np.random.default_rng(0).standard_normal((ITEMS_PER_CHUNK, D_MODEL)).astype(np.float32)
    n_chunks = -(-given.plan.n_items // ITEMS_PER_CHUNK)
    store = Store(given.folder / "store")

    def work() -> dict[str, Any]:
        try:
            for number in range(n_chunks):
                store.put("texts", content_key(chunk=number), Payload({"vectors": vectors + number}, texts))
            for number in range(n_chunks):
                assert store.get("texts", content_key(chunk=number)) is not None
        finally:
            shutil.rmtree(store.root, ignore_errors=True)
        return {"note": f"{n_chunks:,} chunks of {ITEMS_PER_CHUNK} x {D_MODEL}"}

    return work


def set_up_writing(given: Given) -> Work:
    """`items.parquet`, `result.json` and `report.html` of a run, as a run writes them."""
    transcript, scored = make_transcript(given)
    result = make_result(given, transcript.activations.labels)

    def work() -> dict[str, Any]:
        write_run(given.folder, result, tabulate_items(transcript, scored))
        sizes = [(given.folder / name).stat().st_size / 2**20 for name in ("items.parquet", "report.html")]
        return {"note": "items {:,.1f} MiB, report {:,.2f} MiB".format(*sizes)}

    return work


def set_up_reading(given: Given) -> Work:
    """The stored run as a rescoring reads it."""

    def work() -> dict[str, Any]:
        run = read_run(given.folder)
        return {"note": f"{len(run.labels):,} items of {len(run.texts[QUESTION])} verbalizers"}

    return work


def set_up_report(given: Given) -> Work:
    """The report alone."""
    result = read_result(given.folder / "result.json")

    def work() -> dict[str, Any]:
        page = render_report(result, given.folder / ITEMS)
        (given.folder / "report.html").write_text(page)
        return {"note": f"{len(page.encode()) / 2**20:.2f} MiB"}

    return work


def set_up_site(given: Given) -> Work:
    """An entry's pages, from its own folder."""
    result, name = read_result(given.folder / "result.json"), "synthetic"
    card = Card(name=name, authors=("nobody",), description="Drawn from a seed: nobody's result.")
    home = given.folder / "entry"
    home.mkdir(exist_ok=True)
    items = pd.read_parquet(given.folder / ITEMS)
    items.drop(columns=[column for column in items if column.startswith("score_")]).to_parquet(home / ITEMS)
    del items
    entry = Entry(home, "0" * 12, card, result, estimates={})

    def work() -> dict[str, Any]:
        examples = {entry.id: pick_examples(entry, read_items(entry))}
        pages = write_site(build_boards([entry]), examples, [], given.folder / "site")
        (page,) = (page for page in pages if page.parent.name == "v")
        return {"note": f"{len(pages)} pages, the entry's {page.stat().st_size / 2**20:.2f} MiB"}

    return work


STAGES: dict[str, Callable[[Given], Work]] = {
    "scoring": set_up_scoring,
    "panel": set_up_panel,
    "concept_identification": set_up_task("concept_identification"),
    "dose_response": set_up_task("dose_response"),
    "confabulation": set_up_task("confabulation"),
    "store": set_up_store,
    "writing a run": set_up_writing,
    "reading a run": set_up_reading,
    "report": set_up_report,
    "site": set_up_site,
}


def scorer_names(given: Given) -> list[str]:
    return [f"drawn-{number}" for number in range(given.n_scorers)]


def make_transcript(given: Given) -> tuple[Transcript, Scored]:
    """What `tabulate_items` reads of a run: labels, texts and scores. No study, no engine."""
    plan, nothing = given.plan, None
    labels = draw_labels(plan)
    scores = draw_scores(labels, plan.concepts, given.n_scorers)
    said = {
        name: Verbalized([Verbalization(text) for text in texts], 1.0, len(texts), None, None)
        for name, texts in draw_texts(labels).items()
    }
    activations = Activations(torch.zeros(1, 1), labels)
    transcript: Any = Transcript(nothing, activations, Roster({}, {}), said, {}, engine=nothing)  # type: ignore[arg-type]
    scored: Any = Scored([], scorer_names(given), {QUESTION: scores}, {}, {}, {}, panel=nothing)  # type: ignore[arg-type]
    return transcript, scored


def make_result(given: Given, labels: pd.DataFrame) -> Result:
    """A record with the metrics that the tasks' stages left in the folder; the rest of it is made up, and says so."""
    plan, design = given.plan, describe(given.plan, 1)
    rows = [
        MetricRow(**row)
        for name in ("concept_identification", "dose_response", "confabulation")
        if (file := given.folder / f"{name}.json").exists()
        for row in json.loads(file.read_text())
    ]
    return Result(
        provenance=Provenance(
            nlabench="", suite={"name": "synthetic", "version": "0", "strengths": STRENGTHS["readout"]},
            tasks={task.name: task.version for task in load_tasks(tuple({row.task: None for row in rows}))},
            subject="none", subject_fingerprint="none", subject_blocks=1, dtype="float32", device="cpu", layer=0,
            d_model=D_MODEL, injection_layer=0, preamble_tokens=0, readout_prompts=design.readout_prompts,
            pack="synthetic", pack_fingerprint="none", vectors_fingerprint="none", seed=0, resamples=given.resamples,
            libraries={}, python="", git=None, started="2000-01-01T00:00:00+00:00", seconds=0.0, arguments={},
        ),
        findings=["Drawn from a seed to time nlabench: nothing here is a result about a verbalizer."],
        scorers=[
            ScorerRecord(
                name=name, fingerprint="none", ranks=True, naming=1, being=1, empty=0.5, all_concepts=0.5, negated=0.5,
                stuffed=0.5, foreign=None, naming_top1=1, being_top1=1, weakest=[],
            )
            for name in scorer_names(given)
        ],
        scorer_agreement=[],
        verbalizers={
            name: VerbalizerRecord(
                card={"name": name, "role": role}, fingerprint="none", n_texts=plan.n_items, n_failed=0,
                distinct_texts=1.0, seconds=1.0, texts_per_second=None, rerun_checked=None, rerun_agreed=None,
            )
            for name, role in ROLES.items()
        },
        concepts=[
            ConceptRecord(
                name=name, title=name, family=family, description="Drawn from a seed.", method="none", contrast="none",
                split_half=1.0, split_half_upstream=1.0, length=1.0, matched_r={"readout/function": 0.2},
                natural_evidence={}, excluded={},
            )
            for name, family in zip(design.concepts, design.families, strict=True)
        ],
        gate=[],
        arms=record_arms(labels),
        excluded_items={},
        metrics=rows,
    )  # fmt: skip
