"""A floor of its own for every verbalizer: its text for the average activation, said of every vector.

Known to beat a released NLA's own texts on one model: what is common to all activations explains much of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..activations import ActivationBatch
from ..errors import BadInput
from ..store import array_fingerprint
from ..study import Study
from ..verbalizing import verbalizer_fingerprint
from .base import Verbalization, Verbalizer, VerbalizerCard, check_texts


@dataclass(frozen=True)
class AverageDirection:
    """Gives the inner verbalizer's text for one fixed batch of one vector, whatever the vector asked about."""

    card: VerbalizerCard
    inner: Verbalizer
    average: ActivationBatch  # one row: the mean of the reference prompts' states

    @cached_property
    def text(self) -> Verbalization:
        try:
            return check_texts(self.inner.card.name, self.inner.verbalize(self.average), 1)[0]
        except Exception as error:  # as on any other vector: no text, and counted
            return Verbalization("", error=f"{type(error).__name__}: {error}"[:500])

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        return [self.text] * len(batch)


def build(study: Study, argument: str) -> AverageDirection:
    from .registry import load_verbalizer

    inner = load_verbalizer(argument or "patchscope", study)
    if not isinstance(inner, Verbalizer):
        raise BadInput(f"average-direction wraps a verbalizer of vectors; {argument!r} reads prompts.")
    return wrap_average(study, inner)


def wrap_average(study: Study, inner: Verbalizer) -> AverageDirection:
    """The floor that belongs to `inner`."""
    average = ActivationBatch(study.reference_vectors().mean(0, keepdim=True), study.site)
    card = VerbalizerCard(
        name=f"average-direction:{inner.card.name}",
        role="floor",
        description=f"{inner.card.name}'s text for the mean of neutral activations, said of every vector.",
        settings={
            "inner": verbalizer_fingerprint(inner),
            "average": array_fingerprint(average.vectors.numpy()),
        },
    )
    return AverageDirection(card, inner, average)


VERBALIZERS = {"average-direction": build}
