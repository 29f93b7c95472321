"""A classifier with a *none* class and calibrated probabilities, fitted on *scorer* texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from ..concepts import ConceptPack
from ..store import content_key
from .base import Matrix
from .embedding import MINILM, embed


@dataclass(frozen=True)
class ClassifierScorer:
    """Multinomial logistic regression on embeddings. Its score is the calibrated log-odds of the concept."""

    name: str
    fingerprint: str
    embedder: str
    model: Any
    temperature: float

    def log_probabilities(self, texts: Sequence[str]) -> Matrix:
        """Calibrated log-probabilities [n_texts, n_concepts + 1]; the last class is *none*."""
        logits = self.model.decision_function(embed(self.embedder, texts))
        return np.asarray(log_softmax(logits / self.temperature, axis=1))

    def score(self, texts: Sequence[str]) -> Matrix:
        logp = self.log_probabilities(texts)
        # log p - log(1 - p), where 1 - p is summed over the other classes so that it keeps its digits near p = 1
        others = np.stack([logsumexp(np.delete(logp, c, axis=1), axis=1) for c in range(logp.shape[1] - 1)], axis=1)
        return np.asarray(logp[:, :-1] - others)


def build(pack: ConceptPack, name: str = "classifier", embedder: str = MINILM) -> ClassifierScorer:
    """Fit on the descriptions and *scorer* texts, and on neutral *scorer* prompts for *none*.

    The temperature is fitted on out-of-fold logits (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    """
    texts = [text for c in pack.concepts for text in (c.description, *(t.text for t in c.texts["scorer"]))]
    labels = [i for i, c in enumerate(pack.concepts) for _ in range(1 + len(c.texts["scorer"]))]
    nothing = [t.text for t in pack.neutral["scorer"]]
    vectors = embed(embedder, texts + nothing)
    classes = np.array(labels + [len(pack.concepts)] * len(nothing))
    model = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced")
    folds = StratifiedKFold(n_splits=min(4, int(np.bincount(classes).min())), shuffle=True, random_state=0)
    held_out = cross_val_predict(model, vectors, classes, cv=folds, method="decision_function")
    if held_out.ndim == 1:  # two classes come as one column
        held_out = np.stack([-held_out, held_out], axis=1) / 2

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(held_out / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(classes)), classes].mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    key = content_key(name=name, embedder=embedder, pack=pack.fingerprint(), version=1)
    return ClassifierScorer(name, key, embedder, model.fit(vectors, classes), temperature)


SCORERS = {"classifier": build}
