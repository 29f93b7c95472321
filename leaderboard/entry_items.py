"""`items.parquet` of an entry, column by column: what may stand in each. Files come from anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..benchmark.item_table import LABELS, OPTIONAL
from ..benchmark.records import Result
from .claims import Problem
from .entries import ITEMS, Entry
from .tables import read_table

#: The longest text of a verbalizer that an entry may have; released NLAs write under 1,000 characters.
MOST_CHARACTERS = 20_000

#: The longest id, name or word of a label, and the longest question or error.
LONGEST_LABEL, LONGEST_REMARK = 500, 5000

#: Positions and draws count from 0; no run has so many.
MOST_COUNTED = 10_000_000

#: Columns beside the labels and what tasks measured, and what each holds.
TEXTS = {
    "verbalizer": "text", "text": "text", "question": "text", "error": "text", "logprob": "numbers",
    "samples": "lists of texts",
}  # fmt: skip
NEEDED = (*LABELS, "verbalizer", "text")
MAY_BE_NULL = (*OPTIONAL, "error", "logprob", "samples")

_IS: dict[str, Callable[[pa.DataType], bool]] = {
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "whole numbers": pa.types.is_integer,
    "numbers": pa.types.is_floating,
    "true or false": pa.types.is_boolean,
    "lists of texts": lambda kind: pa.types.is_list(kind) and pa.types.is_string(kind.value_type),
    "numbers, or a list of numbers in each row": lambda kind: (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or (
            (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
            and pa.types.is_floating(kind.value_type)
        )
    ),
}

#: What numbers of a label lie between.
_RANGES = {
    "position": (0, MOST_COUNTED), "draw": (-1, MOST_COUNTED), "r": (0, 1000), "norm": (0, 1e9),
    "unsteered_norm": (0, 1e9), "displacement": (0, 1e9), "angle": (0, 180.01), "evidence": (-1000, 1000),
}  # fmt: skip


def check_items(entry: Entry) -> list[Problem]:
    """What in the entry's table of items is no item's: each column, and the first row of it that is wrong.

    Raises:
        BadInput: the file is no Parquet.
    """
    file = str(entry.folder / ITEMS)
    table = read_table(entry.folder / ITEMS)
    return [Problem(f"{file}: {where}", found, expected) for where, found, expected in _find(table, entry.result)]


def accepted_columns(result: Result) -> dict[str, str]:
    """The columns that an entry's items may have, and what each holds."""
    measured = dict.fromkeys(
        (f"{task}.{column}" for task, by_name in result.measured.items() for own in by_name.values() for column in own),
        "numbers, or a list of numbers in each row",
    )
    return {**LABELS, **TEXTS, **measured}


def _find(table: pa.Table, result: Result) -> Iterator[tuple[str, str, str]]:
    accepted, tasks = accepted_columns(result), tuple(f"{task}." for task in result.provenance.tasks)
    for name in NEEDED:
        if name not in table.column_names:
            yield "columns", f"there is no column {name!r}", f"the columns {', '.join(NEEDED)}"
    for name, n in Counter(table.column_names).items():
        if n > 1:
            yield f"column {name[:80]!r}", "the column more than once", "every column once"
            continue
        column = table[name]
        if name not in accepted:
            # A run's table has a column for what a task measured of any verbalizer of it, empty for the others.
            if not (name.startswith(tasks) and _is_empty(column)):
                yield f"column {name[:80]!r}", f"a column of {column.type}", f"one of {', '.join(accepted)}"
            continue
        yield from _check_column(name, column, accepted[name])


def _check_column(name: str, column: pa.ChunkedArray, kind: str) -> Iterator[tuple[str, str, str]]:
    where = f"column {name!r}"
    if not (_IS[kind](column.type) or (name in MAY_BE_NULL and pa.types.is_null(column.type))):
        yield where, f"the type {column.type}", kind
        return
    if name in NEEDED and name not in MAY_BE_NULL and column.null_count:
        yield f"{where}, row {pc.index(pc.is_null(column), True).as_py()}", "nothing", kind
    if kind == "text":
        most = LONGEST_LABEL if name in LABELS or name == "verbalizer" else LONGEST_REMARK
        most = MOST_CHARACTERS if name == "text" else most
        lengths = np.asarray(pc.fill_null(pc.utf8_length(column), 0))
        if (row := _first(lengths > most)) is not None:
            yield f"{where}, row {row}", f"{lengths[row]:,} characters", f"at most {most:,}"
    elif kind == "lists of texts":
        longest = np.asarray(pc.fill_null(pc.utf8_length(pc.list_flatten(column)), 0))
        if (longest > MOST_CHARACTERS).any():
            yield where, f"a text of {longest.max():,} characters", f"at most {MOST_CHARACTERS:,}"
    elif name in _RANGES:
        low, high = _RANGES[name]
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
        wrong = ~((values >= low) & (values <= high))
        if name in OPTIONAL:
            wrong &= ~np.isnan(values)
        if (row := _first(wrong)) is not None:
            yield f"{where}, row {row}", str(column[row].as_py()), f"a number from {low:,} to {high:,}"


def _first(wrong: Any) -> int | None:
    rows = np.flatnonzero(wrong)
    return int(rows[0]) if len(rows) else None


def _is_empty(column: pa.ChunkedArray) -> bool:
    if column.null_count == len(column):
        return True
    return bool(pa.types.is_floating(column.type) and np.isnan(column.to_numpy()).all())
