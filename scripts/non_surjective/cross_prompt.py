"""E6, the cross-prompt scale: how far is "steered", measured in distances between prompts?

For prompt i, ‖r̃ᵢ − rᵢ‖ (the shift by steering) beside ‖rⱼ − rᵢ‖ (another prompt j), as means over tokens that can be
compared: the template's tail, which is the same in every prompt, and the first tokens of the request. Beside other
prompts there are other wordings of the same request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .prompts import SETS, load_built_in, load_rephrased
from .rows import Outcome, Row
from .setup import ARMS, Setup, template_ends
from .states import token_distances
from .timing import time_reading
from .verdicts import NOTHING_PUBLISHED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def count_prompts(setup: Setup) -> int:
    return 5 if setup.quick else 10


def estimate(setup: Setup) -> float:
    """From one prompt: each is read in every arm, and those of the refusal set in two other wordings."""
    reads = count_prompts(setup) * (len(SETS) * (1 + len(ARMS)) + 2)
    return time_reading(setup, setup.prompts["refusal"][0]) * reads


def run(setup: Setup) -> Outcome:
    """Both sets, tail and request, every arm."""
    data = {name: measure(setup, name) for name in SETS}
    rows = []
    for name, found in data.items():
        for place, cell in found.items():
            steered, other = cell["steered"]["median"], cell["other_prompts"]["median"]
            ours = f"{steered:.3g} and {other:.3g}, ratio {steered / other:.2f}"
            what = f"{name}, {place}: median ‖steered − natural‖ and ‖other prompt − natural‖"
            rows.append(Row(what, "measured by the code, no result given", ours, *NOTHING_PUBLISHED))
            if "other_wordings" in cell:
                near = cell["other_wordings"]["median"]
                ours = f"{steered:.3g} and {near:.3g}, ratio {steered / near:.2f}"
                what = f"{name}, {place}: median ‖steered − natural‖ and ‖other wording − natural‖"
                rows.append(Row(what, "measured by the code, no result given", ours, *NOTHING_PUBLISHED))
    notes = [
        "Under a ratio of 1, steering moves a state less than a change of prompt does; the state may still be one that "
        "no prompt gives. Length is not reachability: a random vector of the same length moves as far.",
    ]
    if setup.quick:
        notes.append(f"Quick: {count_prompts(setup)} prompts a set; in full 10.")
    return Outcome("E6", "Cross-prompt scale", rows, data, lambda figure: draw(figure, data), notes)


def measure(setup: Setup, name: str) -> dict[str, Any]:
    """Per place (tail, request): distances of every arm, of other prompts and of other wordings, with medians."""
    subject = setup.subject
    n = min(count_prompts(setup), len(setup.prompts[name]))
    prompts, spans = setup.prompts[name][:n], setup.spans[name][:n]
    natural = [setup.states(name, ids) for ids in prompts]
    moved = {arm: [setup.states(name, ids, setup.shift(name, arm)) for ids in prompts] for arm in ARMS}
    n_tail = len(template_ends(subject)[1])
    shortest = min(stop - start for start, stop in spans)
    first = spans[0][0]
    places = {"request": slice(first, first + shortest)}
    if n_tail:
        places["tail"] = slice(-n_tail, None)
    rephrased = _read_rephrased(setup, name, n)
    found: dict[str, Any] = {}
    for place, where in places.items():
        cell: dict[str, Any] = {
            arm: _summarize([_distance(a, b, where) for a, b in zip(states, natural, strict=True)])
            for arm, states in moved.items()
        }
        pairs = [(a, b) for i, a in enumerate(natural) for j, b in enumerate(natural) if i != j]
        cell["other_prompts"] = _summarize([_distance(a, b, where) for a, b in pairs])
        if place == "tail" and rephrased:
            cell["other_wordings"] = _summarize(
                [
                    _distance(other, own, where)
                    for own, others in zip(natural, rephrased, strict=True)
                    for other in others
                ]
            )
        found[place] = cell
    setup.say(f"E6 {name}: {n} prompts done")
    return found


def _read_rephrased(setup: Setup, name: str, n: int) -> list[list[Tensor]]:
    """States of other wordings of the first n built-in refusal requests; empty for other requests."""
    if name != "refusal" or setup.requests[name] != [r.instruction for r in load_built_in("refusal")]:
        return []
    return [
        [setup.states(name, setup.subject.chat_ids(text)) for text in wordings] for wordings in load_rephrased()[:n]
    ]


def _distance(a: Tensor, b: Tensor, where: slice) -> float:
    return float(token_distances(a[where], b[where]).mean())


def _summarize(distances: list[float]) -> dict[str, Any]:
    low, middle, high = np.quantile(distances, [0.25, 0.5, 0.75]).tolist()
    return {"distances": distances, "median": middle, "quartiles": [low, high]}


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """A panel for each set and place: the spread of every kind of distance."""
    cells = [(name, place, cell) for name, found in data.items() for place, cell in found.items()]
    axes = figure.subplots(1, len(cells), squeeze=False)[0]
    kinds = {
        "steered": "C3", "permuted": "C0", "random": "C7", "other_wordings": "C1", "other_prompts": "C2",
    }  # fmt: skip
    for axis, (name, place, cell) in zip(axes, cells, strict=True):
        present = [kind for kind in kinds if kind in cell]
        boxes = axis.boxplot([cell[kind]["distances"] for kind in present], patch_artist=True, widths=0.6)
        for box, kind in zip(boxes["boxes"], present, strict=True):
            box.set(facecolor=kinds[kind], alpha=0.6)
        for line in boxes["medians"]:
            line.set(color="k")
        labels = [kind.replace("_", " ") for kind in present]
        axis.set_xticks(range(1, len(present) + 1), labels, rotation=45, ha="right", fontsize=8)
        axis.set_title(f"{name}, {place}", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("mean L2 distance a token")
