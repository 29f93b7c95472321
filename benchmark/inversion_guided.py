"""SIP-It's order: tokens near an embedding that follows the gradient are tried first (arXiv 2510.15511).

The fast path for natural activations: a token is accepted as soon as its state lies within ε of the target, and few
tokens are tried. It proves nothing where it finds nothing: then every token is tried, which does.

Where to start is ours. The states of a few hundred random tokens after the prefix are computed, and a ridge regression
from states to embeddings, applied to the target, gives the first embedding. The gradient of the distance leads on from
there.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from .inversion import CRITERIA, Criteria, Position
from .inversion_kernels import attend_to_shared_prefix
from .inversion_scan import Scanner
from .subject import Prefix, _ReachedLastBlock

#: Random tokens from whose states the first embedding is estimated; the larger number where that led nowhere.
SAMPLES = (512, 3072)

#: Tokens nearest to the embedding that are tried after each step.
TRIED_AT_ONCE = 128

#: Steps of the gradient from each estimate.
MOST_STEPS = 3

#: Ridge penalty, in units of the mean squared length of a centred state; at the first position of a standardised one.
RIDGE, RIDGE_FIRST = 0.3, 0.03


@dataclass(frozen=True)
class Guided:
    """One position. tried: tokens whose states were computed. exhaustive: the whole vocabulary had to be."""

    position: Position
    tried: int
    steps: int
    exhaustive: bool
    seconds: float


def invert_guided(
    scanner: Scanner, targets: Tensor, *, criteria: Criteria = CRITERIA, most_steps: int = MOST_STEPS
) -> list[Guided]:
    """Recover the tokens of one sequence of states [n_tokens, d_model] in SIP-It's order.

    A position takes at most every token of the vocabulary, so a sequence takes at most T·|V|. Where not even the
    nearest token is within the relative ε, the nearest is taken.
    """
    table, prefix, found = enter_states(scanner), scanner.empty_prefix(), []
    for index, target in enumerate(targets.to(scanner.subject.device, torch.float32)):
        found.append(_find_token(scanner, table, prefix, target, index, criteria, most_steps))
        prefix = scanner.extend(prefix, found[-1].position.token)
    return found


def _find_token(
    scanner: Scanner, table: Tensor, prefix: Prefix, target: Tensor, index: int, criteria: Criteria, most_steps: int
) -> Guided:
    """The token after the prefix whose state is the target [d_model]. table: [vocab, d_model]."""
    start = time.perf_counter()
    norm, shared = float(target.norm()), scanner.shares(prefix)
    distances = table.new_full((len(table),), torch.inf)

    def accept(steps: int) -> Guided | None:
        if distances.min() >= criteria.relative * norm:
            return None
        best = distances.topk(min(2, len(table)), largest=False)
        position = Position(index, tuple(best.indices.tolist()), tuple(best.values.tolist()), norm)
        return Guided(position, int(distances.isfinite().sum()), steps, False, time.perf_counter() - start)

    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(index)).to(table.device)
    states, middle, taken, steps = table.new_empty(0, table.shape[1]), table.mean(0), 0, 0
    for size in SAMPLES:
        if taken == len(table):
            break
        sample, taken = order[taken:size], min(size, len(table))
        states = torch.cat([states, *scanner.states(prefix, sample, shared=shared)])
        distances[order[:taken]] = (states - target).norm(dim=1)
        embedding = estimate_embedding(states, table[order[:taken]], target, first=not prefix.ids)
        for step in range(most_steps + 1):
            if step and shared:  # without the shared prefix the attention is not ours to differentiate
                embedding, steps = _follow_gradient(scanner, table, prefix, embedding, target), steps + 1
            # By angle from the mean: frequent tokens have short embeddings, which distance would put first or last.
            nearness = torch.cosine_similarity(table - middle, (embedding - middle)[None])
            nearness[distances.isfinite()] = -torch.inf
            nearest = nearness.topk(min(TRIED_AT_ONCE, len(table))).indices
            distances[nearest] = scanner.distances(prefix, nearest, target[None], shared=shared)[0]
            if (found := accept(steps)) is not None:
                return found
    every = scanner.scan(prefix, target[None])
    position = Position(index, tuple(every.tokens[0].tolist()), tuple(every.distances[0].tolist()), norm)
    return Guided(position, len(table), steps, True, time.perf_counter() - start)


def estimate_embedding(states: Tensor, embeddings: Tensor, target: Tensor, *, first: bool = False) -> Tensor:
    """The embedding [d_model] that a ridge regression from states [n, d_model] to embeddings gives the target.

    States that are several times as long as most (attention sinks) are left out. first: of the first position, where
    all are sinks and a few coordinates vary a hundred times as much as the rest; coordinates are then standardised.
    """
    lengths = states.norm(dim=1)
    usual = lengths < 3 * lengths.median()
    states, embeddings = states[usual], embeddings[usual]
    scale = states.std(0).clamp(min=1e-12) if first else torch.ones_like(target)
    centred, middle = (states - states.mean(0)) / scale, embeddings.mean(0)
    products = centred @ centred.T
    ridge = RIDGE_FIRST if first else RIDGE
    penalty = ridge * products.diagonal().mean() * torch.eye(len(products), device=products.device)
    weights = torch.linalg.solve(products + penalty, centred @ ((target - states.mean(0)) / scale))
    estimate: Tensor = middle + weights @ (embeddings - middle)
    return estimate


def _follow_gradient(scanner: Scanner, table: Tensor, prefix: Prefix, embedding: Tensor, target: Tensor) -> Tensor:
    """One step of Polyak's length down the gradient of the distance, whose least value is known to be 0."""
    subject = scanner.subject
    # Tensors made in inference mode cannot take part in a gradient; copies made outside it can.
    kept = Prefix(prefix.ids, tuple(k.clone() for k in prefix.keys), tuple(v.clone() for v in prefix.values))
    ids = torch.zeros(1, 1, dtype=torch.long, device=subject.device)
    # Families with learned positions add them to what enters block 0: the table has those of position 0.
    moved = torch.zeros_like(embedding) if not prefix.ids else _entered(scanner, ids, kept)[0] - table[0]
    with torch.enable_grad():
        free = (embedding + moved).clone().requires_grad_(True)
        captured: dict[int, Tensor] = {}

        def replace(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
            return free[None, None]

        with (
            attend_to_shared_prefix(subject, kept) as shared,
            subject._edit_block(-1, replace, ids[:, 0]),
            subject._capture_block(scanner.layer, captured, leave=True),
            contextlib.suppress(_ReachedLastBlock),
        ):
            cache = subject.start_cache(shared, 1, 1)
            inputs = subject._inputs(ids, torch.ones_like(ids), shared)
            subject.backbone(**inputs, past_key_values=cache, use_cache=True)
        distance = (captured[scanner.layer][0, 0].to(target.device) - target).norm()
        (gradient,) = torch.autograd.grad(distance, free)
    stepped: Tensor = embedding - distance.detach() * gradient / gradient.square().sum().clamp(min=1e-30)
    return stepped


def enter_states(scanner: Scanner) -> Tensor:
    """What each token enters block 0 as, at position 0 [vocab, d_model]: its embedding, scaled where it is."""
    ids = torch.arange(scanner.subject.vocab_size, device=scanner.subject.device)[:, None]
    return torch.cat([_entered(scanner, batch, None) for batch in torch.split(ids, 4096)]).clone()


def _entered(scanner: Scanner, ids: Tensor, prefix: Prefix | None) -> Tensor:
    """What enters block 0 for single tokens [n, 1] after a prefix [n, d_model]."""
    entered: list[Tensor] = []

    def leave(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        entered.append(states[:, 0].float())
        raise _ReachedLastBlock

    scanner.subject.run(ids, torch.ones_like(ids), capture=[0], prefix=prefix, edits={-1: leave})
    return entered[0]
