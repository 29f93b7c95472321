"""Is it said? The other half of *steers x verbalized*: the gate asks whether a direction steers, this if it is said.

Both are asked of the same upstream steering at the same strength, and by the same rule: the concept's score beats the
permuted arm's in the same prompts, with the false discovery rate held over concepts and strengths. So a direction that
steers and is not said, or is said and does not steer, is one of four cells and not a matter of two different tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .behaviour import FALSE_DISCOVERY_RATE
from .panel import Panel
from .records import GateRow, SaidRow


def judge_sayings(panel: Panel, scorer: str, strengths: Sequence[float]) -> list[SaidRow]:
    """Per verbalizer, strength and concept: does the text of an activation steered upstream say the concept?

    One-sided t test of own − permuted score over readout prompts. A concept meets few prompts, so its variance is
    pooled over concepts (scores are standardized by column); Benjamini-Hochberg over concepts and strengths. Strengths
    that the panel has no upstream items of are left out.
    """
    present = [r for r in strengths if r in panel.strengths("steered", "upstream")]
    rows: list[SaidRow] = []
    for number, (verbalizer, name) in enumerate(panel.sets):
        if name != scorer:
            continue
        tested = [cell for r in present for cell in _test_at(panel, number, r)]
        if not tested:
            continue
        adjusted = stats.false_discovery_control([cell.p for cell in tested], method="bh")
        rows += [
            SaidRow(
                verbalizer=verbalizer, scorer=scorer, concept=cell.concept, r=cell.r, score=cell.score,
                permuted=cell.permuted, p=cell.p, q=float(q),
                said=bool(q <= FALSE_DISCOVERY_RATE and cell.score > cell.permuted), n_prompts=cell.n_prompts,
            )
            for cell, q in zip(tested, adjusted, strict=True)
        ]  # fmt: skip
    return rows


@dataclass(frozen=True)
class Crossing:
    """The four cells of *steers x said* at one strength, as concepts' names in the gate's order."""

    steers_and_said: list[str]
    steers_unsaid: list[str]
    said_without_steering: list[str]
    neither: list[str]


def cross(gate: Iterable[GateRow], said: Iterable[SaidRow], r: float) -> Crossing:
    """One verbalizer's sayings against the behaviour gate at strength r; concepts that only one of them has are left
    out."""
    says = {row.concept: row.said for row in said if row.r == r}
    steers = {row.concept: row.steers for row in gate if row.r == r and row.concept in says}

    def where(steering: bool, saying: bool) -> list[str]:
        return [name for name, does in steers.items() if does is steering and says[name] is saying]

    return Crossing(where(True, True), where(True, False), where(False, True), where(False, False))


@dataclass(frozen=True)
class _Cell:
    concept: str
    r: float
    score: float
    permuted: float
    p: float
    n_prompts: int


def _test_at(panel: Panel, number: int, r: float) -> list[_Cell]:
    at: dict[str, Any] = {"injection": "upstream", "level": "grid", "r": r}
    steered, permuted = panel.rows(arm="steered", **at), panel.rows(arm="permuted", **at)
    scores, prompts = panel.scores[number], panel.items["prompt_number"].to_numpy()
    of = panel.items["concept_number"].to_numpy()
    pairs: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for concept in np.unique(of[steered]).astype(int):
        mine = [row for row in steered if of[row] == concept and (prompts[permuted] == prompts[row]).any()]
        if mine:
            own = scores[mine, concept]
            control = np.array([scores[permuted[prompts[permuted] == prompts[row]], concept].mean() for row in mine])
            pairs[concept] = own, control
    differences = {concept: own - control for concept, (own, control) in pairs.items()}
    df = sum(len(d) - 1 for d in differences.values())
    if not df:
        return []
    pooled = np.sqrt(sum(((d - d.mean()) ** 2).sum() for d in differences.values()) / df)
    cells = []
    for concept, (own, control) in pairs.items():
        mean = float(differences[concept].mean())
        certain = 0.0 if mean > 0 else 1.0  # without any variation between prompts the t test is undefined
        p = float(stats.t.sf(mean / (pooled / np.sqrt(len(own))), df)) if pooled > 0 else certain
        name = panel.concepts[concept]
        cells.append(_Cell(name, r, float(own.mean()), float(control.mean()), p, len(own)))
    return cells
