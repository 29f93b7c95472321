"""An entry of the board: one verbalizer's card, numbers and texts, in a folder whose files are named by their hashes.

A submission is the same folder before it is added. Its files come from anybody: they are bounded in size and read as
data alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..benchmark.errors import BadInput
from ..benchmark.records import EstimatedMetric, MetricRow, Result, read_result
from ..benchmark.statistics import Estimate

SCHEMA_VERSION = 1

#: The files of an entry, with the most bytes that each may have. The manifest names the others by their hashes.
FILES = {
    "card.json": 100_000,
    "result.json": 50_000_000,
    "estimates.parquet": 50_000_000,
    "items.parquet": 200_000_000,
}
MANIFEST = "manifest.json"

#: The longest text that an entry may have; released NLAs write under 1,000 characters.
MOST_CHARACTERS = 20_000

#: What a table may unpack to, which its size on disk does not bound: ten runs of the suite `full`.
MOST_ROWS, MOST_BYTES = 2_000_000, 4_000_000_000
VERIFIED = "verified.json"

Role = Literal["submitted", "baseline", "floor", "ceiling", "reader"]
MetricKey = tuple[Any, ...]


_M = TypeVar("_M", bound=BaseModel)


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Card(_Data):
    """Who made a verbalizer, and what of. Every field is somebody's own statement."""

    name: str = Field(min_length=1, max_length=200)
    version: str = Field(default="1", max_length=100)
    authors: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(min_length=1, max_length=100)
    link: str = Field(default="", max_length=2000, pattern=r"^(https?://[^\s<>\"]+)?$")
    licence: str = Field(default="", max_length=200)
    training_data: str = Field(default="", max_length=2000)
    description: str = Field(default="", max_length=2000)
    role: Role = "submitted"


class Manifest(_Data):
    """What an entry is made of. files: the SHA-256 of each, in hexadecimal."""

    schema_version: Literal[1] = 1
    verbalizer: str
    nlabench: str
    files: dict[str, str]


class Verification(_Data):
    """How a maintainer made sure of an entry. evidence: a link or a sentence."""

    how: Literal["rerun", "private pack"]
    by: str
    date: str
    evidence: str


@dataclass(frozen=True)
class Entry:
    """An entry as it lies in `folder`. estimates: what paired differences with other entries are made of."""

    folder: Path
    id: str
    card: Card
    result: Result
    estimates: Mapping[MetricKey, EstimatedMetric]
    verified: Verification | None = None

    @property
    def status(self) -> Literal["self-reported", "verified"]:
        return "verified" if self.verified else "self-reported"


def metric_key(row: MetricRow) -> MetricKey:
    """What tells a metric from the others of its verbalizer."""
    return (
        row.task, row.metric, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group, row.versus,
    )  # fmt: skip


def read_entry(folder: Path) -> Entry:
    """Read an entry, its hashes and sizes checked.

    Raises:
        BadInput: a file is missing, too large, changed, or not what it should be; or there is a file too many.
    """
    manifest = read_manifest(folder)
    card = _read_model(folder / "card.json", Card)
    result = read_result(folder / "result.json")
    if card.name != manifest.verbalizer or card.name not in result.verbalizers:
        raise BadInput(
            f"{folder}: the manifest is of {manifest.verbalizer!r}, the card of {card.name!r}, and the result has "
            f"{', '.join(result.verbalizers)}. Expected one verbalizer in all three; pack the run again."
        )
    estimates = read_estimates(folder / "estimates.parquet")
    seal = folder / VERIFIED
    verified = _read_model(seal, Verification) if seal.exists() else None
    return Entry(folder, entry_id(folder), card, result, estimates, verified)


def read_items(entry: Entry) -> pd.DataFrame:
    """The entry's items with the texts, one row per item and verbalizer. Texts are untrusted.

    Raises:
        BadInput: the file is no Parquet.
    """
    return read_table(entry.folder / "items.parquet").to_pandas()


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


def entry_id(folder: Path) -> str:
    """The first 12 hexadecimal digits of the manifest's SHA-256: it names everything in the entry."""
    return hash_file(folder / MANIFEST)[:12]


def hash_file(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest, when the folder holds the files that it names and no others, none too large and none changed.

    Raises:
        BadInput: it does not; the message says which file, what was found and what was expected.
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. `nlabench submit RUN` writes one.")
    found = {path.name for path in folder.iterdir()}
    strange = sorted(path.name for path in folder.iterdir() if path.is_symlink() or not path.is_file())
    extra = sorted(found - {*FILES, MANIFEST, VERIFIED}) + strange
    missing = sorted({*FILES, MANIFEST} - found)
    if extra or missing:
        raise BadInput(
            f"{folder}: missing {', '.join(missing) or 'nothing'}, too many {', '.join(extra) or 'none'}. Expected the "
            f"plain files {', '.join([*FILES, MANIFEST])} and no others; pack the run again."
        )
    for name, most in {**FILES, MANIFEST: 100_000, VERIFIED: 100_000}.items():
        file = folder / name
        if name in found and file.stat().st_size > most:
            raise BadInput(f"{file} has {file.stat().st_size:,} bytes; at most {most:,} are accepted.")
    manifest = _read_model(folder / MANIFEST, Manifest)
    if set(manifest.files) != set(FILES):
        raise BadInput(f"{folder / MANIFEST}: files names {sorted(manifest.files)}; expected {sorted(FILES)}.")
    for name, recorded in manifest.files.items():
        if hash_file(folder / name) != recorded:
            raise BadInput(
                f"{folder / name} has the SHA-256 {hash_file(folder / name)}; the manifest says {recorded}. The file "
                "was changed after it was packed: pack the run again."
            )
    return manifest


def write_manifest(folder: Path, verbalizer: str, version: str) -> Manifest:
    """Write the manifest of a folder whose other files are there."""
    manifest = Manifest(
        verbalizer=verbalizer, nlabench=version, files={name: hash_file(folder / name) for name in FILES}
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


# -- estimates ------------------------------------------------------------------------------------------------------

_ARRAYS = ("by_concept", "by_prompt", "by_cell")
_COUNTS = ("n_concepts", "n_prompts", "df_concept", "df_prompt", "df_cell")


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
    """The estimates of a file, by metric.

    Raises:
        BadInput: it holds something else; the message says which row.
    """
    found: dict[MetricKey, EstimatedMetric] = {}
    for number, line in enumerate(read_table(file).to_pylist()):
        try:
            row, design = MetricRow.model_validate_json(line["row"]), json.loads(line["design"])
            arrays: dict[str, Any] = {name: np.asarray(line[name], dtype=np.float64) for name in _ARRAYS}
            arrays["by_cell"] = arrays["by_cell"].reshape(design["by_cell"])
            counts: dict[str, Any] = {name: int(design[name]) for name in _COUNTS}
            estimate = Estimate(
                point=np.asarray(float(line["point"])), **arrays,
                **counts,
                crossed_prompts=bool(design["crossed_prompts"]), pools=tuple(map(str, design["pools"])),
                bounds=None if design["bounds"] is None else (float(design["bounds"][0]), float(design["bounds"][1])),
                scale="logit" if design["scale"] == "logit" else "linear",
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BadInput(
                f"{file}, row {number}: {type(error).__name__}: {error}. Expected the estimates that `nlabench submit` "
                "writes; pack the run again."
            ) from error
        if metric_key(row) in found:
            raise BadInput(f"{file}, row {number}: the metric is there twice; expected a row per metric.")
        found[metric_key(row)] = EstimatedMetric(row, estimate)
    return found


def _read_model(file: Path, model: type[_M]) -> _M:
    try:
        return model.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"{file}: {where}: {first['msg']}. Found {str(first['input'])[:200]!r}.") from error
