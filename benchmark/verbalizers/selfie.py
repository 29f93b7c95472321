"""SelfIE: the vector takes the place of a message's words, and the subject goes on to summarize the message.

After Chen et al. 2024, "SelfIE: Self-Interpretation of Large Language Model Embeddings" (arXiv 2403.10949) and its code
(github.com/tonychenxyz/selfie, `selfie/interpret.py`): five placeholders, overwritten while the prompt is read where
they enter the second block (its `k = 1`), which is the stream after block 0 here. The vector is scaled to the norm of
the state that it replaces, which the original's is not: a stream of the site's depth is several times longer than an
early one, and overwrites everything that the later blocks add.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..activations import ActivationBatch
from ..decoding import decode
from ..injection import VectorInjection, inject_vectors
from ..placeholders import encode_prompt, render_chat
from ..study import Study
from ..subject import Prefix, Subject
from .base import Verbalization, VerbalizerCard, strip_controls

PLACEHOLDERS = "_ _ _ _ _"
ANSWER = "Sure, I will summarize the message:"
WITHOUT_CHAT = f"Message: {PLACEHOLDERS}\n{ANSWER}"
BLOCK = 0
NEW_TOKENS = 24


@dataclass(frozen=True)
class Selfie:
    """Overwrites the placeholders' states after a block, and lets the subject go on.

    tail: token ids from the first placeholder on; what comes before is the prefix, run once. slots: the placeholders'
    tokens in the tail.
    """

    card: VerbalizerCard
    subject: Subject
    prefix: Prefix
    tail: tuple[int, ...]
    slots: tuple[int, ...]
    injection: VectorInjection

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        decoded = decode(
            self.subject, [self.tail] * len(batch), max_new_tokens=NEW_TOKENS, prefix=self.prefix,
            edits=inject_vectors(self.injection, batch.vectors, self.slots),
        )  # fmt: skip
        return [Verbalization(strip_controls(d.text), d.logprob) for d in decoded]


def build(study: Study, argument: str) -> Selfie:
    """`selfie` overwrites after block 0; `selfie:BLOCK` after another.

    Raises:
        BadInput: the subject has no such block, or its tokenizer cannot say where the placeholders lie.
    """
    subject = study.subject
    block = subject.check_layer(int(argument) if argument.isdigit() else BLOCK)
    chats = subject.tokenizer.chat_template is not None
    text = render_chat(subject, PLACEHOLDERS, ANSWER) if chats else WITHOUT_CHAT
    prompt = encode_prompt(subject, text, PLACEHOLDERS, rendered=chats)
    start = prompt.slots[0]
    card = VerbalizerCard(
        name="selfie" + (f":{block}" if argument else ""),
        role="baseline",
        description=f"The vector replaces a message's states after block {block}; the subject summarizes the message.",
        subject=study.site.subject,
        d_model=study.site.d_model,
        settings={"subject": subject.fingerprint, "prompt": text, "block": block, "new_tokens": NEW_TOKENS},
    )
    return Selfie(
        card,
        subject,
        subject.make_prefix(prompt.ids[:start]) if start else Prefix((), (), ()),
        prompt.ids[start:],
        tuple(slot - start for slot in prompt.slots),
        VectorInjection("overwrite_hidden", block, scale="state"),
    )


VERBALIZERS = {"selfie": build}
