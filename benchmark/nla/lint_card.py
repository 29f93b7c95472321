"""Checks of the code that a model card shows: readers copy it, and three of the contract's traps lie in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError

from .lint_finding import Finding
from .lint_half import Half

CARD = "README.md"

_CALL = re.compile(r"apply_chat_template\((?:[^()]|\([^()]*\))*\)")


def check_card(half: Half) -> Iterator[Finding]:
    """All checks of this module for one half; none without a card."""
    if half.sidecar is None or CARD not in half.place.files:
        return
    card = (half.place.folder / CARD).read_text(encoding="utf-8", errors="replace")
    layer = half.sidecar.extraction_layer_index
    if layer is not None and re.search(rf"hidden_states\[\s*{layer}\s*\]", card):
        fix = f"Write hidden_states[{layer + 1}], the stream after block {layer}."
        yield Finding("warning", CARD, f"hidden_states[{layer}]", "off by one", f"hidden_states[{layer + 1}]", fix)
    calls = _CALL.findall(card)
    if any("return_dict" not in call and not _in_two_steps(call) for call in calls):
        fix = "Pass return_dict=False."
        expected = "return_dict=False: a mapping comes back in transformers 5, and the marker is found 0 times in it"
        yield Finding("warning", CARD, "apply_chat_template", "a call without return_dict", expected, fix)
    if any(map(_in_two_steps, calls)) and "add_special_tokens=False" not in card and _writes_bos_twice(half.tokenizer):
        fix = "Tokenize in one step (tokenize=True), or pass add_special_tokens=False to the second."
        found = "the prompt is tokenized in two steps"
        yield Finding("warning", CARD, "tokenize=False", found, "one BOS: in two steps it is doubled here", fix)


def _in_two_steps(call: str) -> bool:
    return re.search(r"tokenize\s*=\s*False", call) is not None


def _writes_bos_twice(tokenizer: Any) -> bool:
    """Whether both the chat template and the tokenizer write a BOS."""
    if tokenizer is None or tokenizer.chat_template is None or tokenizer.bos_token_id is None:
        return False
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except TemplateError:
        return False
    return bool(tokenizer.encode(text, add_special_tokens=True)[:2] == [tokenizer.bos_token_id] * 2)
