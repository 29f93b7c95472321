"""The text of an AV: what it wrote between its tags, and the signs that something went wrong."""

from __future__ import annotations

import unicodedata

from ..verbalizers.base import strip_controls

OPENING, CLOSING = "<explanation>", "</explanation>"

UNCLOSED = f"no {CLOSING}: cut off, or never closed"
FOREIGN = "mostly CJK characters, as when a vector did not enter the prompt and the marker itself is described"


def read_explanation(answer: str) -> tuple[str, tuple[str, ...]]:
    """The text between the tags of an AV's answer, and its flags.

    Without a closing tag the text is what there is, flagged; without an opening one it starts where the answer does
    (some chat templates write the opening tag themselves).
    """
    before, closing, _ = answer.partition(CLOSING)
    _, opening, inside = before.partition(OPENING)
    text = strip_controls(inside if opening else before)
    flags = ((UNCLOSED,) if not closing else ()) + ((FOREIGN,) if _is_mostly_cjk(text) else ())
    return text, flags


def _is_mostly_cjk(text: str) -> bool:
    """Whether most letters are Chinese, or from the block of enclosed CJK characters, which markers are taken from."""
    letters = [c for c in text if c.isalpha() or 0x3200 <= ord(c) <= 0x33FF]
    foreign = [c for c in letters if "CJK" in unicodedata.name(c, "") or 0x3200 <= ord(c) <= 0x33FF]
    return 2 * len(foreign) > len(letters)
