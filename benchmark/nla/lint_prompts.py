"""Checks of a half's prompt against its live tokenizer: the marker and its neighbours, BOS, and how the prompt ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError

from ..errors import BadInput
from .lint_finding import Change, Finding, Severity
from .lint_half import TOKENIZER, Half
from .sidecar import SIDECAR, Sidecar, explanation_ids, fill_template

#: Texts that end in tokens of many kinds, and not in a space: readers strip explanations. What every AR prompt ends in,
#: whatever its text, is the suffix.
_SAMPLES = ("rain", "rain.", "rain,", "rain!", '"rain"', "“rain”", "(rain)", "rain…", "rain: 12", "rain -", "雨")

_UNTRAINED = "Use the tokenizer and the template that it was trained with"


def check_prompts(half: Half) -> Iterator[Finding]:
    """All checks of this module for one half; none without a tokenizer."""
    if half.sidecar is None or half.tokenizer is None:
        return
    if half.sidecar.role == "av":
        yield from _check_marker(half.sidecar, half.tokenizer)
    yield from _check_explanation(half.sidecar, half.tokenizer)


def _check_marker(sidecar: Sidecar, tokenizer: Any) -> Iterator[Finding]:
    """See `mark_prompt`, which refuses what is found here."""
    tokens, template = sidecar.tokens, sidecar.prompt_templates.av
    marker = tokens.injection_char
    if marker is None:
        fix = "Give the sidecar that the AV was released with."
        yield Finding("error", SIDECAR, "tokens.injection_char", "missing", "the character that marks the slot", fix)
        return
    live: list[int] = tokenizer.encode(marker, add_special_tokens=False)
    field = "tokens.injection_char"
    if len(live) != 1 or live[0] == tokenizer.unk_token_id:
        found = f"{marker!r}, which is {len(live)} tokens {live}"
        found = f"{marker!r}, the unknown token {live[0]}" if len(live) == 1 else found
        yield Finding("error", SIDECAR, field, found, "one token that the tokenizer knows", f"{_UNTRAINED}.")
        return
    field = "tokens.injection_token_id"
    yield from _compare(field, tokens.injection_token_id, live[0], f"the id of {marker!r}")
    field = "prompt_templates.av"
    if template is None:
        fix = "Give the sidecar that the AV was released with."
        yield Finding("error", SIDECAR, field, "missing", "a text with {injection_char} in it", fix)
        return
    if tokenizer.chat_template is None:
        fix = "Put the chat template that it was trained with beside the tokenizer (chat_template.jinja)."
        yield Finding("error", TOKENIZER, "chat_template", "missing", "the prompt of an AV is a user message", fix)
        return
    try:
        content = fill_template(template, injection_char=marker)
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except BadInput as error:
        yield Finding("error", SIDECAR, field, repr(template), str(error), "Double braces that are no placeholder.")
        return
    except TemplateError as error:
        fix = "Correct the chat template."
        yield Finding("error", TOKENIZER, "chat_template", str(error), "a template for one user message", fix)
        return
    yield from _check_start(ids, tokenizer, "the chat template writes one, and another stands in the template")
    slots = [i for i, token in enumerate(ids) if token == live[0]]
    if len(slots) != 1:
        found = f"{marker!r} is in the tokenized prompt {len(slots)} times"
        fix = f"{_UNTRAINED}; it names {{injection_char}} once, where it merges with nothing beside it."
        yield Finding("error", SIDECAR, field, found, "exactly once", fix)
        return
    (slot,) = slots
    around = {"left": ids[:slot][-1:], "right": ids[slot + 1 : slot + 2]}
    for side, neighbours in around.items():
        field = f"tokens.injection_{side}_neighbor_id"
        live_id = neighbours[0] if neighbours else None
        yield from _compare(field, getattr(tokens, field.partition(".")[2]), live_id, f"what stands {side} of it")


def _compare(field: str, recorded: int | None, live: int | None, what: str) -> Iterator[Finding]:
    if recorded != live:
        fix = f"{_UNTRAINED}; if these are they, write the live id."
        found, change = "missing" if recorded is None else str(recorded), Change(tuple(field.split(".")), live)
        yield Finding("error", SIDECAR, field, found, f"{live}, {what} for this tokenizer", fix, (change,))


def _check_explanation(sidecar: Sidecar, tokenizer: Any) -> Iterator[Finding]:
    """See `check_explanation_prompt`. An AV's sidecar has the AR's template too; there it decides nothing."""
    is_ar, template = sidecar.role == "ar", sidecar.prompt_templates.ar
    field = "prompt_templates.ar"
    if template is None or "{explanation}" not in template:
        if is_ar:
            found = "missing" if template is None else repr(template)
            fix = "Give the sidecar that the AR was released with."
            yield Finding("error", SIDECAR, field, found, "a text with {explanation} in it", fix)
        return
    severity: Severity = "error" if is_ar else "warning"
    try:
        prompts = [explanation_ids(sidecar, tokenizer, text) for text in _SAMPLES]
    except BadInput as error:
        yield Finding(severity, SIDECAR, field, repr(template), str(error), "Double braces that are no placeholder.")
        return
    if is_ar:
        yield from _check_start(prompts[0], tokenizer, "the tokenizer writes one, and another stands in the template")
    recorded = list(sidecar.tokens.critic_suffix_ids or ())
    if not recorded and not is_ar:
        return
    field = "tokens.critic_suffix_ids"
    if prompts[0][-1] == tokenizer.eos_token_id and recorded[-1:] != prompts[0][-1:]:
        found, expected = f"{recorded}, and the tokenizer adds an EOS ({prompts[0][-1]})", "no EOS at the end"
        fix = "Use the tokenizer that it was trained with: the vector is read at the last token."
        yield Finding(severity, SIDECAR, field, found, expected, fix)
        return
    ending = _shared_ending(prompts)
    live = ending[-len(recorded) :] if recorded else ending
    if recorded == live:
        return
    change = (Change(("tokens", "critic_suffix_ids"), live),)
    expected = f"{live}, which prompts end in for this tokenizer"
    if not recorded or prompts[0][-len(recorded) :] == recorded:
        fix = "Write the ids that do not depend on the text."
        found = f"{recorded}, which holds for some texts only" if recorded else "missing"
        yield Finding("warning", SIDECAR, field, found, expected, fix, change)
    else:
        fix = f"{_UNTRAINED}; if these are they, write the live ids."
        yield Finding(severity, SIDECAR, field, str(recorded), expected, fix, change)


def _shared_ending(prompts: list[list[int]]) -> list[int]:
    """The longest list of ids that all of these end in."""
    shortest = min(map(len, prompts))
    same = [len({prompt[-n] for prompt in prompts}) == 1 for n in range(1, shortest + 1)]
    length = same.index(False) if False in same else shortest
    return prompts[0][len(prompts[0]) - length :]


def _check_start(ids: list[int], tokenizer: Any, why: str) -> Iterator[Finding]:
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        fix = "Take it out of one of the two: it shifts every position by one."
        yield Finding("error", TOKENIZER, "bos_token", f"the prompt starts with two ({bos}): {why}", "one BOS", fix)
