"""A board as a table on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..benchmark.records import MetricRow
from ..benchmark.statistics import RankInterval
from .entries import Entry
from .ranking import COLUMNS, Board, Column, find_row, rank, why_unranked

CAPTION = (
    "AUROC with its 95% interval; 0.5 is chance. #: the rank, from 1 + those that are certainly better to all but "
    "those that are certainly worse (paired over concepts and prompts). false claims: of permuted directions at r 0.3; "
    "less is better. gap and r50 have no rank: who names nothing has no gap."
)


def show_board(board: Board, sort: str = COLUMNS[0].name) -> RenderableType:
    """The table, the best of a column first, those without a rank below. Names come from files: shown as they are."""
    ranks = {column.name: rank(board, column) for column in COLUMNS}
    chosen = next(column for column in COLUMNS if column.name == sort)
    table = Table(title=Text(board.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("verbalizer", overflow="fold")
    for column in COLUMNS:
        table.add_column(column.title)
    table.add_column("status")
    for entry in sorted(board.entries, key=lambda entry: _place(entry, chosen, board)):
        why = why_unranked(entry, board.entries)
        cells = [Text(_show(find_row(entry, column), ranks[column.name].get(entry.id))) for column in COLUMNS]
        name = f"{entry.card.name} {entry.card.version}" + (f"\n({why})" if why else "")
        table.add_row(Text(name), *cells, entry.status, style="dim" if why else "")
    return Group(table, Text(CAPTION, "dim"))


def _place(entry: Entry, column: Column, board: Board) -> tuple[bool, float, str]:
    row = find_row(entry, column)
    value = float("inf") if row is None or row.value is None else row.value * (1 if column.lower_is_better else -1)
    return bool(why_unranked(entry, board.entries)), value, entry.card.name


def _show(row: MetricRow | None, rank_interval: RankInterval | None) -> str:
    if row is None:
        return "–"
    if row.value is None:
        return f"> {row.censored_at:g}" if row.censored_at is not None else "–"
    low = "" if row.low is None else f"{row.low:.2f}"
    high = f"{row.high:.2f}" if row.high is not None else f"> {row.censored_at:g}" if row.censored_at else ""
    text = f"{row.value:.2f}" + (f"\n[{low}, {high}]" if low and high else "")
    if rank_interval is None:
        return text
    best, worst = rank_interval.best, rank_interval.worst
    return f"{text}\n#{best}" if best == worst else f"{text}\n#{best}–{worst}"
