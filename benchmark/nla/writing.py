"""Continuing prompts that come as embeddings, those that wait at the same time in one batch."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import torch
from torch import Tensor

from ..decoding import Decoded, Sampling, decode
from ..subject import Subject
from .request import Row

#: Rows of one batch: with more, the first text comes later than the last one is worth.
MOST_TOGETHER = 32


@dataclass(eq=False)
class _Waiting:
    """A row that waits to be continued, and what came of it."""

    row: Row
    outcome: Decoded | Exception | None = None

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the rows of one batch share."""
        params = self.row.params
        return params.max_new_tokens, params.temperature, params.stops


class Writer:
    """Gives the requests of a server turns with its one model. State: the rows that wait, and whose turn it is."""

    def __init__(self, model: Subject) -> None:
        self.model = model
        self._waiting: list[_Waiting] = []
        self._turn = anyio.Lock()

    async def write(self, rows: Sequence[Row]) -> list[Decoded]:
        """The continuation of each row. Raises what the model raised."""
        mine = [_Waiting(row) for row in rows]
        self._waiting += mine
        while any(waiting.outcome is None for waiting in mine):
            async with self._turn:
                # Others may have taken all of these rows along with theirs by now.
                if any(waiting.outcome is None for waiting in mine):
                    await self._write_next()
        errors = [waiting.outcome for waiting in mine if isinstance(waiting.outcome, Exception)]
        if errors:
            raise errors[0]
        return [waiting.outcome for waiting in mine if isinstance(waiting.outcome, Decoded)]

    async def take_turn(self, work: Callable[[], Any]) -> Any:
        """Other work with the model, in a thread, while nobody else has it."""
        async with self._turn:
            return await anyio.to_thread.run_sync(work)

    async def _write_next(self) -> None:
        """Continue the row that has waited longest, and all that can come along."""
        settings = self._waiting[0].settings
        batch = [waiting for waiting in self._waiting if waiting.settings == settings][:MOST_TOGETHER]
        self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        work = functools.partial(continue_rows, self.model, [waiting.row for waiting in batch])
        outcomes: Sequence[Decoded | Exception] = [RuntimeError("the server was stopped")] * len(batch)
        try:
            outcomes = await anyio.to_thread.run_sync(work)
        except Exception as error:  # whoever has a row in this batch is told
            outcomes = [error] * len(batch)
        finally:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.outcome = outcome


def continue_rows(model: Subject, rows: Sequence[Row]) -> list[Decoded]:
    """Continue prompts that are given as what enters block 0. All sampling parameters but the seed are the first row's.

    Without a seed of its own a row that is sampled gets one by chance.
    """
    params = rows[0].params
    lengths = [len(row.embeddings) for row in rows]
    given = torch.zeros(len(rows), max(lengths), model.d_model)
    for number, row in enumerate(rows):
        given[number, -len(row.embeddings) :] = row.embeddings  # `decode` pads on the left
    given = given.to(model.device, model.dtype)
    with torch.inference_mode():
        own: Tensor = model.model.get_input_embeddings()(torch.zeros(1, dtype=torch.long, device=model.device))

    def enter(states: Tensor, which: Tensor, prefill: bool) -> Tensor:
        # Token 0 stands in every place of the prompts. What a family adds to its embeddings (learned positions) stays;
        # elsewhere the difference is exactly zero.
        return given[which] + (states - own) if prefill else states

    seeds = [row.params.sampling_seed for row in rows]
    sampling = Sampling(params.temperature, tuple(secrets.randbits(62) if seed is None else seed for seed in seeds))
    return decode(
        model, [[0] * length for length in lengths], max_new_tokens=params.max_new_tokens, edits={-1: enter},
        sampling=sampling if params.temperature else None,
        stop_text=params.stops[0] if len(params.stops) == 1 else None,
    )  # fmt: skip
