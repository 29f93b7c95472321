"""E5, soft prefixes: free embeddings before the request, optimised until the natural states match a target.

The prefix stands between the template's first tokens and the request; every position from the request on is matched,
at site `layer`, by Adam on the mean squared error, as in the public code. A soft prefix is no prompt: its embeddings
belong to no tokens, so the nearest tokens take their place afterwards.

That an optimiser does not get somewhere says nothing by itself. Beside the steered target and a random one stands a
*reachable* target: the states under a text of as many tokens as the prefix has embeddings, which a prefix exists for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from nlabench.benchmark.subject import Prefix, Subject, pad_batch
from torch import Tensor, nn

from .rows import Outcome, Row
from .setup import Setup, read_states
from .states import mean
from .verdicts import Judged, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SET = "refusal"

Target = Literal["steered", "random", "reachable"]
TARGETS: tuple[Target, ...] = ("steered", "random", "reachable")

#: Its first tokens are the prefix that the reachable target is read under.
REACHABLE = (
    " My uncle, who lives by the sea and mends old clocks for the whole village, asked me last night at dinner to pass "
    "the following request on to you, so here it is."
)

#: A steered state counts as not reached where at least this share of the way is left, and of the reachable target's
#: way at most half of that share.
LEAST_LEFT = 0.1

#: Adam's rate, and the first embeddings' deviation as a share of the embedding table's.
RATE, START = 0.02, 0.1


@dataclass(frozen=True)
class Amount:
    """How much is optimised."""

    lengths: tuple[int, ...]
    steps: int
    prompts: int


QUICK = Amount((1, 5, 25), 80, 1)
FULL = Amount((1, 2, 5, 10, 15, 20, 25), 300, 5)


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


class _Reached(Exception):
    """Leaves the forward once the block that is read has run."""


def amount(setup: Setup) -> Amount:
    return QUICK if setup.quick else FULL


def estimate(setup: Setup) -> float:
    seconds = 0.0
    for length in amount(setup).lengths:
        rows = make_rows(setup, length)
        prefix = start_prefix(setup, len(rows.ids), length)
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            step(setup, rows, prefix)
            taken.append(time.perf_counter() - start)
        seconds += min(taken) * amount(setup).steps
    return seconds


def run(setup: Setup) -> Outcome:
    """A prefix of every length for every prompt and target, optimised side by side."""
    found = []
    for length in amount(setup).lengths:
        found.append({"length": length, **optimise(setup, make_rows(setup, length), length)})
        setup.say(f"E5: prefixes of {length} done")
    data: dict[str, Any] = {"steps": amount(setup).steps, "prompts": amount(setup).prompts, "lengths": found}
    best = {name: min(found, key=lambda cell, n=name: cell["left"][n]) for name in TARGETS}
    left = {name: best[name]["left"][name] for name in TARGETS}
    steered = best["steered"]
    told = f"{left['steered']:.0%} of the way left, at {steered['length']} embeddings"
    nothing: Judged = ("no figure", "no figure of it is given")
    missing: Judged = ("not rerun", "a search by hand or by another model, with no figure to compare")
    rows = [
        Row(
            "best soft prefix of 1 to 25 embeddings", "does not reach the steered states (App. F)", told,
            *judge_reach(left["steered"], left["reachable"]),
        ),
        Row("the same toward states that a prompt gives", "-", f"{left['reachable']:.0%} of the way left", *nothing),
        Row("the same toward a random vector's states", "-", f"{left['random']:.0%} of the way left", *nothing),
        Row(
            "the best prefix's nearest tokens in its place", "-",
            f"{steered['left_discrete']['steered']:.0%} of the way left; the tokens lie "
            f"{steered['to_tokens']['steered']:.2g} from the embeddings",
            *nothing,
        ),
        Row("copying; prompt optimisation", "do not reach it (App. F)", "-", *missing),
    ]  # fmt: skip
    notes = [
        f"{amount(setup).prompts} prompt(s), {amount(setup).steps} steps of Adam at {RATE}; the way is the mean over "
        "tokens of the distance between the target and the natural states without a prefix. Over 100%: further away "
        "than with no prefix at all.",
    ]
    return Outcome("E5", "Soft prefixes (App. F)", rows, data, lambda figure: draw(figure, data), notes)


def judge_reach(steered: float, reachable: float) -> Judged:
    """Not reached, by an optimiser that reaches what can be reached; an optimiser that does not can tell nothing."""
    told = f"left {steered:.0%}, of the reachable way {reachable:.0%}"
    if steered >= LEAST_LEFT and reachable > steered / 2:
        return "not rerun", f"too weak to tell: states that a prompt gives are not reached either ({told})"
    return judge_property(f"at least {LEAST_LEFT:.0%} left, twice what the reachable has", steered >= LEAST_LEFT, told)


def make_rows(setup: Setup, length: int) -> Matching:
    """The first prompts, once for every target. Rows: target by target."""
    subject, site = setup.subject, setup.layer_of(SET)
    n_before = min(start for start, _ in setup.spans[SET])
    prompts = setup.prompts[SET][: amount(setup).prompts]
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


def start_prefix(setup: Setup, n_rows: int, length: int) -> nn.Parameter:
    """Small random embeddings [n_rows, length, d_model], the same in every row."""
    table = setup.subject.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(setup.seed + length)
    drawn = torch.randn(1, length, setup.subject.d_model, generator=generator) * START * float(table.float().std())
    return nn.Parameter(drawn.expand(n_rows, -1, -1).to(table.device, table.dtype).clone())


def states_of(setup: Setup, rows: Matching, prefix: Tensor) -> Tensor:
    """The stream after the block that is read, on the rows' own tokens [b, t, d_model], under a soft prefix."""
    with torch.no_grad():
        embedded = setup.subject.model.get_input_embeddings()(rows.ids)
    length = prefix.shape[1]
    whole = torch.cat([prefix, embedded], dim=1)
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


def step(setup: Setup, rows: Matching, prefix: nn.Parameter) -> tuple[Tensor, Tensor]:
    """One forward and backward. Returns the rows' mean squared errors and distances, both [b]."""
    prefix.grad = None
    states = states_of(setup, rows, prefix)
    squared = ((states - rows.targets).square().mean(-1) * rows.mask).sum(1) / rows.mask.sum(1)
    squared.sum().backward()  # rows do not touch one another, and Adam goes by single numbers: this is a row each
    return squared.detach(), rows.distance(states.detach())


def optimise(setup: Setup, rows: Matching, length: int) -> dict[str, Any]:
    """Per target: the share of the way that the best prefix leaves, and its nearest tokens; and the share by step."""
    embed = setup.subject.model.get_input_embeddings()
    prefix = start_prefix(setup, len(rows.ids), length)
    adam = torch.optim.Adam([prefix], lr=RATE)
    least = torch.full((len(rows.ids),), float("inf"), device=rows.ids.device)
    best = prefix.detach().clone()
    curve = []
    for _ in range(amount(setup).steps):
        squared, distances = step(setup, rows, prefix)
        better = squared < least
        least[better], best[better] = squared[better], prefix.detach()[better]
        curve.append(by_target(distances / rows.way))
        adam.step()
    nearest, away = nearest_tokens(setup.subject, best)
    with torch.no_grad():
        soft = rows.distance(states_of(setup, rows, best))
        discrete = rows.distance(states_of(setup, rows, embed(nearest)))
    return {
        "way": by_target(rows.way),
        "distance": by_target(soft),
        "left": by_target(soft / rows.way),
        "left_discrete": by_target(discrete / rows.way),
        "to_tokens": by_target(away.mean(1)),
        "tokens": [setup.subject.tokenizer.decode(ids) for ids in nearest.tolist()],
        "curve": {name: [at[name] for at in curve] for name in TARGETS},
    }


@torch.no_grad()
def nearest_tokens(subject: Subject, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The token whose embedding is nearest to each [b, length], and how far it is."""
    embed = subject.model.get_input_embeddings()
    every = torch.arange(embed.weight.shape[0], device=embeddings.device)
    table = embed(every).float()  # through the module: some families scale what the table holds
    distances = torch.stack([torch.cdist(row.float(), table) for row in embeddings])
    least = distances.min(-1)
    return least.indices, least.values


def by_target(values: Tensor) -> dict[str, float]:
    """The mean over each target's rows."""
    return {name: mean(part.tolist()) for name, part in zip(TARGETS, values.chunk(len(TARGETS)), strict=True)}


COLORS = {"steered": "C3", "random": "C7", "reachable": "C2"}


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """Left: the share left by step, for the longest prefix. Right: by length, soft and with the nearest tokens."""
    left, right = figure.subplots(1, 2)
    lengths = [cell["length"] for cell in data["lengths"]]
    for name, color in COLORS.items():
        for number, cell in enumerate(data["lengths"]):
            shade = 0.25 + 0.75 * number / max(1, len(lengths) - 1)
            label = name if number == len(lengths) - 1 else None
            left.plot(cell["curve"][name], color=color, alpha=shade, linewidth=1.2, label=label)
        right.plot(lengths, [cell["left"][name] for cell in data["lengths"]], "o-", color=color, label=f"{name}, soft")
        tokens = [cell["left_discrete"][name] for cell in data["lengths"]]
        right.plot(lengths, tokens, "x:", color=color, linewidth=1, label=f"{name}, nearest tokens")
    left.set_xlabel("step (darker: longer prefix)")
    left.set_ylabel("distance left, as a share of the way")
    right.set_xlabel("embeddings in the prefix")
    left.set_ylim(0, 3)
    right.set_ylim(0, 1.5 * max(right.get_ylim()))
    left.legend(fontsize=7)
    right.legend(fontsize=7, ncols=2, loc="upper left")
    for axis in (left, right):
        axis.axhline(1, color="k", linestyle=":", linewidth=1)
        axis.grid(alpha=0.3)
