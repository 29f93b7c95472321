"""Score tables with a known macro AUROC, and errors with a known explained variance: do intervals cover them?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .resampling import Floats, Ints


@dataclass(frozen=True)
class Truth:
    """A population of concepts and prompts, by the standard deviations of what varies in it.

    The score of an item of concept c and prompt p in column k is
    `1[k = c] (signal + concept_c + prompt_p) + shift_pk + similarity_ck + row + noise`, every part normal and
    independent.
    `signal` is set so that the population's macro AUROC is `auroc`.
    """

    auroc: float
    concept: float = 0.0  # how strongly the own column answers differs between concepts
    prompt: float = 0.0  # ... and between prompts: the whole arm moves with the prompts that were drawn
    shift: float = 0.0  # a prompt favours some columns, whatever the concept
    similarity: float = 0.0  # a concept's items score high in another concept's column
    row: float = 0.0  # an item scores high in every column (a hub)
    noise: float = 1.0  # each item and column

    def signal(self, nested: bool = False) -> float:
        """The mean of the own column at which P(positive > negative), over new concepts and prompts, is `auroc`."""
        prompt, shift = (0.0, 0.0) if nested else (self.prompt, self.shift)
        variance = self.concept**2 + prompt**2 + 2 * shift**2 + self.similarity**2
        variance += 2 * self.row**2 + 2 * self.noise**2
        return float(stats.norm.ppf(self.auroc) * np.sqrt(variance))


@dataclass(frozen=True)
class Population:
    """The draws of concepts and prompts for a number of replications; arms drawn from it share them."""

    concept: Floats  # [n_replications, n_concepts]
    similarity: Floats  # [n_replications, n_concepts, n_concepts]
    prompt: Floats  # [n_replications, n_prompts]
    shift: Floats  # [n_replications, n_prompts, n_concepts]


def draw_population(truth: Truth, n: int, n_concepts: int, n_prompts: int, rng: np.random.Generator) -> Population:
    return Population(
        truth.concept * rng.normal(size=(n, n_concepts)),
        truth.similarity * rng.normal(size=(n, n_concepts, n_concepts)),
        truth.prompt * rng.normal(size=(n, n_prompts)),
        truth.shift * rng.normal(size=(n, n_prompts, n_concepts)),
    )


def draw_scores(
    truth: Truth, population: Population, concept: Ints, prompt: Ints, rng: np.random.Generator, nested: bool = False
) -> Floats:
    """Scores [n_replications, n_items, n_concepts] of the items (concept, prompt); nested texts have noise alone."""
    n, n_concepts = population.concept.shape
    items = np.arange(len(concept))
    scores = truth.noise * rng.normal(size=(n, len(concept), n_concepts)) + population.similarity[:, concept]
    scores += truth.row * rng.normal(size=(n, len(concept), 1))
    own = truth.signal(nested) + population.concept[:, concept]
    if not nested:
        scores += population.shift[:, prompt]
        own = own + population.prompt[:, prompt]
    # The own column has no similarity to itself beyond its signal.
    scores[:, items, concept] += own - population.similarity[:, concept, concept]
    return np.asarray(scores)


def balanced_crossing(n_concepts: int, n_prompts: int, prompts_per_concept: int) -> tuple[Ints, Ints]:
    """Concept and prompt ids, each [n_concepts * prompts_per_concept]: every concept reads equally many prompts.

    Prompts are dealt round-robin, so that each is read by equally many concepts (give or take one); with fewer prompts
    than all, concept c starts where concept c - 1 left off, shifted by one a round so that pairs of prompts mix.
    """
    concept = np.repeat(np.arange(n_concepts), prompts_per_concept)
    start = np.arange(n_concepts) * prompts_per_concept
    start = start + start // n_prompts
    prompt = (start[:, None] + np.arange(prompts_per_concept)) % n_prompts
    return concept, prompt.ravel()


@dataclass(frozen=True)
class RatioTruth:
    """A population of items with a spread and a squared error, by the standard deviations of what varies in it.

    log spread = s_c + s_p + s_i and log error = a + log spread / 2 + e_c + e_p + e_i, each part normal and
    independent: an item that lies far out is explained better. `a` is set so that the population's explained variance,
    1 - E[error] / E[spread], is `explained`.
    """

    explained: float
    concept: float = 0.0  # the standard deviation of s_c, and that of e_c
    prompt: float = 0.0
    noise: float = 0.3


def draw_errors(
    truth: RatioTruth, n: int, concept: Ints, prompt: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Squared errors and spreads, each [n_replications, n_items], of the items (concept, prompt).

    Nested texts are prompts that one concept reads.
    """

    def draw() -> Floats:
        parts = truth.concept * rng.normal(size=(n, 1 + concept.max()))[:, concept]
        parts += truth.prompt * rng.normal(size=(n, 1 + prompt.max()))[:, prompt]
        return np.asarray(parts + truth.noise * rng.normal(size=(n, len(concept))))

    variance = truth.concept**2 + truth.prompt**2 + truth.noise**2
    # E[exp(x)] = exp(var / 2): var is `variance` for log spread and 5/4 of it for log error.
    a = np.log(1 - truth.explained) + variance / 2 - 5 / 4 * variance / 2
    log_spread = draw()
    return np.exp(a + log_spread / 2 + draw()), np.exp(log_spread)
