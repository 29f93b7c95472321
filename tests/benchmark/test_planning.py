"""Facts about the plan: the machine is timed once a day and subject."""

from __future__ import annotations

from pathlib import Path

import pytest
from nlabench.benchmark import planning
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.planning import make_plan
from nlabench.benchmark.store import Store
from nlabench.benchmark.study import sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import load_tasks


def test_rates_are_measured_once_and_work_is_counted_at_them(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []

    def measure(_: object) -> tuple[float, float]:
        timed.append("")
        return 100.0, 10.0

    monkeypatch.setattr(planning, "measure_rates", measure)
    study = sketch_study(subject, load_pack(), QUICK)
    engine = LocalEngine(Store(tmp_path))
    first, again = (make_plan(study, load_tasks(QUICK.tasks), engine, 3, 1) for _ in range(2))
    assert first == again
    assert len(timed) == 1
    assert first.reading_seconds == first.tokens_read / 100
    assert first.text_seconds == first.n_items * planning.TOKENS_PER_TEXT / 10
    assert first.texts == 3 * first.n_items
