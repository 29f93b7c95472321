"""A result as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .records import MetricRow, Result
from .report.headline import left_out

#: A longer name is put on two lines, at its colon: intervals beside it need the room.
LONGEST_NAME = 18

ROLE_STYLE = {"submitted": "bold", "baseline": "", "floor": "dim", "ceiling": "green", "reader": "cyan"}


def summarize(result: Result) -> RenderableType:
    """The headline table with intervals, what it means in a line, and the findings."""
    scorer = result.headline_scorer
    where = f"{result.provenance.subject}, block {result.provenance.layer}, suite {result.provenance.suite['name']}"
    table = Table(
        title=f"Concept identification: {where} (scorer: {scorer})",
        title_justify="left",
        caption="AUROC with its 95% interval; 0.5 is chance. natural, steered: token-matched pairs at function "
        "words, at matched evidence. gap: steered - natural. r50: the strength at which the text is halfway to the "
        "ceiling.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("verbalizer", overflow="fold")
    for column in ("natural", "steered", "gap", "r50"):
        table.add_column(column, no_wrap=True)
    for name, verbalizer in result.verbalizers.items():
        role = str(verbalizer.card["role"])
        folded = name.replace(":", ":\n", 1) if len(name) > LONGEST_NAME else name
        shown = folded + ("" if role == "submitted" else f"\n({role})")
        table.add_row(shown, *_cells(result, name, scorer), style=ROLE_STYLE.get(role, ""))
    kept = sum(not concept.excluded.get("readout/function") for concept in result.concepts)
    reasons = left_out(result, "readout/function")
    notes = [
        f"{kept} of {len(result.concepts)} concepts are in the headline{f'; left out: {reasons}' * bool(reasons)}."
    ]
    notes += [f"{name}: {warning}." for name, v in result.verbalizers.items() for warning in v.warnings]
    lines = [Text(""), *[Text(line, style="dim") for line in notes], Text("")]
    return Group(table, *lines, *[Text(f"- {sentence}") for sentence in result.findings])


def _cells(result: Result, name: str, scorer: str) -> list[str]:
    pair = {
        "task": "concept_identification", "verbalizer": name, "scorer": scorer, "injection": "readout",
        "level": "matched", "kind": "function", "group": None,
    }  # fmt: skip
    return [
        _show_interval(result.one(metric="auroc_in_pairs", arm="natural", **pair)),
        _show_interval(result.one(metric="auroc_in_pairs", arm="steered", **pair)),
        _show_interval(result.one(metric="auroc_gap", arm="steered-natural", **pair), signed=True),
        _show_r50(
            result.one(
                task="dose_response", metric="r50", verbalizer=name, scorer=scorer, arm="steered", injection="readout"
            )
        ),
    ]  # fmt: skip


def _show_interval(row: MetricRow | None, *, signed: bool = False) -> str:
    """`0.73`, and its interval on a second line; a dash where there is no number."""
    if row is None or row.value is None:
        return "-"
    sign = "+" if signed else ""
    # A difference of exactly zero has no sign; neither has one that rounds to it.
    value = f"{row.value + 0.0:{sign}.2f}"
    if row.low is None or row.high is None:
        return value
    return f"{value}\n\\[{row.low:{sign}.2f}, {row.high:{sign}.2f}]"


def _show_r50(row: MetricRow | None) -> str:
    if row is None or (row.value is None and row.censored_at is None):
        return "-"
    end = f"> {row.censored_at:g}" if row.censored_at is not None else "-"
    value, low, high = (end if n is None else f"{n:.2f}" for n in (row.value, row.low, row.high))
    return end if row.value is None else f"{value}\n\\[{low}, {high}]"
