"""What a command says while it works: lines, the plan of a run, and its progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .terminal import console

if TYPE_CHECKING:  # torch takes seconds to import
    from .benchmark.engine import Progress
    from .benchmark.planning import Plan
    from .benchmark.runner import Bench


def say_lines(quiet: bool) -> Callable[[str], None]:
    """What a command says in passing, dim."""
    return (lambda _: None) if quiet else (lambda line: console.print(line, style="dim"))


def plan_lines(quiet: bool) -> Callable[[Plan, Bench], None] | None:
    """A run's plan: how much it is, how much of that the store holds, and how long the rest takes."""

    def show_plan(plan: Plan, bench: Bench) -> None:
        study = bench.sketch
        arms = ", ".join(f"{n} {arm}" for arm, n in plan.items_by_arm.items())
        answers = f", {plan.answers} answers for the behaviour gate" if plan.answers else ""
        texts = f", {plan.texts:,} texts (items with the same activation share one)" if plan.texts else ""
        scans = f", {plan.scans} scans of the vocabulary" if plan.scans else ""
        console.print(
            f"[bold]Plan[/bold]: {study.subject.name}, site {study.site.layer} of {study.subject.n_blocks} blocks, "
            f"upstream at {study.injection_layer}; {len(study.pack.names)} concepts, "
            f"{len(study.readout_prompts)} prompts\n"
            f"  {plan.n_items} items ({arms})\n"
            f"  {plan.tokens_read:,} tokens to read{answers}{texts}{scans}\n"
            f"  {_show_left(plan)}",
            soft_wrap=True,
        )

    return None if quiet else show_plan


def _show_left(plan: Plan) -> str:
    stored = plan.stored
    shares = [(plan.tokens_read, stored.tokens, "tokens"), (plan.answers, stored.answers, "answers"),
              (plan.texts, stored.texts, "texts"), (plan.scans, stored.scans, "scans")]  # fmt: skip
    there = ", ".join(f"{math.floor(100 * share)}% of the {name}" for total, share, name in shares if total and share)
    scoring = ", and scoring" if plan.texts else ""
    if not stored.takes_time:
        left = f"seconds of work are left{scoring}"
    else:
        stages = {
            "reading": plan.reading_seconds, "gate": plan.gate_seconds, "texts": plan.text_seconds,
            "vectors of texts": plan.vector_seconds, "scans of the vocabulary": plan.scan_seconds,
        }  # fmt: skip
        parts = ", ".join(f"{name} {_minutes(seconds)}" for name, seconds in stages.items() if seconds)
        left = f"about {_minutes(plan.seconds)} are left, at the rates measured here today ({parts}){scoring}"
    return f"in the store already: {there or 'nothing of it'}\n  {left}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def report_lines(quiet: bool) -> Callable[[Progress], None]:
    """Progress as a bar on a terminal, and as a line every ten seconds elsewhere."""
    if quiet:
        return lambda _: None
    state: dict[str, Any] = {"stage": "", "last": 0.0}

    def report(progress: Progress) -> None:
        finished = progress.done == progress.total
        now = time.monotonic()
        begun = progress.done == 0 and console.is_terminal  # a long step in one piece: its line stands until it is done
        if progress.stage != state["stage"]:
            state.update(stage=progress.stage, last=now)
        if not finished and not begun and now - state["last"] < (0.2 if console.is_terminal else 10):
            return
        state["last"] = now
        rate = progress.fresh / progress.seconds if progress.seconds else 0.0
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate else "from the store"
        left = (progress.total - progress.done) / rate if rate else 0
        line = f"{progress.stage}: {progress.done:,} of {progress.total:,}, {speed}"
        line += f", {_minutes(left)} left" if left else ""
        if progress.total == 1:  # a share and a rate of one say nothing
            took = f"{progress.seconds:.1f} s" if progress.fresh else "from the store"
            line = f"{progress.stage}: {took if finished else '…'}"
        # A carriage return and no newline: the line is written over until its stage ends.
        if console.is_terminal:
            console.print(f"\r\x1b[K{line}", end="\n" if finished else "", style="dim", soft_wrap=True)
        else:
            console.print(line, style="dim", soft_wrap=True)

    return report
