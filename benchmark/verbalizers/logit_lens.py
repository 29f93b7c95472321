"""The logit lens: final norm and unembedding of the vector itself; the likeliest tokens are the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import ActivationBatch
from ..study import Study
from ..subject import Subject
from .base import Verbalization, VerbalizerCard, strip_controls

N_TOKENS = 12

#: Tokens among which the most raised are taken. Chosen on probe texts: with all of the vocabulary the text is rare
#: word pieces, with twelve it is the same frequent words for every vector.
SHORTLIST = 100


@dataclass(frozen=True)
class LogitLens:
    """Of the likeliest tokens, those that the vector raises most above the average activation.

    baseline: [vocab], the mean log-probability over neutral *reference* states.
    """

    card: VerbalizerCard
    subject: Subject
    baseline: Tensor

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        likely = self.subject.unembed(batch.vectors).float().log_softmax(-1).cpu()
        shortlist = likely.topk(SHORTLIST).indices
        raised = (likely - self.baseline).gather(1, shortlist)
        tokens = shortlist.gather(1, raised.topk(N_TOKENS).indices)
        texts = self.subject.tokenizer.batch_decode(tokens.flatten()[:, None])
        rows = [texts[i : i + N_TOKENS] for i in range(0, len(texts), N_TOKENS)]
        return [
            Verbalization(strip_controls(", ".join(token.strip() for token in row if token.strip()))) for row in rows
        ]


def build(study: Study, argument: str) -> LogitLens:
    vectors = study.neutral_states("reference", "function")
    with torch.inference_mode():
        baseline = study.subject.unembed(vectors).float().log_softmax(-1).mean(0).cpu()
    card = VerbalizerCard(
        name="logit-lens",
        role="baseline",
        description=f"Of the {SHORTLIST} likeliest tokens, the {N_TOKENS} raised most above their neutral mean.",
        settings={"subject": study.subject.fingerprint, "tokens": N_TOKENS, "shortlist": SHORTLIST},
    )
    return LogitLens(card, study.subject, baseline)


VERBALIZERS = {"logit-lens": build}
