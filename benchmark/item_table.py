"""`items.parquet`: what every verbalizer said of every item, read block by block and held to what a run writes.

Files come from anybody, so nothing is taken on trust: every verbalizer has every item once, an item has one label, and
every row of scores is as long as there are concepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .errors import BadInput
from .large_arrays import allocate
from .records import Result
from .scoring.base import DIGITS
from .transcript import OF_VECTORS
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


#: Rows of the table that are in memory at a time.
ROWS_AT_A_TIME = 1 << 14

_REQUIRED = {*LABELS, "verbalizer", "text"} - {*OPTIONAL}

#: Who said something, and to which question: (question, verbalizer).
_Key = tuple[str, str]


@dataclass(frozen=True)
class _Group:
    """What one verbalizer said to one question of every item, in the order of ids, as far as it was read."""

    texts: list[str]
    scores: Floats  # [n_scorers, n_items, n_concepts]
    seen: NDArray[np.bool_]  # [n_items]
    measured: dict[str, Floats] = field(default_factory=dict)  # by column [n_items, ...]
    extra: list[str] = field(default_factory=list)  # ids of no item


class ItemTable:
    """`items.parquet`, read twice, block by block: for the items, then for what is said of them."""

    def __init__(self, file: Path, result: Result, verbalizers: list[str], *, some: bool) -> None:
        self.file, self.result, self.verbalizers, self.some = file, result, verbalizers, some
        self.score_columns = [f"score_{scorer.name}" for scorer in result.scorers]
        with self._open() as opened:
            self.schema: pa.Schema = opened.schema_arrow
            n_rows = opened.metadata.num_rows
        if not n_rows:
            raise self._complain_empty()
        self._check_columns()
        self.keys, self.labels = self._find_items()
        self.ids = pd.Index(self.labels["item_id"].to_pandas())

    def read(self) -> dict[_Key, _Group]:
        """Everything that is said of the items, by question and verbalizer."""
        n_items, shape = len(self.ids), (len(self.score_columns), len(self.ids), len(self.result.concepts))
        groups = {key: _Group([""] * n_items, allocate(shape), np.zeros(n_items, dtype=bool)) for key in self.keys}
        wanted = {key: [name for name in self._measured_names() if name[0] == key] for key in groups}
        columns = [*LABELS, "text", *self.score_columns, *dict.fromkeys(c for _, c in self._measured_names())]
        for rows, keys, block in self._blocks(columns):
            places = self.ids.get_indexer(block["item_id"].to_pandas())  # -1: of no item
            scores = [self._as_rows(name, block[name], rows, shape[2]) for name in self.score_columns]
            kept: dict[str, str] = {}  # equal texts of a block are one object: floors say one text of every item
            for key in dict.fromkeys(keys):
                of_key = np.array([key == other for other in keys])
                known = np.flatnonzero(of_key & (places >= 0))
                at, group = places[known], groups[key]
                group.extra.extend(block["item_id"].take(np.flatnonzero(of_key & (places < 0))).to_pylist())
                if not len(known):
                    continue
                self._check_repeated(key, group.seen, at, rows[known])
                self._check_labels(key, block.take(known), at)
                for place, text in zip(at.tolist(), block["text"].take(known).to_pylist(), strict=True):
                    group.texts[place] = kept.setdefault(text, text)
                for number, found in enumerate(scores):
                    group.scores[number, at] = found[known]
                for _, name in wanted[key]:
                    values = self._as_numbers(name, block[name].take(known), rows[known], group.measured.get(name))
                    if name not in group.measured:
                        group.measured[name] = allocate((n_items, *values.shape[1:]))
                    group.measured[name][at] = values
        self._check_whole(groups)
        return groups

    def measured_beside(self, task: str, name: str) -> _Key:
        """Beside whose texts a task's measurements stand: those of vectors in every verbalizer's rows."""
        verbalizer = name or self.verbalizers[0]
        key = (_asked(self.result, name, task), verbalizer)
        return key if key in self.keys else (QUESTION, verbalizer)

    def _measured_names(self) -> list[tuple[_Key, str]]:
        return [
            (self.measured_beside(task, name), f"{task}.{column}")
            for task, by_name in self.result.measured.items()
            for name, columns in by_name.items()
            if name == OF_VECTORS or name in self.verbalizers
            for column in columns
        ]

    def _find_items(self) -> tuple[list[_Key], pa.Table]:
        """Who said something to what, and the labels of the first verbalizer's items, in the order of their ids."""
        first = QUESTION, self.verbalizers[0]
        found: dict[_Key, None] = dict.fromkeys((QUESTION, name) for name in self.verbalizers)
        parts, numbers = [], []
        for rows, keys, block in self._blocks(list(LABELS)):
            found |= dict.fromkeys(keys)
            own = np.flatnonzero([key == first for key in keys])
            parts.append(block.take(own))
            numbers.append(rows[own])
        if not sum(map(len, parts)):
            raise self._complain_empty()
        labels = pa.Table.from_batches(parts).combine_chunks()
        order = pc.sort_indices(labels, [("item_id", "ascending")]).to_numpy()
        labels, rows = labels.take(order), np.concatenate(numbers)[order]
        ids = labels["item_id"].combine_chunks()
        repeated = np.flatnonzero(pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))
        if len(repeated):
            row = max(rows[repeated[0] : repeated[0] + 2])
            raise self._complain_repeated(first, ids[int(repeated[0])].as_py(), row)
        return list(found), labels.select(list(LABELS))

    def _blocks(self, columns: Sequence[str]) -> Iterator[tuple[Ints, list[_Key], pa.RecordBatch]]:
        """The rows of the chosen verbalizers, some at a time: their numbers in the file, who says what, the columns."""
        start = 0
        names = [*columns, "verbalizer", *(["question"] if "question" in self.schema.names else [])]
        with self._open() as opened:
            for block in opened.iter_batches(ROWS_AT_A_TIME, columns=names):
                rows = np.arange(start, start + len(block))
                start += len(block)
                if self.some:
                    chosen = pc.is_in(block["verbalizer"], pa.array(self.verbalizers))
                    rows, block = rows[chosen.to_numpy(zero_copy_only=False)], block.filter(chosen)
                yield rows, self._find_keys(rows, block), block

    def _find_keys(self, rows: Ints, block: pa.RecordBatch) -> list[_Key]:
        """Who says what in each row; raises BadInput where a row does not say, or leaves a label out."""
        for name in block.schema.names:
            if name in _REQUIRED and block[name].null_count:
                row = rows[pc.index(pc.is_null(block[name]), True).as_py()]
                raise self._complain(f"column {name!r}, row {row} is empty", LABELS.get(name, "text"))
        said_by = block["verbalizer"].to_pylist()
        for row, name in zip(rows, said_by, strict=True):
            if name not in self.verbalizers:
                raise self._complain(f"row {row} is of {name!r}", f"those of its result, {', '.join(self.verbalizers)}")
        asked = block["question"].to_pylist() if "question" in block.schema.names else [None] * len(block)
        return [(question or QUESTION, name) for question, name in zip(asked, said_by, strict=True)]

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            # Buffered beforehand, all columns would be in memory.
            with pq.ParquetFile(self.file, pre_buffer=False) as opened:
                yield opened
        except FileNotFoundError as error:
            raise BadInput(
                f"There is no {self.file}. A run writes its items beside its result.json; keep the two together."
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise self._complain(f"it cannot be read ({str(error)[:200]})", "the table of a run's items") from error

    def _check_columns(self) -> None:
        repeated = [name for name, n in Counter(self.schema.names).items() if n > 1]
        if repeated:
            raise self._complain(f"column {repeated[0]!r} is there twice", "every column once")
        asked = ["question"] if "question" in self.schema.names else []
        for name, kind in {**LABELS, **dict.fromkeys(["verbalizer", "text", *asked], "text")}.items():
            found = self._type(name)
            if not (pa.types.is_null(found) or _KINDS[kind](found)):
                raise self._complain(f"column {name!r} is of type {found}", kind)
        for name in self.score_columns:
            if not _is_rows(self._type(name)):
                raise self._complain(f"column {name!r} is of type {self._type(name)}", "a list of numbers in each row")
        for task, by_name in self.result.measured.items():
            for column in {column for columns in by_name.values() for column in columns}:
                found = self._type(f"{task}.{column}")
                if not (_is_rows(found) or _is_number(found) or pa.types.is_null(found)):
                    raise self._complain(f"column '{task}.{column}' is of type {found}", "numbers")

    def _type(self, name: str) -> pa.DataType:
        if name not in self.schema.names:
            raise self._complain(f"there is no column {name!r}", "every column that its result.json names")
        return self.schema.field(name).type

    def _check_repeated(self, key: _Key, seen: NDArray[np.bool_], at: Ints, rows: Ints) -> None:
        """Mark items as seen; raises BadInput for one that was already, in this block or before."""
        _, firsts = np.unique(at, return_index=True)
        again = seen[at]
        again[np.setdiff1d(np.arange(len(at)), firsts)] = True
        if again.any():
            number = int(again.argmax())
            raise self._complain_repeated(key, self.ids[at[number]], rows[number])
        seen[at] = True

    def _complain_repeated(self, key: _Key, item: str, row: int) -> BadInput:
        return self._complain(f"row {row}: the item {item} of {key[1]!r} is there twice", "every item once")

    def _check_labels(self, key: _Key, block: pa.RecordBatch, at: Ints) -> None:
        """Every verbalizer's rows repeat the items' labels."""
        expected = self.labels.take(at)
        for column in LABELS:
            if not _are_equal(block[column], expected[column].combine_chunks()):
                raise self._complain(
                    f"the {column!r} of an item is not the same for {key[1]!r} as for {self.verbalizers[0]!r}",
                    "one label for each item, whoever verbalizes it",
                )

    def _check_whole(self, groups: Mapping[_Key, _Group]) -> None:
        for (_, name), group in groups.items():
            missing = self.ids[~group.seen].tolist()
            if missing or group.extra:
                raise self._complain(
                    f"the items of {name!r} are not those of {self.verbalizers[0]!r}: {len(missing)} missing, "
                    f"{len(group.extra)} extra, such as {(missing + sorted(group.extra))[0]}",
                    "every item once for every verbalizer",
                )

    def _as_rows(self, name: str, column: pa.Array, rows: Ints, length: int) -> Floats:
        """A column of scores [n_rows, length], none of them missing."""
        table = self._as_table(name, column, rows, length)
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(bad):
            raise self._complain(
                f"column {name!r}, row {rows[bad[0]]}: a score is missing or infinite", "a number per concept"
            )
        return table

    def _as_numbers(self, name: str, column: pa.Array, rows: Ints, before: Floats | None) -> Floats:
        """What a task measured: a number per item [n_rows], or a row of numbers; nan where an item was not measured.

        before: what was read of the column already, whose rows are as long.
        """
        if not _is_rows(column.type):
            return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        length = before.shape[1] if before is not None else int(pc.list_value_length(column)[0].as_py() or 0)
        return self._as_table(name, column, rows, length)

    def _as_table(self, name: str, column: pa.Array, rows: Ints, length: int) -> Floats:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        wrong = np.flatnonzero(lengths != length)
        if len(wrong):
            raise self._complain(
                f"column {name!r}, row {rows[wrong[0]]} holds {lengths[wrong[0]]} numbers", str(length)
            )
        values = pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.float64)
        return np.asarray(np.round(values.reshape(len(column), length), DIGITS))

    def _complain_empty(self) -> BadInput:
        return self._complain(f"it has no items of {self.verbalizers[0]!r}", "every item once for every verbalizer")

    def _complain(self, found: str, expected: str) -> BadInput:
        return BadInput(
            f"{self.file}: {found}; expected {expected}. Take the file as the run wrote it, or run again: finished "
            "work is kept."
        )


def _are_equal(a: pa.Array, b: pa.Array) -> bool:
    """Whether two columns are equal, where a nan is equal to another."""
    if pa.types.is_floating(a.type):
        a, b = (column.to_numpy(zero_copy_only=False) for column in (a, b))
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(a.equals(b))


def _is_rows(kind: pa.DataType) -> bool:
    """Whether each field is a list of numbers."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _asked(result: Result, verbalizer: str, task: str) -> str:
    """What a task asked of a verbalizer; the general question where it answers none."""
    record = result.verbalizers.get(verbalizer)
    return record.questions.get(task, QUESTION) if record else QUESTION
