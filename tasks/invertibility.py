"""Does a prompt exist for this activation? The paper's question (arXiv 2604.09839), with the controls that it lacks.

Sequences of states are inverted token by token (see benchmark/inversion.py): natural ones, the same moved by a vector,
and the same moved as far by vectors that mean nothing. No verbalizer is under test, so this is no task of a run: there
is no `TASK` here, and the functions are called by `scripts/reproduce_non_surjective.py`.

What the result is: the distance from a moved activation to the nearest one that a token gives after the same prefix.
It is about the length of the shift, for any direction. What it is not: a sign that the moved activation means nothing,
or that no text describes it. The theorems are of exact equality over the real numbers; a float32 subject, whose weights
were dequantised from four bits, is measured within tolerances, and quantised models are outside the theorems.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..benchmark.inversion import CRITERIA, Inversion, invert
from ..benchmark.inversion_scan import Nearest, Scanner
from ..benchmark.statistics import resample
from ..benchmark.subject import Subject, wrap_subject

STATEMENT = (
    "The nearest distance of a moved activation is about the length of the shift, whatever its direction: compare the "
    "arms. The theorems are of exact equality; the default subject is itself dequantised from four bits, and quantised "
    "models are outside them."
)

N_RESAMPLES = 1000


@dataclass(frozen=True)
class StateSequence:
    """States of one prompt in one arm at one strength. states, natural: [n_tokens, d_model], float32 on the CPU."""

    arm: str
    prompt: int
    strength: float
    ids: tuple[int, ...]
    states: Tensor
    natural: Tensor

    @property
    def name(self) -> str:
        return f"{self.arm} {self.strength:g} {self.prompt}"

    @property
    def shift(self) -> Tensor:
        """How far every state was moved [n_tokens]."""
        moved: Tensor = (self.states - self.natural).norm(dim=-1)
        return moved


@dataclass(frozen=True)
class Inverted:
    """A sequence and what was recovered of it."""

    sequence: StateSequence
    inversion: Inversion


@dataclass(frozen=True)
class ArmSummary:
    """One arm at one strength over its prompts. Medians are over positions, the first (the attention sink) left out.

    exact: prompts whose nearest tokens are the prompt, all of them. strict, relative, ratio_hits: positions that meet
    the paper's ε (1e-5), ε relative to the norm, and a second token ten times as far. first_recovered: of the first
    tokens that were searched. auroc: of the ratio, natural against this arm, with its interval over prompts.
    """

    arm: str
    strength: float
    n_prompts: int
    exact: int
    n_positions: int
    tokens_recovered: float
    strict: int
    relative: int
    ratio_hits: int
    first_recovered: float
    shift: float
    distance: float
    mean_shift: float
    distance_over_shift: float
    ratio: float
    auroc: tuple[float, float, float] | None


# -- arms -----------------------------------------------------------------------------------------------------------


def natural_states(subject: Subject, ids: Sequence[int], layer: int) -> Tensor:
    """The stream at the site at every token [n_tokens, d_model], float32 on the CPU."""
    return moved_upstream(subject, ids, layer, None)


def moved_upstream(subject: Subject, ids: Sequence[int], layer: int, shift: Tensor | None) -> Tensor:
    """The same with a shift [d_model] at the *input* of block `layer`, at every position: the paper's place."""
    tokens = torch.tensor([list(ids)], device=subject.device)

    def add(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        assert shift is not None
        return states + shift.to(states)

    edits = {} if shift is None else {layer - 1: add}
    return subject.run(tokens, torch.ones_like(tokens), capture=[layer], edits=edits)[layer][0].float().cpu()


def move_toward(natural: Tensor, other: Tensor, lengths: Tensor) -> Tensor:
    """The graft arm: each state moved toward another prompt's at the same place, as far as `lengths` [n_tokens] says.

    natural: [n_tokens, d_model]; other: [n_other, d_model]. Where the two prompts begin alike their states are the
    same; there, and past the other's end, the way leads toward its last state.
    """
    places = torch.arange(len(natural)).clamp(max=len(other) - 1)
    way = other[places] - natural
    alike = way.norm(dim=-1) < 1e-3 * natural.norm(dim=-1)
    way[alike] = (other[-1] - natural)[alike]
    moved: Tensor = natural + way / way.norm(dim=-1, keepdim=True).clamp(min=1e-30) * lengths[:, None]
    return moved


def make_sequences(
    subject: Subject, layer: int, prompts: Sequence[Sequence[int]], shifts: Mapping[str, Tensor], strength: float = 1.0,
    *, given: int = 0, most: int | None = None,
) -> list[StateSequence]:  # fmt: skip
    """Every prompt in every arm: `natural`, those of `shifts` (upstream), `graft`, and `steered_readout`.

    shifts: per arm λv [d_model], `steered` among them; strength: λ, a label. The graft is as long as the steered
    displacement, position by position. given: leading tokens that are known and not inverted; most: tokens to invert
    after them (all).
    """
    states = [natural_states(subject, ids, layer) for ids in prompts]
    made, searched = [], slice(given, None if most is None else given + most)
    for number, (ids, natural) in enumerate(zip(prompts, states, strict=True)):
        arms = {arm: moved_upstream(subject, ids, layer, shift) for arm, shift in shifts.items()}
        arms["steered_readout"] = natural + shifts["steered"]
        if len(prompts) > 1:
            lengths = (arms["steered"] - natural).norm(dim=-1)
            arms["graft"] = move_toward(natural, states[(number + 1) % len(prompts)], lengths)
        for arm, moved in {"natural": natural, **arms}.items():
            label = 0.0 if arm == "natural" else strength
            made.append(StateSequence(arm, number, label, tuple(ids[searched]), moved[searched], natural[searched]))
    return made


def quantise(subject: Subject) -> Subject:
    """The subject with the weights of its linear maps rounded to int8, one scale for each output (a copy).

    Products stay in float32, as with the paper's four-bit weights. (With int8 activations too, as torch's dynamic
    quantisation has them, one scale serves a whole batch: a state then depends on the others in its batch, by a quarter
    of its norm here, and is no function of the prompt that could be inverted.)
    """
    model = copy.deepcopy(subject.model)
    for linear in (m for m in model.modules() if type(m) is nn.Linear):
        weight = linear.weight.detach()
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
        rounded = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
        linear.weight = nn.Parameter(rounded, requires_grad=False)
    return wrap_subject(model, subject.tokenizer, f"{subject.name} (int8)", f"{subject.fingerprint}:int8")


# -- inversion ------------------------------------------------------------------------------------------------------


def invert_sequences(
    scanner: Scanner,
    sequences: Sequence[StateSequence],
    *,
    given: Sequence[int] = (),
    forced: bool = True,
    say: Callable[[int, int, Nearest], None] = lambda _position, _names, _found: None,
) -> list[Inverted]:
    """Invert all sequences at once, so that those that share a prefix share its scan.

    forced: under the true prefix, so that one scan of a position serves all arms and strengths; else each after what
    was recovered of it, the nearest token taken where none is near enough.
    """
    true = {sequence.name: sequence.ids for sequence in sequences} if forced else None
    found = invert(scanner, {s.name: s.states for s in sequences}, forced=true, given=given, say=say)
    return [Inverted(sequence, found[sequence.name]) for sequence in sequences]


# -- summary --------------------------------------------------------------------------------------------------------


def summarise(inverted: Sequence[Inverted], *, seed: int = 0) -> list[ArmSummary]:
    """Every arm at every strength, in the order in which they come."""
    cells: dict[tuple[str, float], list[Inverted]] = {}
    for one in inverted:
        cells.setdefault((one.sequence.arm, one.sequence.strength), []).append(one)
    natural = cells.get(("natural", 0.0), [])
    return [_summarise(arm, strength, own, natural, seed) for (arm, strength), own in cells.items()]


def _summarise(arm: str, strength: float, own: list[Inverted], natural: list[Inverted], seed: int) -> ArmSummary:
    every = [(p, one.sequence, i) for one in own for i, p in enumerate(one.inversion.positions)]
    past = [entry for entry in every if not entry[0].first] or every
    met = [position.meets(CRITERIA) for position, _, _ in every]
    first = [position.token == sequence.ids[i] for position, sequence, i in every if i == 0]
    distances = np.array([position.distance for position, _, _ in past])
    shifts = np.array([float(sequence.shift[i]) for _, sequence, i in past])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = distances / shifts
    return ArmSummary(
        arm=arm,
        strength=strength,
        n_prompts=len(own),
        exact=sum(one.inversion.equals(one.sequence.ids) for one in own),
        n_positions=len(every),
        tokens_recovered=float(np.mean([position.token == s.ids[i] for position, s, i in every])),
        strict=sum(m["absolute"] for m in met),
        relative=sum(m["relative"] for m in met),
        ratio_hits=sum(m["ratio"] for m in met),
        first_recovered=float(np.mean(first)),
        shift=float(np.median(shifts)),
        distance=float(np.median(distances)),
        mean_shift=float(np.mean(shifts)),
        distance_over_shift=float(np.median(shares)) if arm != "natural" else math.nan,
        ratio=float(np.median([position.ratio for position, _, _ in past])),
        auroc=ratio_auroc(natural, own, seed=seed) if natural and arm != "natural" else None,
    )


def ratio_auroc(natural: Sequence[Inverted], moved: Sequence[Inverted], *, seed: int = 0) -> tuple[float, float, float]:
    """AUROC of the ratio second / nearest, natural against moved positions, and its 95% interval over prompts.

    Prompts are drawn with replacement, a prompt's positions of both arms together. Few prompts make it too narrow, and
    where the arms are told apart without error it is [1, 1].
    """
    from sklearn.metrics import roc_auc_score

    numbers = sorted({one.sequence.prompt for one in (*natural, *moved)})
    ratios = [[_ratios(arm, number) for number in numbers] for arm in (natural, moved)]
    sides = [np.concatenate(own) for own in ratios]
    if not all(len(side) for side in sides):
        return math.nan, math.nan, math.nan
    value = float(roc_auc_score(np.repeat([1, 0], [len(side) for side in sides]), np.concatenate(sides)))
    # Pairs that natural positions of prompt p win against moved ones of prompt q, ties one half, and all such pairs.
    wins = np.array([[_wins(own, other) for other in ratios[1]] for own in ratios[0]])
    pairs = np.array([[len(own) * len(other) for other in ratios[1]] for own in ratios[0]])
    drawn = resample(1, len(numbers), N_RESAMPLES, seed).prompt.astype(np.float64)
    won, of = (np.einsum("bp,pq,bq->b", drawn, table, drawn) for table in (wins, pairs))
    low, high = np.quantile(won[of > 0] / of[of > 0], [0.025, 0.975])
    return value, float(low), float(high)


def _ratios(arm: Sequence[Inverted], prompt: int) -> NDArray[np.float64]:
    """Ratios of second to nearest at a prompt's positions past the first."""
    found = [
        position.ratio
        for one in arm
        if one.sequence.prompt == prompt
        for position in one.inversion.positions
        if not position.first
    ]
    return np.minimum(np.array(found, dtype=np.float64), 1e30)  # an exact hit has an infinite ratio


def _wins(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float((own[:, None] > other).sum() + 0.5 * (own[:, None] == other).sum())
