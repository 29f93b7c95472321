"""What is seen while a run works: counts and rates of many steps, seconds of a single one."""

from __future__ import annotations

import pytest
from nlabench import cli_progress
from nlabench.benchmark.engine import Progress
from rich.console import Console


def shown(monkeypatch: pytest.MonkeyPatch, reports: list[Progress], *, terminal: bool) -> str:
    console = Console(force_terminal=terminal, width=100, color_system=None, highlight=False)
    monkeypatch.setattr(cli_progress, "console", console)
    report = cli_progress.report_lines(False)
    with console.capture() as captured:
        for progress in reports:
            report(progress)
    return captured.get()


ONE = [Progress("statistics of dose_response", 0, 1, 0, 0.0), Progress("statistics of dose_response", 1, 1, 1, 12.34)]


def test_a_step_in_one_piece_is_named_when_it_begins_and_timed_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal = shown(monkeypatch, ONE, terminal=True)
    assert "statistics of dose_response: …" in on_terminal
    assert on_terminal.endswith("statistics of dose_response: 12.3 s\n")
    assert shown(monkeypatch, ONE, terminal=False) == "statistics of dose_response: 12.3 s\n"


def test_many_steps_have_a_count_and_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [Progress("texts", 96, 96, 96, 8.0), Progress("texts again", 4, 4, 0, 0.0)]
    assert shown(monkeypatch, ends, terminal=False) == "texts: 96 of 96, 12/s\ntexts again: 4 of 4, from the store\n"
