"""A worker of the Ray engine: an actor that holds the loaded models, and computes the chunks that it is handed.

Nothing heavy is imported here before the first chunk needs it: how many threads torch takes is decided when it loads.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .memory import free_memory, ran_out_of_memory


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk: its payload, or the error that ended it; and what was said meanwhile.

    memory: the error was that memory did not hold the chunk.
    """

    payload: Any = None
    error: BaseException | None = None
    memory: bool = False
    said: tuple[str, ...] = ()


@dataclass
class Worker:
    """State: the objects that chunks share, by the engine's keys for them. They are unpacked once each.

    threads: of torch, and no more than the cores that this worker was given. environment: variables that the driver
    has and that decide where models lie. path: the driver's sys.path, so that a user's module is found here too.
    """

    threads: int
    environment: Mapping[str, str]
    path: Sequence[str]
    held: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.update(self.environment)
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        sys.path.extend(entry for entry in self.path if entry not in sys.path)

    def identify(self) -> int:
        """The process's number: whoever has it knows that the worker is up."""
        return os.getpid()

    def take(self, shared: Mapping[str, Any]) -> Outcome:
        """Unpack shared objects {key: reference to its pickle}, each after those that it refers to itself."""
        import ray

        try:
            for key, reference in shared.items():
                if key not in self.held:
                    self.held[key] = self._unpack(memoryview(ray.get(reference)))
        except Exception as error:  # a model that cannot be loaded here, a module that is not installed
            return _report_failure(error)
        return Outcome()

    def compute(self, work: bytes) -> bytes:
        """Call a pickled function of no arguments; returns the pickle of an `Outcome`.

        As bytes, since arrays that Ray hands over itself cannot be written to and keep its store full.
        """
        return pickle.dumps(self._call(work), pickle.HIGHEST_PROTOCOL)

    def _call(self, work: bytes) -> Outcome:
        logger = logging.getLogger(__package__)
        listener = _Listener()
        logger.addHandler(listener)
        try:
            call = self._unpack(work)
            self._limit_threads()
            return Outcome(payload=call(), said=tuple(listener.lines))
        except Exception as error:
            return _report_failure(error, listener.lines)
        finally:
            logger.removeHandler(listener)

    def _unpack(self, pickled: bytes | memoryview) -> Any:
        unpickler = pickle.Unpickler(io.BytesIO(pickled))
        unpickler.persistent_load = self.held.__getitem__  # type: ignore[method-assign]
        return unpickler.load()

    def _limit_threads(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _report_failure(error: Exception, said: Sequence[str] = ()) -> Outcome:
    memory = ran_out_of_memory(error)
    if memory:
        error.__traceback__ = None  # its frames hold what filled the memory
        free_memory()
    try:
        pickle.loads(pickle.dumps(error))
        whole: BaseException = error
    except Exception:  # an exception of the user's own class, say, that cannot travel
        whole = RuntimeError("".join(traceback.format_exception(error)).strip())
    return Outcome(error=whole, memory=memory, said=tuple(said))
