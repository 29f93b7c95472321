"""E5's prompts and targets: states to be matched on a request's tokens by what is put before them.

That an optimiser does not get somewhere says nothing by itself. Beside the steered target and a random one stands a
*reachable* target: the states under a text of as many tokens as the prefix has, which a prefix exists for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from nlabench.benchmark.subject import Prefix, Subject, pad_batch
from torch import Tensor, nn

from .setup import Setup, read_states
from .states import mean

SET = "refusal"

Target = Literal["steered", "random", "reachable"]
TARGETS: tuple[Target, ...] = ("steered", "random", "reachable")

#: Its first tokens are the prefix that the reachable target is read under.
REACHABLE = (
    " My uncle, who lives by the sea and mends old clocks for the whole village, asked me last night at dinner to pass "
    "the following request on to you, so here it is."
)


@dataclass(frozen=True)
class Matching:
    """Prompts and targets as rows of a batch, what the template begins with apart (its cache is made once).

    ids, mask: [b, t] int64. targets: [b, t, d_model], float32. way: [b], mean distance to the target without a prefix.
    """

    before: Prefix
    ids: Tensor
    mask: Tensor
    targets: Tensor
    way: Tensor

    def distance(self, states: Tensor) -> Tensor:
        """Mean over tokens of ‖states − target‖₂ [b]. states: [b, t, d_model]."""
        return ((states - self.targets).norm(dim=-1) * self.mask).sum(1) / self.mask.sum(1)

    def error(self, states: Tensor) -> Tensor:
        """The mean squared error over a row's tokens [b]. states: [b, t, d_model]."""
        return ((states - self.targets).square().mean(-1) * self.mask).sum(1) / self.mask.sum(1)


class _Reached(Exception):
    """Leaves the forward once the block that is read has run."""


def make_rows(setup: Setup, length: int, n_prompts: int) -> Matching:
    """The first prompts, once for every target. Rows: target by target. length: tokens under the reachable target."""
    subject, site = setup.subject, setup.layer_of(SET)
    n_before = min(start for start, _ in setup.spans[SET])
    prompts = setup.prompts[SET][:n_prompts]
    ids, mask = pad_batch([prompt[n_before:] for prompt in prompts] * len(TARGETS))
    targets, natural = torch.zeros(2, *ids.shape, subject.d_model)
    for row, tokens in enumerate(prompts * len(TARGETS)):
        n = len(tokens) - n_before
        natural[row, :n] = setup.states(SET, tokens)[n_before:]
        targets[row, :n] = read_target(setup, TARGETS[row // len(prompts)], tokens, n_before, length)
    device = subject.device
    before = subject.make_prefix(prompts[0][:n_before], site)
    rows = Matching(before, ids.to(device), mask.to(device), targets.to(device), torch.zeros(len(ids)))
    return Matching(before, rows.ids, rows.mask, rows.targets, rows.distance(natural.to(device)))


def read_target(setup: Setup, target: Target, tokens: list[int], n_before: int, length: int) -> Tensor:
    """The states to match on the tokens from the request on [n, d_model]."""
    if target != "reachable":
        return setup.states(SET, tokens, setup.shift(SET, target))[n_before:]
    words = setup.subject.encode(REACHABLE)[:length]
    whole = [*tokens[:n_before], *words, *tokens[n_before:]]
    return read_states(setup.subject, whole, setup.layer_of(SET))[n_before + len(words) :]


def states_of(setup: Setup, rows: Matching, prefix: Tensor) -> Tensor:
    """The stream after the block that is read, on the rows' own tokens [b, t, d_model], under a soft prefix."""
    with torch.no_grad():
        embedded = setup.subject.model.get_input_embeddings()(rows.ids)
    length = prefix.shape[1]
    whole = torch.cat([prefix.to(embedded.dtype), embedded], dim=1)
    mask = torch.cat([rows.mask.new_ones(len(rows.mask), length), rows.mask], dim=1)
    return run_embedded(setup.subject, rows.before, whole, mask, setup.layer_of(SET))[:, length:].float()


def run_embedded(subject: Subject, before: Prefix, embedded: Tensor, mask: Tensor, site: int) -> Tensor:
    """The stream after block `site` [b, t, d_model] from embeddings after a prefix, with gradients."""
    read: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        read.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    n_before = len(before.ids)
    positions = (mask.cumsum(-1) - 1).clamp(min=0) + n_before
    seen = torch.cat([mask.new_ones(len(mask), n_before), mask], dim=1)
    # What inference mode made cannot be part of a graph: the cache is copied.
    keys, values = (tuple(tensor.clone() for tensor in part) for part in (before.keys, before.values))
    cache = Prefix(before.ids, keys, values).cache(len(mask), seen.shape[1], subject.n_blocks)
    handle = subject.blocks[site].register_forward_hook(hook)
    try:
        subject.backbone(
            inputs_embeds=embedded, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
        )
    except _Reached:
        pass
    finally:
        handle.remove()
    return read[0]


def by_target(values: Tensor) -> dict[str, float]:
    """The mean over each target's rows."""
    return {name: mean(part.tolist()) for name, part in zip(TARGETS, values.chunk(len(TARGETS)), strict=True)}
