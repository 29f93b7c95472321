"""Estimates as a file: what intervals and paired differences are computed from, a row per metric."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..benchmark.errors import BadInput
from ..benchmark.records import EstimatedMetric, MetricRow
from ..benchmark.statistics import Estimate
from .tables import read_table

MetricKey = tuple[Any, ...]

_ARRAYS = ("by_concept", "by_prompt", "by_cell")
_COUNTS = ("n_concepts", "n_prompts", "df_concept", "df_prompt", "df_cell")

#: More items than any entry has, and so more units.
MOST_UNITS = 2_000_000


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


#: The type of each column that holds no list.
_TYPES = {"row": _is_text, "point": pa.types.is_floating, "design": _is_text}


def metric_key(row: MetricRow) -> MetricKey:
    """What tells a metric from the others of its verbalizer."""
    return (
        row.task, row.metric, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group, row.versus,
    )  # fmt: skip


def write_estimates(estimates: list[EstimatedMetric], file: Path) -> None:
    """One row per metric: the row, and of its Estimate what paired differences and intervals need (no draws)."""
    columns: dict[str, list[Any]] = {
        "row": [metric.row.model_dump_json() for metric in estimates],
        "point": [float(metric.estimate.point) for metric in estimates],
        "design": [
            json.dumps(
                {
                    **{name: getattr(metric.estimate, name) for name in _COUNTS},
                    "crossed_prompts": metric.estimate.crossed_prompts, "pools": metric.estimate.pools,
                    "bounds": metric.estimate.bounds, "scale": metric.estimate.scale,
                    "by_cell": metric.estimate.by_cell.shape,
                }
            )
            for metric in estimates
        ],
    }  # fmt: skip
    for name in _ARRAYS:
        columns[name] = [getattr(metric.estimate, name).ravel().astype(np.float32).tolist() for metric in estimates]
    kinds = {"row": pa.string(), "point": pa.float64(), "design": pa.string()}
    kinds |= dict.fromkeys(_ARRAYS, pa.list_(pa.float32()))
    pq.write_table(pa.table(columns, pa.schema(list(kinds.items()))), file, compression="zstd", compression_level=19)


def read_estimates(file: Path) -> dict[MetricKey, EstimatedMetric]:
    """The estimates of a file, by metric. Each has the rank and lengths that its design says.

    Raises:
        BadInput: it holds something else; the message says which row and field.
    """
    table = read_table(file)
    _check_columns(table, file)
    found: dict[MetricKey, EstimatedMetric] = {}
    for number, line in enumerate(table.to_pylist()):
        try:
            row = MetricRow.model_validate_json(line["row"])
            estimate = _read_estimate(line)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
            raise BadInput(
                f"{file}, row {number}: {type(error).__name__}: {error}. Expected the estimates that `nlabench submit` "
                "writes; pack the run again."
            ) from error
        if metric_key(row) in found:
            raise BadInput(f"{file}, row {number}: the metric is there twice; expected a row per metric.")
        found[metric_key(row)] = EstimatedMetric(row, estimate)
    return found


def _check_columns(table: pa.Table, file: Path) -> None:
    wanted = [*_TYPES, *_ARRAYS]
    if sorted(table.column_names) != sorted(wanted):
        raise BadInput(f"{file} has the columns {table.column_names}; expected {wanted}, each once.")
    for name in wanted:
        kind = table[name].type
        listed = (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_floating(kind.value_type)
        if not (_TYPES[name](kind) if name in _TYPES else listed):
            expected = "a list of floats" if name in _ARRAYS else "a float" if name == "point" else "text"
            raise BadInput(f"{file}: the column {name!r} is of type {kind}; expected {expected}.")


def _read_estimate(line: dict[str, Any]) -> Estimate:
    """One row's Estimate; raises ValueError and its like, naming the field."""
    design = json.loads(line["design"])
    counts: dict[str, Any] = {name: _count(design, name) for name in _COUNTS}
    arrays: dict[str, Any] = {name: np.asarray(line[name], dtype=np.float64) for name in _ARRAYS}
    for name, values in arrays.items():
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError(f"{name} is {values.ndim}-dimensional or not finite; expected a list of numbers")
    shape = tuple(design["by_cell"])
    if len(shape) != 2 or not all(type(n) is int and 0 <= n <= MOST_UNITS for n in shape):
        raise ValueError(f"design, by_cell is {design['by_cell']!r}; expected [concepts, prompts]")
    arrays["by_cell"] = arrays["by_cell"].reshape(shape)
    units = len(arrays["by_concept"]), len(arrays["by_prompt"])
    if arrays["by_cell"].size and shape != units:
        raise ValueError(f"by_cell is of {shape}, but by_concept and by_prompt are of {units}; expected the same")
    for name, n in zip(("n_concepts", "n_prompts"), units, strict=True):
        if n and counts[name] > n:
            raise ValueError(f"design, {name} is {counts[name]}, of {n} effects; expected at most as many")
    bounds = design["bounds"]
    if bounds is not None:
        low, high = map(float, bounds)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"design, bounds is {bounds!r}; expected two numbers, the lower first")
        bounds = low, high
    if design["scale"] not in ("logit", "linear") or type(design["crossed_prompts"]) is not bool:
        raise ValueError("design, scale or crossed_prompts; expected 'logit' or 'linear', and true or false")
    pools = design["pools"]
    if not (isinstance(pools, list) and all(isinstance(pool, str) for pool in pools)):
        raise ValueError(f"design, pools is {str(pools)[:40]}; expected a list of names")
    point = float(line["point"])
    if not math.isfinite(point):
        raise ValueError(f"point is {point}; expected a number")
    return Estimate(
        point=np.asarray(point), **arrays, **counts,
        crossed_prompts=design["crossed_prompts"], pools=tuple(pools), bounds=bounds,
        scale=design["scale"],
    )  # fmt: skip


def _count(design: dict[str, Any], name: str) -> int:
    number = design[name]
    if type(number) is not int or not 0 <= number <= MOST_UNITS:
        raise ValueError(f"design, {name} is {str(number)[:40]}; expected a whole number from 0 to {MOST_UNITS:,}")
    return number
