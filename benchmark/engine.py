"""Where work runs. Work is a list of independent, content-addressed chunks; each is on disk as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .store import Payload, Store


@dataclass(frozen=True)
class Chunk:
    """One piece of work. `size` is how much it counts for in the progress (texts, tokens, items)."""

    kind: str
    key: str
    size: int
    compute: Callable[[], Payload]
    #: Whether a payload may be kept. A chunk in which something failed is computed again by the next run.
    keep: Callable[[Payload], bool] = lambda _: True


@dataclass(frozen=True)
class Progress:
    """How far one stage of a run is. seconds: spent on the chunks that were computed; fresh: their size."""

    stage: str
    done: int
    total: int
    fresh: int
    seconds: float


Report = Callable[[Progress], None]


class Engine(Protocol):
    """Runs chunks and returns their payloads in the chunks' order, from the store where they are there already."""

    def run(self, stage: str, chunks: Sequence[Chunk]) -> list[Payload]: ...


@dataclass(frozen=True)
class LocalEngine:
    """One chunk after another, in this process."""

    store: Store
    report: Report = lambda _: None

    def run(self, stage: str, chunks: Sequence[Chunk]) -> list[Payload]:
        total = sum(chunk.size for chunk in chunks)
        done = fresh = 0
        seconds = 0.0
        payloads = []
        for chunk in chunks:
            payload = self.store.get(chunk.kind, chunk.key)
            if payload is None:
                start = time.perf_counter()
                payload = chunk.compute()
                if chunk.keep(payload):
                    self.store.put(chunk.kind, chunk.key, payload)
                seconds += time.perf_counter() - start
                fresh += chunk.size
            payloads.append(payload)
            done += chunk.size
            self.report(Progress(stage, done, total, fresh, seconds))
        return payloads
