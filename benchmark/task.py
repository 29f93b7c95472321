"""The protocol of a task, and how tasks are found."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from typing import Protocol, runtime_checkable

from .activations import ItemSpec
from .engine import Chunk
from .errors import BadInput
from .extraction import Activations
from .panel import Panel
from .records import MetricRow
from .study import Study
from .transcript import Measured, Transcript

ENTRY_POINTS = "nlabench.tasks"


@runtime_checkable
class Task(Protocol):
    """One question about a verbalizer. A task is one file in `tasks/` with `TASK = …`, or an entry point.

    name, version (bump it when its numbers change: versions are never compared), question (one sentence), and what it
    asks of verbalizers that answer questions (`QUESTION` where it needs nothing else).
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def asks(self) -> str: ...

    def items(self, study: Study) -> list[ItemSpec]:
        """The items that the task needs. Tasks that ask for the same item share it."""
        ...

    def score(self, panel: Panel) -> list[MetricRow]:
        """Every metric with its interval, for every verbalizer and scorer of the panel."""
        ...


@runtime_checkable
class MeasuringTask(Task, Protocol):
    """A task that needs more of the texts than their scores: what it measures is in the panel that it scores."""

    def measure(self, transcript: Transcript) -> Measured:
        """Numbers per item (see `Measured`). Long work goes through the transcript's engine, so that it resumes."""
        ...


@runtime_checkable
class ScanningTask(MeasuringTask, Protocol):
    """A task for whose items the vocabulary is scanned (see `inversion_detector`): minutes that a plan must know of."""

    def plan_scans(self, study: Study, activations: Activations) -> list[Chunk]:
        """The scans that `measure` makes; none where the subject cannot be scanned."""
        ...


def known_tasks() -> dict[str, Task]:
    """Every task that is built in or offered by an installed package, by name."""
    package_name = f"{__package__}".rpartition(".")[0] + ".tasks"
    package = importlib.import_module(package_name)
    modules = [importlib.import_module(f"{package_name}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found: dict[str, Task] = {m.TASK.name: m.TASK for m in modules if hasattr(m, "TASK")}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def load_tasks(names: tuple[str, ...]) -> list[Task]:
    """The tasks of a suite.

    Raises:
        BadInput: no task of that name.
    """
    known = known_tasks()
    missing = [name for name in names if name not in known]
    if missing:
        raise BadInput(f"There is no task {missing[0]!r}. Known are {', '.join(sorted(known))}.")
    return [known[name] for name in names]
