"""Time the bootstrap at quick and standard size: `python scripts/bench_statistics.py [--size standard]`."""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from nlabench.benchmark.statistics import Clusters, macro_auroc, rank_intervals, resample
from nlabench.benchmark.statistics.simulate import balanced_crossing

SIZES = {  # concepts, prompts, prompts per concept, score sets, arm x strength cells
    "quick": (12, 12, 6, 27, 12),
    "standard": (48, 24, 8, 27, 1),
    "standard-full": (48, 16, 16, 27, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--resamples", type=int, default=10_000)
    args = parser.parse_args()
    n_concepts, n_prompts, per_concept, n_sets, n_cells = SIZES[args.size]
    clusters = Clusters(*balanced_crossing(n_concepts, n_prompts, per_concept))
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n_sets, clusters.n_items, n_concepts))
    start = time.perf_counter()
    weights = resample(n_concepts, n_prompts, args.resamples)
    drawn = time.perf_counter() - start
    start = time.perf_counter()
    estimates = [macro_auroc(scores, clusters, weights) for _ in range(n_cells)]
    total = time.perf_counter() - start
    start = time.perf_counter()
    without = [macro_auroc(scores, clusters) for _ in range(n_cells)]
    jackknife = time.perf_counter() - start
    start = time.perf_counter()
    rank_intervals(without[0])
    ranked = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.size}: {len(estimates)} x macro_auroc, {n_sets} sets, {clusters.n_items} items, {args.resamples} "
        f"resamples: {total:.2f} s (without draws {jackknife:.2f} s); resample {drawn:.2f} s; "
        f"rank_intervals {ranked:.2f} s; peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
