"""How much faster is decoding with a shared prefix than transformers' plain generate, for the same texts?

python scripts/bench_verbalizing.py [--batch 128] [--prefix 100] [--tail 8] [--new-tokens 30]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.loading import load_subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--prefix", type=int, default=100, help="tokens that all prompts share")
    parser.add_argument("--tail", type=int, default=8, help="tokens of a prompt's own")
    parser.add_argument("--new-tokens", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    subject = load_subject()
    pack = load_pack()
    text = " ".join(t.text for t in pack.neutral["reference"])
    shared = subject.encode(text)[: options.prefix]
    tails = [subject.encode(t.text) for c in pack.concepts for t in c.texts["direction"]]
    own = [ids[: options.tail] for ids in tails if len(ids) >= options.tail][: options.batch]
    whole = torch.tensor([shared + ids for ids in own])
    seconds: dict[str, list[float]] = {"plain generate": [], "shared prefix": []}
    same = 0
    for _ in range(options.repeats):
        start = time.perf_counter()
        generated = subject.model.generate(
            whole, attention_mask=torch.ones_like(whole), max_new_tokens=options.new_tokens, do_sample=False
        )
        seconds["plain generate"].append(time.perf_counter() - start)
        start = time.perf_counter()
        prefix = subject.make_prefix(shared)
        decoded = decode(subject, own, max_new_tokens=options.new_tokens, prefix=prefix)
        seconds["shared prefix"].append(time.perf_counter() - start)
        plain = subject.tokenizer.batch_decode(generated[:, whole.shape[1] :], skip_special_tokens=True)
        same = sum(a == b.text for a, b in zip(plain, decoded, strict=True))
    print(f"batch {len(own)}, prompt {options.prefix} + {options.tail} tokens, {options.new_tokens} new, float32")
    for name, found in seconds.items():
        rate = len(own) * options.new_tokens / median(found)
        print(f"{name:15s} median {median(found):6.1f} s, {rate:5.0f} new tokens/s")
    ratios = [a / b for a, b in zip(seconds["plain generate"], seconds["shared prefix"], strict=True)]
    print(f"plain / shared, pair by pair: median {median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"same texts: {same} of {len(own)}")


if __name__ == "__main__":
    main()
