"""What of a run the store holds already: the run's own steps, as far as they go without any being computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .behaviour import plan_gate
from .engine import Chunk, Engine
from .extraction import Activations
from .planning import Stored
from .roster import QUICK, Roster
from .store import Payload, Store
from .study import Study
from .task import ScanningTask, Task
from .verbalizing import plan_texts


class NotStored(Exception):
    """A step of a run whose work is not all in the store: its kind, and the share that is."""

    def __init__(self, kind: str, share: float) -> None:
        super().__init__(kind)
        self.kind, self.share = kind, share


@dataclass(frozen=True)
class StoreReader:
    """An engine that computes nothing: a step that is not all in the store raises `NotStored`."""

    store: Store

    def run(self, stage: str, chunks: Sequence[Chunk]) -> list[Payload]:
        share = stored_share(self.store, chunks)
        payloads = [self.store.get(chunk.kind, chunk.key) for chunk in chunks] if share == 1 else []
        found = [payload for payload in payloads if payload is not None]
        if len(found) < len(chunks):  # a damaged file is noticed, and removed, when it is read
            raise NotStored(chunks[0].kind, min(share, len(found) / len(chunks)) if found else share)
        return found

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Ahead:
    """What a look ahead found. study, roster: where the store holds all that they are made from."""

    stored: Stored
    study: Study | None = None
    roster: Roster | None = None


def look_ahead(
    store: Store,
    measure: Callable[[Engine], tuple[Study, Activations]],
    load: Callable[[Study], Roster] | None = None,
    tasks: Sequence[Task] = (),
) -> Ahead:
    """How much of a run is in the store, without doing any of it (the verbalizers are loaded where their texts may be).

    Activations hang on directions, and those on every text of the pack: where one is not read yet, no answer and no
    text of the run can be in the store, but for those of a pack and subject whose readings were deleted.

    measure: as `Bench.measure`, with an engine. load: the roster of a study; without, nothing is verbalized. tasks:
    those whose scans of the vocabulary are part of the run.

    Raises:
        BadInput: as `load_roster`.
    """
    try:
        study, activations = measure(StoreReader(store))
    except NotStored as missing:
        none = 0.0 if load else 1.0
        return Ahead(Stored(missing.share if missing.kind == "readings" else 1.0, none, none, none, none))
    if load is None:
        return Ahead(Stored(1.0, 1.0, 1.0, 1.0, 1.0), study)
    roster = load(study)
    chunks = {name: plan_texts(verbalizer, activations, study) for name, verbalizer in roster.verbalizers.items()}
    scans = [chunk for t in tasks if isinstance(t, ScanningTask) for chunk in t.plan_scans(study, activations)]
    written = [name for name, v in roster.verbalizers.items() if name not in QUICK and v.card.role != "floor"]
    stored = Stored(
        tokens=1.0,
        answers=stored_share(store, plan_gate(study)),
        texts=stored_share(store, [chunk for part in chunks.values() for chunk in part]),
        written=stored_share(store, [chunk for name in written for chunk in chunks[name]]),
        scans=stored_share(store, scans),
    )
    return Ahead(stored, study, roster)


def stored_share(store: Store, chunks: Sequence[Chunk]) -> float:
    """The share of work, by size, that is in the store; 1 where there is none to do."""
    total = sum(chunk.size for chunk in chunks)
    there = sum(chunk.size for chunk in chunks if store.has(chunk.kind, chunk.key))
    return there / total if total else 1.0
