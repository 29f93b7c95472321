"""What the subject answers to a recovered prompt that is not the original: as it does when it is steered?

E1 searches under the true prefix. Where the nearest tokens are not the prompt's own, the search goes on here after what
was recovered, as the paper's does. The prompt that it ends in is answered without steering, beside the original with
and without it. A prompt that is recovered exactly is answered as the original is, and needs none of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nlabench.benchmark.decoding import decode
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.scoring.embedding import MINILM, embed
from nlabench.tasks.invertibility import Inverted, StateSequence, invert_sequences

from .inverting import count_given, in_float32, invert_set, scanner_of
from .refusals import is_answered
from .rows import Row
from .setup import Setup, add_everywhere
from .states import mean
from .strength import STRENGTHS
from .verdicts import Judged

#: Who answers: the subject as it is, to the projected prompt and to the original, and when it is steered.
ANSWERS = ("projected", "steered", "original")

NOT_AT_HAND: Judged = ("no figure", "no figure of it is at hand to compare with")


def count_tokens(setup: Setup) -> int:
    return 24 if setup.quick else 50


def strengths_of(setup: Setup, name: str) -> list[float]:
    """A set's own λ, and the largest of E2's, where a projection is most likely another prompt."""
    own = setup.strengths[name]
    return list(dict.fromkeys([own, math.copysign(max(STRENGTHS), own)]))


def answer_projected(setup: Setup, name: str) -> list[dict[str, Any]]:
    """Per strength, the prompts whose projection is another one, and the three answers to each."""
    scanner = scanner_of(in_float32(setup.subject), setup.layer_of(name))
    found, inverted = [], invert_set(setup, name).inverted
    for strength in strengths_of(setup, name):
        own = [
            one for one in inverted
            if one.sequence.arm == "steered" and math.isclose(one.sequence.strength, strength)
        ]  # fmt: skip
        differ = [one for one in own if not one.inversion.equals(one.sequence.ids)]
        setup.say(f"E1 {name}: at λ {strength:g} {len(differ)} of {len(own)} prompts project to others")
        prompts = [setup.prompts[name][one.sequence.prompt] for one in differ]
        projected = [
            project(scanner, ids, one, count_given(setup, name)) for ids, one in zip(prompts, differ, strict=True)
        ]
        cases = compare_answers(setup, name, prompts, projected, strength) if differ else []
        for case, one in zip(cases, differ, strict=True):
            case["prompt"] = one.sequence.prompt
        found.append({"strength": strength, "prompts": len(own), "cases": cases})
    return found


def project(scanner: Scanner, ids: Sequence[int], one: Inverted, given: int) -> list[int]:
    """The prompt of nearest tokens, each after those that were recovered before it.

    ids: the original prompt; given: its tokens before the first that was searched. Up to the first token that differs
    the prefix was the true one; from there on the search is made again. Tokens that were not searched stay.
    """
    sequence, tokens = one.sequence, list(one.inversion.tokens)
    pairs = enumerate(zip(tokens, sequence.ids, strict=True))
    first = next((place for place, (token, true) in pairs if token != true), len(tokens))
    if first + 1 < len(tokens):
        rest = slice(first + 1, None)
        further = StateSequence(
            sequence.arm, sequence.prompt, sequence.strength, sequence.ids[rest], sequence.states[rest],
            sequence.natural[rest],
        )  # fmt: skip
        recovered = [*ids[:given], *tokens[: first + 1]]
        tokens[rest] = invert_sequences(scanner, [further], given=recovered, forced=False)[0].inversion.tokens
    return [*ids[:given], *tokens, *ids[given + len(tokens) :]]


def compare_answers(
    setup: Setup, name: str, prompts: Sequence[Sequence[int]], projected: Sequence[Sequence[int]], strength: float
) -> list[dict[str, Any]]:
    """Greedy answers to each pair of prompts: are they answers, and how alike (by cosine)?"""
    subject, n_tokens = setup.subject, count_tokens(setup)
    shifts = setup.shift(name, strength=strength).expand(len(prompts), -1)
    edits = {setup.layer_of(name) - 1: add_everywhere(subject, shifts)}
    texts = {
        "projected": [d.text for d in decode(subject, projected, max_new_tokens=n_tokens)],
        "steered": [d.text for d in decode(subject, prompts, max_new_tokens=n_tokens, edits=edits)],
        "original": [d.text for d in decode(subject, prompts, max_new_tokens=n_tokens)],
    }
    cases = []
    for row, ids in enumerate(projected):
        said = {who: texts[who][row] for who in ANSWERS}
        vectors = dict(zip(ANSWERS, embed(MINILM, list(said.values())), strict=True))
        cases.append(
            {
                "projected": subject.tokenizer.decode(list(ids)),
                "answers": said,
                "answered": {who: is_answered(text) for who, text in said.items()},
                "similarity": {
                    f"{who} and {other}": float(vectors[who] @ vectors[other])
                    for who, other in (("projected", "steered"), ("projected", "original"), ("steered", "original"))
                },
            }
        )
    return cases


def projected_row(name: str, found: dict[str, Any]) -> Row:
    """One strength's line."""
    cases = found["cases"]
    what = f"{name}: answers to projected prompts that differ, at λ {found['strength']:g}"
    if not cases:
        ours = f"none of {found['prompts']} differs in a token that was searched: each is answered as the prompt is"
        return Row(what, "-", ours, *NOT_AT_HAND)
    answered = ", ".join(f"{who} {sum(case['answered'][who] for case in cases)}" for who in ANSWERS)
    alike = ", ".join(
        f"{pair} {mean([case['similarity'][pair] for case in cases]):.2f}" for pair in cases[0]["similarity"]
    )
    ours = (
        f"{len(cases)} of {found['prompts']} differ; answered without a refusal: {answered}; cosine of answers: {alike}"
    )
    return Row(what, "-", ours, *NOT_AT_HAND)
