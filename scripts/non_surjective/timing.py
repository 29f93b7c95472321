"""How long a piece of an experiment takes, from the same piece done once or twice before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nlabench.benchmark.decoding import decode

from .setup import Setup, read_states

#: Tokens that are written to time those of an answer.
FEW = 6


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

    The first token, with which the prompts are read, is timed apart from the others: in a short answer it takes as long
    as a dozen of them. Those are timed after single tokens, which are read as fast as one is written.
    """
    subject, short = setup.subject, [ids[len(ids) // 2 :][:1] for ids in prompts]
    decode(subject, short, max_new_tokens=1)  # the first call of anything is slower
    start = time.perf_counter()
    decode(subject, prompts, max_new_tokens=1)
    first, start = time.perf_counter() - start, time.perf_counter()
    decode(subject, short, max_new_tokens=FEW)
    return first + (time.perf_counter() - start) / FEW * (n_tokens - 1)
