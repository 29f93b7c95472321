"""Embedding similarity: the cosine of a text with a concept, which is its description and its *scorer* texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assets import ASSETS, fetch_asset
from ..concepts import ConceptPack
from ..errors import BadInput
from ..store import content_key
from .base import Matrix

MINILM = "all-minilm-l6-v2"

#: Embeddings kept per embedder, in texts (about 3 kB each).
MOST_REMEMBERED = 50_000

_REMEMBERED: dict[str, dict[str, NDArray[np.float64]]] = {}


@lru_cache(maxsize=4)
def load_embedder(name: str) -> Any:
    """A sentence-transformers model by asset name, local path or hub id; loaded once per process.

    Raises:
        BadInput: it cannot be found.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source = str(fetch_asset(name)) if name in ASSETS else name
    try:
        return SentenceTransformer(source, device="cpu")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"The sentence embedder {name!r} could not be loaded: {str(error)[:200]}. Built in are "
            f"{', '.join(a.name for a in ASSETS.values() if a.role == 'embedder')}."
        ) from error


def embed(embedder: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit embeddings [n_texts, width], float64. An empty text has the embedding that the model gives it.

    Scorers that share an embedder share its work: the last texts are remembered.
    """
    known = _REMEMBERED.setdefault(embedder, {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        if len(known) + len(new) > MOST_REMEMBERED:
            known.clear()
            new = list(dict.fromkeys(texts))
        vectors = load_embedder(embedder).encode(new, batch_size=64, convert_to_numpy=True, show_progress_bar=False)
        wide = np.asarray(vectors, dtype=np.float64)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        known.update(zip(new, wide / np.where(norms > 0, norms, 1), strict=True))
    return np.stack([known[text] for text in texts])


@dataclass(frozen=True)
class EmbeddingScorer:
    """Half the cosine with the description's embedding, half the cosine with the mean of the *scorer* texts'.

    Both belong: a verbalizer may name a concept (near the description) or write what is an instance of it.
    """

    name: str
    fingerprint: str
    embedder: str
    concepts: Matrix  # [n_concepts, width]: the mean of the two unit vectors

    def score(self, texts: Sequence[str]) -> Matrix:
        return np.asarray(embed(self.embedder, texts) @ self.concepts.T)


def build(pack: ConceptPack, name: str = "embedding", embedder: str = MINILM) -> EmbeddingScorer:
    """The scorer for a pack."""
    described = embed(embedder, pack.descriptions)
    shown = np.stack([embed(embedder, [t.text for t in c.texts["scorer"]]).mean(0) for c in pack.concepts])
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    key = content_key(name=name, embedder=embedder, pack=pack.fingerprint(), version=1)
    return EmbeddingScorer(name, key, embedder, (described + shown) / 2)


SCORERS = {"embedding": build}
