"""Mending a checkpoint's YAML and JSON files: the changes that findings offer, with a copy of each file as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from ..store import write_atomically
from .lint_finding import Change, Finding


def mend_files(folder: Path, findings: Sequence[Finding]) -> list[str]:
    """Make the changes that findings offer to the files of a folder, and say each in a line.

    A file that is changed is first copied beside itself (`.bak`, or `.bak2` and so on: no copy is written over). YAML
    is written anew, without its comments; the copy has them.

    Raises:
        BadInput: the folder is not writable, or the disk is full.
    """
    said = []
    for name in dict.fromkeys(finding.file for finding in findings if finding.changes):
        file = folder / name
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
        changes = [change for finding in findings if finding.file == name for change in finding.changes]
        distinct = [change for i, change in enumerate(changes) if change not in changes[:i]]
        lines = [f"{name}: {_apply(content, change)}" for change in distinct]
        copy = _free_name(file)
        shutil.copy2(file, copy)
        if file.suffix == ".yaml":
            text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)
        else:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        mode = file.stat().st_mode
        write_atomically(file, text)
        file.chmod(mode)
        said += [*lines, f"{name}: as it was: {copy.name}"]
    return said


def _apply(content: Any, change: Change) -> str:
    """Make one change in place. Returns it in words."""
    *sections, key = change.keys
    for section in sections:
        if not isinstance(content.get(section), dict):
            content[section] = {}
        content = content[section]
    before, field = content.get(key), ".".join(change.keys)
    if change.remove:
        content.pop(key, None)
        return f"{field} taken out"
    content[key] = change.value
    return f"{field}: {json.dumps(before, default=str, ensure_ascii=False)} -> {json.dumps(change.value)}"


def _free_name(file: Path) -> Path:
    names = (file.with_name(f"{file.name}.bak{n if n > 1 else ''}") for n in count(1))
    return next(name for name in names if not name.exists())
