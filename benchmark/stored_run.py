"""A run as it lies on disk: `result.json` and `items.parquet`, read back as what tasks score.

Files come from anybody, so nothing is taken on trust: every verbalizer has every item once, an item has one label, and
every row of scores is as long as there are concepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .errors import BadInput
from .records import Result, read_result
from .scoring.base import DIGITS
from .transcript import OF_VECTORS, Measured
from .verbalizers.asking import QUESTION

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ITEMS_FILE = "items.parquet"

#: What is known of an item whoever verbalizes it (see `extraction`), and as what it is kept.
LABELS = {
    "item_id": "text", "arm": "text", "injection": "text", "level": "text", "concept": "text", "prompt": "text",
    "position": "whole numbers", "kind": "text", "word": "text", "r": "numbers", "draw": "whole numbers",
    "pair": "text", "norm": "numbers", "unsteered_norm": "numbers", "displacement": "numbers", "angle": "numbers",
    "evidence": "numbers", "outlier": "true or false",
}  # fmt: skip

#: Columns that are empty in some rows.
OPTIONAL = ("concept", "pair", "evidence", "question")

_KINDS = {
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "whole numbers": pa.types.is_integer,
    "numbers": pa.types.is_floating,
    "true or false": pa.types.is_boolean,
}


@dataclass(frozen=True)
class StoredRun:
    """A run's record with its items.

    labels: one row per item, outliers included, in the order of ids, as the run had them. texts and scores [n_scorers,
    n_items, n_concepts]: by question and verbalizer, in the items' order. measured: by task.
    """

    file: Path
    result: Result
    labels: pd.DataFrame
    texts: Mapping[str, Mapping[str, list[str]]]
    scores: Mapping[str, Mapping[str, Floats]]
    measured: Mapping[str, Measured]


def read_record(path: Path | str) -> Result:
    """The result of a run by its folder or its `result.json`; raises BadInput as `read_result` does."""
    given = Path(path)
    return read_result(given / "result.json" if given.is_dir() else given)


def read_run(path: Path | str, verbalizers: Sequence[str] | None = None) -> StoredRun:
    """A run by its folder or its `result.json`; of all verbalizers, or of some.

    Scores are kept in float32. Rounded to DIGITS again they are what they were in the run, ties included, as long as
    none is beyond 128 standard deviations.

    Raises:
        BadInput: a file is missing or cannot be read, or what it holds is no whole run. The message says where.
    """
    given, result = Path(path), read_record(path)
    folder = given if given.is_dir() else given.parent
    chosen = list(result.verbalizers) if verbalizers is None else list(verbalizers)
    unknown = [name for name in chosen if name not in result.verbalizers]
    if unknown:
        raise BadInput(f"There is no verbalizer {unknown[0]!r} in {given}. It has {', '.join(result.verbalizers)}.")
    table = _ItemTable(folder / ITEMS_FILE, chosen, some=verbalizers is not None)
    measured = {
        task: {
            name: {column: table.measured(f"{task}.{column}", name, _asked(result, name, task)) for column in columns}
            for name, columns in by_name.items()
            if name == OF_VECTORS or name in chosen
        }
        for task, by_name in result.measured.items()
    }
    scores = table.scores([scorer.name for scorer in result.scorers], len(result.concepts))
    return StoredRun(table.file, result, table.labels(), table.texts(), scores, measured)


def _asked(result: Result, verbalizer: str, task: str) -> str:
    """What a task asked of a verbalizer; the general question where it answers none."""
    record = result.verbalizers.get(verbalizer)
    return record.questions.get(task, QUESTION) if record else QUESTION


class _ItemTable:
    """`items.parquet`, with the rows of each question and verbalizer in the order of item ids."""

    def __init__(self, file: Path, verbalizers: list[str], *, some: bool) -> None:
        self.file, self.verbalizers = file, verbalizers
        self.table = self._read(some)
        self._check_columns()
        self.rows = self._find_rows()

    def labels(self) -> pd.DataFrame:
        """The items' labels, which every verbalizer's rows repeat."""
        every = self.table.select(list(LABELS))
        first = self.rows[QUESTION][self.verbalizers[0]]
        wanted = every.take(first)
        for by_name in self.rows.values():
            for name, rows in by_name.items():
                found = every.take(rows)
                for column in LABELS:
                    if not _are_equal(found[column], wanted[column]):
                        raise self._complain(
                            f"the {column!r} of an item is not the same for {name!r} as for {self.verbalizers[0]!r}",
                            "one label for each item, whoever verbalizes it",
                        )
        return wanted.to_pandas()

    def texts(self) -> dict[str, dict[str, list[str]]]:
        return {
            question: {name: self.table["text"].take(rows).to_pylist() for name, rows in by_name.items()}
            for question, by_name in self.rows.items()
        }

    def scores(self, scorers: Sequence[str], n_concepts: int) -> dict[str, dict[str, Floats]]:
        """By question and verbalizer [n_scorers, n_items, n_concepts]."""
        tables = []
        for scorer in scorers:
            table = self._as_rows(f"score_{scorer}", self._column(f"score_{scorer}"), n_concepts)
            bad = np.argwhere(~np.isfinite(table))
            if len(bad):
                raise self._complain(
                    f"column 'score_{scorer}', row {bad[0][0]}: a score is missing or infinite", "a number per concept"
                )
            tables.append(table)
        return {
            question: {name: np.stack([table[rows] for table in tables]) for name, rows in by_name.items()}
            for question, by_name in self.rows.items()
        }

    def measured(self, name: str, verbalizer: str, question: str) -> Floats:
        """What a task measured: a number per item [n_items], or a row of numbers; nan where an item was not measured.

        What was measured of the vectors stands in every verbalizer's rows, and what was measured of texts beside them.
        """
        general = self.rows[QUESTION][verbalizer or self.verbalizers[0]]
        column = self._column(name).take(self.rows.get(question, {}).get(verbalizer, general))
        if _is_list(column.type):
            return self._as_rows(name, column, int(pc.list_value_length(column)[0].as_py() or 0))
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise self._complain(f"column {name!r} is of type {column.type}", "numbers")
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)

    def _read(self, some: bool) -> pa.Table:
        try:
            return pq.read_table(self.file, filters=[("verbalizer", "in", self.verbalizers)] if some else None)
        except FileNotFoundError as error:
            raise BadInput(
                f"There is no {self.file}. A run writes its items beside its result.json; keep the two together."
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise self._complain(f"it cannot be read ({str(error)[:200]})", "the table of a run's items") from error

    def _check_columns(self) -> None:
        repeated = [name for name, n in Counter(self.table.column_names).items() if n > 1]
        if repeated:
            raise self._complain(f"column {repeated[0]!r} is there twice", "every column once")
        asked = ["question"] if "question" in self.table.column_names else []
        for name, kind in {**LABELS, **dict.fromkeys(["verbalizer", "text", *asked], "text")}.items():
            column = self._column(name)
            if name not in OPTIONAL and column.null_count:
                row = pc.index(pc.is_null(column), True).as_py()
                raise self._complain(f"column {name!r}, row {row} is empty", kind)
            if not (pa.types.is_null(column.type) or _KINDS[kind](column.type)):
                raise self._complain(f"column {name!r} is of type {column.type}", kind)

    def _find_rows(self) -> dict[str, dict[str, Ints]]:
        ids, names = (self.table[name].to_pylist() for name in ("item_id", "verbalizer"))
        asked = self.table["question"].to_pylist() if "question" in self.table.column_names else [None] * len(ids)
        found: dict[str, dict[str, dict[str, int]]] = {QUESTION: {name: {} for name in self.verbalizers}}
        for row, (item, name, question) in enumerate(zip(ids, names, asked, strict=True)):
            if name not in self.verbalizers:
                raise self._complain(f"row {row} is of {name!r}", f"those of its result, {', '.join(self.verbalizers)}")
            by_item = found.setdefault(question or QUESTION, {}).setdefault(name, {})
            if item in by_item:
                raise self._complain(f"row {row}: the item {item} of {name!r} is there twice", "every item once")
            by_item[item] = row
        wanted = found[QUESTION][self.verbalizers[0]].keys()
        for by_name in found.values():
            for name, by_item in by_name.items():
                missing, extra = sorted(wanted - by_item.keys()), sorted(by_item.keys() - wanted)
                if missing or extra:
                    raise self._complain(
                        f"the items of {name!r} are not those of {self.verbalizers[0]!r}: {len(missing)} missing, "
                        f"{len(extra)} extra, such as {(missing + extra)[0]}",
                        "every item once for every verbalizer",
                    )
        if not wanted:
            raise self._complain(f"it has no items of {self.verbalizers[0]!r}", "every item once for every verbalizer")
        return {
            question: {name: np.array([by_item[i] for i in sorted(by_item)]) for name, by_item in by_name.items()}
            for question, by_name in found.items()
        }

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.table.column_names:
            raise self._complain(f"there is no column {name!r}", "every column that its result.json names")
        return self.table[name]

    def _as_rows(self, name: str, column: pa.ChunkedArray, length: int) -> Floats:
        if not _is_list(column.type) or not pa.types.is_floating(column.type.value_type):
            raise self._complain(f"column {name!r} is of type {column.type}", "a list of numbers in each row")
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        wrong = np.flatnonzero(lengths != length)
        if len(wrong):
            raise self._complain(f"column {name!r}, row {wrong[0]} holds {lengths[wrong[0]]} numbers", str(length))
        values = pc.list_flatten(column).to_numpy().astype(np.float64)
        return np.asarray(np.round(values.reshape(len(column), length), DIGITS))

    def _complain(self, found: str, expected: str) -> BadInput:
        return BadInput(
            f"{self.file}: {found}; expected {expected}. Take the file as the run wrote it, or run again: finished "
            "work is kept."
        )


def _are_equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Whether two columns are equal, where a nan is equal to another."""
    if pa.types.is_floating(a.type):
        return bool(np.array_equal(a.to_numpy(), b.to_numpy(), equal_nan=True))
    return bool(a.equals(b))


def _is_list(kind: pa.DataType) -> Any:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
