"""The units that are resampled: concepts and prompts, crossed or nested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

CONCEPT_FREE = -1


@dataclass(frozen=True)
class Clusters:
    """Which concept and which prompt each item belongs to.

    `concept` is int [n_items], from 0; `CONCEPT_FREE` (-1) for every item of an arm that has no concept (permuted,
    random, neutral). `prompt` is int [n_items], from 0: a readout prompt of `pool`, or, where `nested`, a text that
    belongs to one concept. Ids must mean the same unit in everything that is compared: that is what pairs a difference.
    A crossing may be incomplete, and a (concept, prompt) cell may hold several items.

    Raises ValueError for arrays that differ in length, are empty, hold ids below 0, mix concept-free items with
    others, or (nested) put one text under two concepts.
    """

    concept: Ints
    prompt: Ints
    nested: bool = False
    pool: str = "readout"

    def __post_init__(self) -> None:
        object.__setattr__(self, "concept", _as_ids("concept", self.concept))
        object.__setattr__(self, "prompt", _as_ids("prompt", self.prompt))
        if len(self.concept) != len(self.prompt):
            raise ValueError(
                f"{len(self.concept)} concept ids and {len(self.prompt)} prompt ids; expected one of each per item."
            )
        if len(self.concept) == 0:
            raise ValueError("No items; expected at least one. Was the arm left out of the run?")
        if self.prompt.min() < 0 or self.concept.min() < CONCEPT_FREE:
            raise ValueError("Ids below 0; expected 0 upwards (or concept -1 throughout). Number the units from 0.")
        free = self.concept == CONCEPT_FREE
        if free.any() and not free.all():
            raise ValueError(
                f"{int(free.sum())} of {free.size} items are concept-free; expected all or none. "
                "Pass the concept-free arm as negatives, or as Clusters of its own."
            )
        if self.nested and free.any():
            raise ValueError("Concept-free items cannot be nested in concepts. Pass nested=False.")
        if self.nested:
            order = np.lexsort((self.concept, self.prompt))
            text, concept = self.prompt[order], self.concept[order]
            if ((np.diff(text) == 0) & (np.diff(concept) != 0)).any():
                raise ValueError(
                    "A text appears under two concepts; nested texts belong to one. "
                    "Number texts across concepts, or pass nested=False for readout prompts."
                )

    @classmethod
    def of_prompts(cls, prompt: ArrayLike, pool: str = "readout") -> Clusters:
        """The clusters of a concept-free arm: prompts only."""
        ids = np.asarray(prompt, dtype=np.int64)
        return cls(np.full(ids.shape, CONCEPT_FREE, dtype=np.int64), ids, pool=pool)

    @property
    def concept_free(self) -> bool:
        return bool(self.concept[0] == CONCEPT_FREE)

    @property
    def crossed(self) -> bool:
        return not self.nested and not self.concept_free

    @property
    def n_items(self) -> int:
        return len(self.concept)


@dataclass(frozen=True)
class Weights:
    """How often each unit was drawn, in every resample: made once per run and shared by all its metrics."""

    concept: Floats32  # [n_resamples, n_concepts], multiplicities
    prompt: Floats32  # [n_resamples, n_prompts], multiplicities
    seed: int

    @property
    def n_resamples(self) -> int:
        return len(self.concept)


def resample(n_concepts: int, n_prompts: int, n_resamples: int = 10_000, seed: int = 0) -> Weights:
    """Draw multinomial multiplicities of concepts and, independently, of prompts.

    The pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)):
    a (concept, prompt) cell weighs the product of its two multiplicities. Two separate streams, so that the concept
    multiplicities do not depend on how many prompts a run has. Raises ValueError for counts below 1.
    """
    if min(n_concepts, n_prompts, n_resamples) < 1:
        raise ValueError(
            f"{n_concepts} concepts, {n_prompts} prompts, {n_resamples} resamples; expected at least 1 of each."
        )
    concepts, prompts = (np.random.default_rng([seed, stream]) for stream in (0, 1))

    def draw(rng: np.random.Generator, n: int) -> Floats32:
        return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float32)

    return Weights(draw(concepts, n_concepts), draw(prompts, n_prompts), seed)


def _as_ids(name: str, ids: ArrayLike) -> Ints:
    array = np.asarray(ids)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name} ids are {array.dtype} {list(array.shape)}; expected integers [n_items].")
    return array.astype(np.int64)
