"""Memory and time of a run before any weight is there: from the models' configurations alone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nlabench.benchmark.assets import ASSETS, fetch_asset
from nlabench.benchmark.behaviour import NEW_TOKENS
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.footprint import count_parameters
from nlabench.benchmark.hub import hub_answers
from nlabench.benchmark.nla.checkpoint import REFERENCE, REFERENCE_FOLDER, base_of_adapter
from nlabench.benchmark.planning import TOKENS_PER_RECONSTRUCTION, TOKENS_PER_TEXT, plan_items
from nlabench.benchmark.runner import RunSettings, set_up
from nlabench.benchmark.suites import load_suite
from nlabench.benchmark.task import MeasuringTask, load_tasks
from transformers import AutoConfig

#: New tokens that an NLA writes about a vector: released ones write a paragraph.
TOKENS_PER_EXPLANATION = 120

#: Texts that are written at once.
ROWS_AT_ONCE = 32

#: Of the memory that weights take: activations, caches and the allocator's own.
MARGIN = 1.2

#: Share of a machine's peak that decoding and reading reach here.
REACHED = 0.35


@dataclass(frozen=True)
class Machine:
    """memory: bytes, None where it cannot be told. flops, bandwidth: peak, a second (FLOP, bytes)."""

    name: str
    memory: int | None
    flops: float
    bandwidth: float

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """The GPU that would be used, or this CPU, whose rate is measured."""
        if device != "cpu" and torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            # An 80 GB GPU of the last generations in bfloat16; others are told wrongly by their ratio to it.
            return cls(found.name, found.total_memory, 400e12, 2e12)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
        return cls("this CPU", memory, measure_flops(), 10e9)


@dataclass(frozen=True)
class Model:
    """One model of a run. parameters: all; blocks: how many of its decoder blocks are kept."""

    role: str
    source: str
    parameters: int
    blocks: int


@dataclass(frozen=True)
class Estimate:
    """memory: bytes. seconds: for reading, the behaviour gate, the texts, and their reconstruction."""

    models: list[Model]
    bytes_per_parameter: int
    memory: int
    items: int
    seconds: dict[str, float]

    def describe(self, machine: Machine) -> list[str]:
        """Lines for a person."""
        lines = [
            f"{m.role}: {m.source}, {m.blocks} blocks, {m.parameters / 1e9:.2f} billion parameters" for m in self.models
        ]
        lines.append(
            f"memory about {self.memory / 1e9:.1f} GB at {self.bytes_per_parameter} bytes a parameter"
            + (f"; {machine.name} has {machine.memory / 1e9:.0f} GB" if machine.memory else "")
        )
        parts = ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in self.seconds.items())
        lines.append(
            f"time about {show_seconds(sum(self.seconds.values()))} for about {self.items:,} items on {machine.name} "
            f"({parts}); within a factor of three on an idle machine, and the run says a measured figure itself"
        )
        return lines


def estimate_run(subject: str, av: str, ar: str | None, suite: str, machine: Machine, dtype: str = "auto") -> Estimate:
    """What a run of one NLA needs.

    Raises:
        BadInput: a model has no configuration that can be read.
    """
    halves = _find_halves(av, ar)
    models = [count_model("subject", subject), *(count_model(role, where) for role, where in halves)]
    wide = dtype == "float32" or (dtype == "auto" and machine.name == "this CPU")
    size = 4 if wide else 2
    items = count_items(suite)
    memory = int(sum(m.parameters for m in models) * size * MARGIN)
    loaded = load_suite(suite)
    answers = loaded.gate_requests * (loaded.n_concepts + loaded.gate_permuted_draws) * len(loaded.gate_strengths)
    by_role = {m.role: m.parameters for m in models}
    written = TOKENS_PER_TEXT if av == REFERENCE else TOKENS_PER_EXPLANATION
    seconds = {
        "reading": _read(items * 30, by_role["subject"], machine),
        "gate": _write(answers, NEW_TOKENS, by_role["subject"], size, machine),
        "texts": _write(items, written, by_role["AV"], size, machine),
    }
    if "AR" in by_role and any(isinstance(task, MeasuringTask) for task in load_tasks(loaded.tasks)):
        seconds["reconstruction"] = _read(items * TOKENS_PER_RECONSTRUCTION, by_role["AR"], machine)
    return Estimate(models, size, memory, items, seconds)


def count_model(role: str, source: str) -> Model:
    """The parameters of a model from its configuration: built without weights.

    source: a built-in asset, a folder (a model's, or an adapter's over one), or a hub id (`id@revision`).

    Raises:
        BadInput: there is no configuration.
    """
    folder = Path(source).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = count_model(role, base_of_adapter(folder))
        return Model(role, f"{folder.name} over {base.source}", base.parameters, base.blocks)
    where = str(fetch_asset(source, lambda _: None)) if source in ASSETS else source
    name, _, revision = (where, "", "") if Path(where).is_dir() else where.partition("@")
    try:
        cached_only = not Path(name).is_dir() and not hub_answers(name, revision or None)
        config: Any = AutoConfig.from_pretrained(name, revision=revision or None, local_files_only=cached_only)
        parameters = count_parameters(config)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        raise BadInput(
            f"The {role} {source!r} has no configuration that could be read: {reason}. Give "
            "a built-in asset, a folder with config.json in it, or a hub id that this machine can reach."
        ) from error
    blocks = config.get_text_config().num_hidden_layers
    return Model(role, source, parameters, blocks)


def count_items(suite: str) -> int:
    """About how many items a suite makes: counted on the default subject, whose prompts are about as many."""
    bench = set_up(RunSettings(suite=suite), say=lambda _: None)
    return len(plan_items(bench.sketch, bench.tasks))


def _find_halves(av: str, ar: str | None) -> list[tuple[str, str]]:
    home = REFERENCE_FOLDER if av == REFERENCE else Path(av).expanduser()
    if ar is None and (home / "av").is_dir():
        halves = [("AV", str(home / "av"))]
        return halves + ([("AR", str(home / "ar"))] if (home / "ar").is_dir() else [])
    return [("AV", av)] + ([("AR", ar)] if ar else [])


def _read(tokens: int, parameters: int, machine: Machine) -> float:
    return 2 * parameters * tokens / (REACHED * machine.flops)


def _write(texts: int, tokens: int, parameters: int, size: int, machine: Machine) -> float:
    """Each step reads the weights once and multiplies for every row: the slower of both counts."""
    rows = min(ROWS_AT_ONCE, texts)
    step = max(parameters * size / machine.bandwidth, 2 * parameters * rows / machine.flops) / REACHED
    return texts / rows * tokens * step


def measure_flops() -> float:
    """Products in float32 a second on this CPU."""
    a = torch.randn(1024, 1024)
    a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * 1024**3 / (time.perf_counter() - start)


def show_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
