"""The behaviour gate: does a direction steer at all? Chat requests, answered under upstream steering.

Whether a direction steers the subject is a property of the direction and of r, not of a verbalizer: every table can
then be read as *steers x verbalized*.

The *direction* is the unit. Any push in a fixed direction moves the answers to all requests alike toward something, so
a test over requests takes a push for a meaning: on SmolLM2 a paired t test over requests gave p <= 0.05 to 3% (r 0.05)
up to 49% (r 2) of permuted directions that it had not seen; the test here gives 3% to 7%.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from .decoding import decode
from .engine import Chunk, Engine
from .memory import halve_on_overflow
from .scoring.base import Scorer
from .store import Payload, array_fingerprint, content_key, merge_arrays
from .study import Study
from .subject import Prefix, pad_batch

#: Bump when a verdict changes. 2: permuted directions are the units, and not requests.
GATE_VERSION = 2

#: Bump when answers change: old ones in the store are then never used.
ANSWERS_VERSION = 1
NEW_TOKENS = 40

#: Mean loss of the answers under the unsteered subject, in nats a token; its own greedy answers have about 0.6.
MOST_LOSS = 3.5
LEAST_DISTINCT_2 = 0.5
FALSE_DISCOVERY_RATE = 0.05

REQUESTS = (
    "Write a short story.",
    "Tell me what you did this morning.",
    "Describe a person you know.",
    "Give me some advice for tomorrow.",
    "What are you thinking about?",
    "Write a short letter to a friend.",
    "Explain how something works.",
    "Describe a picture to me.",
)


def run_gate(study: Study, scorer: Scorer, engine: Engine) -> pd.DataFrame:
    """Steer every concept's direction at every strength of the gate and judge the answers.

    Returns one row per concept and r: `score` (mean standardized score of the concept's column over requests),
    `permuted` (the same column on the permuted directions' answers), `p` (see `exceeds`), `q` (Benjamini-Hochberg over
    all rows), `loss`, `distinct_2`, `steers` (passes all three), `example`.
    """
    plan = _plan_shifts(study)
    payloads = engine.run("behaviour gate (answers)", plan_gate(study))
    texts = [payload.record["texts"] for payload in payloads]
    losses = np.stack([payload.arrays["loss"] for payload in payloads])  # [n_requests, n_plan]
    columns = [study.pack.names.index(name) if name in study.pack.names else -1 for name, _, _ in plan]
    scores = np.stack([scorer.score(row) for row in texts])  # [n_requests, n_plan, n_concepts]
    repeated = np.array([[distinct_2(text) for text in row] for row in texts])
    rows = []
    for i, (name, r, _) in enumerate(plan):
        if columns[i] < 0:
            continue
        controls = [j for j, (other, s, _) in enumerate(plan) if other.startswith("permuted ") and s == r]
        own, control = scores[:, i, columns[i]].mean(), scores[:, controls, columns[i]].mean(0)
        rows.append(
            {
                "concept": name,
                "r": r,
                "score": float(own),
                "permuted": float(control.mean()),
                "p": exceeds(own, control),
                "loss": float(np.nanmean(losses[:, i])) if np.isfinite(losses[:, i]).any() else float("nan"),
                "distinct_2": float(repeated[:, i].mean()),
                "example": texts[0][i],
            }
        )
    table = pd.DataFrame(rows)
    table["q"] = stats.false_discovery_control(table["p"].to_numpy(), method="bh")
    table["steers"] = (
        (table["q"] <= FALSE_DISCOVERY_RATE)
        & (table["score"] > table["permuted"])
        & (table["loss"] <= MOST_LOSS)
        & (table["distinct_2"] >= LEAST_DISTINCT_2)
    )
    return table


def plan_gate(study: Study) -> list[Chunk]:
    """The gate's work: a chunk per chat request, answered under every shift."""
    requests = REQUESTS[: study.suite.gate_requests]
    shifts = torch.stack([vector * (r * study.readings.upstream_norm) for _, r, vector in _plan_shifts(study)])
    prefix = _chat_prefix(study, requests)
    return [_plan_answers(study, request, shifts, prefix) for request in requests]


def _plan_shifts(study: Study) -> list[tuple[str, float, Tensor]]:
    """(whose direction, r, the direction [d_model]): concepts, then permuted ones, and last the unsteered subject."""
    arms = [(name, study.upstream_directions[name].vector) for name in study.pack.names]
    arms += [(f"permuted {i}", study.permuted_upstream[i]) for i in range(study.suite.gate_permuted_draws)]
    plan = [(name, r, vector) for name, vector in arms for r in study.suite.gate_strengths]
    return [*plan, ("unsteered", 0.0, torch.zeros(study.subject.d_model))]


def distinct_2(text: str) -> float:
    """Distinct word pairs over word pairs (Li et al. 2016); 1 for a text of fewer than two words."""
    words = text.lower().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def exceeds(value: float, draws: NDArray[np.float64]) -> float:
    """One-sided p that one more draw from the population of `draws` [n] would be at least `value`.

    Student's t with n - 1 degrees of freedom of (value - mean) / (s * sqrt(1 + 1/n)), the prediction of one new
    observation (Fisher 1935). Where all draws are the same, nothing tells how far one may lie: 1 / (n + 1) above them,
    1 elsewhere.
    """
    spread = draws.std(ddof=1) * np.sqrt(1 + 1 / len(draws))
    if spread <= 1e-9:  # scores are of order 1: what differs less is the same text, summed in another order
        return 1 / (len(draws) + 1) if value > draws.mean() + 1e-9 else 1.0
    return float(stats.t.sf((value - draws.mean()) / spread, len(draws) - 1))


def _chat_prefix(study: Study, requests: Sequence[str]) -> Prefix:
    """What all chat prompts start with (a system turn, or the first tokens): cached, and not steered."""
    prompts = [study.subject.chat_ids(request) for request in requests]
    shared = 0
    while len({tuple(p[: shared + 1]) for p in prompts}) == 1 and shared + 1 < min(map(len, prompts)):
        shared += 1
    return study.subject.make_prefix(prompts[0][:shared]) if shared else Prefix((), (), ())


def _plan_answers(study: Study, request: str, shifts: Tensor, prefix: Prefix) -> Chunk:
    ids = study.subject.chat_ids(request)
    key = content_key(
        version=ANSWERS_VERSION, subject=study.subject.fingerprint, dtype=str(study.subject.dtype), ids=ids,
        prefix=len(prefix.ids), layer=study.injection_layer, new_tokens=NEW_TOKENS,
        shifts=array_fingerprint(shifts.numpy()),
    )  # fmt: skip
    return Chunk("behaviour", key, len(shifts), partial(_answer, study, ids, shifts, prefix))


def _answer(study: Study, ids: list[int], shifts: Tensor, prefix: Prefix) -> Payload:
    """One request under every shift [n, d_model]."""
    return halve_on_overflow(partial(_answer_at_once, study, ids, prefix), list(shifts), _join, "answers")


def _join(first: Payload, second: Payload) -> Payload:
    arrays = merge_arrays([first.arrays, second.arrays])
    return Payload(arrays, {"texts": [*first.record["texts"], *second.record["texts"]]})


def _answer_at_once(study: Study, ids: list[int], prefix: Prefix, shifts: Sequence[Tensor]) -> Payload:
    """The rows of a batch share the prompt and differ in the shift."""
    subject = study.subject
    moved = torch.stack(list(shifts)).to(subject.device, subject.dtype)
    own = ids[len(prefix.ids) :]

    def edit(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        return states + moved[rows][:, None].to(states.device)

    answers = decode(
        subject, [own] * len(shifts), max_new_tokens=NEW_TOKENS, prefix=prefix, edits={study.injection_layer: edit}
    )
    losses = answer_losses(study, subject.make_prefix(ids), [answer.ids for answer in answers])
    return Payload({"loss": losses}, {"texts": [answer.text for answer in answers]})


@torch.inference_mode()
def answer_losses(study: Study, prompt: Prefix, answers: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Mean loss of each answer after the prompt under the unsteered subject, in nats a token (nan for an empty one).

    The first token's loss is left out: it hangs on the prompt's last position, which the cache does not keep.
    """
    subject = study.subject
    losses = np.full(len(answers), np.nan)
    filled = [i for i, answer in enumerate(answers) if len(answer) > 1]
    if not filled:
        return losses
    ids, mask = (t.to(subject.device) for t in pad_batch([answers[i] for i in filled]))
    last = subject.n_blocks - 1
    streams = subject.run(ids, mask, capture=[last], prefix=prompt)[last]
    for row, i in enumerate(filled):  # row by row: the logits of all rows at once would take gigabytes
        length = len(answers[i])
        logits = subject.unembed(streams[row, : length - 1]).float()
        gold = ids[row, 1:length]
        losses[i] = float(torch.nn.functional.cross_entropy(logits, gold))
    return losses
