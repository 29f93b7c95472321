"""The results store: a folder per subject, verbalizer and entry. Entries are added whole and never changed.

There is no index: what is in the store is what lies there, so two processes that add at once lose nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from ..benchmark.errors import BadInput
from .entries import MANIFEST, VERIFIED, Entry, Verification, entry_id, read_entry, read_manifest


def read_store(root: Path) -> tuple[list[Entry], list[tuple[Path, str]]]:
    """The entries of a store, and the folders that hold none, each with the reason: one takes no other down."""
    entries, broken = [], []
    # Hidden ones are entries that are being added, or were when their process was killed.
    for folder in sorted(path for path in root.glob("*/*/*") if path.is_dir() and not path.name.startswith(".")):
        try:
            entry = read_entry(folder)
            if entry.id != folder.name:
                raise BadInput(f"{folder} holds the entry {entry.id}: its manifest was changed after it was added.")
            entries.append(entry)
        except BadInput as error:
            broken.append((folder, str(error)))
        except Exception as error:  # whatever somebody's file does to a reader, the other entries stand
            broken.append((folder, f"{type(error).__name__}: {error}"))
    return entries, broken


def add_entry(folder: Path, root: Path, verified: Verification | None = None) -> Path:
    """Copy a submission into the store, under its id, by one rename; nothing is done where it is there already.

    verified: what a maintainer says of an entry of a private pack, which nobody else can add.

    Raises:
        BadInput: it is no whole submission, or one of a private pack without a maintainer's word.
    """
    entry = read_entry(folder)
    if entry.private and verified is None:
        raise BadInput(
            f"{folder} is an entry of a private pack: it has no texts that others could score again, so a maintainer "
            "adds it who ran it: `nlabench leaderboard add … --verified-by NAME`."
        )
    manifest = read_manifest(folder)
    home = root / slug(entry.result.provenance.subject) / slug(manifest.verbalizer)
    place = home / entry_id(folder)
    if place.is_dir():
        return place
    home.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=home, prefix=".adding-"))  # hidden, and on the same disk: the rename is atomic
    try:
        for name in (*manifest.files, MANIFEST):
            shutil.copyfile(folder / name, making / name)
        if verified is not None:
            (making / VERIFIED).write_text(verified.model_dump_json(indent=1), encoding="utf-8")
        read_manifest(making)  # what was copied, should the submission have changed meanwhile
        making.chmod(0o755)
        try:
            making.rename(place)
        except OSError:
            if not place.is_dir():  # otherwise another process added the same entry meanwhile
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return place


def find_entry(name: Path | str, root: Path) -> Entry:
    """An entry by its folder, or by its id in a store.

    Raises:
        BadInput: there is none, or it cannot be read.
    """
    given = Path(name)
    if given.is_dir():
        return read_entry(given)
    found = [folder for folder in root.glob(f"*/*/{given.name}") if folder.is_dir()] if len(given.parts) == 1 else []
    if not found:
        raise BadInput(f"There is no entry {str(name)!r} in {root}. Give its folder, or its id: the folder's name.")
    return read_entry(found[0])


def add_verification(entry: Entry, verified: Verification) -> Path:
    """Lay a `verified.json` beside an entry's files, whole and once. The date apart, the same again changes nothing.

    Raises:
        BadInput: the entry is verified already, and otherwise.
    """
    file = entry.folder / VERIFIED
    handle, half = tempfile.mkstemp(dir=entry.folder.parent, prefix=".verifying-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(verified.model_dump_json(indent=1))
        Path(half).chmod(0o644)
        os.link(half, file)  # unlike a rename, it never takes the place of another maintainer's
    except FileExistsError as error:
        there = read_entry(entry.folder).verified
        if there is None or there.model_copy(update={"date": verified.date}) != verified:
            by = f"{there.how}, by {there.by} on {there.date}" if there else "somebody"
            raise BadInput(
                f"{file} is there already ({by}); an entry is verified once. Remove the file first, if it is wrong."
            ) from error
    finally:
        Path(half).unlink(missing_ok=True)
    return file


def slug(name: str) -> str:
    """A name as a folder's: letters, digits, dots and hyphens, and nothing that a path could be made of."""
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower().replace(os.sep, "-")).strip("-.")[:80] or "unnamed"
