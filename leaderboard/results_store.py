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
from .entries import FILES, MANIFEST, Entry, entry_id, read_entry, read_manifest


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


def add_entry(folder: Path, root: Path) -> Path:
    """Copy a submission into the store, under its id, by one rename; nothing is done where it is there already.

    Raises:
        BadInput: it is no whole submission.
    """
    manifest = read_manifest(folder)
    subject = read_entry(folder).result.provenance.subject
    home = root / slug(subject) / slug(manifest.verbalizer)
    place = home / entry_id(folder)
    if place.is_dir():
        return place
    home.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=home, prefix=".adding-"))  # hidden, and on the same disk: the rename is atomic
    try:
        for name in (*FILES, MANIFEST):
            shutil.copyfile(folder / name, making / name)
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


def slug(name: str) -> str:
    """A name as a folder's: letters, digits, dots and hyphens, and nothing that a path could be made of."""
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower().replace(os.sep, "-")).strip("-.")[:80] or "unnamed"
