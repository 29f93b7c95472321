"""Verbalizers that answer questions about vectors: each task asks its own, fixed and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ..activations import ActivationBatch
from .base import Verbalization, VerbalizerCard

#: What a task asks that has no question of its own: about all that most tasks score. The prompt reader is asked it too.
QUESTION = "In one sentence, what is this text about and how is it written?"


@runtime_checkable
class QuestionAnswerer(Protocol):
    """Answers a question in words about each vector. It sees vectors, their site and the question."""

    @property
    def card(self) -> VerbalizerCard: ...

    def answer(self, batch: ActivationBatch, question: str) -> Sequence[Verbalization | str]:
        """One answer per vector of the batch, in order; an answer may not depend on the other vectors."""
        ...


@dataclass(frozen=True)
class Asked:
    """A verbalizer that is asked one question. fixed: whoever named it chose the question, and no task asks another."""

    answerer: QuestionAnswerer
    question: str = QUESTION
    fixed: bool = False

    @property
    def card(self) -> VerbalizerCard:
        card = self.answerer.card
        return card.model_copy(update={"settings": {**card.settings, "question": self.question}})

    def verbalize(self, batch: ActivationBatch) -> Sequence[Verbalization | str]:
        return self.answerer.answer(batch, self.question)

    def ask(self, question: str) -> Asked:
        """The same verbalizer, asked another question."""
        return replace(self, question=question)
