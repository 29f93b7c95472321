"""E1, inversion: which tokens give the states back, natural ones and moved ones, and how far the nearest lie.

What is inverted is in `inverting`, the lines beside the paper's in `inversion_rows`, and what the subject answers to
the recovered prompts in `projection`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nlabench.tasks.invertibility import STATEMENT, Inverted, summarise

from .inversion_rows import control_rows, published_rows, quantised_row
from .inverting import FULL, count_scans, invert_quantised, invert_set, size_of, time_scan
from .projection import answer_projected, projected_row
from .prompts import SETS
from .rows import Outcome, Row
from .setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def estimate(setup: Setup) -> float:
    """From one timed batch of a scan."""
    return count_scans(setup) * time_scan(setup)


def run(setup: Setup) -> Outcome:
    """Both sets in all arms, and one set on the subject with int8 weights."""
    data: dict[str, Any] = {}
    rows: list[Row] = []
    for name in SETS:
        result = invert_set(setup, name)
        own = [one for one in result.inverted if one.sequence.strength in (0.0, setup.strengths[name])]
        arms = {summary.arm: summary for summary in summarise(own, seed=setup.seed)}
        rows += published_rows(setup, name, result, arms) + control_rows(name, arms)
        projected = answer_projected(setup, name)
        rows += [projected_row(name, found) for found in projected]
        data[name] = {
            "scans_together": result.scans, "seconds_together": result.seconds, "tokens_given": result.given,
            "arms": [known(asdict(summary)) for summary in summarise(result.inverted, seed=setup.seed)],
            "positions": [describe(one) for one in result.inverted], "projected": projected,
        }  # fmt: skip
    size = size_of(setup)
    quantised = invert_quantised(setup) if size.quantised_prompts else None
    rows.append(quantised_row(quantised))
    if quantised is not None:
        data["quantised"] = {
            "arms": [known(asdict(summary)) for summary in summarise(quantised.inverted, seed=setup.seed)],
            "positions": [describe(one) for one in quantised.inverted],
        }
    notes = [
        STATEMENT,
        "Decided in float32 after a bfloat16 pre-scan; the paper's bfloat16 meets the strict ε nowhere, ours meets it "
        "only by chance: float32 rounds at about 1e-4 here. Relative ε: 1e-5 of the state's norm.",
        "Each position was searched under the true prefix, so one scan served all arms and strengths; exact recovery "
        "is the same as after the recovered prefix. Seconds a prompt are those of its scans, shared by all arms.",
        "A projected prompt that equals the original behaves as the original. Where it is another, it was searched on "
        "after what had been recovered, and its greedy answer stands beside the steered and the original one (JSON).",
        "Position 0 is an attention sink: its float32 rounding is a hundred times the others'. Medians leave it out.",
        "An AUROC's interval draws prompts; few prompts make it too narrow, and where all ratios part it is [1, 1].",
    ]
    if size.most is not None:
        notes.append(
            f"Quick: the first {size.most} tokens of {size.prompts} requests a set, after the template (given); "
            f"no int8 weights. In full every token of {FULL.prompts} prompts a set, and with int8 weights "
            f"{FULL.quantised_most} tokens of {FULL.quantised_prompts}."
        )
    return Outcome("E1", "Inversion (Table 1)", rows, data, lambda figure: draw(figure, data), notes)


def known(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is not a finite number: JSON has no other."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in fields.items()}


def describe(one: Inverted) -> dict[str, Any]:
    """One sequence, position by position, for the JSON."""
    sequence = one.sequence
    return {
        "arm": sequence.arm, "strength": sequence.strength, "prompt": sequence.prompt, "ids": list(sequence.ids),
        "shift": sequence.shift.tolist(),
        "positions": [{**asdict(position), "meets": position.meets()} for position in one.inversion.positions],
    }  # fmt: skip


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """A panel for each set: nearest distance against the ratio, one point a position, by arm."""
    axes = figure.subplots(1, len(SETS), sharey=True)
    for axis, name in zip(axes, SETS, strict=True):
        own = {summary["strength"] for summary in data[name]["arms"] if summary["arm"] == "random"} | {0.0}
        for number, arm in enumerate(dict.fromkeys(summary["arm"] for summary in data[name]["arms"])):
            points = [
                (position["distances"][0], position["distances"][1] / max(position["distances"][0], 1e-12))
                for sequence in data[name]["positions"]
                if sequence["arm"] == arm and sequence["strength"] in own
                for position in sequence["positions"]
            ]
            axis.scatter(*zip(*points, strict=True), s=12, alpha=0.7, color=f"C{number}", label=arm)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.axhline(10, color="0.6", linewidth=0.8, linestyle="--")
        axis.set_title(name)
        axis.set_xlabel("nearest distance")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("second / nearest distance")
    axes[-1].legend(fontsize=7)
