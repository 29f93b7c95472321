"""Which prompt does a text describe? Scorers with a column per candidate prompt in the place of one per concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..store import content_key
from .base import Matrix, Standardized, standardize
from .embedding import MINILM, embed
from .independent import POTION

#: Two embedders that share nothing, so that one alone does not decide, by the name of the scorer.
EMBEDDERS = {"embedding": MINILM, "independent-embedding": POTION}


@dataclass(frozen=True)
class PromptScorer:
    """The cosine of a text's sentence embedding with every candidate prompt's."""

    name: str
    fingerprint: str
    embedder: str
    prompts: Matrix  # [n_prompts, width], unit

    def score(self, texts: Sequence[str]) -> Matrix:
        """[n_texts, n_prompts], float64, from -1 to 1."""
        return np.asarray(embed(self.embedder, texts) @ self.prompts.T)


def build_prompt_scorers(prompts: Sequence[str], reference: Sequence[str]) -> list[Standardized]:
    """A scorer per embedder. prompts: the candidates, one column each; reference: texts that columns are scaled on.

    Without the scaling a few prompts that are near to every text win every row (see `Standardized`).
    """
    scorers = []
    for name, embedder in EMBEDDERS.items():
        key = content_key(name=name, embedder=embedder, prompts=list(prompts), version=1)
        scorers.append(standardize(PromptScorer(name, key, embedder, embed(embedder, prompts)), reference))
    return scorers
