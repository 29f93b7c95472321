"""What a suite costs on GPUs that are not here: subjects of 1, 7 and 70 billion parameters, on one H200 and on eight.

    python scripts/estimate_cost.py [--suite standard]

What goes into a number, and of what kind it is:
- counted on the default subject: what the suite makes (items, tokens read, answers of the gate, texts);
- measured here, in this call: which share of this machine's own peaks (products in float32, bytes read a second)
  reading and decoding reach, and what a block costs beside its arithmetic, from a model that has next to none;
- published: the GPU's peaks;
- *assumed*: that the same shares of them are reached there, and that a block costs as much beside its arithmetic.
  The last two make it a guess within a factor of three: read an hour as 20 minutes to 3 hours.

One NLA as large as the subject (an AV that writes 120 tokens a text, an AR of two thirds of its blocks) is held beside
it. A copy of all three takes as many GPUs as its weights need; copies run side by side (`--engine ray`), and within a
copy that is split one GPU computes at a time (`--device-map auto`). 70 billion parameters on one GPU are in 4 bits, and
count as fast as in 16. Scoring and statistics, minutes on the driver, are not in it.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nla_on_steered.estimate import measure_flops, show_seconds
from nlabench.benchmark.behaviour import NEW_TOKENS
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.engine import EngineSettings
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.footprint import BYTES_IN_4_BITS, ROOM
from nlabench.benchmark.looking_ahead import Ahead
from nlabench.benchmark.planning import Plan, Stored, measure_rates
from nlabench.benchmark.runner import Bench, RunSettings, plan_run, set_up
from nlabench.benchmark.subject import Subject, wrap_subject
from transformers import LlamaConfig, LlamaForCausalLM

#: NVIDIA's data sheet of the H200 SXM: dense bfloat16 products a second, bytes a second, bytes.
FLOPS, BANDWIDTH, MEMORY = 989e12, 4.8e12, 141e9
#: Of a GPU's memory, what weights may take.
FILLED = 0.9
#: Parameters and blocks, as Llama has them.
SIZES = {"1B": (1e9, 16), "7B": (7e9, 32), "70B": (70e9, 80)}
GPUS = (1, 8)
#: New tokens of a text, tokens that the AR reads of it with the prompt around, and texts that are written at once.
TOKENS_PER_TEXT, TOKENS_PER_RECONSTRUCTION, ROWS = 120, 156, 48
#: The site's depth, and the AR's: the share of the blocks that reading runs.
DEPTH = 2 / 3


@dataclass(frozen=True)
class Shares:
    """Of a machine's peaks: of products (reading), and of whichever bounds a step (decoding), 0 to 1. block_seconds:
    what a block costs in a step beside that."""

    reading: float
    decoding: float
    block_seconds: float


@dataclass(frozen=True)
class Cost:
    """copies: of subject and NLA, side by side; gpus: of each. seconds: by what they are spent on."""

    copies: int
    gpus: int
    in_4_bits: bool
    seconds: dict[str, float]


def step_seconds(parameters: float, bytes_each: float, rows: int, flops: float, bandwidth: float) -> float:
    """One decoding step of `rows` texts at the peaks: weights are read once, and multiplied for every row."""
    return max(parameters * bytes_each / bandwidth, 2 * parameters * rows / flops)


def cost_of(plan: Plan, parameters: float, n_blocks: int, n_gpus: int, shares: Shares) -> Cost | None:
    """What a plan costs with a subject of so many parameters on some H200; None where not even 4 bits fit."""
    whole = parameters * (2 + DEPTH) * (1 + ROOM)  # subject, AV and AR
    for bytes_each in (2.0, BYTES_IN_4_BITS):
        gpus = math.ceil(whole * bytes_each / (FILLED * MEMORY))
        if gpus <= n_gpus:
            break
    else:
        return None
    copies = n_gpus // gpus
    read = 2 * parameters * DEPTH / (shares.reading * FLOPS)
    step = step_seconds(parameters, bytes_each, ROWS, FLOPS, BANDWIDTH) / shares.decoding
    step = (step + n_blocks * shares.block_seconds) / ROWS
    seconds = {
        "reading": plan.tokens_read * read,
        "gate": plan.answers * NEW_TOKENS * (step + read / DEPTH),
        "texts": plan.n_items * TOKENS_PER_TEXT * step,
        "reconstruction": plan.n_items * TOKENS_PER_RECONSTRUCTION * read,
    }
    return Cost(copies, gpus, bytes_each < 2, {name: value / copies for name, value in seconds.items()})


def measure_shares(bench: Bench) -> tuple[Shares, str]:
    """The shares that the default subject reaches here, and how they were found, in a line."""
    subject = bench.sketch.subject
    read, decoded = measure_rates(bench.sketch)
    inside = sum(parameter.numel() for parameter in subject.blocks.parameters())
    everything = sum(parameter.numel() for parameter in subject.model.parameters())
    flops, bandwidth = measure_flops(), measure_bandwidth()
    to_site = inside * (bench.sketch.site.layer + 1) / subject.n_blocks
    block = measure_block(subject)
    step = step_seconds(everything, subject.dtype.itemsize, ROWS, flops, bandwidth)
    told = (
        f"this machine: {flops / 1e9:.0f} GFLOP/s in float32, {bandwidth / 1e9:.1f} GB/s; {subject.name} reads "
        f"{read:.0f} tokens/s to block {bench.sketch.site.layer}, decodes {decoded:.0f} in a batch of {ROWS}; a block "
        f"costs {1e3 * block:.2f} ms a step beside its arithmetic"
    )
    return Shares(2 * to_site * read / flops, step / (ROWS / decoded - block * subject.n_blocks), block), told


def measure_block(subject: Subject, n_blocks: int = 16, steps: int = 24) -> float:
    """Seconds that a block costs in a decoding step beside its arithmetic: of a model with hardly any."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=n_blocks, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    small = wrap_subject(LlamaForCausalLM(config).eval(), subject.tokenizer, "small", "small")
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        # Its tokens mean nothing, and a stop token among them would end a row early: the longest of three counts.
        decode(small, [[1, 2, 3]] * ROWS, max_new_tokens=steps)
        taken.append((time.perf_counter() - start) / steps / n_blocks)
    return max(taken[1:])


def measure_bandwidth() -> float:
    """Bytes read a second, from an array far larger than any cache."""
    a = torch.ones(1 << 27)
    a.sum()
    start = time.perf_counter()
    for _ in range(4):
        a.sum()
    return 4 * a.numel() * a.itemsize / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", default=["quick", "standard"])
    options = parser.parse_args()
    try:
        print_costs(options.suite)
    except BadInput as error:
        parser.exit(2, f"{error}\n")


def print_costs(suites: Sequence[str]) -> None:
    """A table for each suite.

    Raises:
        BadInput: there is no such suite.
    """
    for number, suite in enumerate(suites):
        bench = set_up(RunSettings(suite=suite), say=lambda _: None, engine=EngineSettings())
        try:
            # As if all were in the store: the plan's counts are wanted, and not this machine's time.
            plan = plan_run(bench, ["nla:reference"], Ahead(Stored(1, 1, 1, 1, 1)))
            if not number:
                shares, told = measure_shares(bench)
                load = f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads"
                print(
                    f"{told} ({load}): {shares.reading:.0%} of the peak in reading, {shares.decoding:.0%} in decoding"
                )
        finally:
            bench.engine.close()
        print(f"\n{suite}: {plan.n_items:,} items, {plan.tokens_read:,} tokens read, {plan.answers:,} answers")
        print(
            "| subject | GPUs | copies × GPUs each | " + " | ".join(("reading", "gate", "texts", "AR")) + " | in all |"
        )
        print("|---" * 8 + "|")
        for name, (parameters, n_blocks) in SIZES.items():
            for n_gpus in GPUS:
                cost = cost_of(plan, parameters, n_blocks, n_gpus, shares)
                row = f"| {name} | {n_gpus} | "
                if cost is None:
                    print(row + "does not fit |" + " |" * 5)
                    continue
                parts = " | ".join(show_seconds(value) for value in cost.seconds.values())
                bits = ", 4 bits" if cost.in_4_bits else ""
                print(
                    f"{row}{cost.copies} × {cost.gpus}{bits} | {parts} | {show_seconds(sum(cost.seconds.values()))} |"
                )


if __name__ == "__main__":
    main()
