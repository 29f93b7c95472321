"""The subject run on from the site with another vector in the place of a state: what does it still compute?

A state that is replaced after block K at one position changes nothing before that block, and no other position's stream
up to it. So the text is read once, its other states stay as they are, and a vector costs the blocks after K on its
own token and the few that follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .activations import Readout
from .engine import Chunk, Engine
from .reading import FOLLOWING_TOKENS, make_preamble
from .store import Payload, array_fingerprint, content_key
from .study import Study
from .subject import Prefix, Subject

Floats = NDArray[np.float64]

#: Bump when the way vectors are put back changes.
ROUND_TRIP_VERSION = 1

#: Vectors in one run of the blocks. Small: every batch is filled up to it, and its logits are held in memory.
ROWS_PER_BATCH = 8

#: Items of one chunk of work at most: the distributions of their own runs are held in memory.
ITEMS_PER_CHUNK = 32


@dataclass(frozen=True)
class RoundTrips:
    """What the subject computes from vectors put in the place of items' states.

    kl: KL(the item's own run ‖ this run) of the next-token distribution at the readout, in nats [n_items, n_vectors].
    kl_plain: the same from the plain run, on the text as it was read. loss: mean loss of the FOLLOWING_TOKENS tokens
    that follow, in nats a token.
    """

    kl: Floats
    kl_plain: Floats
    loss: Floats


def make_round_trips(
    study: Study, readouts: Sequence[Readout], own: Tensor, vectors: Tensor, engine: Engine, stage: str
) -> RoundTrips:
    """Put vectors in the place of items' states, one chunk of work per readout.

    readouts: of kind `mid`, one per item. own: the items' own vectors [n_items, d_model]; vectors: what each item is
    replaced by [n_items, n_vectors, d_model]; both float32. At one readout, equal vectors are run once.
    """

    @cache
    def deep_preamble() -> Prefix:  # the study's own goes no further than the site, and a resumed run needs neither
        return make_preamble(study.subject, study.subject.n_blocks - 1)

    groups: dict[Readout, list[int]] = {}
    for item, readout in enumerate(readouts):
        groups.setdefault(readout, []).append(item)
    parts = [
        (readout, items[start : start + ITEMS_PER_CHUNK])
        for readout, items in groups.items()
        for start in range(0, len(items), ITEMS_PER_CHUNK)
    ]
    plans = [_Plan.of(study.state(readout), own[items], vectors[items]) for readout, items in parts]
    chunks = [plan.chunk(study, readout, deep_preamble) for (readout, _), plan in zip(parts, plans, strict=True)]
    payloads = engine.run(stage, chunks)
    kl, kl_plain, loss = (np.empty(vectors.shape[:2]) for _ in range(3))
    for (_, items), plan, payload in zip(parts, plans, payloads, strict=True):
        found, lost = payload.arrays["kl"], payload.arrays["loss"]
        kl[items] = found[plan.number_of_own[:, None], plan.numbers]
        kl_plain[items] = found[0, plan.numbers]
        loss[items] = lost[plan.numbers]
    return RoundTrips(kl, kl_plain, loss)


@dataclass(frozen=True)
class _Plan:
    """The distinct vectors of a chunk. origins [n_origins, d_model]: the unsteered state, then items' own vectors.

    numbers [n_items, n_vectors] and number_of_own [n_items] say where each lies among origins and others together.
    """

    origins: Tensor
    others: Tensor
    number_of_own: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, unsteered: Tensor, own: Tensor, vectors: Tensor) -> _Plan:
        number: dict[bytes, int] = {}
        distinct: list[Tensor] = []

        def add(vector: Tensor) -> int:
            key = vector.numpy().tobytes()
            if key not in number:
                number[key] = len(distinct)
                distinct.append(vector)
            return number[key]

        add(unsteered)
        number_of_own = np.array([add(vector) for vector in own])
        n_origins = len(distinct)
        numbers = np.array([[add(vector) for vector in row] for row in vectors])
        every = torch.stack(distinct)
        return cls(every[:n_origins], every[n_origins:], number_of_own, numbers)

    def chunk(self, study: Study, readout: Readout, preamble: Callable[[], Prefix]) -> Chunk:
        ids = study.texts[readout.text_id].ids[: readout.index + 1 + FOLLOWING_TOKENS]
        key = content_key(
            version=ROUND_TRIP_VERSION, **study.reading_key(), layer=study.site.layer, ids=ids, index=readout.index,
            origins=array_fingerprint(self.origins.numpy()), others=array_fingerprint(self.others.numpy()),
        )  # fmt: skip
        size = len(self.origins) + len(self.others)
        return Chunk("round_trip", key, size, partial(self._compute, study, ids, readout.index, preamble))

    def _compute(self, study: Study, ids: Sequence[int], index: int, preamble: Callable[[], Prefix]) -> Payload:
        kl, loss = put_back(study.subject, preamble(), ids, index, study.site.layer, self.origins, self.others)
        return Payload({"kl": kl.numpy(), "loss": loss.numpy()})


@torch.inference_mode()
def put_back(
    subject: Subject, preamble: Prefix, ids: Sequence[int], index: int, layer: int, origins: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the subject on from a site with vectors in the place of one state of a text.

    preamble: the cache of what comes before the text, of every block. ids: the text; its state after block `layer` at
    position `index` (at least 1) is replaced. origins [n_origins, d_model], others [n_others, d_model]: float32.
    Returns, for all of origins and then others:
    kl [n_origins, n_origins + n_others]: KL(run on the origin ‖ run on the vector) of the next token after `index`;
    loss [n_origins + n_others]: mean loss of the FOLLOWING_TOKENS tokens after it. Nats, float64 on the CPU. A vector's
    figures do not depend on the others beyond float64's last digits.

    Raises:
        ValueError: too few tokens follow, or none comes before.
    """
    end = index + FOLLOWING_TOKENS
    if index < 1 or len(ids) <= end:
        raise ValueError(
            f"Position {index} of {len(ids)} tokens; expected one with a token before it and {FOLLOWING_TOKENS} after. "
            "Take a readout of the kind `mid`."
        )
    before = subject.make_prefix(ids[:index], after=preamble)
    tokens = torch.tensor([list(ids[index:end])], device=subject.device)
    states = subject.run(tokens, torch.ones_like(tokens), capture=[layer], prefix=before)[layer]
    gold = torch.tensor(list(ids[index + 1 : end + 1]), device=subject.device)
    runs = _run_on(subject, before, layer, tokens, states, gold, torch.cat([origins, others]))
    first = list(islice(runs, math.ceil(len(origins) / ROWS_PER_BATCH)))
    log_p = torch.cat([next_token for next_token, _ in first])[: len(origins)]
    kl, loss = [], []
    for next_token, lost in chain(first, runs):
        kl.append(divergences(log_p, next_token))
        loss.append(lost)
    return torch.cat(kl, dim=1), torch.cat(loss)


def _run_on(
    subject: Subject, before: Prefix, layer: int, tokens: Tensor, states: Tensor, gold: Tensor, vectors: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per batch of vectors: log-probabilities of the next token [b, vocab] and mean losses [b], float64 on the CPU.

    tokens [1, t] and states [1, t, d_model] begin at the position that is replaced; gold [t] follows each of them.
    """
    last = subject.n_blocks - 1
    # A batch of another size can be multiplied by another kernel and differ in the last bit: every batch is full.
    repeated = tokens.expand(ROWS_PER_BATCH, -1)
    for batch in torch.split(vectors.to(states), ROWS_PER_BATCH):
        entered = states.repeat(ROWS_PER_BATCH, 1, 1)
        entered[: len(batch), 0] = batch
        streams = subject.run(
            repeated, torch.ones_like(repeated), capture=[last], prefix=before, enter=(layer, entered)
        )[last]
        logits = subject.unembed(streams.flatten(0, 1)).float().view(*streams.shape[:2], -1)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), gold.repeat(ROWS_PER_BATCH), reduction="none"
        ).view(ROWS_PER_BATCH, -1)
        # float64: two distributions that nearly agree are a difference of sums that nearly cancel.
        next_token = logits[: len(batch), 0].cpu().double().log_softmax(-1)
        yield next_token, losses[: len(batch)].cpu().double().mean(-1)


def divergences(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each p with each q, from log-probabilities [n, vocab] and [m, vocab] -> [n, m], in nats.

    The cross-entropy less the entropy, each as one product of matrices; never below 0.
    """
    p = log_p.exp()
    entropy = -(p * log_p).sum(-1, keepdim=True)
    return (-(p @ log_q.T) - entropy).clamp(min=0)
