"""Is it said? The other half of *steers x verbalized*: the gate asks whether a direction steers, this if it is said.

Both are asked of the same upstream steering at the same strength, against permuted directions in the same prompts, with
the false discovery rate held over concepts and strengths. Here the *direction* is the unit: any push in a fixed
direction moves texts toward some concept in all prompts alike, so a concept is said where its column rises by more than
columns do when a meaningless direction takes the concept's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .behaviour import FALSE_DISCOVERY_RATE
from .panel import Panel, Rows
from .records import GateRow, SaidRow


def judge_sayings(panel: Panel, scorer: str, strengths: Sequence[float]) -> list[SaidRow]:
    """Per verbalizer, strength and concept: does the text of an activation steered upstream say the concept?

    p: the share of null rises (see `_null_rises`) at least as large as the concept's, its own counted; then
    Benjamini-Hochberg over concepts and strengths. Strengths without upstream items, or without prompts that two
    permuted directions share, are left out.
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
    prompts, draws = (panel.items[column].to_numpy() for column in ("prompt_number", "draw"))
    controls = {p: permuted[prompts[permuted] == p] for p in np.unique(prompts[permuted])}
    scores, of = panel.scores[number], panel.items["concept_number"].to_numpy()
    cells = []
    for concept in np.unique(of[steered]).astype(int):
        mine = [row for row in steered if of[row] == concept and prompts[row] in controls]
        beside = [controls[prompts[row]] for row in mine]
        null = _null_rises(scores, controls, draws, _Share.of(draws, beside)) if mine else np.empty(0)
        if not null.size:
            continue
        own = float(scores[mine, concept].mean())
        control = float(np.mean([scores[rows, concept].mean() for rows in beside]))
        p = (1 + int((null >= own - control).sum())) / (1 + null.size)
        cells.append(_Cell(panel.concepts[concept], r, own, control, p, len(mine)))
    return cells


@dataclass(frozen=True)
class _Share:
    """The variance of a rise over controls, as multiples of that between directions and of that of single texts."""

    of_directions: float
    of_texts: float

    @classmethod
    def of(cls, draws: NDArray[np.int64], beside: Sequence[Rows]) -> _Share:
        """Of one direction at one item per prompt, over the mean of the control items beside each."""
        weights: dict[int, float] = {}
        for rows in beside:
            for draw in draws[rows].tolist():
                weights[draw] = weights.get(draw, 0.0) + 1 / (len(rows) * len(beside))
        of_texts = sum(1 + 1 / len(rows) for rows in beside) / len(beside) ** 2
        return cls(1 + sum(weight**2 for weight in weights.values()), of_texts)


def _null_rises(
    scores: NDArray[np.float64], controls: dict[Any, Rows], draws: NDArray[np.int64], wanted: _Share
) -> NDArray[np.float64]:
    """What a meaningless direction does in a concept's place: rises of every column under every permuted direction.

    A direction's rise in a column is its mean score less that of the other permuted directions in the same prompts.
    Directions meet other numbers of prompts and of controls than a concept does, so rises are scaled to at least the
    variance that the concept's would have (`wanted`), whatever part of it is the directions' and what the texts'.
    Columns are pooled: there are few directions, and scores are standardized by column.
    """
    found = []
    for draw in np.unique(np.concatenate([draws[rows] for rows in controls.values()])):
        own, beside = [], []
        for rows in controls.values():
            mine, others = rows[draws[rows] == draw], rows[draws[rows] != draw]
            if len(mine) and len(others):
                own.append(scores[mine].mean(0))
                beside.append(others)
        if own:
            share = _Share.of(draws, beside)
            scale = max(wanted.of_directions / share.of_directions, wanted.of_texts / share.of_texts)
            rise = np.mean(own, axis=0) - np.mean([scores[rows].mean(0) for rows in beside], axis=0)
            found.append(rise * np.sqrt(scale))
    return np.concatenate(found) if found else np.empty(0)
