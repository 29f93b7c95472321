"""Facts about the plan: the machine is timed once a day and subject, by work of the kind that is planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nlabench.benchmark import planning
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.inversion_scan import MARGIN_SAMPLE, Scanner
from nlabench.benchmark.planning import make_plan
from nlabench.benchmark.store import Store
from nlabench.benchmark.study import sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import load_tasks
from torch import Tensor


def test_rates_are_measured_once_and_work_is_counted_at_them(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []

    def measure(_: object) -> tuple[float, float]:
        timed.append("")
        return 100.0, 10.0

    monkeypatch.setattr(planning, "measure_rates", measure)
    monkeypatch.setattr(planning, "measure_scan", lambda _: 30.0)
    study = sketch_study(subject, load_pack(), QUICK)
    engine = LocalEngine(Store(tmp_path))
    first, again = (make_plan(study, load_tasks(QUICK.tasks), engine, 3, 1) for _ in range(2))
    assert first == again
    assert len(timed) == 1
    assert first.reading_seconds == first.tokens_read / 100
    assert first.text_seconds == first.n_items * planning.TOKENS_PER_TEXT / 10
    assert first.texts == 3 * first.n_items


def test_a_scan_is_timed_by_warm_batches_of_either_kind(
    tiny: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token costs 1 s in bfloat16 and 3 s in float32, and what comes first 100 s more: none of that is a scan's."""
    scanner, clock, warm = Scanner(tiny("llama"), 2, prescan=True, rows=8), [0.0], set()

    def distances(_: object, tokens: Tensor, __: Tensor, *, dtype: torch.dtype = torch.float32, shared: bool) -> None:
        clock[0] += len(tokens) * (1.0 if dtype == torch.bfloat16 else 3.0) + (0 if dtype in warm else 100)
        warm.add(dtype)

    monkeypatch.setattr(scanner, "distances", distances)
    monkeypatch.setattr(planning.time, "perf_counter", lambda: clock[0])
    n = scanner.subject.vocab_size
    assert planning.time_scan(scanner, scanner.subject.make_prefix([3, 4], 2)) == n + 3 * min(MARGIN_SAMPLE, n)


def test_scans_are_planned_for_a_task_that_makes_them_and_in_float32_alone(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sketch_study(subject, load_pack(), QUICK)
    assert planning.count_scans(study, load_tasks(("concept_identification",))) == 0
    detection = load_tasks(("off_manifold_detection",))
    assert planning.count_scans(study, detection) == QUICK.readout_prompts
    assert planning.measure_scan(study) > 0
    monkeypatch.setattr(planning, "can_scan", lambda _: False)
    assert planning.count_scans(study, detection) == 0
