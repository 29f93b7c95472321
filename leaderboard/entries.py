"""An entry of the board: one verbalizer's card, numbers and texts, in a folder whose files are named by their hashes.

A submission is the same folder before it is added. Its files come from anybody: they are bounded in size and read as
data alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..benchmark.errors import BadInput
from ..benchmark.records import EstimatedMetric, Result, read_result
from .estimates import MetricKey, read_estimates
from .estimates import metric_key as metric_key
from .estimates import write_estimates as write_estimates
from .tables import check_json, read_table

SCHEMA_VERSION = 1

#: The files of an entry, with the most bytes that each may have. The manifest names the others by their hashes.
FILES = {
    "card.json": 100_000,
    "result.json": 50_000_000,
    "estimates.parquet": 50_000_000,
    "items.parquet": 200_000_000,
}
MANIFEST = "manifest.json"

#: The file that an entry of a private pack has not: it would tell the pack.
ITEMS = "items.parquet"
VERIFIED = "verified.json"

Role = Literal["submitted", "baseline", "floor", "ceiling", "reader"]


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
    """What an entry is made of. files: the SHA-256 of each, in hexadecimal.

    private: it was scored on a pack that is not published, and holds no items.
    """

    schema_version: Literal[1] = 1
    verbalizer: str
    nlabench: str
    private: bool = False
    files: dict[str, str]


class Verification(_Data):
    """How a maintainer made sure of an entry. evidence: a link or a sentence.

    run: the SHA-256 of the `result.json` of the maintainer's own run. texts_equal: the share of the verbalizer's texts
    that are the same there.
    """

    how: Literal["rerun", "private pack"]
    by: str = Field(min_length=1, max_length=200)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    evidence: str = Field(min_length=1, max_length=2000)
    run: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    texts_equal: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True)
class Entry:
    """An entry as it lies in `folder`. estimates: what paired differences with other entries are made of."""

    folder: Path
    id: str
    card: Card
    result: Result
    estimates: Mapping[MetricKey, EstimatedMetric]
    verified: Verification | None = None
    private: bool = False

    @property
    def status(self) -> Literal["self-reported", "verified"]:
        return "verified" if self.verified else "self-reported"


def read_entry(folder: Path) -> Entry:
    """Read an entry, its hashes and sizes checked.

    Raises:
        BadInput: a file is missing, too large, changed, or not what it should be; or there is a file too many.
    """
    manifest = read_manifest(folder)
    card = _read_model(folder / "card.json", Card)
    check_json(folder / "result.json")
    result = read_result(folder / "result.json")
    if card.name != manifest.verbalizer or card.name not in result.verbalizers:
        raise BadInput(
            f"{folder}: the manifest is of {manifest.verbalizer!r}, the card of {card.name!r}, and the result has "
            f"{', '.join(result.verbalizers)}. Expected one verbalizer in all three; pack the run again."
        )
    estimates = read_estimates(folder / "estimates.parquet")
    seal = folder / VERIFIED
    verified = _read_model(seal, Verification) if seal.exists() else None
    return Entry(folder, entry_id(folder), card, result, estimates, verified, manifest.private)


def read_items(entry: Entry) -> pd.DataFrame:
    """The entry's items with the texts, one row per item and verbalizer. Texts are untrusted.

    Raises:
        BadInput: the file is no Parquet, or the entry has none: it is of a private pack.
    """
    file = entry.folder / ITEMS
    if entry.private:
        raise BadInput(f"{file}: there is none. The entry is of a private pack, whose texts are not published.")
    try:
        return read_table(file).to_pandas()
    except BadInput:
        raise
    except Exception as error:  # whatever somebody's types do to pandas
        raise BadInput(
            f"{file} cannot be read: {type(error).__name__}: {str(error)[:200]}. `nlabench submit` writes it."
        ) from error


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
    _check_names(folder, {*list_files(private=True), MANIFEST})  # whether items are wanted, the manifest says
    for name, most in {**FILES, MANIFEST: 100_000, VERIFIED: 100_000}.items():
        file = folder / name
        if file.exists() and file.stat().st_size > most:
            raise BadInput(f"{file} has {file.stat().st_size:,} bytes; at most {most:,} are accepted.")
    manifest = _read_model(folder / MANIFEST, Manifest)
    wanted = list_files(private=manifest.private)
    _check_names(folder, {*wanted, MANIFEST}, [ITEMS] if manifest.private else ())
    if set(manifest.files) != set(wanted):
        raise BadInput(f"{folder / MANIFEST}: files names {sorted(manifest.files)}; expected {sorted(wanted)}.")
    for name, recorded in manifest.files.items():
        if hash_file(folder / name) != recorded:
            raise BadInput(
                f"{folder / name} has the SHA-256 {hash_file(folder / name)}; the manifest says {recorded}. The file "
                "was changed after it was packed: pack the run again."
            )
    return manifest


def _check_names(folder: Path, wanted: set[str], unwanted: Collection[str] = ()) -> None:
    """Check that a folder holds the wanted files as plain files, and nothing that no entry has."""
    found = {path.name for path in folder.iterdir()}
    strange = {path.name for path in folder.iterdir() if path.is_symlink() or not path.is_file()}
    extra = sorted(found - {*FILES, MANIFEST, VERIFIED} | strange | found.intersection(unwanted))
    missing = sorted(wanted - found)
    if extra or missing:
        wrong = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("extra", extra)) if names]
        raise BadInput(
            f"{folder}: {'; '.join(wrong)}. Expected the "
            f"plain files {', '.join([*FILES, MANIFEST])} and no others, without {ITEMS} where the pack is private; "
            "pack the run again."
        )


def list_files(*, private: bool) -> list[str]:
    """The names of an entry's files, without the manifest."""
    return [name for name in FILES if not (private and name == ITEMS)]


def write_manifest(folder: Path, verbalizer: str, version: str, *, private: bool = False) -> Manifest:
    """Write the manifest of a folder whose other files are there."""
    files = {name: hash_file(folder / name) for name in list_files(private=private)}
    manifest = Manifest(verbalizer=verbalizer, nlabench=version, private=private, files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


def _read_model(file: Path, model: type[_M]) -> _M:
    check_json(file)
    try:
        return model.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"{file}: {where}: {first['msg']}. Found {str(first['input'])[:200]!r}.") from error
