"""Where work runs. Work is a list of independent, content-addressed chunks; each is on disk as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .errors import BadInput
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
    """How far one stage of a run is. seconds: spent on the chunks that were computed; fresh: their size.

    Where several processes compute at once, `seconds` are those that passed, so that fresh / seconds is their rate
    together.
    """

    stage: str
    done: int
    total: int
    fresh: int
    seconds: float


Report = Callable[[Progress], None]


class Engine(Protocol):
    """Runs chunks and returns their payloads in the chunks' order, from the store where they are there already."""

    def run(self, stage: str, chunks: Sequence[Chunk]) -> list[Payload]: ...

    def close(self) -> None:
        """Give back what the engine holds (processes, their memory). It may not run anything after."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """Where a run's chunks are computed. No number hangs on it.

    ray_address: of a Ray cluster; a local one is started by default. workers: processes that compute, by default as
    many as there are GPUs or sets of cores for. chunk_timeout: seconds after which a worker that computes one chunk
    counts as hung; never by default.
    """

    name: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    workers: int | None = None
    chunk_timeout: float | None = None


def open_engine(settings: EngineSettings, store: Store, report: Report, device: str = "auto", gpus: int = 1) -> Engine:
    """The engine that the settings name. device: what the run's models are on (`auto`, `cpu`, `cuda`, …); gpus: how
    many one copy of them takes there.

    Raises:
        BadInput: no such engine, an option that it does not have, or see `connect_cluster`.
    """
    if settings.name == "ray":
        from .ray_cluster import connect_cluster  # Ray is an extra, and slow to import
        from .ray_engine import RayEngine

        return RayEngine(store, report, connect_cluster(settings, device, gpus), settings.chunk_timeout)
    if settings.name != "local":
        raise BadInput(f"There is no engine {settings.name!r}. Choose local (this process) or ray (many processes).")
    given = [name for name in ("ray_address", "workers", "chunk_timeout") if getattr(settings, name) is not None]
    if given:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise BadInput(f"{options}: the engine `local` has no such option. Pass --engine ray too, or leave it out.")
    return LocalEngine(store, report)


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

    def close(self) -> None:
        pass
