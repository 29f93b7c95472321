"""Text-only readers: they read the prompt and not the vector, so what they reach needs no activation.

Only the benchmark runs these. On steered items the prompt is neutral: a reader of text cannot see what was added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..decoding import decode
from ..scoring.embedding import MINILM, embed
from ..study import Study
from ..subject import Prefix, Subject
from .base import ReadPrompt, Verbalization, VerbalizerCard, strip_controls

QUESTION = "Here is the beginning of a text:\n\n"
INSTRUCTION = "\n\nIn one sentence, what is this text about and how is it written?"
NEW_TOKENS = 24
ROWS = 32


@dataclass(frozen=True)
class LastToken:
    """Says the readout's own token: what anybody could say who saw one word."""

    card: VerbalizerCard

    def read(self, prompts: Sequence[ReadPrompt]) -> list[Verbalization]:
        return [
            Verbalization(f'A text in which the current word is "{strip_controls(p.last_token)}".') for p in prompts
        ]


@dataclass(frozen=True)
class LastFour:
    """Says the last four tokens up to the readout: the words that an activation is nearest to."""

    card: VerbalizerCard

    def read(self, prompts: Sequence[ReadPrompt]) -> list[Verbalization]:
        return [Verbalization(f'A text that goes on with "{strip_controls(p.last_four).strip()}".') for p in prompts]


@dataclass(frozen=True)
class PromptRetrieval:
    """Answers with the bank text whose sentence embedding is nearest to the prompt's: what knowing the words alone
    retrieves. texts: *probe* and neutral *reference* texts, as `nearest-text` has; bank: their unit embeddings."""

    card: VerbalizerCard
    texts: list[str]
    bank: NDArray[np.float64]

    def read(self, prompts: Sequence[ReadPrompt]) -> list[Verbalization]:
        nearest = (embed(MINILM, [p.text for p in prompts]) @ self.bank.T).argmax(1)
        return [Verbalization(self.texts[i]) for i in nearest]


@dataclass(frozen=True)
class PromptReader:
    """The subject itself, asked in words to describe the text up to the readout."""

    card: VerbalizerCard
    subject: Subject
    prefix: Prefix

    def read(self, prompts: Sequence[ReadPrompt]) -> list[Verbalization]:
        distinct = sorted({p.text for p in prompts}, key=len)
        start = len(self.prefix.ids)
        answers = {}
        for i in range(0, len(distinct), ROWS):
            rows = distinct[i : i + ROWS]
            questions = [self.subject.chat_ids(QUESTION + text + INSTRUCTION)[start:] for text in rows]
            decoded = decode(self.subject, questions, max_new_tokens=NEW_TOKENS, prefix=self.prefix)
            answers.update({text: strip_controls(d.text) for text, d in zip(rows, decoded, strict=True)})
        return [Verbalization(answers[p.text]) for p in prompts]


def build_last_token(study: Study, argument: str) -> LastToken:
    description = "The readout's own token, put in a sentence. Reads the prompt, not the vector."
    return LastToken(VerbalizerCard(name="last-token", role="reader", description=description))


def build_last_four(study: Study, argument: str) -> LastFour:
    description = "The last four tokens up to the readout, put in a sentence. Reads the prompt, not the vector."
    return LastFour(VerbalizerCard(name="last-four", role="reader", description=description))


def build_prompt_retrieval(study: Study, argument: str) -> PromptRetrieval:
    entries = [t for c in study.pack.concepts for t in c.texts["probe"]] + list(study.pack.neutral["reference"])
    card = VerbalizerCard(
        name="prompt-retrieval",
        role="reader",
        description="The probe or neutral text whose sentence embedding is nearest to the prompt's. Reads the prompt, "
        "not the vector.",
        settings={"pack": study.pack.fingerprint(), "embedder": MINILM},
    )
    texts = [text.text for text in entries]
    return PromptRetrieval(card, texts, embed(MINILM, texts))


def build_prompt_reader(study: Study, argument: str) -> PromptReader:
    subject = study.subject
    one, other = (subject.chat_ids(QUESTION + text) for text in ("one", "Other"))
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    card = VerbalizerCard(
        name="prompt-reader",
        role="reader",
        description="The subject, asked in words to describe the prompt. Reads the prompt, not the vector.",
        settings={"subject": subject.fingerprint, "instruction": INSTRUCTION, "new_tokens": NEW_TOKENS},
    )
    return PromptReader(card, subject, subject.make_prefix(one[:shared]) if shared else Prefix((), (), ()))


VERBALIZERS = {
    "last-token": build_last_token,
    "last-four": build_last_four,
    "prompt-retrieval": build_prompt_retrieval,
    "prompt-reader": build_prompt_reader,
}
