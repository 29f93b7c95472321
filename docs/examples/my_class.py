"""A verbalizer as a class: a card that says what it is, texts with what belongs to them, and the way back.

This one is a lens: it says the words whose unembedding a vector points to most, and goes back by adding those up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nlabench import ActivationBatch, Site, Verbalization, VerbalizerCard
from nlabench.benchmark.loading import load_subject

N_WORDS = 8


class WordLens:
    """directions: [n_words, d_model], what a vector has to point to for the lens to say each word."""

    def __init__(self) -> None:
        subject = load_subject("smollm2-135m-instruct-q4_1")
        vocabulary = subject.tokenizer.batch_decode([[token] for token in range(subject.vocab_size)])
        tokens = [i for i, word in enumerate(vocabulary) if word.startswith(" ") and word[1:].isalpha() and word[3:]]
        self.words = [vocabulary[i].strip() for i in tokens]
        with torch.inference_mode():
            unembedding = subject.model.get_output_embeddings().weight[tokens].float()
            directions = unembedding * subject.model.model.norm.weight.float()  # through the final norm's scale
            self.directions = torch.nn.functional.normalize(directions - directions.mean(0), dim=-1)
        self.card = VerbalizerCard(
            name="word-lens",  # how tables call it
            version="1",  # a new one is never compared with an old one, nor given its texts
            description=f"The {N_WORDS} words whose unembedding the vector points to most.",
            subject="smollm2-135m-instruct-q4_1",  # made for this subject
            layer=19,  # … after this block: hidden_states[20]
            d_model=576,
            authors="A. Author",
            link="https://example.org/word-lens",
            licence="Apache-2.0",
            training_data="none",
            settings={"words": N_WORDS, "weights": subject.fingerprint},  # all else that decides a text
        )

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        """One text per row of `batch.vectors` [n, d_model]. Nothing of it may hang on the other rows."""
        cosines = torch.nn.functional.normalize(batch.vectors, dim=-1) @ self.directions.T
        best = cosines.topk(N_WORDS).indices.tolist()
        return [Verbalization(", ".join(self.words[i] for i in row)) for row in best]

    def reconstruct(self, texts: Sequence[str], site: Site) -> torch.Tensor:
        """One vector per text [n, d_model], float32. With this method the class is a `Reconstructor` too."""
        number = {word: i for i, word in enumerate(self.words)}
        rows = [[number[word] for word in text.split(", ") if word in number] for text in texts]
        return torch.stack([self.directions[row].sum(0) for row in rows])
