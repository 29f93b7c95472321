"""SIP-It's own table (arXiv 2510.15511): time and accuracy of the guided order against brute force.

Brute force tries tokens in random order until one is near enough, the whole prompt again each time. Its time is made
from a timed batch and the number of tokens that it tries: where the true token lies in the random order is known, so
the count is exact and only the rate is sampled. Its accuracy is read off the exhaustive scan, which tries every token:
off E1's natural positions where E1 is run, and else of a few positions here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from nlabench.benchmark.inversion_guided import Guided, invert_guided
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.subject import Subject
from nlabench.tasks.invertibility import natural_states

from .inverting import in_float32, invert_set, scanner_of, time_scan
from .rows import Outcome, Row
from .setup import Setup
from .states import mean, spread
from .verdicts import judge_number, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 1

#: GPT-2 small, 100 prompts of 20 tokens: seconds a prompt (mean, sd) and accuracy.
PUBLISHED = {"guided": (28.0, 35.9, 1.0), "brute force": (3889.6, 691.2, 1.0)}

ROWS_OF_BRUTE_FORCE = 64

#: Positions of the first prompt that are also scanned exhaustively, where E1 scans none.
SCANNED_QUICK, SCANNED_FULL = 1, 10

#: Modules whose results are read where the run makes them (see `strength`).
DEPENDS = ("inverting",)


def count_prompts(setup: Setup) -> tuple[int, int]:
    """Prompts, and tokens of each: random tokens, as many of SIP-It's prompts are drawn from text."""
    return (3, 8) if setup.quick else (100, 20)


def estimate(setup: Setup) -> float:
    """From the second position of a prompt, before which the weights are laid out, and from a scan's batches."""
    n_prompts, length = count_prompts(setup)
    subject = in_float32(setup.subject)
    states = natural_states(subject, draw_prompts(setup)[0][:2], setup.layer)
    a_position = invert_guided(scanner_of(subject, setup.layer), states)[-1].seconds
    scans = 0 if setup.invert else SCANNED_QUICK if setup.quick else SCANNED_FULL
    return a_position * n_prompts * length + (time_scan(setup) * scans if scans else 0.0)


def draw_prompts(setup: Setup) -> list[list[int]]:
    """Half of random tokens, half the beginnings of the set's own requests."""
    n_prompts, length = count_prompts(setup)
    generator = torch.Generator().manual_seed(setup.seed)
    subject = setup.subject
    random = [torch.randint(0, subject.vocab_size, (length,), generator=generator).tolist() for _ in range(n_prompts)]
    texts = [subject.encode(text)[:length] for texts in setup.requests.values() for text in texts]
    texts = [ids for ids in texts if len(ids) == length]
    return [texts[i // 2] if i % 2 and i // 2 < len(texts) else random[i] for i in range(n_prompts)]


def run(setup: Setup) -> Outcome:
    """The guided order on every prompt, brute force by its rate, the exhaustive scan on some positions."""
    subject = in_float32(setup.subject)
    scanner, prompts = scanner_of(subject, setup.layer), draw_prompts(setup)
    found = []
    for number, ids in enumerate(prompts):
        found.append(invert_guided(scanner, natural_states(subject, ids, setup.layer)))
        setup.say(f"SIP-It: prompt {number + 1} of {len(prompts)} in {total(found[-1]):.1f} s")
    rates = time_brute_force(subject, setup.layer, prompts[0])
    brute = [count_brute_force(setup, ids, number, rates) for number, ids in enumerate(prompts)]
    scanned = read_scans(setup) if setup.invert else scan_positions(setup, scanner, prompts[0])
    seconds = [total(positions) for positions in found]
    accuracy = mean([float([g.position.token for g in f] == ids) for f, ids in zip(found, prompts, strict=True)])
    tried = mean([float(guided.tried) for positions in found for guided in positions])
    exhaustive = sum(guided.exhaustive for positions in found for guided in positions)
    ratio = mean(brute) / mean(seconds)
    published = PUBLISHED["brute force"][0] / PUBLISHED["guided"][0]
    per_scan = mean([second for second, _ in scanned])
    rows = [
        Row("guided: prompts recovered exactly", "1.00", f"{accuracy:.2f} of {len(prompts)}",
            *judge_number(accuracy, 1.0, 0.0)),
        Row("guided: seconds a prompt", "28.0 ± 35.9", f"{mean(seconds):.1f} ± {spread(seconds):.1f}",
            "no figure", "another subject, length of prompt and machine"),
        Row("brute force: seconds a prompt", "3889.6 ± 691.2", f"{mean(brute):.0f} ± {spread(brute):.0f}",
            "no figure", "made from a timed rate and the true token's place in a random order"),
        Row("brute force over guided", f"{published:.0f} times", f"{ratio:.0f} times",
            *judge_property("guided is at least 10 times faster", ratio >= 10, f"{ratio:.0f}")),
        Row("tokens tried at a position", "at most |V|", f"{tried:.0f} of {subject.vocab_size}, {exhaustive} positions "
            "exhaustively", *judge_property("under |V|", tried < subject.vocab_size, f"{tried:.0f}")),
        Row("exhaustive scan: the true token is the nearest", "1.00", f"{sum(hit for _, hit in scanned)} of "
            f"{len(scanned)} positions{' of E1' if setup.invert else ''}, {per_scan:.1f} s a scan",
            *judge_number(mean([float(hit) for _, hit in scanned]), 1.0, 0.0)),
    ]  # fmt: skip
    data: dict[str, Any] = {
        "prompts": prompts, "seconds": seconds, "brute_force_seconds": brute, "accuracy": accuracy,
        "tried": [[guided.tried for guided in positions] for positions in found],
        "steps": [[guided.steps for guided in positions] for positions in found],
        "distances": [[guided.position.distance for guided in positions] for positions in found],
        "scan_seconds": [second for second, _ in scanned],
    }  # fmt: skip
    notes = [
        "A position starts from an embedding estimated from 512 random tokens, and gradient steps follow: SIP-It's "
        "own start is another. Most positions here need no step.",
        f"{len(prompts)} prompts of {len(prompts[0])} tokens at site {setup.layer}; published: 100 of 20, GPT-2 small.",
    ]
    if setup.quick:
        notes.append("Quick: in full 100 prompts of 20 tokens, and more positions scanned exhaustively.")
    return Outcome("sip-it", "SIP-It's table", rows, data, lambda figure: draw(figure, data), notes)


def total(positions: list[Guided]) -> float:
    return sum(guided.seconds for guided in positions)


@torch.inference_mode()
def time_brute_force(subject: Subject, layer: int, ids: list[int]) -> list[float]:
    """Seconds for one token tried after 1, 2, … tokens of the whole prompt, from two batches of the plain forward.

    The forward's time is nearly proportional to the number of tokens: it is timed at the prompt's end and shared out.
    """
    batch = torch.tensor([ids] * ROWS_OF_BRUTE_FORCE, device=subject.device)
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        subject.model(input_ids=batch, output_hidden_states=True, use_cache=False)
        taken.append(time.perf_counter() - start)
    a_token = min(taken) / batch.numel()
    return [a_token * (position + 1) for position in range(len(ids))]


def count_brute_force(setup: Setup, ids: list[int], number: int, rates: list[float]) -> float:
    """Seconds of a prompt: at each position, the tokens up to the true one in an order of its own."""
    generator = torch.Generator().manual_seed(setup.seed * 1000 + number)
    seconds = 0.0
    for token, rate in zip(ids, rates, strict=True):
        order = torch.randperm(setup.subject.vocab_size, generator=generator)
        seconds += rate * (int((order == token).nonzero()[0, 0]) + 1)
    return seconds


def read_scans(setup: Setup) -> list[tuple[float, bool]]:
    """(seconds, whether the nearest of all tokens is the true one) at the natural positions that E1 scans."""
    result = invert_set(setup, "refusal")
    natural = [one for one in result.inverted if one.sequence.arm == "natural"]
    return [
        (result.seconds / result.scans, position.token == token)
        for one in natural
        for position, token in zip(one.inversion.positions, one.sequence.ids, strict=True)
    ]


def scan_positions(setup: Setup, scanner: Scanner, ids: list[int]) -> list[tuple[float, bool]]:
    """(seconds, whether the nearest of all tokens is the true one) at the last positions of a prompt."""
    scanned = SCANNED_QUICK if setup.quick else SCANNED_FULL
    states = natural_states(scanner.subject, ids, scanner.layer)
    found = []
    for position in range(max(1, len(ids) - scanned), len(ids)):
        prefix = scanner.subject.make_prefix(ids[:position], scanner.layer)
        nearest = scanner.scan(prefix, states[position][None])
        found.append((nearest.seconds, int(nearest.tokens[0, 0]) == ids[position]))
    return found


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """Seconds a prompt, guided and brute force, as published and here."""
    axes = figure.subplots()
    ours = {"guided": mean(data["seconds"]), "brute force": mean(data["brute_force_seconds"])}
    for number, name in enumerate(PUBLISHED):
        axes.bar(number - 0.2, PUBLISHED[name][0], 0.4, color="0.7", label=None if number else "published")
        axes.bar(number + 0.2, ours[name], 0.4, color="C0", label=None if number else "ours")
    axes.set_xticks(range(len(PUBLISHED)), list(PUBLISHED))
    axes.set_yscale("log")
    axes.set_ylabel("seconds a prompt")
    axes.legend()
