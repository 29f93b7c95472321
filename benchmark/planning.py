"""The plan of a run, before it starts: what it will make, and how long that takes on this machine."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from .activations import ItemSpec
from .behaviour import NEW_TOKENS
from .decoding import decode
from .engine import Chunk, Engine
from .reading import PREAMBLE, TOKENS_PER_BATCH
from .store import Payload, content_key
from .study import Study
from .task import Task

#: New tokens that a generating verbalizer is expected to write per text.
TOKENS_PER_TEXT = 24

#: Tokens that an AR reads per text, the prompt around it included.
TOKENS_PER_RECONSTRUCTION = 60


@dataclass(frozen=True)
class Plan:
    """How much a run makes. Seconds are estimates from rates measured here; `generating` verbalizers decode."""

    items_by_arm: dict[str, int]
    tokens_read: int
    answers: int
    texts: int
    reading_seconds: float
    gate_seconds: float
    text_seconds: float
    vector_seconds: float

    @property
    def n_items(self) -> int:
        return sum(self.items_by_arm.values())

    @property
    def seconds(self) -> float:
        return self.reading_seconds + self.gate_seconds + self.text_seconds + self.vector_seconds


def plan_items(study: Study, tasks: Sequence[Task]) -> list[ItemSpec]:
    """Every item that the tasks ask for, each once."""
    return list(dict.fromkeys(spec for task in tasks for spec in task.items(study)))


def make_plan(
    study: Study,
    tasks: Sequence[Task],
    engine: Engine,
    n_verbalizers: int,
    n_generating: int,
    *,
    reads_prompts: bool = False,
    n_reconstructing: int = 0,
) -> Plan:
    """Count the work of a sketched study and time a sample of it (some seconds, on a machine's first run of a day).

    n_generating: verbalizers that write token by token about every item. reads_prompts: whether the reader that does so
    about every distinct prompt is among them too. n_reconstructing: verbalizers whose AR reads every text.
    """
    specs = plan_items(study, tasks)
    suite = study.suite
    upstream = sum(spec.injection == "upstream" for spec in specs)
    tokens = sum(len(text.ids) for text in study.texts.values()) + upstream * 15
    arms = len(study.pack.names) + suite.gate_permuted_draws
    answers = suite.gate_requests * (arms * len(suite.gate_strengths) + 1)
    read_rate, decode_rate = _find_rates(study, engine)
    prompts = len({spec.readout for spec in specs}) if reads_prompts else 0
    written = (n_generating * len(specs) + prompts) * TOKENS_PER_TEXT
    return Plan(
        items_by_arm=dict(Counter(spec.arm for spec in specs)),
        tokens_read=tokens,
        answers=answers,
        texts=len(specs) * n_verbalizers,
        reading_seconds=tokens / read_rate,
        gate_seconds=answers * NEW_TOKENS * (1 / decode_rate + 1 / read_rate),
        text_seconds=written / decode_rate,
        vector_seconds=n_reconstructing * len(specs) * TOKENS_PER_RECONSTRUCTION / read_rate,
    )


def _find_rates(study: Study, engine: Engine) -> tuple[float, float]:
    key = content_key(
        **study.reading_key(), layer=study.site.layer, machine=platform.node(), threads=torch.get_num_threads(),
        day=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip
    (payload,) = engine.run("timing this machine", [Chunk("rates", key, 1, lambda: Payload({}, measure_rates(study)))])
    read_rate, decode_rate = payload.record
    return float(read_rate), float(decode_rate)


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
