"""What the linter of checkpoints says: a finding, and the changes of files that mend it where that is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Change:
    """A key of a YAML or JSON file, as the path of keys to it, that gets another value or is taken out."""

    keys: tuple[str, ...]
    value: Any = None
    remove: bool = False


@dataclass(frozen=True)
class Finding:
    """One trap that a checkpoint has fallen into.

    severity: "error" where the checkpoint is wrong, or is read wrongly by some reader without a word; "warning" where
    another reader refuses it aloud, or where something looks wrong and need not be.
    file: as seen from the folder that was given. field: the key, the tensor or the piece of text in it; may be empty.
    changes: of `file`, and only where `--fix` may make them.
    """

    severity: Severity
    file: str
    field: str
    found: str
    expected: str
    fix: str
    changes: tuple[Change, ...] = ()
