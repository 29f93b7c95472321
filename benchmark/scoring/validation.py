"""Scorers are tested too: on *validation* texts, written like what verbalizers write."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from ..concepts import ConceptPack, Text
from .base import Matrix, Scorer

#: Macro AUROC that a scorer must reach on texts that name the concept, and on texts that are it.
NAMING_GATE = 0.90
BEING_GATE = 0.75

#: How far from one half a text without information may come out.
CHANCE_MARGIN = 0.02


@dataclass(frozen=True)
class ScorerValidity:
    """What a scorer can and cannot see. All figures are macro AUROC over concepts.

    empty, all_concepts: the same text for every item (0.5 by construction of the metric: checked, not assumed).
    Limits, reported and not gated: negated (the naming texts behind "not about:"; a reader would want 0.5 or less),
    stuffed (the naming text with four other concepts' titles), foreign (being texts of the natural languages).
    """

    scorer: str
    naming: float
    being: float
    empty: float
    all_concepts: float
    negated: float
    stuffed: float
    foreign: float
    naming_top1: float
    being_top1: float
    n_naming: int
    n_being: int
    forms_marked: bool  # whether any text is marked as naming or being; else both figures are over the same texts
    weakest: tuple[tuple[str, float], ...]  # the five concepts that the scorer sees least, with their AUROC

    @property
    def passes(self) -> bool:
        chance = all(abs(x - 0.5) <= CHANCE_MARGIN for x in (self.empty, self.all_concepts))
        return self.naming >= NAMING_GATE and self.being >= BEING_GATE and chance


def validate_scorer(scorer: Scorer, pack: ConceptPack) -> ScorerValidity:
    """Score the pack's *validation* texts. A form that the pack does not mark counts for both."""
    naming = _texts(pack, "naming")
    being = _texts(pack, "being")
    foreign = [(i, t) for i, t in being if pack.families[i] == "natural_languages"]
    titles = [c.title for c in pack.concepts]
    everything = "A text about " + ", ".join(titles) + "."
    labels = np.array([i for i, _ in naming])
    being_labels = np.array([i for i, _ in being])
    naming_scores = scorer.score([t.text for _, t in naming])
    being_scores = scorer.score([t.text for _, t in being])
    per_concept = (_per_concept(naming_scores, labels) + _per_concept(being_scores, being_labels)) / 2
    stuffed = [f"{t.text}, {', '.join(_others(titles, i))}" for i, t in naming]
    return ScorerValidity(
        scorer=scorer.name,
        naming=float(np.nanmean(_per_concept(naming_scores, labels))),
        being=float(np.nanmean(_per_concept(being_scores, being_labels))),
        empty=_macro(scorer.score([""] * len(naming)), labels),
        all_concepts=_macro(scorer.score([everything] * len(naming)), labels),
        negated=_macro(scorer.score([f"This is not about: {t.text}" for _, t in naming]), labels),
        stuffed=_macro(scorer.score(stuffed), labels),
        foreign=_macro(scorer.score([t.text for _, t in foreign]), np.array([i for i, _ in foreign]))
        if len({i for i, _ in foreign}) > 1
        else float("nan"),
        naming_top1=float((naming_scores.argmax(1) == labels).mean()),
        being_top1=float((being_scores.argmax(1) == being_labels).mean()),
        n_naming=len(naming),
        n_being=len(being),
        forms_marked=any(t.form is not None for c in pack.concepts for t in c.texts["validation"]),
        weakest=tuple((pack.names[i], float(per_concept[i])) for i in np.argsort(per_concept)[:5]),
    )  # fmt: skip


def agreement(names: Sequence[str], columns: Iterable[NDArray[np.float64]]) -> dict[tuple[str, str], float]:
    """Mean over concepts of the Spearman correlation of two scorers' columns on the same texts.

    columns: of each concept [n_scorers, n_texts], of distinct texts.
    """
    pairs = list(itertools.combinations(range(len(names)), 2))
    found: list[list[float]] = [[] for _ in pairs]
    for column in columns if pairs else ():
        ranks = stats.rankdata(column, axis=1)
        for (a, b), values in zip(pairs, found, strict=True):
            values.append(float(np.corrcoef(ranks[a], ranks[b])[0, 1]))
    return {(names[a], names[b]): float(np.mean(values)) for (a, b), values in zip(pairs, found, strict=True)}


def _texts(pack: ConceptPack, form: str) -> list[tuple[int, Text]]:
    return [(i, t) for i, c in enumerate(pack.concepts) for t in c.texts["validation"] if t.form in (form, None)]


def _others(titles: list[str], own: int) -> list[str]:
    return [titles[(own + step) % len(titles)] for step in range(1, min(5, len(titles)))]


def _per_concept(scores: Matrix, labels: Matrix) -> Matrix:
    present = set(labels.tolist())
    return np.array(
        [
            roc_auc_score(labels == c, scores[:, c]) if c in present and len(present) > 1 else np.nan
            for c in range(scores.shape[1])
        ]
    )


def _macro(scores: Matrix, labels: Matrix) -> float:
    return float(np.nanmean(_per_concept(scores, labels)))
