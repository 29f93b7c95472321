"""How much of the machine's raw forward rate does reading activations reach?

Reference: the bare blocks up to the site, called on the same padded batches with the same cached preamble.

    python scripts/bench_extraction.py [--texts 192] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.reading import batches_by_length, make_preamble, read_states
from nlabench.benchmark.study import default_layer
from nlabench.benchmark.subject import pad_batch
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    subject = load_subject()
    site = default_layer(subject)
    preamble = make_preamble(subject, site)
    texts = [t.text for c in load_pack().concepts for t in c.texts["direction"]][: options.texts]
    ids = [subject.encode(text) for text in texts]
    tokens = sum(map(len, ids))
    blocks = subject.backbone.layers

    def raw() -> None:
        subject.backbone.layers = nn.ModuleList(list(blocks)[: site + 1])
        with torch.inference_mode():
            for batch in batches_by_length([len(i) for i in ids]):
                rows, mask = pad_batch([ids[i] for i in batch])
                cache = preamble.cache(len(batch), len(preamble.ids) + rows.shape[1], subject.n_blocks)
                subject.backbone(**subject._inputs(rows, mask, preamble), past_key_values=cache, use_cache=True)
        subject.backbone.layers = blocks

    def ours() -> None:
        for _ in read_states(subject, preamble, ids, [site // 2, site]):
            pass

    rates: dict[str, list[float]] = {"raw forward": [], "read_states": []}
    for _ in range(options.repeats + 1):  # the first round warms up
        for name, work in (("raw forward", raw), ("read_states", ours)):
            start = time.perf_counter()
            work()
            rates[name].append(tokens / (time.perf_counter() - start))
    print(f"{len(ids)} texts, {tokens} tokens, blocks 0 to {site}, {torch.get_num_threads()} threads")
    for name, found in rates.items():
        print(f"{name:12s} median {median(found[1:]):7.0f} tokens/s  ({min(found[1:]):.0f} to {max(found[1:]):.0f})")
    ratios = [a / b for a, b in zip(rates["read_states"][1:], rates["raw forward"][1:], strict=True)]
    print(f"read_states / raw, pair by pair: median {median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
