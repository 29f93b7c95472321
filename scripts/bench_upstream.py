"""How much faster is the upstream arm grid than a plain script?

Reference: per prompt, concept and strength one call of the model with output_hidden_states=True, the shift added by a
hook, the whole prompt and all blocks each time. It is timed on a sample of its calls; the states must agree.

    python scripts/bench_upstream.py [--prompts 4] [--concepts 16] [--sample 24]
"""

from __future__ import annotations

import argparse
import time

import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.reading import make_preamble
from nlabench.benchmark.restart import restart_upstream
from nlabench.benchmark.steering import random_directions
from nlabench.benchmark.study import default_layer

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--concepts", type=int, default=16)
    parser.add_argument("--sample", type=int, default=24, help="calls of the plain script to time")
    options = parser.parse_args()
    subject = load_subject()
    site = default_layer(subject)
    injection = (site + 1) // 2 - 1
    prompts = [subject.encode(t.text) for t in load_pack().neutral["readout"][: options.prompts]]
    directions = random_directions(subject.d_model, options.concepts, seed=0)
    shifts = torch.cat([directions * (r * 140.0) for r in STRENGTHS])

    start = time.perf_counter()
    preamble = make_preamble(subject, site)
    ours = [restart_upstream(subject, preamble, ids, shifts, injection, site) for ids in prompts]
    our_seconds = time.perf_counter() - start

    calls = [(p, s) for p in range(len(prompts)) for s in range(len(shifts))]
    sample = calls[:: max(1, len(calls) // options.sample)]
    worst = 0.0
    first = len(preamble.ids)
    start = time.perf_counter()
    for p, s in sample:

        def add(_: object, __: object, output: torch.Tensor, shift: torch.Tensor = shifts[s]) -> torch.Tensor:
            return torch.cat([output[:, :first], output[:, first:] + shift], dim=1)

        handle = subject.blocks[injection].register_forward_hook(add)
        ids = torch.tensor([[*preamble.ids, *prompts[p]]])
        with torch.inference_mode():
            states = subject.model(input_ids=ids, output_hidden_states=True).hidden_states[site + 1][0, -1]
        handle.remove()
        worst = max(worst, float((states - ours[p][s]).norm() / states.norm()))
    plain_seconds = (time.perf_counter() - start) / len(sample) * len(calls)

    print(f"{len(prompts)} prompts x {options.concepts} concepts x {len(STRENGTHS)} strengths = {len(calls)} states")
    print(f"restart from block {injection}: {our_seconds:.1f} s")
    print(
        f"plain script, from {len(sample)} timed calls: {plain_seconds:.1f} s; largest relative difference {worst:.1e}"
    )
    print(f"ratio: {plain_seconds / our_seconds:.1f} times faster")


if __name__ == "__main__":
    main()
