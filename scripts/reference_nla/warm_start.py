"""Supervised training that can be stopped at any step and goes on as if it had not been."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from nlabench.benchmark.store import write_atomically
from torch import Tensor, nn

from .examples import Examples

STEPS_BETWEEN_SAVES = 20


class Trainee(Protocol):
    """What is trained: see `trainees.Actor` and `trainees.Critic`."""

    def loss(self, vectors: Tensor, explanations: list[str]) -> Tensor: ...
    def parameters(self) -> list[nn.Parameter]: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Schedule:
    """steps of `batch` examples each; the rate rises over `warm_up` steps and falls along a cosine to a tenth."""

    steps: int
    batch: int = 32
    rate: float = 5e-4
    warm_up: int = 20

    def rate_at(self, step: int) -> float:
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * done))


def train(
    trainee: Trainee,
    examples: Examples,
    held_out: Examples,
    schedule: Schedule,
    folder: Path,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train for the schedule's steps, from the last saved one on. Writes `log.jsonl` and `checkpoint.pt` to `folder`.

    The order of examples follows from the seed alone, so a run that was stopped sees what it would have seen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = trainee.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=0.01)
    start, log = _resume(trainee, optimizer, folder, say)
    began = time.monotonic()
    for step, rows in enumerate(_batches(len(examples), schedule, seed)):
        if step < start:
            continue
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        loss = trainee.loss(examples.vectors[rows], [examples.examples[i].explanation for i in rows])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step + 1, "loss": loss.item()})
        last = step + 1 == schedule.steps
        if (step + 1) % STEPS_BETWEEN_SAVES == 0 or last:
            log[-1].update(held_out_losses(trainee, held_out))
            pace = (time.monotonic() - began) / (step + 1 - start)
            recent = np.mean([row["loss"] for row in log[-STEPS_BETWEEN_SAVES:]])
            say(
                f"{folder.name}: step {step + 1} of {schedule.steps}, loss {recent:.3f}, held out "
                f"{log[-1]['held_out']:.3f} (another item's vector: {log[-1]['shuffled']:.3f}), {pace:.2f} s a step, "
                f"{pace * (schedule.steps - step - 1) / 60:.0f} min left"
            )
            _save(trainee, optimizer, step + 1, log, folder)


@torch.no_grad()
def held_out_losses(trainee: Trainee, held_out: Examples, rows: int = 64) -> dict[str, float]:
    """The loss on held-out examples, with each example's own vector and with its neighbour's."""
    vectors = held_out.vectors[:rows]
    texts = [example.explanation for example in held_out.examples[:rows]]
    return {
        "held_out": float(trainee.loss(vectors, texts)),
        "shuffled": float(trainee.loss(vectors.roll(1, 0), texts)),
    }


def _batches(n: int, schedule: Schedule, seed: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(schedule.steps):
        if len(order) < schedule.batch:
            order += rng.permutation(n).tolist()
        yield order[: schedule.batch]
        order = order[schedule.batch :]


def _save(
    trainee: Trainee, optimizer: torch.optim.Optimizer, step: int, log: list[dict[str, float]], folder: Path
) -> None:
    scratch = folder / ".checkpoint.pt"
    torch.save({"state": trainee.state(), "optimizer": optimizer.state_dict(), "step": step}, scratch)
    scratch.replace(folder / "checkpoint.pt")
    write_atomically(folder / "log.jsonl", "\n".join(map(json.dumps, log)) + "\n")


def _resume(
    trainee: Trainee, optimizer: torch.optim.Optimizer, folder: Path, say: Callable[[str], None]
) -> tuple[int, list[dict[str, float]]]:
    if not (folder / "checkpoint.pt").exists():
        return 0, []
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    trainee.restore(saved["state"])
    optimizer.load_state_dict(saved["optimizer"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    say(f"{folder.name}: going on after step {saved['step']}")
    return saved["step"], log[: saved["step"]]
