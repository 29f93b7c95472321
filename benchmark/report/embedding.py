"""What makes a page complete in itself and inert: its assets read in, its data escaped, its scripts named by hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

#: Plot and d3 set styles from script, one by one, so styles cannot be named by hash; they can fetch nothing either way.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src "
)


def policy(scripts: Sequence[str]) -> str:
    """The content security policy of a page that runs these scripts and no others."""
    return POLICY + " ".join(_hash(script) for script in scripts)


def escape_json(data: Any) -> str:
    """JSON that stays data inside a script element, whatever its strings hold.

    `<`, `>` and `&` cannot end the element or open a comment; U+2028 and U+2029 are line ends to some parsers.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def read_asset(name: str) -> str:
    """The text of a template, style or script of the report."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
