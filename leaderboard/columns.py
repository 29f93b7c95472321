"""The board's columns: which metric each shows, and what it says. No column is blended with another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..benchmark.records import MetricRow
from .entries import Entry


@dataclass(frozen=True)
class Column:
    """One metric of each entry.

    what: a sentence on it. scorer: whose, where it is not the headline scorer's. ranked: whether more (or less) of it
    is better by itself. over_readers: a lead over readers of text, of which the strongest counts.
    """

    name: str
    title: str
    task: str
    metric: str
    arm: str
    injection: str = "readout"
    level: str = "matched"
    r: float | None = None
    lower_is_better: bool = False
    ranked: bool = True
    kind: str = "function"
    scorer: str | None = None
    over_readers: bool = False
    what: str = ""

    @property
    def better(self) -> str | None:
        """Which way is better, or None where neither is by itself."""
        return "lower" if self.lower_is_better else "higher" if self.ranked else None


#: In this order, on every board. A gap near 0 is no merit by itself: who names nothing has none. So it has no rank. And
#: r50 has no Estimate that differences could be taken of.
COLUMNS = (
    Column(
        "steered", "steered", "concept_identification", "auroc_in_pairs", "steered",
        what="AUROC of naming the concept that was added at the readout at matched evidence, in token-matched pairs; "
        "0.5 is chance.",
    ),
    Column(
        "natural", "natural", "concept_identification", "auroc_in_pairs", "natural",
        what="AUROC of naming the concept of a natural text, on the same pairs; 0.5 is chance.",
    ),
    Column(
        "gap", "gap", "concept_identification", "auroc_gap", "steered-natural", ranked=False,
        what="Steered less natural, paired by concept and token. No merit by itself: who names nothing has no gap.",
    ),
    Column(
        "false_claims", "false claims", "confabulation", "false_claims", "permuted", level="grid", r=0.3,
        lower_is_better=True,
        what="Share of activations moved along a meaningless (permuted) direction at r 0.3 in which a concept is "
        "claimed.",
    ),
    Column(
        "r50", "r50", "dose_response", "r50", "steered", level="grid", lower_is_better=True, ranked=False,
        what="Strength at which texts are told from those of permuted directions halfway to the ceiling; above the "
        "grid's end it is censored.",
    ),
)  # fmt: skip

#: On a board's page too, where a run has them.
FURTHER_COLUMNS = (
    Column(
        "upstream", "upstream, r 0.3", "concept_identification", "auroc", "steered", "upstream", "grid", 0.3,
        what="AUROC of naming the concept that was added at an earlier block, at r 0.3; 0.5 is chance.",
    ),
    Column(
        "against_permuted", "against permuted, r 0.3", "concept_identification", "auroc_against_permuted", "steered",
        level="grid", r=0.3,
        what="AUROC of a steered concept's score against that of permuted directions at r 0.3: is it this direction, "
        "or any?",
    ),
    Column(
        "content", "content kept, r 0.3", "content_retention", "auroc", "steered", level="grid", r=0.3,
        what="AUROC of telling from a text which prompt was steered, at r 0.3; 0.5 is chance.",
    ),
    Column(
        "fve", "FVE over mean", "reconstruction", "fve_over_mean", "natural", "none", "grid", scorer="none",
        what="Share of the variance around the mean that the reconstructor explains from the texts, natural arm. Not "
        "content: wrong words can explain much.",
    ),
    Column(
        "displacement", "displacement recovered, r 0.3", "reconstruction", "displacement_recovered", "steered",
        level="grid", r=0.3, scorer="none",
        what="Share of the steering displacement that comes back through text and reconstructor, at r 0.3.",
    ),
    Column(
        "kl_closed", "KL closed", "functional_round_trip", "kl_closed", "natural", "none", "grid", kind="mid",
        scorer="none",
        what="Share of the KL to the subject's own output that the reconstructed activation closes, against "
        "mean-ablation; natural arm, read mid-text.",
    ),
    Column(
        "information_natural", "over text, natural", "privileged_information", "information_over_text", "natural",
        "none", "grid", ranked=False, over_readers=True,
        what="AUROC among items that share their tokens, less that of the strongest reader of the text alone; natural "
        "arm. The reader is another in other cells, so it has no rank.",
    ),
    Column(
        "information_steered", "over text, steered r 0.3", "privileged_information", "information_over_text", "steered",
        level="grid", r=0.3, ranked=False, over_readers=True,
        what="The same, steered at r 0.3. Readers do not see what was added.",
    ),
    Column(
        "detection", "moved, by round trip", "off_manifold_detection", "auroc", "steered", level="grid", r=0.3,
        scorer="ar_cosine", ranked=False,
        what="AUROC of telling steered activations at r 0.3 from unmoved ones by how badly they are reconstructed. A "
        "use of a verbalizer, and no merit by itself.",
    ),
)  # fmt: skip


def find_row(entry: Entry, column: Column) -> MetricRow | None:
    """The entry's figure in a column; None where its run has none."""
    return next((row for row in _candidates(entry, column)), None)


def find_place(entry: Entry, row: MetricRow) -> MetricRow | None:
    """Where an AUROC lies between floor (0) and ceiling (1), as its run recorded it; None where it did not."""
    wanted = row.model_copy(update={"metric": row.metric.replace("auroc", "place")})
    fields = ("task", "metric", "verbalizer", "scorer", "arm", "injection", "level", "kind", "r", "group", "versus")
    if wanted.metric == row.metric:
        return None
    same = (
        other for other in entry.result.metrics if all(getattr(other, name) == getattr(wanted, name) for name in fields)
    )
    return next(same, None)


def shown_columns(entries: Iterable[Entry]) -> list[Column]:
    """The columns of a board: those of every board, and further ones in which an entry has a figure."""
    entries = list(entries)
    further = [column for column in FURTHER_COLUMNS if any(find_row(entry, column) for entry in entries)]
    return [*COLUMNS, *further]


def _candidates(entry: Entry, column: Column) -> list[MetricRow]:
    """The rows that fit: one at most, but for a lead over readers, whose least is the lead over the strongest."""
    rows = [
        row
        for row in entry.result.metrics
        if (row.task, row.metric, row.arm) == (column.task, column.metric, column.arm)
        and (row.injection, row.level, row.kind, row.r) == (column.injection, column.level, column.kind, column.r)
        and row.scorer == (column.scorer or entry.result.headline_scorer)
        and row.verbalizer == entry.card.name
        and row.group is None
    ]
    if not column.over_readers:
        return [row for row in rows if row.versus is None]
    records = entry.result.verbalizers
    leads = [
        row
        for row in rows
        if row.versus in records and records[row.versus].card.get("role") == "reader" and row.value is not None
    ]
    return sorted(leads, key=lambda row: (row.value, row.versus))
