"""The engine that spreads a run's chunks over the machines of a Ray cluster.

Workers compute, one chunk at a time each; this process alone reads and writes the store. So a run that is killed
resumes as any other does, and whatever becomes of a worker costs the chunk that it had.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from .engine import Chunk, Report
from .errors import BadInput
from .ray_cluster import PASSED_ON, Cluster
from .ray_packing import Packer
from .ray_stage import Job, Stage
from .ray_worker import Outcome, Worker
from .store import Payload, Store

#: A chunk that ends its worker, or does not fit into memory, this often is given up.
MOST_TRIES = 3

#: A chunk that hangs is tried once more: it may have been its machine.
MOST_HANGS = 2

#: Seconds without any worker after which the cluster counts as lost. The first start on a node imports for minutes.
STARTUP_SECONDS = 900.0

#: Seconds between looks at the clock while nothing happens.
TICK = 0.5

KEPT = "Finished work is kept: run the same command again."


@dataclass
class Seat:
    """A place for a worker, and what the worker in it does. State: everything here, as workers come and go.

    ready, loading, computing: references to answers that are waited for. job: what it computes, and since when.
    """

    actor: Any
    ready: Any
    up: bool = False
    held: set[str] = field(default_factory=set)
    job: Job | None = None
    loading: Any = None
    computing: Any = None
    started: float | None = None

    def awaited(self) -> Any:
        """The reference to the next answer, if any is due."""
        if not self.up:
            return self.ready
        return self.computing if self.loading is None else self.loading


class RayEngine:
    """State: the workers, and what they were sent. See `Engine`.

    chunk_timeout: seconds that a chunk may take before its worker counts as hung; None: any time.
    """

    def __init__(self, store: Store, report: Report, cluster: Cluster, chunk_timeout: float | None = None) -> None:
        self.store, self.report, self.cluster, self.chunk_timeout = store, report, cluster, chunk_timeout
        self._packer = Packer(lambda pickled: ray.put(pickled))
        self._seats: list[Seat] = []
        self._failed_starts = 0

    def run(self, stage: str, chunks: Sequence[Chunk]) -> list[Payload]:
        """See `Engine.run`.

        Raises:
            BadInput: a chunk ended its workers again and again, hung twice, or does not fit into memory; or no worker
                is left. What was finished is in the store.
        """
        payloads = [self.store.get(chunk.kind, chunk.key) for chunk in chunks]
        shared = Stage(stage, chunks, payloads, self.report, self.store.say)
        try:
            self._compute(shared)
        except BaseException:
            for seat in [seat for seat in self._seats if seat.job]:  # nobody waits for these any more
                self._dismiss(seat)
            raise
        return shared.finished()

    def close(self) -> None:
        for seat in list(self._seats):
            self._dismiss(seat)
        if self.cluster.ours and ray.is_initialized():
            ray.shutdown()

    def _compute(self, stage: Stage) -> None:
        seen = time.monotonic()
        while stage.jobs or any(seat.job for seat in self._seats):
            wanted = len(stage.jobs) + sum(seat.job is not None for seat in self._seats)
            while len(self._seats) < min(self.cluster.n_workers, wanted):
                self._seats.append(self._start_worker())
            for seat in self._seats:
                if stage.jobs and seat.up and seat.job is None:
                    self._hand_out(seat, stage.jobs.popleft(), stage)
            awaited = [reference for seat in self._seats if (reference := seat.awaited()) is not None]
            if awaited:
                ray.wait(awaited, num_returns=1, timeout=TICK, fetch_local=False)
            for seat in list(self._seats):
                self._look_after(seat, stage)
            if any(seat.up for seat in self._seats):
                seen = time.monotonic()
            elif time.monotonic() - seen > STARTUP_SECONDS:
                free = ", ".join(f"{ray.available_resources().get(name, 0):g} {name}" for name in ("CPU", "GPU"))
                raise BadInput(
                    f"No Ray worker came up within {STARTUP_SECONDS:.0f} s. {self.cluster.n_workers} of "
                    f"{self.cluster.cores} core(s) and {self.cluster.gpus} GPU(s) each were asked for; {free} are "
                    f"free. Look at `ray status`: other jobs may hold the cluster. {KEPT}"
                )

    # -- handing out -------------------------------------------------------------------------------------------------

    def _start_worker(self) -> Seat:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        kind: Any = ray.remote(Worker)
        placed = kind.options(
            num_cpus=self.cluster.cores, num_gpus=self.cluster.gpus, max_restarts=0, max_task_retries=0
        )
        actor = placed.remote(self.cluster.cores, environment, [entry for entry in sys.path if entry])
        return Seat(actor, actor.identify.remote())

    def _hand_out(self, seat: Seat, job: Job, stage: Stage) -> None:
        if job.work is None:
            try:
                job.work, job.needs = self._packer.pack(job.chunk.compute)
            except Exception as error:  # whatever a user's object does when it is pickled
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                stage.say(f"{stage.name}: computed in this process, since it cannot be sent to another ({reason})")
        if job.work is None:
            self._finish(job, job.chunk.compute(), stage)
            return
        new = {key: self._packer.references[key] for key in job.needs if key not in seat.held}
        seat.job = job
        # Loading a model is no part of the chunk: its clock starts when all that it needs is there.
        seat.loading = seat.actor.take.remote(new) if new else None
        seat.started = None if new else time.monotonic()
        seat.computing = seat.actor.compute.remote(job.work)

    # -- what comes back ----------------------------------------------------------------------------------------------

    def _look_after(self, seat: Seat, stage: Stage) -> None:
        try:
            if not seat.up and _is_done(seat.ready):
                ray.get(seat.ready)
                seat.up, self._failed_starts = True, 0
            if seat.loading is not None and _is_done(seat.loading):
                _check_loaded(ray.get(seat.loading))
                seat.held.update(seat.job.needs if seat.job else ())
                seat.loading, seat.started = None, time.monotonic()
            if seat.loading is None and seat.computing is not None and _is_done(seat.computing):
                self._take_back(seat, pickle.loads(ray.get(seat.computing)), stage)
        except RayError as error:
            self._replace(seat, error, stage)
        else:
            self._check_clock(seat, stage)

    def _take_back(self, seat: Seat, outcome: Outcome, stage: Stage) -> None:
        job, seat.job = seat.job, None
        seat.computing = seat.started = None
        assert job is not None
        for line in outcome.said:
            stage.say(f"{stage.name}: {line}")
        if outcome.error is None:
            self._finish(job, outcome.payload, stage)
        elif not outcome.memory:
            _check_loaded(outcome)
        else:
            job.overflows += 1
            if job.overflows >= MOST_TRIES:
                raise BadInput(
                    f"{stage.show(job)} did not fit into a worker's memory, {job.overflows} times ({outcome.error}). "
                    f"Give each worker more: fewer --workers a machine, a larger GPU, or a smaller --dtype. {KEPT}"
                )
            stage.say(f"{stage.show(job)} did not fit into a worker's memory; that is freed, and it is tried again")
            stage.jobs.appendleft(job)

    def _finish(self, job: Job, payload: Payload, stage: Stage) -> None:
        if job.chunk.keep(payload):
            self.store.put(job.chunk.kind, job.chunk.key, payload)
        stage.add(job, payload)

    # -- faults ------------------------------------------------------------------------------------------------------

    def _replace(self, seat: Seat, error: RayError, stage: Stage) -> None:
        self._dismiss(seat)
        job, why = seat.job, " ".join(str(error).split())[:500]
        if job is None:
            self._failed_starts += not seat.up
            if self._failed_starts >= MOST_TRIES:
                raise BadInput(
                    f"Ray could not start a worker, {self._failed_starts} times: {why}. See that every node has this "
                    "environment and the memory that it needs; `ray logs` has the rest."
                ) from error
            return
        job.deaths += 1
        if job.deaths >= MOST_TRIES:
            raise BadInput(
                f"{stage.show(job)} ended its worker {job.deaths} times: {why}. Memory that runs out does this, and "
                "code that crashes: give each worker more (fewer --workers, a larger machine), or run the local "
                f"engine, which shows where it stops. {KEPT}"
            ) from error
        stage.say(f"{stage.show(job)} lost its worker; another one computes it")
        stage.jobs.appendleft(job)

    def _check_clock(self, seat: Seat, stage: Stage) -> None:
        job = seat.job
        if job is None or self.chunk_timeout is None or seat.started is None:
            return
        if time.monotonic() - seat.started <= self.chunk_timeout:
            return
        self._dismiss(seat)
        job.hangs += 1
        if job.hangs >= MOST_HANGS:
            raise BadInput(
                f"{stage.show(job)} took more than {self.chunk_timeout:g} s, {job.hangs} times, on two workers. Pass a "
                f"longer --chunk-timeout if it is merely slow, or mend the verbalizer that hangs. {KEPT}"
            )
        stage.say(f"{stage.show(job)} took more than {self.chunk_timeout:g} s; another worker tries it")
        stage.jobs.appendleft(job)

    def _dismiss(self, seat: Seat) -> None:
        self._seats.remove(seat)
        ray.kill(seat.actor, no_restart=True)


def _is_done(reference: Any) -> bool:
    done, _ = ray.wait([reference], timeout=0, fetch_local=False)
    return bool(done)


def _check_loaded(outcome: Outcome) -> None:
    error = outcome.error
    if outcome.memory:
        raise BadInput(
            f"A worker's memory does not hold the run's models ({error}). Give each worker more: fewer --workers a "
            f"machine, a larger GPU, a smaller --dtype, or fewer verbalizers at a time. {KEPT}"
        )
    if isinstance(error, ModuleNotFoundError):
        raise BadInput(
            f"A Ray worker could not import what a verbalizer needs: {error}. Install it on every node, or keep "
            "your module in a folder that all of them share, and start the command there."
        )
    if error is not None:
        raise error
