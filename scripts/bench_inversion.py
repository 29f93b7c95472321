"""How much faster is one exhaustive scan of the vocabulary than a plain one, with the same answers?

Reference: as public code does it, the whole prompt again for every candidate, all blocks and the unembedding, float32,
in batches. It is timed on a sample of its batches. Ours is timed on all of its batches. Both run in turns, so that
what else the machine does slows both; each total is made from the median batch, and from the best. The time of the
processors is given as well: what runs beside it lengthens that less.

    python scripts/bench_inversion.py [--position 20] [--layer 19] [--batches 8] [--whole]

--whole: also time whole scans end to end, of one target and of ten.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.loading import DEFAULT_SUBJECT, load_subject
from nlabench.benchmark.steering import add_at_readout, random_directions
from nlabench.benchmark.study import default_layer
from torch import Tensor

TEXT = (
    "The harbour was quiet when the ferry came in, and along the quay the men were shouting for the ropes to be thrown "
    "to them before the tide turned."
)
ROWS_OF_REFERENCE = 64
TARGETS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default=DEFAULT_SUBJECT)
    parser.add_argument("--position", type=int, default=20, help="tokens before the one that is searched")
    parser.add_argument("--layer", type=int, help="site; by default the benchmark's own")
    parser.add_argument("--batches", type=int, default=8, help="batches of the reference to time")
    parser.add_argument("--whole", action="store_true", help="also time whole scans")
    options = parser.parse_args()
    subject = load_subject(options.subject, dtype="float32")
    layer = default_layer(subject) if options.layer is None else options.layer
    ids = subject.encode(TEXT)[: options.position + 1]
    before, n_tokens = ids[:-1], subject.vocab_size
    tokens = torch.tensor([ids], device=subject.device)
    target = subject.run(tokens, torch.ones_like(tokens), capture=[layer])[layer][0, -1].clone()
    print(f"{subject.name}, {len(before)} tokens before, site {layer} of {subject.n_blocks} blocks, {n_tokens} tokens")

    narrow, wide = Scanner(subject, layer, prescan=True), Scanner(subject, layer)
    prefix, rows = subject.make_prefix(before, layer), wide.rows
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(n_tokens, generator=generator).to(subject.device)

    @torch.inference_mode()
    def plain(candidates: Tensor) -> Tensor:
        whole = torch.cat([tokens[:, :-1].expand(len(candidates), -1), candidates[:, None]], dim=1)
        read = subject.model(input_ids=whole, output_hidden_states=True, use_cache=False)
        states: Tensor = read.hidden_states[layer + 1][:, -1]
        return states

    def ours(candidates: Tensor, dtype: torch.dtype) -> Tensor:
        return wide.distances(prefix, candidates, many, dtype=dtype, shared=True)

    directions = random_directions(subject.d_model, TARGETS, seed=0).to(subject.device)
    many = add_at_readout(target.expand(TARGETS, -1), directions, torch.linspace(0, 1, TARGETS))
    calls: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
        "plain": (ROWS_OF_REFERENCE, plain),
        "float32": (rows, lambda candidates: ours(candidates, torch.float32)),
        "bfloat16": (rows, lambda candidates: ours(candidates, torch.bfloat16)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    flops: dict[str, list[float]] = {"float32 (torch)": [], "float32 (oneDNN)": [], "bfloat16": []}
    for call in calls.values():
        call[1](drawn[: call[0]])  # weights are laid out, buffers made
    worst = 0.0
    for number in range(options.batches):
        for name, (size, call) in calls.items():
            for part in range(1 if name == "plain" else 3):
                batch = drawn[(3 * number + part) * size :][:size]
                start, used = time.perf_counter(), time.process_time()
                call(batch)
                seconds[name].append((time.perf_counter() - start) * n_tokens / len(batch))
                busy[name].append((time.process_time() - used) * n_tokens / len(batch))
        for name, rate in measure_flops(rows).items():
            flops[name].append(rate)
        check = drawn[number * 8 :][:8]
        states, wanted = torch.cat(list(wide.states(prefix, check, shared=True))), plain(check)
        worst = max(worst, float(((states - wanted).norm(dim=1) / wanted.norm(dim=1)).max()))
    again = narrow.scan(prefix, many)
    print(f"largest relative difference from the plain states: {worst:.1e}")
    print(f"nearest to the natural target: {int(again.tokens[0, 0])} (true {ids[-1]}) at {again.distances[0, 0]:.1e}, ")
    print(f"  second at {again.distances[0, 1]:.1f}; shared prefix: {again.shared}; margin {2 * again.error:.2f}, ")
    print(f"  {again.rescored} of {n_tokens} tokens scored again in float32")

    middle, share = statistics.median, again.rescored / n_tokens
    for what, measured, pick in (
        ("median batch", seconds, middle), ("best batch", seconds, min), ("median processor time", busy, middle),
    ):  # fmt: skip
        reference, full = pick(measured["plain"]), pick(measured["float32"])
        narrowed = pick(measured["bfloat16"]) + full * share
        print(f"\nseconds a scan, {what}: plain {reference:.0f}, float32 {full:.1f}, pre-scan {narrowed:.1f}")
        print(f"  float32: {reference / full:.1f} times faster; with the pre-scan: {reference / narrowed:.1f}")
        print(f"  each of {TARGETS} targets that share it: {reference * TARGETS / full:.0f} and "
              f"{reference * TARGETS / narrowed:.0f} times faster")  # fmt: skip
    multiplied = 2 * n_tokens * count_weights(wide) / 1e9
    print(f"\na scan multiplies {multiplied:.0f} GFLOP of weights; the best batch used")
    for name, rates in flops.items():
        taken = min(seconds["bfloat16" if name == "bfloat16" else "float32"])
        print(f"  {multiplied / taken:.0f} GFLOP/s of {max(rates):.0f}, {name}: {multiplied / taken / max(rates):.0%}")
    if options.whole:
        for name, scanner in (("float32", wide), ("pre-scan", narrow)):
            for targets in (many[:1], many):
                found = scanner.scan(prefix, targets)
                print(f"whole scan, {name}, {len(targets)} targets: {found.seconds:.1f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def count_weights(scanner: Scanner) -> int:
    """Weights of the linear maps that every candidate passes."""
    blocks = scanner.subject.blocks[: scanner.layer + 1]
    return sum(weights.numel() for block in blocks for weights in block.parameters() if weights.ndim == 2)


def measure_flops(rows: int, inner: int = 1536, outer: int = 576, repeats: int = 20) -> dict[str, float]:
    """GFLOP/s of one matrix product of a scan's size, by each kernel; the best of its repeats."""
    left, right = torch.randn(rows, outer), torch.randn(inner, outer)
    low, low_right = left.bfloat16(), right.bfloat16()
    pack = torch.ops.mkldnn._reorder_linear_weight
    packed = {"float32 (oneDNN)": (left, pack(right, rows)), "bfloat16": (low, pack(low_right, rows))}

    def best(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        return 2 * rows * inner * outer / min(taken) / 1e9

    with torch.inference_mode():
        found = {"float32 (torch)": best(lambda: torch.nn.functional.linear(left, right))}
        for name, (inputs, weights) in packed.items():
            found[name] = best(
                lambda x=inputs, w=weights: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
            )
    return found


if __name__ == "__main__":
    main()
