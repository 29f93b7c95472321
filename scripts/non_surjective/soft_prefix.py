"""E5, soft prefixes: free embeddings before the request, optimised until the natural states match a target.

The prefix stands between the template's first tokens and the request; every position from the request on is matched,
at site `layer`, by Adam on the mean squared error, as in the public code. A soft prefix is no prompt: its embeddings
belong to no tokens, so the nearest tokens take their place afterwards.

The targets are in `matching`; a prefix of tokens is searched in `prompt_search`, and `copying` is the third way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from nlabench.benchmark.subject import Subject
from torch import Tensor, nn

from .copying import estimate as estimate_copying
from .copying import measure_copying
from .matching import TARGETS, Matching, by_target, make_rows, states_of
from .prompt_search import FULL as FULL_SEARCH
from .prompt_search import estimate as estimate_search
from .prompt_search import search as search_prompts
from .rows import Outcome, Row
from .setup import Setup
from .timing import time_call
from .verdicts import Judged, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


QUICK = Amount((1, 25), 80, 1)
FULL = Amount((1, 2, 5, 10, 15, 20, 25), 300, 5)


def amount(setup: Setup) -> Amount:
    return QUICK if setup.quick else FULL


def estimate(setup: Setup) -> float:
    """From a step with each length, and see the two other searches."""
    seconds = 0.0
    for length in amount(setup).lengths:
        rows = make_rows(setup, length, amount(setup).prompts)
        prefix = start_prefix(setup, len(rows.ids), length)
        seconds += time_call(lambda r=rows, p=prefix: step(setup, r, p)) * amount(setup).steps
    return seconds + estimate_search(setup) + estimate_copying(setup)


def run(setup: Setup) -> Outcome:
    """A prefix of every length for every prompt and target, optimised side by side."""
    found = []
    for length in amount(setup).lengths:
        found.append({"length": length, **optimise(setup, make_rows(setup, length, amount(setup).prompts), length)})
        setup.say(f"E5: prefixes of {length} done")
    data: dict[str, Any] = {"steps": amount(setup).steps, "prompts": amount(setup).prompts, "lengths": found}
    searched = search_prompts(setup)
    copied = measure_copying(setup)
    data |= {"prompt_search": searched, "copying": copied}
    best = {name: min(found, key=lambda cell, n=name: cell["left"][n]) for name in TARGETS}
    left = {name: best[name]["left"][name] for name in TARGETS}
    steered = best["steered"]
    told = f"{left['steered']:.0%} of the way left, at {steered['length']} embeddings"
    lengths = ", ".join(map(str, amount(setup).lengths))
    nothing: Judged = ("no figure", "no figure of it is given")
    tokens = searched["left"]
    rows = [
        Row(
            f"best soft prefix of {lengths} embeddings", "does not reach the steered states (App. F)", told,
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
        Row(
            f"prompt optimisation: {searched['length']} tokens, {searched['steps']} exchanges by gradient",
            "does not reach it (App. F)", f"{tokens['steered']:.0%} of the way left",
            *judge_reach(tokens["steered"], tokens["reachable"]),
        ),
        Row(
            "the same toward states that a prompt gives, and a random vector's", "-",
            f"{tokens['reachable']:.0%} and {tokens['random']:.0%} of the way left", *nothing,
        ),
        *(copying_row(name, cell, times) for name, cells in copied.items() for times, cell in cells.items()),
    ]  # fmt: skip
    notes = [
        f"{amount(setup).prompts} prompt(s), {amount(setup).steps} steps of Adam at {RATE}; the way is the mean over "
        "tokens of the distance between the target and the natural states without a prefix. Over 100%: further away "
        "than with no prefix at all.",
        "Prompt optimisation is greedy coordinate gradient here; the public code has a language model rewrite prompts "
        "toward the steered answer (GEPA), and a prefix of tokens beside it.",
        "A copied answer stands elsewhere: where its states lie about as far from the natural ones of the same tokens "
        "as from the steered ones, the row says little of steering.",
    ]
    if setup.quick:
        full = ", ".join(map(str, FULL.lengths))
        notes.append(
            f"Quick: one prompt, {QUICK.steps} steps with prefixes of {lengths} embeddings, {searched['steps']} "
            f"exchanges in {searched['length']} tokens, 3 answers of each set copied; in full {FULL.prompts} prompts, "
            f"{FULL.steps} steps with {full} embeddings, {FULL_SEARCH.steps} exchanges in {FULL_SEARCH.length} tokens "
            f"before {FULL_SEARCH.prompts} prompts, 10 answers."
        )
    return Outcome("E5", "Other searches (App. F)", rows, data, lambda figure: draw(figure, data), notes)


def copying_row(name: str, cell: dict[str, float], times: str) -> Row:
    """States of the steered answer where it is repeated: do they come to the steered ones?"""
    left = cell["to_steered"] / cell["shift"]
    told = (
        f"{cell['to_steered']:.3g} from the steered states (the shift: {cell['shift']:.3g}), {cell['to_natural']:.3g} "
        f"from the natural; {cell['exact']:.0f} of {cell['prompts']:.0f} repeated exactly"
    )
    judged = judge_property(f"at least {LEAST_LEFT:.0%} of the shift left", left >= LEAST_LEFT, f"{left:.0%}")
    return Row(f"copying, {name}: the answer {times} times in the request", "does not reach it (App. F)", told, *judged)


def judge_reach(steered: float, reachable: float) -> Judged:
    """Not reached, by an optimiser that reaches what can be reached; an optimiser that does not can tell nothing.

    Over the whole way left counts as the whole: no prefix at all leaves that.
    """
    told = f"left {steered:.0%}, of the reachable way {reachable:.0%}"
    if steered >= LEAST_LEFT and reachable > min(steered, 1) / 2:
        return "not rerun", f"too weak to tell: states that a prompt gives are not reached either ({told})"
    return judge_property(f"at least {LEAST_LEFT:.0%} left, twice what the reachable has", steered >= LEAST_LEFT, told)


def start_prefix(setup: Setup, n_rows: int, length: int) -> nn.Parameter:
    """Small random embeddings [n_rows, length, d_model], the same in every row.

    float32 whatever the subject is in: in bfloat16 most of Adam's small steps would round to none.
    """
    table = setup.subject.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(setup.seed + length)
    drawn = torch.randn(1, length, setup.subject.d_model, generator=generator) * START * float(table.float().std())
    return nn.Parameter(drawn.expand(n_rows, -1, -1).to(table.device).clone())


def step(setup: Setup, rows: Matching, prefix: nn.Parameter) -> tuple[Tensor, Tensor]:
    """One forward and backward. Returns the rows' mean squared errors and distances, both [b]."""
    prefix.grad = None
    states = states_of(setup, rows, prefix)
    squared = rows.error(states)
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
