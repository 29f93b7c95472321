"""A verbalizer that answers questions about vectors: every task asks its own, and all of them stand in the result."""

from __future__ import annotations

from collections.abc import Sequence

from my_class import WordLens
from nlabench import ActivationBatch, Verbalization


class WordAnswers:
    """Answers with the words of a lens: with three where a few are asked for."""

    def __init__(self) -> None:
        self.lens = WordLens()
        self.card = self.lens.card.model_copy(update={"name": "word-answers"})

    def answer(self, batch: ActivationBatch, question: str) -> Sequence[Verbalization | str]:
        """One answer per row of `batch.vectors` [n, d_model]. Give the question to your model here, with the vector."""
        most = 3 if "few words" in question else None
        return [", ".join(found.text.split(", ")[:most]) for found in self.lens.verbalize(batch)]
