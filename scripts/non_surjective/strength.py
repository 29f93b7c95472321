"""E2, the strength sweep: how far λ moves the states, and how far the recovered prompt's states lie from the natural.

The second curve needs an inversion for every strength. Inversion takes the nearest token, so as long as that is the
prompt's own the recovered prompt *is* the prompt and the curve lies at 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .prompts import SETS
from .rows import Outcome, Row
from .setup import ARMS, Setup, read_states
from .states import mean, spread, token_distances
from .timing import time_reading
from .verdicts import judge_growth, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRENGTHS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

#: Modules of this folder that its numbers hang on and that are not imported at its top.
DEPENDS = ("inverting",)

#: (setup, set, prompt number, λ) -> states of the recovered prompt [n_tokens, d_model], or None where not recovered.
Reconstruct = Callable[[Setup, str, int, float], "Tensor | None"]


def count_prompts(setup: Setup) -> int:
    return 4 if setup.quick else 10


def estimate(setup: Setup) -> float:
    """From one prompt, which is read twice without a vector, and in every arm at every strength."""
    once = time_reading(setup, setup.prompts["refusal"][0])
    return once * len(SETS) * count_prompts(setup) * (2 + len(ARMS) * len(STRENGTHS))


def run(setup: Setup) -> Outcome:
    """Every prompt of both sets, every arm, every strength."""
    data: dict[str, Any] = {name: measure(setup, name) for name in SETS}
    reconstruct = find_reconstruction() if setup.invert else None
    rows = []
    for name in SETS:
        for_set = data[name]
        distances = for_set["steered"]["mean"]
        told = f"{distances[0]:.3g} to {distances[-1]:.3g} (r {for_set['r'][0]:.2g} to {for_set['r'][-1]:.2g})"
        what = f"{name}: ‖steered − natural‖ a token, λ 0.01 to 5"
        rows.append(
            Row(what, "figure only: grows with λ", told, *judge_growth(STRENGTHS, distances, "it grows with λ"))
        )
        rows.append(reconstructed_row(setup, name, for_set, reconstruct))
    notes = [
        "r is λ‖v‖ over the median norm of the natural states where the vector is added.",
        "The length of the shift follows from λ and from how the block passes it on; a random vector of that length "
        "grows alike. This curve alone says nothing of whether prompts reach a state.",
    ]
    if setup.quick:
        notes.append(f"Quick: {count_prompts(setup)} prompts a set; in full 10.")
    return Outcome("E2", "Strength sweep (figure)", rows, data, lambda figure: draw(figure, data), notes)


def measure(setup: Setup, name: str) -> dict[str, Any]:
    """Mean over prompts of the mean distance a token, by λ, per arm; r for every λ."""
    prompts = setup.prompts[name][: count_prompts(setup)]
    layer = setup.layer_of(name)
    natural = [setup.states(name, ids) for ids in prompts]
    entering = torch.cat([read_states(setup.subject, ids, layer - 1) for ids in prompts])
    norm = float(entering.norm(dim=-1).median())
    sign = 1.0 if setup.strengths[name] > 0 else -1.0
    found: dict[str, Any] = {
        "strengths": list(STRENGTHS),
        "norm": norm,
        "length": float(setup.directions[name].norm()),
        "r": [strength * float(setup.directions[name].norm()) / norm for strength in STRENGTHS],
        "n_prompts": len(prompts),
    }
    for arm in ARMS:
        per_prompt = [
            [
                float(token_distances(setup.states(name, ids, setup.shift(name, arm, sign * strength)), own).mean())
                for ids, own in zip(prompts, natural, strict=True)
            ]
            for strength in STRENGTHS
        ]
        found[arm] = {"mean": [mean(row) for row in per_prompt], "sd": [spread(row) for row in per_prompt]}
        setup.say(f"E2 {name}: {arm} arm done")
    return found


def find_reconstruction() -> Reconstruct | None:
    """The inversion's function, where the inversion is there."""
    try:
        module = importlib.import_module("non_surjective.inverting")
    except ModuleNotFoundError:
        return None
    found: Reconstruct | None = getattr(module, "reconstructed_states", None)
    return found


def reconstructed_row(setup: Setup, name: str, found: dict[str, Any], reconstruct: Reconstruct | None) -> Row:
    """‖reconstructed − natural‖ by λ, where prompts were inverted."""
    what = f"{name}: ‖reconstructed − natural‖ a token"
    published = "figure only; by Table 1 it is 0 at the paper's λ for persona (10/10 recovered)"
    if reconstruct is None:
        why = "it needs E1's inversions: ask for E1 and E2 together"
        return Row(what, published, "-", "not rerun", why)
    sign = 1.0 if setup.strengths[name] > 0 else -1.0
    curve: list[float | None] = []
    for strength in STRENGTHS:
        distances = []
        for number, ids in enumerate(setup.prompts[name][: count_prompts(setup)]):
            states = reconstruct(setup, name, number, sign * strength)
            if states is not None:
                distances.append(float(token_distances(states, setup.states(name, ids)).mean()))
        curve.append(mean(distances) if distances else None)
    found["reconstructed"] = {"mean": curve}
    measured = [value for value in curve if value is not None]
    if not measured:
        return Row(what, published, "-", "not rerun", "no prompt was inverted in this run")
    at_one = curve[STRENGTHS.index(1.0)]
    told = ", ".join("-" if value is None else f"{value:.3g}" for value in curve)
    verdict = judge_property("0 at λ = 1", at_one is not None and at_one < 1e-3, f"{at_one}")
    return Row(what, published, told, *verdict)


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """A panel for each set: distance a token against λ, with r on the upper axis."""
    axes = figure.subplots(1, len(data), sharey=True)
    styles = {"steered": ("C3", "o-"), "permuted": ("C0", "s--"), "random": ("C7", "^:")}
    for axis, (name, found) in zip(axes, data.items(), strict=True):
        strengths = found["strengths"]
        for arm, (color, style) in styles.items():
            axis.errorbar(
                strengths, found[arm]["mean"], yerr=found[arm]["sd"], fmt=style, color=color, capsize=2, markersize=4,
                linewidth=1.2, label=f"{arm} − natural",
            )  # fmt: skip
        curve = found.get("reconstructed", {}).get("mean")
        if curve:
            points = [(x, y) for x, y in zip(strengths, curve, strict=True) if y is not None]
            axis.plot(*zip(*points, strict=True), "D-", color="C2", markersize=4, label="reconstructed − natural")
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_ylim(bottom=0)
        axis.set_title(name)
        axis.set_xlabel("λ")
        per_unit = found["length"] / found["norm"]
        upper = axis.secondary_xaxis("top", functions=(lambda x, k=per_unit: x * k, lambda x, k=per_unit: x / k))
        upper.set_xlabel("r", fontsize=8)
        upper.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean L2 distance a token")
    axes[0].legend(fontsize=7)
