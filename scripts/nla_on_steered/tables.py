"""The two tables: natural against steered with the controls, and by strength what is said and what steers."""

from __future__ import annotations

from dataclasses import dataclass

from nlabench.benchmark.findings import TASK
from nlabench.benchmark.records import MetricRow, Result
from nlabench.benchmark.said import cross
from rich import box
from rich.table import Table

Figure = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass(frozen=True)
class Compared:
    """One verbalizer at matched evidence: AUROC of its texts, natural and steered, and steered − natural."""

    verbalizer: str
    role: str
    natural: Figure
    steered: Figure
    gap: Figure


@dataclass(frozen=True)
class AtStrength:
    """One strength of the gate, added upstream: how many concepts' directions steer, are said, and both."""

    r: float
    concepts: int
    steers: list[str]
    said: list[str]
    both: list[str]
    said_without_steering: list[str]


def compare(result: Result) -> list[Compared]:
    """Every verbalizer of a run; those without token-matched pairs have no figures."""
    rows = []
    for name, record in result.verbalizers.items():
        at = {
            "task": TASK, "verbalizer": name, "scorer": result.headline_scorer, "injection": "readout",
            "level": "matched", "kind": "function", "group": None,
        }  # fmt: skip
        rows.append(
            Compared(
                name,
                str(record.card["role"]),
                _figure(result.one(metric="auroc_in_pairs", arm="natural", **at)),
                _figure(result.one(metric="auroc_in_pairs", arm="steered", **at)),
                _figure(result.one(metric="auroc_gap", arm="steered-natural", **at)),
            )
        )
    return rows


def by_strength(result: Result, name: str) -> list[AtStrength]:
    """Of one verbalizer, at every strength that both the gate and the sayings were judged at."""
    sayings = [row for row in result.said if row.verbalizer == name]
    rows = []
    for r in sorted({row.r for row in sayings} & {row.r for row in result.gate}):
        found = cross(result.gate, sayings, r)
        both, idle = found.steers_and_said, found.said_without_steering
        rows.append(
            AtStrength(
                r=r,
                concepts=len(both) + len(idle) + len(found.steers_unsaid) + len(found.neither),
                steers=both + found.steers_unsaid,
                said=both + idle,
                both=both,
                said_without_steering=idle,
            )
        )
    return rows


def show_verbalizers(result: Result, rows: list[Compared]) -> Table:
    where = f"{result.provenance.subject}, block {result.provenance.layer}, suite {result.provenance.suite['name']}"
    table = Table(
        title=f"Is the concept in the text? AUROC at matched evidence, {where}",
        title_justify="left",
        caption="95% intervals; 0.5 is chance. A gap whose interval holds 0 is no difference that was found.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("verbalizer", "role", "natural", "steered", "steered − natural"):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = [_show(row.natural), _show(row.steered), _show(row.gap, signed=True)]
        table.add_row(row.verbalizer, row.role, *cells, style="bold" if row.role == "submitted" else "")
    return table


def show_strengths(name: str, rows: list[AtStrength]) -> Table:
    table = Table(
        title=f"{name}, by strength (added upstream): does the direction steer, and is its concept said?",
        title_justify="left",
        caption="steers: the behaviour gate. said: more than permuted directions in the same prompts; false discovery "
        "rate 5% over concepts and strengths.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("r", "steers", "said", "both", "said without steering", "steers and said"):
        table.add_column(column, overflow="fold")
    for row in rows:
        counts = [f"{len(part)} of {row.concepts}" for part in (row.steers, row.said)]
        table.add_row(
            f"{row.r:g}", *counts, str(len(row.both)), str(len(row.said_without_steering)), ", ".join(row.both) or "-"
        )
    return table


def _figure(row: MetricRow | None) -> Figure:
    return (None, None, None) if row is None else (row.value, row.low, row.high)


def _show(figure: Figure, *, signed: bool = False) -> str:
    value, low, high = figure
    if value is None:
        return "-"
    sign = "+" if signed else ""
    shown = f"{value + 0.0:{sign}.2f}"
    return shown if low is None or high is None else f"{shown} \\[{low:{sign}.2f}, {high:{sign}.2f}]"
