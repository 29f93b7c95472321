"""The floor: one text, whatever the vector."""

from __future__ import annotations

from dataclasses import dataclass

from ..activations import ActivationBatch
from ..study import Study
from .base import Verbalization, VerbalizerCard

TEXT = "A short passage of text in the middle of a sentence, from a document about everyday things."


@dataclass(frozen=True)
class Constant:
    """Says the same of every vector."""

    card: VerbalizerCard

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        return [Verbalization(TEXT)] * len(batch)


def build(study: Study, argument: str) -> Constant:
    description = "One fixed text for every vector."
    return Constant(VerbalizerCard(name="constant", role="floor", description=description, settings={"text": TEXT}))


VERBALIZERS = {"constant": build}
