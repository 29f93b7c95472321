"""What a verbalizer may do beside writing one text: several samples of an item, and a reject option.

This one is the lens of my_class.py, which has a way back from a text to a vector already.
"""

from __future__ import annotations

import hashlib

import torch
from my_class import N_WORDS, WordLens
from nlabench import ActivationBatch, Verbalization

N_SAMPLES, TEMPERATURE = 4, 0.02


class CarefulLens(WordLens):
    """Draws its words, several times for each vector, and says of which vectors it would rather say nothing."""

    def __init__(self) -> None:
        super().__init__()
        drawing = {**self.card.settings, "samples": N_SAMPLES, "temperature": TEMPERATURE}
        self.card = self.card.model_copy(update={"name": "careful-lens", "settings": drawing})

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        """The first text of a vector is scored; `self_consistency` compares all of them."""
        drawn = [[self.draw(vector, number) for number in range(N_SAMPLES)] for vector in batch.vectors]
        return [Verbalization(first, samples=tuple(others)) for first, *others in drawn]

    def draw(self, vector: torch.Tensor, number: int) -> str:
        """One sample. Its seed is the vector's own: another batch, or the same one again, gives the same texts."""
        seed = hashlib.sha256(vector.numpy().tobytes() + bytes([number])).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7]))
        cosines = torch.nn.functional.normalize(vector, dim=0) @ self.directions.T
        words = torch.multinomial((cosines / TEMPERATURE).softmax(0), N_WORDS, generator=generator)
        return ", ".join(self.words[i] for i in words.tolist())

    def detect(self, batch: ActivationBatch) -> list[float]:
        """Higher: sooner a vector that was moved. Here, the less it points to any word at all."""
        cosines = torch.nn.functional.normalize(batch.vectors, dim=-1) @ self.directions.T
        return (-cosines.amax(dim=-1)).tolist()
