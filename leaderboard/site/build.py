"""Build the board's site from a store of entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..board import build_boards
from ..entries import Entry, read_items
from ..examples import pick_examples
from ..results_store import read_store
from .pages import write_site


def build_site(root: Path, out: Path, say: Callable[[str], None]) -> list[Path]:
    """Write the site of every entry under `root` into the folder `out`; the pages written, index.html first.

    An entry that cannot be read is listed with the reason and takes nothing else down.

    Raises:
        BadInput: `out` cannot be written.
    """
    entries, broken = read_store(root)
    examples: dict[str, list[dict[str, Any]]] = {}
    reasons = [(_place(folder, root), reason) for folder, reason in broken]
    whole: list[Entry] = []
    for entry in entries:
        try:
            build_boards([entry])
            examples[entry.id] = [] if entry.private else pick_examples(entry, read_items(entry))
            whole.append(entry)
        except Exception as error:  # files come from anybody; one that trips us takes no other down
            reasons.append((_place(entry.folder, root), f"{type(error).__name__}: {error}"))
    pages = write_site(build_boards(whole), examples, reasons, out)
    say(f"{_count(whole)}, {len(reasons)} with a fault, {len(pages)} pages: {pages[0]}")
    return pages


def _place(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else folder.name


def _count(entries: list[Entry]) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
