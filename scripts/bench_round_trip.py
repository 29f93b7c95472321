"""How much faster is putting vectors back at the site than running the model again for each?

Reference: per vector one call of the model on the preamble and the text, the state replaced by a hook, all blocks and
every token each time. It is timed on a sample of its calls; the divergences and losses must agree.

    python scripts/bench_round_trip.py [--prompts 4] [--vectors 24] [--sample 16]
"""

from __future__ import annotations

import argparse
import time

import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.reading import FOLLOWING_TOKENS, make_preamble, tokenize
from nlabench.benchmark.round_trip import put_back
from nlabench.benchmark.steering import random_directions
from nlabench.benchmark.study import default_layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--vectors", type=int, default=24, help="vectors put back at one readout")
    parser.add_argument("--sample", type=int, default=16, help="calls of the plain script to time")
    options = parser.parse_args()
    subject = load_subject()
    site = default_layer(subject)
    texts = [t for t in tokenize(subject, load_pack().neutral["readout"]) if t.mid][: options.prompts]
    vectors = random_directions(subject.d_model, options.vectors, seed=0) * 200.0
    nothing = torch.empty(0, subject.d_model)

    start = time.perf_counter()
    preamble = make_preamble(subject, subject.n_blocks - 1)
    ours = [put_back(subject, preamble, t.ids, t.mid[-1].index, site, vectors, nothing)[1] for t in texts]
    our_seconds = time.perf_counter() - start

    calls = [(t, v) for t in range(len(texts)) for v in range(len(vectors))]
    sample = calls[:: max(1, len(calls) // options.sample)]
    worst = 0.0
    start = time.perf_counter()
    for t, v in sample:
        index = texts[t].mid[-1].index
        place = len(preamble.ids) + index

        def replace(
            _: object, __: object, output: torch.Tensor, place: int = place, vector: torch.Tensor = vectors[v]
        ) -> torch.Tensor:
            changed = output.clone()
            changed[:, place] = vector
            return changed

        handle = subject.blocks[site].register_forward_hook(replace)
        ids = torch.tensor([[*preamble.ids, *texts[t].ids[: index + 1 + FOLLOWING_TOKENS]]])
        with torch.inference_mode():
            logits = subject.model(input_ids=ids).logits[0, place:-1].float()
        handle.remove()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, place + 1 :])
        worst = max(worst, abs(float(loss - ours[t][v])))
    plain_seconds = (time.perf_counter() - start) / len(sample) * len(calls)

    print(f"{len(texts)} readouts x {options.vectors} vectors = {len(calls)} runs from block {site}")
    print(f"put back at the site: {our_seconds:.1f} s")
    print(
        f"plain script, from {len(sample)} timed calls: {plain_seconds:.1f} s; largest difference of a loss {worst:.1e}"
    )
    print(f"ratio: {plain_seconds / our_seconds:.1f} times faster")


if __name__ == "__main__":
    main()
