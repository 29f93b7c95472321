"""Retrieval: the *probe* or neutral text whose activation is nearest to the vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import ActivationBatch
from ..steering import unit
from ..study import Study
from .base import Verbalization, VerbalizerCard


@dataclass(frozen=True)
class NearestText:
    """Answers with the bank text of the highest cosine, after the neutral mean is taken from both.

    bank: [n_readouts, d_model], unit rows; texts: the text of each row; centre: [d_model].
    """

    card: VerbalizerCard
    bank: Tensor
    texts: list[str]
    centre: Tensor

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        nearest = (unit(batch.vectors - self.centre) @ self.bank.T).argmax(-1)
        return [Verbalization(self.texts[i]) for i in nearest.tolist()]


def build(study: Study, argument: str) -> NearestText:
    entries = [t for c in study.pack.concepts for t in c.texts["probe"]] + list(study.pack.neutral["reference"])
    readouts = [(readout, t.text) for t in entries for readout in (*study.late_readouts(t.id), study.texts[t.id].final)]
    centre = study.reference_vectors().mean(0)
    bank = unit(torch.stack([study.readings.at[readout] for readout, _ in readouts]) - centre)
    card = VerbalizerCard(
        name="nearest-text",
        role="baseline",
        description="The probe or neutral text whose centred activation has the highest cosine.",
        settings={"pack": study.pack.fingerprint()},
    )
    return NearestText(card, bank, [text for _, text in readouts], centre)


VERBALIZERS = {"nearest-text": build}
