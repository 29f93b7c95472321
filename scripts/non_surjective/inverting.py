"""What E1 inverts, for E2 and sip-it too: both sets in all arms, and the scans that serve them.

Under the true prefix one scan of a position serves every arm and every strength, and whatever prompt of either set
begins alike: the first of a request's tokens stands after the same chat template in all of them. Whether a prompt is
recovered exactly does not depend on that; distances after a token that was not recovered do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from nlabench.benchmark import planning
from nlabench.benchmark.inversion import invert
from nlabench.benchmark.inversion_scan import Nearest, Scanner
from nlabench.benchmark.subject import Subject, wrap_subject
from nlabench.tasks.invertibility import (
    Inverted,
    StateSequence,
    make_sequences,
    moved_upstream,
    natural_states,
    quantise,
)
from torch import Tensor

from .prompts import SETS
from .setup import ARMS, Setup
from .strength import STRENGTHS


@dataclass(frozen=True)
class Size:
    """prompts: of each set; most: positions of each, from the request's first token on (None: all from the first).

    quantised: the same of the subject with int8 weights, which shares no scan with the subject itself; 0 prompts: none.
    """

    prompts: int
    most: int | None
    quantised_prompts: int
    quantised_most: int | None


QUICK, FULL = Size(2, 2, 0, 0), Size(10, None, 10, 12)


@dataclass(frozen=True)
class SetResult:
    """One set of prompts, inverted.

    scans, seconds, prompts: of all sets that were scanned together, in all arms and at all strengths.
    """

    inverted: list[Inverted]
    given: int
    scans: int
    seconds: float
    prompts: int


#: What was inverted in this process: E1, E2 and sip-it need the same scans.
_DONE: dict[tuple[object, ...], dict[str, SetResult]] = {}
_SUBJECTS: dict[str, Subject] = {}
_SCANNERS: dict[tuple[str, int], Scanner] = {}


def size_of(setup: Setup) -> Size:
    return QUICK if setup.quick else FULL


def in_float32(subject: Subject) -> Subject:
    """The subject, or a copy in float32: in bfloat16 not even natural states meet the strict criterion."""
    if subject.dtype == torch.float32:
        return subject
    if subject.fingerprint not in _SUBJECTS:
        copied = copy.deepcopy(subject.model).float()
        _SUBJECTS[subject.fingerprint] = wrap_subject(copied, subject.tokenizer, subject.name, subject.fingerprint)
    return _SUBJECTS[subject.fingerprint]


def scanner_of(subject: Subject, layer: int) -> Scanner:
    """A scanner with a pre-scan, made once for each subject and site."""
    key = (subject.fingerprint, layer)
    if key not in _SCANNERS:
        _SCANNERS[key] = Scanner(subject, layer, prescan=True)
    return _SCANNERS[key]


def count_given(setup: Setup, name: str) -> int:
    """Tokens that are known: in a quick run all before the request, which are the chat template's."""
    return min(start for start, _ in setup.spans[name]) if setup.quick else 0


def count_scans(setup: Setup) -> int:
    """Scans of a whole run; prompts that begin alike share theirs."""
    size = size_of(setup)
    quantised = _list_scanned(setup, ["refusal"], size.quantised_prompts, size.quantised_most)
    return len(_list_scanned(setup, SETS, size.prompts, size.most)) + len(quantised)


def _list_scanned(
    setup: Setup, names: Sequence[str], prompts: int, most: int | None
) -> set[tuple[int, tuple[int, ...]]]:
    """What is scanned, each once: the site, and the tokens before the position."""
    found = set()
    for name in names:
        given = count_given(setup, name)
        end = None if most is None else given + most
        for ids in setup.prompts[name][:prompts]:
            found |= {(setup.layer_of(name), tuple(ids[:index])) for index in range(given, len(ids[:end]))}
    return found


def time_scan(setup: Setup) -> float:
    """Seconds of one scan with the pre-scan, from some of its batches."""
    subject = in_float32(setup.subject)
    prefix = subject.make_prefix(setup.prompts["refusal"][0][:20], setup.layer)
    return planning.time_scan(scanner_of(subject, setup.layer), prefix)


def invert_set(setup: Setup, name: str) -> SetResult:
    """A set in all arms at its λ, and steered at the strengths of E2."""
    return invert_sets(setup)[name]


def invert_sets(setup: Setup) -> dict[str, SetResult]:
    """Every set: once in a process, and together where the same block is read and the known tokens are the same."""
    subject = in_float32(setup.subject)
    prompts = (tuple(map(tuple, setup.prompts[name])) for name in SETS)
    key = (subject.fingerprint, *setup.layers.items(), setup.layer, setup.quick, setup.seed, *prompts)
    if key not in _DONE:
        together: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        for name in SETS:
            given = tuple(setup.prompts[name][0][: count_given(setup, name)])
            together.setdefault((setup.layer_of(name), given), []).append(name)
        _DONE[key] = {}
        for (layer, given), names in together.items():
            sequences = {name: make_set(setup, name, subject) for name in names}
            what = f"E1 {' and '.join(names)}"
            _DONE[key] |= _invert(setup, what, scanner_of(subject, layer), sequences, given)
    return _DONE[key]


def make_set(setup: Setup, name: str, subject: Subject) -> list[StateSequence]:
    """What is inverted of a set."""
    size, given, own = size_of(setup), count_given(setup, name), setup.strengths[name]
    prompts, layer = setup.prompts[name][: size.prompts], setup.layer_of(name)
    shifts = {arm: setup.shift(name, arm) for arm in ARMS}
    sequences = make_sequences(subject, layer, prompts, shifts, own, given=given, most=size.most)
    for strength in STRENGTHS:
        if abs(own) != strength:
            signed = strength if own > 0 else -strength
            sequences += steer(setup, name, subject, prompts, signed, given, size.most)
    return sequences


def steer(
    setup: Setup, name: str, subject: Subject, prompts: Sequence[Sequence[int]], strength: float, given: int,
    most: int | None,
) -> list[StateSequence]:  # fmt: skip
    """The steered arm alone, at another strength."""
    layer, searched = setup.layer_of(name), slice(given, None if most is None else given + most)
    made = []
    for number, ids in enumerate(prompts):
        moved = moved_upstream(subject, ids, layer, setup.shift(name, strength=strength))
        natural = natural_states(subject, ids, layer)
        made.append(
            StateSequence("steered", number, strength, tuple(ids[searched]), moved[searched], natural[searched])
        )
    return made


def _invert(
    setup: Setup, what: str, scanner: Scanner, sets: Mapping[str, Sequence[StateSequence]], given: Sequence[int]
) -> dict[str, SetResult]:
    """Sets of sequences after the same known tokens, under the true prefix, each position's scan shared by all."""
    scans: list[float] = []

    def say(index: int, served: int, found: Nearest) -> None:
        scans.append(found.seconds)
        setup.say(f"{what}: position {index}, {served} targets in {found.seconds:.1f} s")

    sequences = {f"{name} {one.name}": one for name, own in sets.items() for one in own}
    found = invert(
        scanner, {key: one.states for key, one in sequences.items()},
        forced={key: one.ids for key, one in sequences.items()}, given=given, say=say,
    )  # fmt: skip
    n_prompts = len({(name, one.prompt) for name, own in sets.items() for one in own})
    return {
        name: SetResult(
            [Inverted(one, found[f"{name} {one.name}"]) for one in own], len(given), len(scans), sum(scans), n_prompts
        )
        for name, own in sets.items()
    }


def reconstructed_states(setup: Setup, name: str, number: int, strength: float) -> Tensor | None:
    """Natural states of the prompt that was recovered from a steered one [n_tokens, d_model]; None where none was.

    Tokens that were not searched (in a quick run, those outside the first few of the request) are the prompt's own.
    """
    found = find_inverted(setup, name, number, strength)
    if found is None:
        return None
    given, tokens, ids = count_given(setup, name), found.inversion.tokens, list(setup.prompts[name][number])
    ids[given : given + len(tokens)] = tokens
    return setup.states(name, ids)


def find_inverted(setup: Setup, name: str, number: int, strength: float) -> Inverted | None:
    """One prompt steered at λ, and what was recovered of it."""
    for one in invert_set(setup, name).inverted:
        sequence = one.sequence
        if (sequence.arm, sequence.prompt) == ("steered", number) and abs(sequence.strength - strength) < 1e-9:
            return one
    return None


def invert_quantised(setup: Setup) -> SetResult:
    """The refusal set on the subject with int8 weights: natural, and steered by the same vector."""
    size, name = size_of(setup), "refusal"
    subject = quantise(in_float32(setup.subject))
    layer, given = setup.layer_of(name), count_given(setup, name)
    shifts = {"steered": setup.shift(name)}
    prompts = setup.prompts[name][: size.quantised_prompts]
    sequences = make_sequences(
        subject, layer, prompts, shifts, setup.strengths[name], given=given, most=size.quantised_most
    )
    scanner = Scanner(subject, layer, prescan=True)
    return _invert(setup, "E1 int8", scanner, {name: sequences}, prompts[0][:given])[name]
