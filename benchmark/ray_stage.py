"""One stage of a run that many workers share: which chunks are still to be computed, and what has come back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .engine import Chunk, Progress, Report
from .store import Payload


@dataclass
class Job:
    """A chunk that is to be computed. State: what became of it so far, and its pickle once it has been handed out.

    needs: the keys of what it shares with others.
    """

    number: int
    chunk: Chunk
    work: bytes | None = None
    needs: list[str] = field(default_factory=list)
    deaths: int = 0
    hangs: int = 0
    overflows: int = 0


class Stage:
    """State: the payloads as they come, the jobs that nobody has yet, and the clock of those that were computed."""

    def __init__(
        self,
        name: str,
        chunks: Sequence[Chunk],
        payloads: list[Payload | None],
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self.name, self._chunks, self._payloads, self._report, self._say = name, chunks, payloads, report, say
        self._numbers: dict[tuple[str, str], list[int]] = {}
        for number, chunk in enumerate(chunks):
            self._numbers.setdefault((chunk.kind, chunk.key), []).append(number)
        missing = [numbers[0] for numbers in self._numbers.values() if payloads[numbers[0]] is None]
        self.jobs = deque(Job(number, chunks[number]) for number in missing)  # of equal chunks, the first
        self._total = sum(chunk.size for chunk in chunks)
        self._done = sum(c.size for c, payload in zip(chunks, payloads, strict=True) if payload is not None)
        self._fresh = 0
        self._start = time.perf_counter()
        self._said: set[str] = set()
        if self._done:
            self._tell()

    def add(self, job: Job, payload: Payload) -> None:
        """A job's payload has come."""
        for same in self._numbers[job.chunk.kind, job.chunk.key]:
            self._payloads[same] = payload
            self._done += job.chunk.size
        self._fresh += job.chunk.size
        self._tell()

    def _tell(self) -> None:
        seconds = time.perf_counter() - self._start if self._fresh else 0.0
        self._report(Progress(self.name, self._done, self._total, self._fresh, seconds))

    def say(self, line: str) -> None:
        """Say something, once in the stage."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def show(self, job: Job) -> str:
        """A job's name in a sentence."""
        chunk = job.chunk
        return f"A chunk of {self.name!r} ({chunk.kind} {chunk.key[:12]}, size {chunk.size})"

    def finished(self) -> list[Payload]:
        """The payloads, in the chunks' order."""
        return [payload for payload in self._payloads if payload is not None]
