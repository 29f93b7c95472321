"""The ceiling: a linear probe on the same vector, fitted on *probe* texts only, that says the concept's description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..activations import ActivationBatch, PositionKind
from ..study import Study
from .base import Verbalization, VerbalizerCard

STRENGTH = 0.1  # of the L2 regularisation, sklearn's C


@dataclass(frozen=True)
class ProbeCeiling:
    """A multinomial logistic probe over the concepts; its text is the likeliest concept's description.

    It always names a concept: what it claims of a neutral activation is a false claim, and is counted as one.
    """

    card: VerbalizerCard
    probe: Any
    descriptions: list[str]

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        likeliest = self.probe.predict(batch.vectors.numpy())
        return [Verbalization(self.descriptions[i]) for i in likeliest]


def fit_probe(study: Study) -> Pipeline:
    """Fit on the states of *probe* texts at late function words and last tokens."""
    vectors, labels = [], []
    kinds: tuple[PositionKind, ...] = ("function", "final")
    for kind in kinds:
        for number, name in enumerate(study.pack.names):
            vectors.append(study.purpose_states("probe", name, kind))
            labels += [number] * len(vectors[-1])
    # Scaling first: a few coordinates of the stream are a hundred times the others and would be all that is fitted.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))
    return probe.fit(torch.cat(vectors).numpy(), np.array(labels))


def build(study: Study, argument: str) -> ProbeCeiling:
    card = VerbalizerCard(
        name="probe-ceiling",
        role="ceiling",
        description="A linear probe fitted on probe texts; says the description of the likeliest concept.",
        settings={"pack": study.pack.fingerprint(), "C": STRENGTH},
    )
    return ProbeCeiling(card, fit_probe(study), study.pack.descriptions)


VERBALIZERS = {"probe-ceiling": build}
