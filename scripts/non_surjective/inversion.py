"""E1, inversion: which tokens give the states back, natural ones and moved ones, and how far the nearest lie.

Under the true prefix one scan of a position serves every arm and every strength. Whether a prompt is recovered exactly
does not depend on that; distances after a token that was not recovered do.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from nlabench.benchmark.inversion import Inversion
from nlabench.benchmark.inversion_scan import Nearest, Scanner
from nlabench.benchmark.subject import Subject, wrap_subject
from nlabench.tasks.invertibility import (
    STATEMENT,
    ArmSummary,
    Inverted,
    StateSequence,
    invert_sequences,
    make_sequences,
    moved_upstream,
    natural_states,
    quantise,
    summarise,
)
from torch import Tensor

from .prompts import SETS
from .rows import Outcome, Row
from .setup import ARMS, Setup
from .strength import STRENGTHS
from .verdicts import NOTHING_PUBLISHED, Judged, judge_count, judge_number, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 1


@dataclass(frozen=True)
class Published:
    """One column of Table 1 (10 prompts): the public result files of Llama-3.2-1B and Qwen2.5-0.5B, both Instruct."""

    tokens: int
    recovered: int
    distance: tuple[float, float]  # natural, steered; medians, as are the ratios
    ratio: tuple[float, float]
    shift: float
    auroc: float
    seconds: float


PUBLISHED = {
    "persona": {
        "Llama": Published(220, 10, (0.065, 2.55), (34.9, 1.29), 2.59, 0.9998, 2148),
        "Qwen": Published(200, 10, (0.245, 5.69), (24.7, 1.59), 5.60, 0.968, 610),
    },
    "refusal": {
        "Llama": Published(221, 2, (0.066, 2.44), (35.0, 1.37), 2.59, 0.9998, 1411),
        "Qwen": Published(201, 0, (0.404, 12.56), (23.0, 1.26), 12.59, 1.000, 607),
    },
}


@dataclass(frozen=True)
class Size:
    """prompts: of each set; most: positions of each, from the request's first token on (None: all from the first)."""

    prompts: int
    most: int | None
    quantised_prompts: int
    quantised_most: int | None


QUICK, FULL = Size(2, 3, 1, 2), Size(10, None, 10, 12)


@dataclass(frozen=True)
class SetResult:
    """One set of prompts, inverted. seconds: of all its scans, which serve all arms and strengths."""

    inverted: list[Inverted]
    given: int
    scans: int
    seconds: float


#: What was inverted in this process: E1 and E2 need the same scans.
_DONE: dict[tuple[object, ...], SetResult] = {}
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
    size, scans = size_of(setup), 0
    for name in SETS:
        given = count_given(setup, name)
        for prompts, most in ((size.prompts, size.most), (size.quantised_prompts, size.quantised_most)):
            lists = setup.prompts[name][:prompts] if most == size.most or name == "refusal" else []
            end = None if most is None else given + most
            scans += len({tuple(ids[:i]) for ids in lists for i in range(given, len(ids[:end]))})
    return scans


def estimate(setup: Setup) -> float:
    """From one timed batch of a scan."""
    return count_scans(setup) * time_scan(setup)


def time_scan(setup: Setup) -> float:
    """Seconds of one scan with the pre-scan."""
    subject = in_float32(setup.subject)
    scanner = scanner_of(subject, setup.layer)
    prefix = subject.make_prefix(setup.prompts["refusal"][0][:20], setup.layer)
    tokens = torch.arange(min(scanner.rows, subject.vocab_size), device=subject.device)
    shared, taken = scanner.shares(prefix), []
    for _ in range(3):
        start = time.perf_counter()
        list(scanner.states(prefix, tokens, dtype=torch.bfloat16, shared=shared))
        taken.append(time.perf_counter() - start)
    return (min(taken) + max(taken)) / 2 * subject.vocab_size / len(tokens) * 1.1


def invert_set(setup: Setup, name: str) -> SetResult:
    """A set in all arms at its λ, and steered at the strengths of E2: once in a process."""
    subject, layer, size = in_float32(setup.subject), setup.layer_of(name), size_of(setup)
    key = (subject.fingerprint, name, layer, setup.quick, setup.seed, *map(tuple, setup.prompts[name]))
    if key not in _DONE:
        prompts, given, own = setup.prompts[name][: size.prompts], count_given(setup, name), setup.strengths[name]
        shifts = {arm: setup.shift(name, arm) for arm in ARMS}
        sequences = make_sequences(subject, layer, prompts, shifts, own, given=given, most=size.most)
        for strength in STRENGTHS:
            if abs(own) != strength:
                signed = strength if own > 0 else -strength
                sequences += steer(setup, name, subject, prompts, signed, given, size.most)
        _DONE[key] = _invert(setup, f"E1 {name}", scanner_of(subject, layer), sequences, prompts[0][:given])
    return _DONE[key]


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
    setup: Setup, what: str, scanner: Scanner, sequences: list[StateSequence], given: Sequence[int]
) -> SetResult:
    scans: list[float] = []

    def say(index: int, served: int, found: Nearest) -> None:
        scans.append(found.seconds)
        setup.say(f"{what}: position {index}, {served} targets in {found.seconds:.1f} s")

    inverted = invert_sequences(scanner, sequences, given=given, say=say)
    return SetResult(inverted, len(given), len(scans), sum(scans))


def reconstructed_states(setup: Setup, name: str, number: int, strength: float) -> Tensor | None:
    """Natural states of the prompt that was recovered from a steered one [n_tokens, d_model]; None where none was.

    Tokens that were not searched (in a quick run, those outside the first few of the request) are the prompt's own.
    """
    found = find_inversion(setup, name, number, strength)
    if found is None:
        return None
    given, ids = count_given(setup, name), list(setup.prompts[name][number])
    ids[given : given + len(found.tokens)] = found.tokens
    return setup.states(name, ids)


def find_inversion(setup: Setup, name: str, number: int, strength: float) -> Inversion | None:
    """What was recovered of one prompt steered at λ."""
    for one in invert_set(setup, name).inverted:
        sequence = one.sequence
        if (sequence.arm, sequence.prompt) == ("steered", number) and abs(sequence.strength - strength) < 1e-9:
            return one.inversion
    return None


def run(setup: Setup) -> Outcome:
    """Both sets in all arms, and one set on the subject with int8 weights."""
    data: dict[str, Any] = {}
    rows: list[Row] = []
    for name in SETS:
        result = invert_set(setup, name)
        own = [one for one in result.inverted if one.sequence.strength in (0.0, setup.strengths[name])]
        arms = {summary.arm: summary for summary in summarise(own, seed=setup.seed)}
        rows += published_rows(setup, name, result, arms) + control_rows(name, arms)
        data[name] = {
            "scans": result.scans, "seconds": result.seconds, "tokens_given": result.given,
            "arms": [known(asdict(summary)) for summary in summarise(result.inverted, seed=setup.seed)],
            "positions": [describe(one) for one in result.inverted],
        }  # fmt: skip
    quantised = invert_quantised(setup)
    rows.append(quantised_row(quantised))
    data["quantised"] = {
        "arms": [known(asdict(summary)) for summary in summarise(quantised.inverted, seed=setup.seed)],
        "positions": [describe(one) for one in quantised.inverted],
    }
    size = size_of(setup)
    notes = [
        STATEMENT,
        "Decided in float32 after a bfloat16 pre-scan; the paper's bfloat16 meets the strict ε nowhere, ours meets it "
        "only by chance: float32 rounds at about 1e-4 here. Relative ε: 1e-5 of the state's norm.",
        "Each position was searched under the true prefix, so one scan served all arms and strengths; exact recovery "
        "is the same as after the recovered prefix. Seconds a prompt are those of its scans, shared by all arms.",
        "A projected prompt that equals the original behaves as the original: for those no answers need be compared.",
        "Position 0 is an attention sink: its float32 rounding is a hundred times the others'. Medians leave it out.",
        "An AUROC's interval draws prompts; few prompts make it too narrow, and where all ratios part it is [1, 1].",
    ]
    if size.most is not None:
        notes.append(f"Quick: {size.prompts} prompts a set, {size.most} tokens of each request; the template is given.")
    return Outcome("E1", "Inversion (Table 1)", rows, data, lambda figure: draw(figure, data), notes)


def published_rows(setup: Setup, name: str, result: SetResult, arms: dict[str, ArmSummary]) -> list[Row]:
    """The lines of Table 1. Natural and steered: two arms of ours among six."""
    natural, steered, column = arms["natural"], arms["steered"], PUBLISHED[name]

    def told(line: str) -> str:
        return "; ".join(f"{model} {line.format(p=published)}" for model, published in column.items())

    def row(what: str, published: str, ours: str, verdict: Judged) -> Row:
        return Row(f"{name}: {what}", told(published), ours, *verdict)

    strict = natural.strict + steered.strict
    auroc = steered.auroc or (float("nan"),) * 3
    nearly = min(auroc[0], 1.0)
    lowest = min(published.auroc for published in column.values())
    seconds = result.seconds / natural.n_prompts
    counts = {published.recovered for published in column.values()}
    recovered = [judge_count((steered.exact, steered.n_prompts), (count, 10)) for count in sorted(counts)]
    best = next((judged for judged in recovered if judged[0] == "same"), recovered[-1])
    ratios = f"{natural.ratio:.3g} / {steered.ratio:.2f}"
    return [
        row("tokens", "{p.tokens}", str(natural.n_positions), ("no figure", "other prompts, another tokenizer")),
        row("strict hits (1e-5), natural / steered", "0 / 0", f"{natural.strict} / {steered.strict}",
            judge_number(strict, 0, 0)),
        row("natural recovered exactly", "10/10", f"{natural.exact}/{natural.n_prompts}",
            judge_count((natural.exact, natural.n_prompts), (10, 10))),
        row("steered: nearest tokens are the prompt", "{p.recovered}/10", f"{steered.exact}/{steered.n_prompts}", best),
        row("nearest distance, natural", "{p.distance[0]}", f"{natural.distance:.2g}",
            judge_property("under the published ones, as float32 against bfloat16",
                           natural.distance < min(p.distance[0] for p in column.values()), f"{natural.distance:.2g}")),
        row("nearest distance, steered", "{p.distance[1]}", f"{steered.distance:.3g}",
            judge_property("0.9 to 1.1 of the shift's length, as published",
                           0.9 <= steered.distance / steered.shift <= 1.1,
                           f"{steered.distance:.3g} for a shift of {steered.shift:.3g}")),
        row("second / nearest, natural / steered", "{p.ratio[0]} / {p.ratio[1]}", ratios,
            judge_property("over 10 natural and under 2 steered", natural.ratio > 10 and steered.ratio < 2, ratios)),
        row("mean ‖steered − natural‖ a token", "{p.shift}", f"{steered.mean_shift:.3g}",
            ("no figure", "it follows from λ, the vector and the subject")),
        row("AUROC of the ratio, natural against steered", "{p.auroc}",
            f"{auroc[0]:.4f} [{auroc[1]:.3f}, {auroc[2]:.3f}]",
            judge_property(f"at least {lowest}", nearly >= lowest, f"{nearly:.4f}")),
        row("seconds a prompt", "{p.seconds:.0f}", f"{seconds:.0f} for all arms and strengths",
            ("no figure", "another machine, and here only the positions that were searched")),
    ]  # fmt: skip


def control_rows(name: str, arms: dict[str, ArmSummary]) -> list[Row]:
    """The arms that the paper does not have: the same shift at the readout, and vectors that mean nothing."""
    rows = []
    for arm in ("steered_readout", "permuted", "random", "graft"):
        if (found := arms.get(arm)) is None:
            continue
        auroc = found.auroc or (float("nan"),) * 3
        ours = (
            f"{found.exact}/{found.n_prompts} exact, nearest {found.distance:.3g} for a shift of {found.shift:.3g}, "
            f"ratio {found.ratio:.2f}, AUROC {auroc[0]:.3f}"
        )
        rows.append(Row(f"{name}: {arm} arm", "-", ours, *NOTHING_PUBLISHED))
    return rows


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
    return _invert(setup, "E1 int8", Scanner(subject, layer, prescan=True), sequences, prompts[0][:given])


def quantised_row(result: SetResult) -> Row:
    arms = {summary.arm: summary for summary in summarise(result.inverted)}
    natural, steered = arms["natural"], arms["steered"]
    ours = (
        f"natural {natural.exact}/{natural.n_prompts} at {natural.distance:.2g}, ratio {natural.ratio:.3g}; "
        f"steered {steered.exact}/{steered.n_prompts} at {steered.distance:.3g}, ratio {steered.ratio:.2f}"
    )
    published = "an NF4 Llama-3.2-1B is among its subjects"
    return Row("refusal: subject with int8 weights", published, ours, *NOTHING_PUBLISHED)


def known(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is not a finite number: JSON has no other."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in fields.items()}


def describe(one: Inverted) -> dict[str, Any]:
    """One sequence, position by position, for the JSON."""
    sequence = one.sequence
    return {
        "arm": sequence.arm, "strength": sequence.strength, "prompt": sequence.prompt, "ids": list(sequence.ids),
        "shift": sequence.shift.tolist(),
        "positions": [{**asdict(position), "meets": position.meets()} for position in one.inversion.positions],
    }  # fmt: skip


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """A panel for each set: nearest distance against the ratio, one point a position, by arm."""
    axes = figure.subplots(1, len(SETS), sharey=True)
    for axis, name in zip(axes, SETS, strict=True):
        own = {summary["strength"] for summary in data[name]["arms"] if summary["arm"] == "random"} | {0.0}
        for number, arm in enumerate(dict.fromkeys(summary["arm"] for summary in data[name]["arms"])):
            points = [
                (position["distances"][0], position["distances"][1] / max(position["distances"][0], 1e-12))
                for sequence in data[name]["positions"]
                if sequence["arm"] == arm and sequence["strength"] in own
                for position in sequence["positions"]
            ]
            axis.scatter(*zip(*points, strict=True), s=12, alpha=0.7, color=f"C{number}", label=arm)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.axhline(10, color="0.6", linewidth=0.8, linestyle="--")
        axis.set_title(name)
        axis.set_xlabel("nearest distance")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("second / nearest distance")
    axes[-1].legend(fontsize=7)
