"""How much faster are two workers than one at the same texts, and what does a chunk cost beside its computing?

The reference NLA verbalizes the same vectors in this process, then with one and with two Ray workers on this machine,
one thread each. Models are loaded, and every worker has answered, before the clock starts.

    python scripts/bench_scaling.py [--chunks 12] [--per-chunk 16] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.engine import Chunk, Engine, EngineSettings, open_engine
from nlabench.benchmark.store import Payload, Store, content_key
from nlabench.benchmark.verbalizers.nla import load_nla

EMPTY_CHUNKS = 200


@dataclass(frozen=True)
class Timing:
    """seconds passed, and within them: computing (in the chunks, all workers together), and the driver's own CPU."""

    seconds: float
    computing: float
    driver: float
    empty: float
    texts: list[list[str]]


def verbalize(nla: Any, batch: ActivationBatch) -> Payload:
    start = time.perf_counter()
    texts = [said.text for said in nla.verbalize(batch)]
    seconds = time.perf_counter() - start
    return Payload({"seconds": np.array([seconds])}, {"texts": texts, "worker": os.getpid()})


def do_nothing() -> Payload:
    return Payload({"seconds": np.zeros(1)}, {"worker": os.getpid()})


def warm_up(engine: Engine, nla: Any, batch: ActivationBatch, n_workers: int) -> None:
    """Until every worker has verbalized something."""
    seen: set[int] = set()
    for turn in range(1000):
        work = partial(verbalize, nla, ActivationBatch(batch.vectors[:1], batch.site))
        chunks = [Chunk("texts", content_key(warm=[turn, i]), 1, work) for i in range(2 * n_workers)]
        seen |= {payload.record["worker"] for payload in engine.run("warming up", chunks)}
        if len(seen) == n_workers:
            return
    raise RuntimeError(f"{len(seen)} of {n_workers} workers came up")


def measure(settings: EngineSettings, nla: Any, batches: list[ActivationBatch]) -> Timing:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(settings, Store(Path(folder)), lambda _: None, "cpu")
        try:
            warm_up(engine, nla, batches[0], settings.workers or 1)
            nothing = [Chunk("texts", content_key(empty=i), 1, do_nothing) for i in range(EMPTY_CHUNKS)]
            start = time.perf_counter()
            engine.run("nothing", nothing)
            empty = (time.perf_counter() - start) / EMPTY_CHUNKS
            chunks = [
                Chunk("texts", content_key(timed=i), len(batch.vectors), partial(verbalize, nla, batch))
                for i, batch in enumerate(batches)
            ]
            start, cpu = time.perf_counter(), time.process_time()
            payloads = engine.run("texts", chunks)
            seconds, driver = time.perf_counter() - start, time.process_time() - cpu
        finally:
            engine.close()
    computing = sum(float(payload.arrays["seconds"][0]) for payload in payloads)
    return Timing(seconds, computing, driver, empty, [payload.record["texts"] for payload in payloads])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--per-chunk", type=int, default=16, help="vectors in each")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)  # and so have the workers one core each
    nla = load_nla("reference", device="cpu")
    site = Site(nla.card.subject or "", nla.card.layer or 0, nla.card.d_model or 0)
    vectors = torch.randn(options.chunks, options.per_chunk, site.d_model, generator=torch.Generator().manual_seed(0))
    batches = [ActivationBatch(part, site) for part in vectors]
    print(
        f"{os.cpu_count()} cores ({platform.processor() or platform.machine()}), load {os.getloadavg()[0]:.1f} before; "
        f"{options.chunks} chunks of {options.per_chunk} random vectors, {nla.card.name}, float32, one thread a worker"
    )
    engines = [("local", EngineSettings())]
    engines += [(f"ray, {n} worker{'s' * (n > 1)}", EngineSettings("ray", workers=n)) for n in options.workers]
    found = {name: measure(settings, nla, batches) for name, settings in engines}
    n_texts, first = options.chunks * options.per_chunk, next(iter(found.values()))
    print(f"{'':15} seconds  texts/s  against local  computing  driver's CPU  an empty chunk")
    for name, timing in found.items():
        rate, faster = n_texts / timing.seconds, first.seconds / timing.seconds
        print(
            f"{name:15} {timing.seconds:7.1f}  {rate:7.2f}  {faster:12.2f}x  {timing.computing:8.1f}s  "
            f"{timing.driver / timing.seconds:12.1%}  {1000 * timing.empty:11.1f} ms"
        )
    for (name, settings), timing in zip(engines, found.values(), strict=True):
        if settings.workers == 1:
            beside = timing.seconds - timing.computing
            each, share = 1000 * beside / options.chunks, beside / timing.seconds
            print(f"{name}: {each:.1f} ms a chunk beside its computing, {share:.2%} of the time")
    print(f"same texts: {all(timing.texts == first.texts for timing in found.values())}")


if __name__ == "__main__":
    main()
