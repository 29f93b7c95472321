"""A scorer that shares nothing with MiniLM, so that agreement between scorers means something.

Static word embeddings (no transformer, other training data) beside character n-grams, which see languages and code
that word embeddings miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ..concepts import ConceptPack
from ..store import content_key
from .base import Matrix
from .embedding import build as build_embedding
from .embedding import embed

POTION = "potion-base-8m"


@dataclass(frozen=True)
class IndependentScorer:
    """The sum of two cosines with a concept: of static embeddings, and of tf-idf weighted character n-grams."""

    name: str
    fingerprint: str
    concepts: Matrix  # [n_concepts, width], static embeddings
    vectorizer: Any
    profiles: Any  # sparse [n_concepts, n_grams]

    def score(self, texts: Sequence[str]) -> Matrix:
        static = embed(POTION, texts) @ self.concepts.T
        lexical = (self.vectorizer.transform(texts) @ self.profiles.T).toarray()
        return np.asarray(static + lexical)


def build(pack: ConceptPack) -> IndependentScorer:
    """The scorer for a pack, from its descriptions and *scorer* texts."""
    own = [" \n ".join([c.description, *(t.text for t in c.texts["scorer"])]) for c in pack.concepts]
    nothing = [t.text for t in pack.neutral["scorer"]]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=1)
    vectorizer.fit(own + nothing)
    key = content_key(name="independent", embedder=POTION, pack=pack.fingerprint(), version=1)
    return IndependentScorer(
        "independent", key, build_embedding(pack, embedder=POTION).concepts, vectorizer, vectorizer.transform(own)
    )


SCORERS = {"independent": build}
