"""How long a piece of an experiment takes, from the same piece done once or twice before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nlabench.benchmark.decoding import decode

from .setup import Setup, read_states

#: Tokens that are written to time an answer, after its first.
FEW = 3


def time_call(call: Callable[[], object]) -> float:
    """Seconds of a call that is made a second time: the first of anything is slower, by several times."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_reading(setup: Setup, ids: Sequence[int]) -> float:
    """Seconds in which the states of a prompt are read."""
    return time_call(lambda: read_states(setup.subject, ids, setup.layer))


def time_answers(setup: Setup, prompts: Sequence[Sequence[int]], n_tokens: int) -> float:
    """Seconds in which a batch of prompts is answered with so many tokens each.

    The first token, with which the prompts are read, is timed apart from the next few, which stand for all others: in a
    short answer it takes as long as a dozen of them.
    """
    first = time_call(lambda: decode(setup.subject, prompts, max_new_tokens=1))
    start = time.perf_counter()
    decode(setup.subject, prompts, max_new_tokens=1 + FEW)
    return first + max(0.0, time.perf_counter() - start - first) / FEW * (n_tokens - 1)
