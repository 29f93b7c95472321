"""From states back to tokens, position by position: does a prompt exist for these activations?

At each position every token of the vocabulary is tried after the prefix that was recovered so far, and the nearest is
taken. Whatever shares a prefix shares the scan: arms, strengths and prompts part only where their nearest tokens do.
With the true prefix (`forced`) they never part, and one scan per position serves everything; a sequence is recovered
exactly under its true prefix if and only if it is recovered exactly on its own, so the count is the same.

What an inversion says: the distance from an activation to the nearest state that a token gives after this prefix. For
an activation that was moved, that distance is about the length of the shift, so "it cannot be inverted" is here close
to "the shift is not zero"; controls of the same length tell whether a direction matters. The paper's theorems
(arXiv 2604.09839) are of real numbers and exact equality; float32 answers within the tolerances of `Criteria`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import BadInput
from .inversion_scan import Nearest, Scanner
from .subject import Prefix

#: The number of the first position of a sequence, the attention sink.
FIRST = 0


@dataclass(frozen=True)
class Criteria:
    """When a token counts as the one that made the state.

    absolute: the paper's strict ε, in units of the stream: float32 cannot meet it at norms of 200, where the true token
    lies at 1e-4. relative: ε in units of the target's own norm, 2e-3 there: twenty times the rounding, and a ten
    thousandth of the second token's distance. ratio: the second is this many times as far as the nearest (the paper's
    "an order of magnitude").
    """

    absolute: float = 1e-5
    relative: float = 1e-5
    ratio: float = 10.0


CRITERIA = Criteria()


@dataclass(frozen=True)
class Position:
    """One recovered position. tokens, distances: the k nearest, nearest first. norm: of the target.

    first: the first token of a sequence is an attention sink whose norm is a hundred times the others': its rounding is
    a hundred times theirs, and an inversion may fail there for that reason alone.
    """

    index: int
    tokens: tuple[int, ...]
    distances: tuple[float, ...]
    norm: float

    @property
    def first(self) -> bool:
        return self.index == FIRST

    @property
    def token(self) -> int:
        return self.tokens[0]

    @property
    def distance(self) -> float:
        return self.distances[0]

    @property
    def ratio(self) -> float:
        """Second over nearest distance; infinite where the nearest is met exactly."""
        if len(self.distances) < 2:
            return math.nan
        return self.distances[1] / self.distances[0] if self.distances[0] else math.inf

    def meets(self, criteria: Criteria = CRITERIA) -> dict[str, bool]:
        """Which of the criteria the nearest token meets."""
        return {
            "absolute": self.distance < criteria.absolute,
            "relative": self.distance < criteria.relative * self.norm,
            "ratio": self.ratio >= criteria.ratio,
        }


@dataclass(frozen=True)
class Inversion:
    """What was recovered of one sequence of states. stopped: nothing was near enough, and it was not to go on."""

    positions: tuple[Position, ...]
    stopped: bool = False

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(position.token for position in self.positions)

    def equals(self, ids: Sequence[int]) -> bool:
        """Whether the nearest tokens are these, all of them."""
        return not self.stopped and self.tokens == tuple(ids)

    def share_of(self, ids: Sequence[int]) -> float:
        """The share of positions whose nearest token is the one of `ids` there. ids: those of `positions`."""
        return sum(p.token == wanted for p, wanted in zip(self.positions, ids, strict=False)) / max(len(ids), 1)


@dataclass
class _Group:
    """Sequences that share what was recovered so far."""

    prefix: Prefix
    names: list[str]


def invert(
    scanner: Scanner,
    targets: Mapping[str, Tensor],
    *,
    forced: Mapping[str, Sequence[int]] | None = None,
    given: Sequence[int] = (),
    continue_on_failure: bool = True,
    criteria: Criteria = CRITERIA,
    k: int = 5,
    say: Callable[[int, int, Nearest], None] = lambda _position, _names, _found: None,
) -> dict[str, Inversion]:
    """Recover the tokens of every sequence of states.

    targets: per name, states [n_tokens, d_model] at the scanner's site, in order. forced: per name, the true tokens;
    the prefix is then always the true one. given: tokens that come before the first state and are known.
    continue_on_failure: take the nearest token where none meets the relative criterion; else that sequence stops.
    say: told of each scan (position, how many sequences share it, what it found).

    Raises:
        BadInput: a sequence has no states or states of another width, or `forced` lacks one of its tokens.
    """
    _check(scanner, targets, forced)
    found: dict[str, list[Position]] = {name: [] for name in targets}
    stopped: set[str] = set()
    start = scanner.subject.make_prefix(list(given), scanner.layer) if given else scanner.empty_prefix()
    groups = [_Group(start, list(targets))]
    index = len(given)
    while groups:
        following: dict[tuple[int, ...], _Group] = {}
        for group in groups:
            wanted = torch.stack([targets[name][index - len(given)] for name in group.names]).float()
            nearest = scanner.scan(group.prefix, wanted, k)
            say(index, len(group.names), nearest)
            extended: dict[int, Prefix] = {}
            for row, name in enumerate(group.names):
                position = Position(
                    index, tuple(nearest.tokens[row].tolist()), tuple(nearest.distances[row].tolist()),
                    float(wanted[row].norm()),
                )  # fmt: skip
                found[name].append(position)
                if not continue_on_failure and not position.meets(criteria)["relative"]:
                    stopped.add(name)
                elif len(found[name]) < len(targets[name]):
                    token = forced[name][len(found[name]) - 1] if forced else position.token
                    if token not in extended:
                        extended[token] = scanner.extend(group.prefix, token)
                    ids = extended[token].ids
                    following.setdefault(ids, _Group(extended[token], [])).names.append(name)
        groups, index = list(following.values()), index + 1
    return {name: Inversion(tuple(positions), name in stopped) for name, positions in found.items()}


def _check(scanner: Scanner, targets: Mapping[str, Tensor], forced: Mapping[str, Sequence[int]] | None) -> None:
    for name, states in targets.items():
        if states.ndim != 2 or not len(states) or states.shape[1] != scanner.subject.d_model:
            raise BadInput(
                f"The states of {name!r} have shape {list(states.shape)}; expected [n_tokens, "
                f"{scanner.subject.d_model}], one row per token in order. Read them at block {scanner.layer}."
            )
        if forced is not None and len(forced.get(name, ())) < len(states):
            raise BadInput(
                f"{name!r} has {len(states)} states and {len(forced.get(name, ()))} true tokens; expected as many. "
                "Give the tokens of every state, or leave `forced` out."
            )
