"""E1's lines beside Table 1: which tokens give the states back, and how far the nearest lie."""

from __future__ import annotations

from dataclasses import dataclass

from nlabench.tasks.invertibility import ArmSummary, summarise

from .inverting import SetResult
from .rows import Row
from .setup import Setup
from .verdicts import NOTHING_PUBLISHED, Judged, judge_count, judge_number, judge_property


@dataclass(frozen=True)
class Published:
    """One column of Table 1 (10 prompts): the public result files of Llama-3.2-1B and Qwen2.5-0.5B, both Instruct."""

    tokens: int
    recovered: int
    distance: tuple[float, float]  # natural, steered; medians, as are the ratios
    ratio: tuple[float, float]
    shift: float
    auroc: float
    seconds: float


PUBLISHED = {
    "persona": {
        "Llama": Published(220, 10, (0.065, 2.55), (34.9, 1.29), 2.59, 0.9998, 2148),
        "Qwen": Published(200, 10, (0.245, 5.69), (24.7, 1.59), 5.60, 0.968, 610),
    },
    "refusal": {
        "Llama": Published(221, 2, (0.066, 2.44), (35.0, 1.37), 2.59, 0.9998, 1411),
        "Qwen": Published(201, 0, (0.404, 12.56), (23.0, 1.26), 12.59, 1.000, 607),
    },
}


def published_rows(setup: Setup, name: str, result: SetResult, arms: dict[str, ArmSummary]) -> list[Row]:
    """The lines of Table 1. Natural and steered: two arms of ours among six."""
    natural, steered, column = arms["natural"], arms["steered"], PUBLISHED[name]

    def told(line: str) -> str:
        return "; ".join(f"{model} {line.format(p=published)}" for model, published in column.items())

    def row(what: str, published: str, ours: str, verdict: Judged) -> Row:
        return Row(f"{name}: {what}", told(published), ours, *verdict)

    strict = natural.strict + steered.strict
    auroc = steered.auroc or (float("nan"),) * 3
    nearly = min(auroc[0], 1.0)
    lowest = min(published.auroc for published in column.values())
    seconds = result.seconds / result.prompts
    counts = {published.recovered for published in column.values()}
    recovered = [judge_count((steered.exact, steered.n_prompts), (count, 10)) for count in sorted(counts)]
    best = next((judged for judged in recovered if judged[0] == "same"), recovered[-1])
    ratios = f"{natural.ratio:.3g} / {steered.ratio:.2f}"
    return [
        row("tokens", "{p.tokens}", str(natural.n_positions), ("no figure", "other prompts, another tokenizer")),
        row("strict hits (1e-5), natural / steered", "0 / 0", f"{natural.strict} / {steered.strict}",
            judge_number(strict, 0, 0)),
        row("natural recovered exactly", "10/10", f"{natural.exact}/{natural.n_prompts}",
            judge_count((natural.exact, natural.n_prompts), (10, 10))),
        row("steered: nearest tokens are the prompt", "{p.recovered}/10", f"{steered.exact}/{steered.n_prompts}", best),
        row("nearest distance, natural", "{p.distance[0]}", f"{natural.distance:.2g}",
            judge_property("under the published ones, as float32 against bfloat16",
                           natural.distance < min(p.distance[0] for p in column.values()), f"{natural.distance:.2g}")),
        row("nearest distance, steered", "{p.distance[1]}", f"{steered.distance:.3g}",
            judge_property("0.9 to 1.1 of the shift's length, as published",
                           0.9 <= steered.distance / steered.shift <= 1.1,
                           f"{steered.distance:.3g} for a shift of {steered.shift:.3g}")),
        row("second / nearest, natural / steered", "{p.ratio[0]} / {p.ratio[1]}", ratios,
            judge_property("over 10 natural and under 2 steered", natural.ratio > 10 and steered.ratio < 2, ratios)),
        row("mean ‖steered − natural‖ a token", "{p.shift}", f"{steered.mean_shift:.3g}",
            ("no figure", "it follows from λ, the vector and the subject")),
        row("AUROC of the ratio, natural against steered", "{p.auroc}",
            f"{auroc[0]:.4f} [{auroc[1]:.3f}, {auroc[2]:.3f}]",
            judge_property(f"at least {lowest}", nearly >= lowest, f"{nearly:.4f}")),
        row("seconds a prompt", "{p.seconds:.0f}", f"{seconds:.0f} for all arms and strengths",
            ("no figure", "another machine, and a scan serves all arms, strengths and sets")),
    ]  # fmt: skip


def control_rows(name: str, arms: dict[str, ArmSummary]) -> list[Row]:
    """The arms that the paper does not have: the same shift at the readout, and vectors that mean nothing."""
    rows = []
    for arm in ("steered_readout", "permuted", "random", "graft"):
        if (found := arms.get(arm)) is None:
            continue
        auroc = found.auroc or (float("nan"),) * 3
        ours = (
            f"{found.exact}/{found.n_prompts} exact, nearest {found.distance:.3g} for a shift of {found.shift:.3g}, "
            f"ratio {found.ratio:.2f}, AUROC {auroc[0]:.3f}"
        )
        rows.append(Row(f"{name}: {arm} arm", "-", ours, *NOTHING_PUBLISHED))
    return rows


def quantised_row(result: SetResult | None) -> Row:
    """None: it was left out, as it is in a quick run."""
    what, published = "refusal: subject with int8 weights", "an NF4 Llama-3.2-1B is among its subjects"
    if result is None:
        return Row(what, published, "-", "not rerun", "only without --quick: it takes scans of its own")
    arms = {summary.arm: summary for summary in summarise(result.inverted)}
    natural, steered = arms["natural"], arms["steered"]
    ours = (
        f"natural {natural.exact}/{natural.n_prompts} at {natural.distance:.2g}, ratio {natural.ratio:.3g}; "
        f"steered {steered.exact}/{steered.n_prompts} at {steered.distance:.3g}, ratio {steered.ratio:.2f}"
    )
    return Row(what, published, ours, *NOTHING_PUBLISHED)
