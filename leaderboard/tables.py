"""Somebody's files as data: Parquet and JSON, bounded in what they may unpack to and hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..benchmark.errors import BadInput

#: What a table may unpack to, which its size on disk does not bound: ten runs of the suite `full`.
MOST_ROWS, MOST_BYTES = 2_000_000, 4_000_000_000

#: How deep a JSON file may be nested, how long a text in it may be, and how large a number: what a result may need.
DEEPEST, LONGEST, LARGEST = 16, 20_000, 1e15


def read_table(file: Path) -> pa.Table:
    """A Parquet file as a table; raises BadInput where it is none, or unpacks to more than a run."""
    try:
        with pq.ParquetFile(file) as opened:
            about = opened.metadata
            size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
            if about.num_rows > MOST_ROWS or size > MOST_BYTES:
                raise BadInput(
                    f"{file} has {about.num_rows:,} rows of {size:,} bytes unpacked; at most {MOST_ROWS:,} and "
                    f"{MOST_BYTES:,} are accepted."
                )
            return opened.read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{file} cannot be read as Parquet: {error}. `nlabench submit` writes it.") from error


def check_json(file: Path) -> None:
    """Check that a file is JSON as other programs read it too: finite numbers, and nothing nested without end.

    Raises:
        BadInput: it is not; the message says where.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{file} cannot be read as JSON: {type(error).__name__}: {error}. `nlabench submit` writes it."
        ) from error
    for where, value in _walk(content, "the file", 0):
        large = isinstance(value, int | float) and not -LARGEST <= value <= LARGEST  # nan is beyond both
        if large or (isinstance(value, str) and len(value) > LONGEST):
            shown = str(value)[:40] if isinstance(value, float | str) else f"a number of {value.bit_length()} bits"
            raise BadInput(
                f"{file}: {where}: found {shown}; expected numbers to {LARGEST:g}, none of them NaN or infinite, and "
                f"texts to {LONGEST:,} characters."
            )


def _walk(value: Any, where: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every number and text of a JSON value, with the path to it."""
    if depth > DEEPEST:
        raise BadInput(f"{where}: nested more than {DEEPEST} deep; expected the record that `nlabench submit` writes.")
    if isinstance(value, dict):
        for key, each in value.items():
            yield where, key
            yield from _walk(each, f"{where}.{key[:40]}", depth + 1)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _walk(each, f"{where}.{number}", depth + 1)
    elif value is not None and not isinstance(value, bool):
        yield where, value
