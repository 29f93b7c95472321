"""Patchscope: the vector takes the place of a word's hidden state in a prompt that asks what the word means.

After Ghandeharioun et al. 2024 ("Patchscopes", section 4.3, the entity-description prompt). The vector is scaled to the
norm of the state that it replaces: a stream of the site's depth is several times longer than an early one, and
overwrites everything that the later blocks add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..activations import ActivationBatch
from ..decoding import decode
from ..injection import VectorInjection, inject_vectors
from ..study import Study
from ..subject import Prefix, Subject
from .base import Verbalization, VerbalizerCard, strip_controls

PROMPT = "Syria: a country in the Middle East. Samsung: a Korean maker of phones. Bach: a German composer of music."
PLACEHOLDER = " x"
QUESTION = ":"
NEW_TOKENS = 24


@dataclass(frozen=True)
class Patchscope:
    """Overwrites the placeholder's state after block `layer`, and lets the subject go on.

    tail: token ids from the placeholder on; what comes before is the prefix, run once. slot: the placeholder's last
    token in the tail.
    """

    card: VerbalizerCard
    subject: Subject
    prefix: Prefix
    tail: Sequence[int]
    layer: int
    slot: int

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        overwrite = VectorInjection("overwrite_hidden", self.layer, scale="state")
        decoded = decode(
            self.subject, [self.tail] * len(batch), max_new_tokens=NEW_TOKENS, prefix=self.prefix,
            edits=inject_vectors(overwrite, batch.vectors, [self.slot]),
        )  # fmt: skip
        return [Verbalization(strip_controls(d.text), d.logprob) for d in decoded]


def build(study: Study, argument: str) -> Patchscope:
    """`patchscope` overwrites after a third of the site's blocks; `patchscope:6` after block 6."""
    subject = study.subject
    layer = subject.check_layer(int(argument) if argument.isdigit() else study.site.layer // 3)
    before = subject.encode_start(PROMPT)
    card = VerbalizerCard(
        name="patchscope" + (f":{layer}" if argument else ""),
        role="baseline",
        description=f"The vector replaces a word's state after block {layer} of a prompt that asks what the word is.",
        subject=study.site.subject,
        d_model=study.site.d_model,
        settings={
            "subject": subject.fingerprint,
            "prompt": PROMPT + PLACEHOLDER + QUESTION,
            "block": layer,
            "new_tokens": NEW_TOKENS,
        },
    )
    word = subject.encode(PLACEHOLDER)
    tail = word + subject.encode(QUESTION)
    return Patchscope(card, subject, subject.make_prefix(before), tail, layer, len(word) - 1)


VERBALIZERS = {"patchscope": build}
