"""The plan of a run, before it starts: what it will make, and how long that takes on this machine."""

from __future__ import annotations

import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from .activations import ItemSpec
from .behaviour import NEW_TOKENS
from .decoding import decode
from .engine import Chunk, Engine
from .inversion_detector import can_scan, find_scanned
from .inversion_scan import MARGIN_SAMPLE, Scanner
from .reading import PREAMBLE, TOKENS_PER_BATCH
from .store import Payload, content_key
from .study import Study
from .subject import Prefix
from .task import ScanningTask, Task

#: New tokens that a generating verbalizer is expected to write per text.
TOKENS_PER_TEXT = 24

#: Tokens that an AR reads per text, the prompt around it included.
TOKENS_PER_RECONSTRUCTION = 60


@dataclass(frozen=True)
class Stored:
    """The share of a run's work that the store holds already, 0 to 1.

    written: of the texts that are written token by token, which are the ones that take time. scans: of the scans of the
    vocabulary.
    """

    tokens: float = 0.0
    answers: float = 0.0
    texts: float = 0.0
    written: float = 0.0
    scans: float = 0.0

    @property
    def takes_time(self) -> bool:
        """Whether anything is left that takes more than seconds."""
        return min(self.tokens, self.answers, self.written, self.scans) < 1


@dataclass(frozen=True)
class Plan:
    """How much a run makes, and how long what the store does not hold takes, by rates measured here.

    items_by_arm, tokens_read, answers, texts and scans (of the vocabulary) count all of it, whatever the store holds.
    """

    items_by_arm: dict[str, int]
    tokens_read: int
    answers: int
    texts: int
    stored: Stored
    reading_seconds: float
    gate_seconds: float
    text_seconds: float
    vector_seconds: float
    scans: int = 0
    scan_seconds: float = 0.0

    @property
    def n_items(self) -> int:
        return sum(self.items_by_arm.values())

    @property
    def seconds(self) -> float:
        return self.reading_seconds + self.gate_seconds + self.text_seconds + self.vector_seconds + self.scan_seconds


def plan_items(study: Study, tasks: Sequence[Task]) -> list[ItemSpec]:
    """Every item that the tasks ask for, each once."""
    return list(dict.fromkeys(spec for task in tasks for spec in task.items(study)))


def count_scans(study: Study, tasks: Sequence[Task]) -> int:
    """How often the tasks have the whole vocabulary scanned: once for each readout, whatever is read there."""
    if not can_scan(study):
        return 0
    return sum(len(find_scanned(study, task.items(study))) for task in tasks if isinstance(task, ScanningTask))


def make_plan(
    study: Study,
    tasks: Sequence[Task],
    engine: Engine,
    n_verbalizers: int,
    n_generating: int,
    *,
    gated: bool = True,
    reads_prompts: bool = False,
    n_reconstructing: int = 0,
    stored: Stored = Stored(),
) -> Plan:
    """Count the work of a study and, where some is left that takes time, time a sample of it (some seconds).

    gated: whether the behaviour gate and what tasks measure are part of it: not where activations are made and no more.
    n_generating: verbalizers that write token by token about every
    item. reads_prompts: whether the reader that does so about every distinct prompt is among them too.
    n_reconstructing: verbalizers whose AR reads every text. stored: how much of it the store holds; vectors of texts
    that are there are taken to be there too.
    """
    specs = plan_items(study, tasks)
    suite = study.suite
    upstream = sum(spec.injection == "upstream" for spec in specs)
    tokens = sum(len(text.ids) for text in study.texts.values()) + upstream * 15
    arms = len(study.pack.names) + suite.gate_permuted_draws
    answers = suite.gate_requests * (arms * len(suite.gate_strengths) + 1) if gated else 0
    # Only timed where some of it is left: a rerun starts at once.
    read_rate, decode_rate = _find_rates(study, engine) if stored.takes_time else (math.inf, math.inf)
    scans = count_scans(study, tasks) if gated else 0
    scan_seconds = (1 - stored.scans) * scans * _find_scan_seconds(study, engine) if scans and stored.scans < 1 else 0.0
    prompts = len({spec.readout for spec in specs}) if reads_prompts else 0
    written = (n_generating * len(specs) + prompts) * TOKENS_PER_TEXT
    return Plan(
        items_by_arm=dict(Counter(spec.arm for spec in specs)),
        tokens_read=tokens,
        answers=answers,
        texts=len(specs) * n_verbalizers,
        stored=stored,
        reading_seconds=(1 - stored.tokens) * tokens / read_rate,
        gate_seconds=(1 - stored.answers) * answers * NEW_TOKENS * (1 / decode_rate + 1 / read_rate),
        text_seconds=(1 - stored.written) * written / decode_rate,
        vector_seconds=(1 - stored.written) * n_reconstructing * len(specs) * TOKENS_PER_RECONSTRUCTION / read_rate,
        scans=scans,
        scan_seconds=scan_seconds,
    )


def _find_rates(study: Study, engine: Engine) -> tuple[float, float]:
    read_rate, decode_rate = _find_timed(study, engine, "rates", measure_rates)
    return float(read_rate), float(decode_rate)


def _find_scan_seconds(study: Study, engine: Engine) -> float:
    """Of one scan; timed apart from the rest, since few runs have any."""
    return float(_find_timed(study, engine, "scan_seconds", measure_scan))


def _find_timed(study: Study, engine: Engine, kind: str, measure: Callable[[Study], Any]) -> Any:
    """A rate of this machine, timed once a day for each load that others put on it (in times its cores)."""
    load = round(os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 0
    key = content_key(
        **study.reading_key(), layer=study.site.layer, machine=platform.node(), threads=torch.get_num_threads(),
        day=datetime.now(UTC).date().isoformat(), load=load,
    )  # fmt: skip
    (payload,) = engine.run("timing this machine", [Chunk(kind, key, 1, lambda: Payload({}, measure(study)))])
    return payload.record


def measure_rates(study: Study) -> tuple[float, float]:
    """(tokens read to the site a second, new tokens decoded a second in a batch of 48), measured on this machine."""
    subject = study.subject
    ids = subject.encode(PREAMBLE)[:32]
    decode(subject, [ids[:8]] * 48, max_new_tokens=1)  # the first call of anything is slower
    batch = torch.tensor([ids] * (TOKENS_PER_BATCH // len(ids)), device=subject.device)
    start = time.perf_counter()
    subject.run(batch, torch.ones_like(batch), capture=[study.site.layer], prefix=study.preamble)
    read = batch.numel() / (time.perf_counter() - start)
    start = time.perf_counter()
    decode(subject, [ids[:8]] * 48, max_new_tokens=8)
    return read, 48 * 8 / (time.perf_counter() - start)


def measure_scan(study: Study) -> float:
    """Seconds of one scan of the vocabulary after a readout prompt, measured on this machine."""
    scanner = Scanner(study.subject, study.site.layer, prescan=True)
    ids = study.readout_prompts[0].ids[:8]
    return time_scan(scanner, study.subject.make_prefix(ids, scanner.layer, after=study.preamble))


def time_scan(scanner: Scanner, prefix: Prefix) -> float:
    """Seconds of one scan with a pre-scan, from a batch of it and from as many tokens as are scored again at least."""
    vocabulary = torch.arange(scanner.subject.vocab_size, device=scanner.subject.device)
    target, shared = torch.zeros(1, scanner.subject.d_model, device=vocabulary.device), scanner.shares(prefix)

    def time_tokens(n: int, dtype: torch.dtype) -> float:
        scanner.distances(prefix, vocabulary[:n], target, dtype=dtype, shared=shared)  # lays out the weights, once
        start = time.perf_counter()
        scanner.distances(prefix, vocabulary[:n], target, dtype=dtype, shared=shared)
        if vocabulary.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    n = min(2 * scanner.rows, len(vocabulary))
    coarse = time_tokens(n, torch.bfloat16) / n * len(vocabulary)
    return coarse + time_tokens(min(MARGIN_SAMPLE, len(vocabulary)), torch.float32)
