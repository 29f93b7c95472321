"""A run as it lies on disk: `result.json` and `items.parquet`, read back as what tasks score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .errors import BadInput
from .item_table import ITEMS_FILE, Floats, ItemTable
from .records import Result, read_result
from .transcript import OF_VECTORS, Measured


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
    table = ItemTable(folder / ITEMS_FILE, result, chosen, some=verbalizers is not None)
    groups = table.read()
    measured: dict[str, dict[str, dict[str, Floats]]] = {}
    for task, by_name in result.measured.items():
        measured[task] = {}
        for name, columns in by_name.items():
            if name == OF_VECTORS or name in chosen:
                group = groups[table.measured_beside(task, name)]
                measured[task][name] = {column: group.measured[f"{task}.{column}"] for column in columns}
    texts: dict[str, dict[str, list[str]]] = {}
    scores: dict[str, dict[str, Floats]] = {}
    for (question, name), group in groups.items():
        texts.setdefault(question, {})[name] = group.texts
        scores.setdefault(question, {})[name] = group.scores
    return StoredRun(table.file, result, table.labels.to_pandas(), texts, scores, measured)
