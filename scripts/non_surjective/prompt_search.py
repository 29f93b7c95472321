"""E5, prompt optimisation: tokens before the request, exchanged one at a time until the natural states match a target.

Greedy coordinate gradient (Zou et al. 2023, arXiv 2307.15043): the gradient of the squared error with respect to each
token's one-hot vector ranks all exchanges to first order, some of the best are tried, and the best of those is kept
where it brings the states nearer. What is found is a prompt, and no embedding that belongs to no token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .matching import Matching, by_target, make_rows, states_of
from .setup import Setup
from .timing import time_call

#: Exchanges that the gradient ranks first, for each place.
RANKED = 64

#: Rows in one forward.
ROWS_AT_ONCE = 96


@dataclass(frozen=True)
class Amount:
    """length: of the prompt in tokens; tried: exchanges in one step, for every row."""

    length: int
    steps: int
    tried: int
    prompts: int


QUICK, FULL = Amount(5, 16, 24, 1), Amount(10, 100, 48, 3)


def amount(setup: Setup) -> Amount:
    return QUICK if setup.quick else FULL


def estimate(setup: Setup) -> float:
    """From a gradient, and the error of a few of the rows that one step tries."""
    size = amount(setup)
    rows = make_rows(setup, size.length, size.prompts)
    tokens = start_tokens(setup, len(rows.ids), size.length)
    some = max(1, ROWS_AT_ONCE // 4 // len(tokens))
    few, theirs = repeat_rows(rows, some), tokens.repeat_interleave(some, 0)
    tried = time_call(lambda: measure(setup, few, theirs)) / some * (size.tried + 1)
    return (time_call(lambda: rank_exchanges(setup, rows, tokens)) + tried) * size.steps


def search(setup: Setup) -> dict[str, Any]:
    """Per target: the share of the way that the best prompt leaves, by step too, and the prompt."""
    size = amount(setup)
    rows = make_rows(setup, size.length, size.prompts)
    tokens = start_tokens(setup, len(rows.ids), size.length)
    generator = torch.Generator().manual_seed(setup.seed)
    curve = [by_target(measure(setup, rows, tokens)[1] / rows.way)]
    for _ in range(size.steps):
        tokens, distances = exchange(setup, rows, tokens, generator)
        curve.append(by_target(distances / rows.way))
    setup.say(f"E5: {size.steps} exchanges of {size.length} tokens done")
    return {
        "length": size.length,
        "steps": size.steps,
        "tried": size.tried,
        "left": curve[-1],
        "curve": curve,
        "prompts": [setup.subject.tokenizer.decode(ids) for ids in tokens.tolist()],
    }


def start_tokens(setup: Setup, n_rows: int, length: int) -> Tensor:
    """Random tokens [n_rows, length], the same in every row."""
    generator = torch.Generator().manual_seed(setup.seed + length)
    drawn = torch.randint(setup.subject.vocab_size, (1, length), generator=generator)
    return drawn.expand(n_rows, -1).clone().to(setup.subject.device)


def exchange(setup: Setup, rows: Matching, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One step: each row's tokens [b, length] after the best exchange that was tried, and its distance [b]."""
    tried = amount(setup).tried
    ranked = rank_exchanges(setup, rows, tokens).cpu()
    n_rows, length = tokens.shape
    places = torch.randint(length, (n_rows, tried), generator=generator)
    choices = torch.randint(ranked.shape[-1], (n_rows, tried), generator=generator)
    picked = ranked[torch.arange(n_rows)[:, None], places, choices]
    candidates = tokens[:, None].repeat(1, tried + 1, 1)  # the last of each row stays as it is
    which = torch.arange(n_rows)[:, None], torch.arange(tried), places
    candidates[which] = picked.to(tokens)
    repeated = repeat_rows(rows, tried + 1)
    squared, distances = (
        values.view(n_rows, tried + 1) for values in measure(setup, repeated, candidates.flatten(0, 1))
    )
    best = squared.argmin(1, keepdim=True)
    chosen = candidates.gather(1, best[..., None].expand(-1, -1, length))[:, 0]
    return chosen, distances.gather(1, best)[:, 0]


def rank_exchanges(setup: Setup, rows: Matching, tokens: Tensor) -> Tensor:
    """The tokens that the gradient would put in each place [b, length, RANKED], in no order."""
    embed = setup.subject.model.get_input_embeddings()
    with torch.no_grad():
        table = embed(torch.arange(setup.subject.vocab_size, device=tokens.device))  # scaled, where the family scales
        start = embed(tokens)
    prefix = start.clone().requires_grad_()
    rows.error(states_of(setup, rows, prefix)).sum().backward()
    assert prefix.grad is not None
    rise = prefix.grad @ table.T  # [b, length, vocab], to first order
    return rise.topk(min(RANKED, rise.shape[-1]), largest=False).indices


@torch.no_grad()
def measure(setup: Setup, rows: Matching, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared errors and distances of rows under their own tokens, both [b]."""
    embed, found = setup.subject.model.get_input_embeddings(), []
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        own = Matching(rows.before, rows.ids[part], rows.mask[part], rows.targets[part], rows.way[part])
        states = states_of(setup, own, embed(tokens[part]))
        found.append(torch.stack([own.error(states), own.distance(states)]))
    squared, distances = torch.cat(found, dim=1)
    return squared, distances


def repeat_rows(rows: Matching, times: int) -> Matching:
    """Every row, `times` times in a row."""
    parts = (part.repeat_interleave(times, 0) for part in (rows.ids, rows.mask, rows.targets, rows.way))
    return Matching(rows.before, *parts)
