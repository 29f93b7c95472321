"""How long a piece of an experiment takes, from the same piece done once or twice before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from nlabench.benchmark.decoding import decode
from torch import Tensor

from .setup import Setup, read_states

#: Tokens that are written after an answer's first, to time them.
FEW = 6


def time_call(call: Callable[[], object]) -> float:
    """Seconds of a call that is made a second time: the first of anything is slower, by several times."""
    call()
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_reading(setup: Setup, ids: Sequence[int]) -> float:
    """Seconds in which the states of a prompt are read."""
    return time_call(lambda: read_states(setup.subject, ids, setup.layer))


def time_answers(setup: Setup, prompts: Sequence[Sequence[int]], n_tokens: int) -> float:
    """Seconds in which a batch of prompts is answered with so many tokens each.

    The first token, with which the prompts are read, is timed apart from the next few, which stand for the rest: in a
    short answer it takes as long as a dozen of them.
    """
    begun: list[float] = []

    def note_time(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        begun.append(time.perf_counter())
        return states

    decode(setup.subject, [ids[:1] for ids in prompts], max_new_tokens=2)  # the first call of anything is slower
    decode(setup.subject, prompts, max_new_tokens=1 + FEW, edits={-1: note_time})
    ended = time.perf_counter()
    if len(begun) < 2:  # every row ended with its first token
        return ended - begun[0]
    return begun[1] - begun[0] + (ended - begun[1]) / (len(begun) - 1) * (n_tokens - 1)
