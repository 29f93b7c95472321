"""Facts about a plan's look into the store: it finds what a run left there, and does none of the run's work."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nlabench.benchmark import planning
from nlabench.benchmark.behaviour import plan_gate
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.looking_ahead import StoreReader, look_ahead
from nlabench.benchmark.planning import Plan, Stored
from nlabench.benchmark.roster import load_roster
from nlabench.benchmark.runner import Bench, RunSettings, feed, plan_run
from nlabench.benchmark.store import Payload, Store
from nlabench.benchmark.study import sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK, Suite
from nlabench.benchmark.task import ScanningTask, load_tasks
from nlabench.cli_progress import plan_lines
from nlabench.terminal import console

SMALL = Suite(
    **{
        **QUICK.model_dump(), "name": "small", "n_concepts": 3, "natural_per_concept": 2, "final_per_concept": 1,
        "readout_prompts": 4, "prompts_per_concept": 2, "strengths": (0.3, 1.0), "upstream_strengths": (0.5,),
        "gaussian_items": 2, "gate_requests": 2, "gate_strengths": (0.3,), "gate_permuted_draws": 2,
    }
)  # fmt: skip


def describe(vectors: list[torch.Tensor]) -> list[str]:
    return [f"about {int(vector.norm())}" for vector in vectors]


def set_up(subject: Subject, store: Store) -> Bench:
    tasks, study = load_tasks(("concept_identification", "dose_response")), sketch_study(subject, load_pack(), SMALL)
    return Bench(RunSettings(), SMALL, tasks, study, store, LocalEngine(store), 0.0)


@pytest.fixture(autouse=True)
def stated_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "measure_rates", lambda _: (100.0, 10.0))


@pytest.fixture
def bench(subject: Subject, tmp_path: Path) -> Bench:
    """Nothing is in its store."""
    return set_up(subject, Store(tmp_path / "empty"))


@pytest.fixture(scope="module")
def measured(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    set_up(subject, Store(folder)).measure()
    return folder


@pytest.fixture
def read(subject: Subject, measured: Path, tmp_path: Path) -> Bench:
    """All activations are in its store, and no more."""
    return set_up(subject, Store(Path(shutil.copytree(measured, tmp_path / "read"))))


def make_plan(bench: Bench) -> Plan:
    return plan_run(
        bench, [describe],
        look_ahead(bench.store, bench.measure, lambda study: load_roster([describe], study), bench.tasks),
    )  # fmt: skip


def show(plan: Plan, bench: Bench) -> str:
    shower = plan_lines(False)
    assert shower is not None
    with console.capture() as captured:
        shower(plan, bench)
    return captured.get()


def test_a_plan_says_what_the_store_holds_and_times_what_is_left(bench: Bench, read: Bench) -> None:
    first = make_plan(bench)
    assert first.stored == Stored()
    assert "in the store already: nothing of it" in show(first, bench)
    assert min(first.reading_seconds, first.gate_seconds, first.text_seconds) > 0

    second, (study, activations) = make_plan(read), read.measure()
    assert second.stored == Stored(tokens=1.0, scans=1.0)  # no task has any
    assert (second.reading_seconds, second.gate_seconds) == (0.0, first.gate_seconds)
    assert second.n_items == len(activations.labels)

    gate = plan_gate(study)
    read.store.put(gate[0].kind, gate[0].key, Payload({}, {}))
    feed(load_roster([describe], study), activations, study, read.engine)
    fed = make_plan(read)
    assert fed.stored == Stored(tokens=1.0, answers=0.5, texts=1.0, written=1.0, scans=1.0)
    assert (fed.text_seconds, fed.gate_seconds) == (0.0, first.gate_seconds / 2)
    assert "in the store already: 100% of the tokens, 50% of the answers, 100% of the texts" in show(fed, read)


def test_a_rerun_is_planned_without_timing_the_machine(read: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    study, activations = read.measure()
    for chunk in plan_gate(study):
        read.store.put(chunk.kind, chunk.key, Payload({}, {}))
    feed(load_roster([describe], study), activations, study, read.engine)

    def never(_: object) -> tuple[float, float]:
        raise AssertionError("nothing is left that takes time")

    monkeypatch.setattr(planning, "measure_rates", never)
    again = make_plan(read)
    assert again.seconds == 0
    assert "100% of the texts\n  seconds of work are left, and scoring" in show(again, read)


def test_scans_of_the_vocabulary_are_planned_at_their_rate_and_found_in_the_store(
    read: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "measure_scan", lambda _: 30.0)
    bench = replace(read, tasks=load_tasks(("off_manifold_detection",)))
    unmade = make_plan(bench)  # its items are not made yet: every scan is left
    assert (unmade.scans, unmade.stored.scans, unmade.scan_seconds) == (SMALL.readout_prompts, 0.0, 30.0 * unmade.scans)
    study, activations = bench.measure()
    (task,) = bench.tasks
    assert isinstance(task, ScanningTask)
    chunks = task.plan_scans(study, activations)
    first = make_plan(bench)
    assert (first.scans, first.scan_seconds) == (len(chunks), 30.0 * len(chunks))
    assert first.seconds == pytest.approx(first.gate_seconds + first.text_seconds + first.scan_seconds)
    shown = show(first, bench)
    assert f", {len(chunks)} scans of the vocabulary\n" in shown
    assert "scans of the vocabulary 2.0 min" in shown
    for chunk in chunks[:3]:
        bench.store.put(chunk.kind, chunk.key, Payload({}, {}))
    again = make_plan(bench)
    assert (again.stored.scans, again.scan_seconds) == (0.75, 30.0)
    assert "75% of the scans" in show(again, bench)
    exported = plan_run(bench, None, look_ahead(bench.store, bench.measure))
    assert (exported.scans, exported.seconds) == (0, 0)


def test_what_is_damaged_or_deleted_counts_as_left(read: Bench) -> None:
    reading = next((read.store.root / "readings").rglob("*.safetensors"))
    content = reading.read_bytes()
    reading.unlink()
    left = make_plan(read).stored
    assert 0 <= left.tokens < 1
    assert left.answers == left.texts == 0
    reading.write_bytes(content[:-1])
    assert make_plan(read).stored.tokens < 1


def test_an_export_plans_no_answers_and_no_texts(bench: Bench, read: Bench) -> None:
    plan = plan_run(bench, None, look_ahead(bench.store, bench.measure))
    assert (plan.answers, plan.texts) == (0, 0)
    assert plan.seconds == plan.reading_seconds > 0
    assert "tokens to read\n  in the store already: nothing of it\n  about" in show(plan, bench)
    again = plan_run(read, None, look_ahead(read.store, read.measure))
    assert show(again, read).endswith("in the store already: 100% of the tokens\n  seconds of work are left\n")


def test_looking_computes_nothing(bench: Bench) -> None:
    make_plan(bench)
    assert {folder.name for folder in bench.store.root.iterdir()} == {"rates"}
    assert StoreReader(bench.store).run("no work", []) == []


def test_a_sketch_plans_as_many_items_as_are_made(subject: Subject) -> None:
    """Stand-ins for matched strengths must not make items of two concepts one."""
    sketch = sketch_study(subject, load_pack(), QUICK)
    strengths = [found.r for found in sketch.matched["readout", "function"].values()]
    assert len(set(strengths)) == len(strengths) == QUICK.n_concepts
    assert len(planning.plan_items(sketch, load_tasks(QUICK.tasks))) == 892
