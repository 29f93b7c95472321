"""Reinforcement after the warm start: GRPO on what the AR makes of the AV's texts, with the AR trained along.

Shao et al. 2024 (GRPO, equation 3 with one update per batch, so that the ratio of policies is 1): of each vector a
group of texts is sampled; a text's advantage is its reward less the group's mean, over the group's standard deviation.
The reward is −mse_nrm of the AR's reconstruction, −2 for a text without its closing tag. A KL term (the k3 estimator of
Schulman 2020) keeps the AV by the warm start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nlabench.benchmark.decoding import Sampling, decode, seed_text
from nlabench.benchmark.injection import VectorInjection, inject_vectors
from nlabench.benchmark.nla.fidelity import mse_nrm
from nlabench.benchmark.store import write_atomically
from torch import Tensor, nn

from .examples import Examples
from .trainees import CLOSING, LONGEST, MARKER, OPENING, Actor, Critic

FAILED_REWARD = -2.0
STEPS_BETWEEN_SAVES = 5


@dataclass(frozen=True)
class Recipe:
    """vectors: a step; group: texts a vector; kl: weight of the KL term; the AR learns at its own rate."""

    steps: int
    vectors: int = 16
    group: int = 8
    rate: float = 3e-5
    critic_rate: float = 1e-4
    kl: float = 0.01
    temperature: float = 1.0


@dataclass(frozen=True)
class Samples:
    """rows: which vector each text is of. ids: its tokens with the end of turn; texts: what is between the tags."""

    rows: list[int]
    ids: list[list[int]]
    texts: list[str | None]


def reinforce(
    actor: Actor,
    critic: Critic,
    warm: Actor,
    examples: Examples,
    recipe: Recipe,
    folder: Path,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train both for the recipe's steps, from the last saved one on. warm: the AV after the warm start, not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = [
        {"params": actor.parameters(), "lr": recipe.rate},
        {"params": critic.parameters(), "lr": recipe.critic_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    start, log = 0, []
    if (folder / "checkpoint.pt").exists():
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
        actor.restore(saved["actor"])
        critic.restore(saved["critic"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][:start]
        say(f"{folder.name}: going on after step {start}")
    began = time.monotonic()
    for step in range(start, recipe.steps):
        chosen = np.random.default_rng((seed, step)).choice(len(examples), recipe.vectors, replace=False)
        vectors = examples.vectors[chosen]
        log.append({"step": step + 1, **_update(actor, critic, warm, vectors, recipe, optimizer, (seed, step))})
        if (step + 1) % STEPS_BETWEEN_SAVES == 0 or step + 1 == recipe.steps:
            pace = (time.monotonic() - began) / (step + 1 - start)
            recent = {k: float(np.mean([row[k] for row in log[-STEPS_BETWEEN_SAVES:]])) for k in log[-1] if k != "step"}
            say(
                f"{folder.name}: step {step + 1} of {recipe.steps}, reward {recent['reward']:.4f}, failed "
                f"{recent['failed']:.1%}, KL {recent['kl']:.3f}, AR loss {recent['ar_loss']:.4f}, {pace:.1f} s a step, "
                f"{pace * (recipe.steps - step - 1) / 60:.0f} min left"
            )
            state = {"actor": actor.state(), "critic": critic.state(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, folder / ".checkpoint.pt")
            (folder / ".checkpoint.pt").replace(folder / "checkpoint.pt")
            write_atomically(folder / "log.jsonl", "\n".join(map(json.dumps, log)) + "\n")


def _update(
    actor: Actor,
    critic: Critic,
    warm: Actor,
    vectors: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    seed: tuple[int, int],
) -> dict[str, float]:
    samples = sample_texts(actor, vectors, recipe.group, recipe.temperature, seed)
    golds = vectors[samples.rows]
    closed = [i for i, text in enumerate(samples.texts) if text is not None]
    predicted = critic.predict([samples.texts[i] or "" for i in closed])
    errors = mse_nrm(predicted, golds[closed].to(predicted.device))
    rewards = torch.full((len(samples.rows),), FAILED_REWARD)
    rewards[closed] = -errors.detach().cpu()
    advantages = advantages_in_groups(rewards, recipe.group).to(actor.subject.device)
    chosen, mask = actor.log_probabilities(golds, samples.ids)
    with torch.no_grad():
        before, _ = warm.log_probabilities(golds, samples.ids)
    # Without the ratio's own value, which is 1 here: its gradient is what counts.
    policy = (chosen - chosen.detach()).exp() * advantages[:, None]
    kl = (before - chosen).exp() - (before - chosen) - 1
    loss = -(policy - recipe.kl * kl)[mask].mean()
    (loss + errors.mean()).backward()
    nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
    nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "reward": float(rewards.mean()),
        "failed": 1 - len(closed) / len(samples.rows),
        "kl": float(kl.detach()[mask].mean()),
        "ar_loss": float(errors.detach().mean()),
    }


def advantages_in_groups(rewards: Tensor, group: int) -> Tensor:
    """(reward − mean) / standard deviation within each `group` rewards in a row; 0 where all are the same.

    rewards: [n]. Returns [n].
    """
    grouped = rewards.reshape(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (grouped.std(1, keepdim=True) + 1e-6)).reshape(-1)


def sample_texts(actor: Actor, vectors: Tensor, group: int, temperature: float, seed: tuple[int, int]) -> Samples:
    """`group` texts of each vector [n, d_model]; temperature 0 is greedy. A text without its closing tag is None."""
    subject = actor.subject
    rows = [row for row in range(len(vectors)) for _ in range(group)]
    marker = subject.tokenizer.convert_tokens_to_ids(MARKER)
    edits = inject_vectors(VectorInjection("replace_embedding", scale=actor.scale), vectors[rows], [0])
    seeds = tuple(seed_text(seed[0], f"{seed[1]}/{row}", number) for number, row in enumerate(rows))
    with torch.autocast(subject.device.type, torch.bfloat16):
        decoded = decode(
            subject, [[marker, *actor.after]] * len(rows), max_new_tokens=LONGEST,
            prefix=subject.make_prefix(actor.before), edits=edits, stop_text=CLOSING,
            sampling=Sampling(temperature, seeds) if temperature else None,
        )  # fmt: skip
    texts = [between_tags(subject.tokenizer.decode(text.ids)) for text in decoded]
    end = subject.tokenizer.eos_token_id
    return Samples(rows, [[*text.ids, end] for text in decoded], texts)


def between_tags(answer: str) -> str | None:
    """What stands between the tags of an answer, or None where the closing one is missing."""
    inside, closing, _ = answer.partition(OPENING)[2].partition(CLOSING)
    return inside.strip() if closing else None


def texts_for_critic(actor: Actor, examples: Examples, rows: Sequence[int], say: Callable[[str], None]) -> list[str]:
    """The AV's own greedy texts of some examples: what an AR will read, where it learned on texts of another hand."""
    texts: list[str] = []
    for start in range(0, len(rows), 128):
        part = list(rows[start : start + 128])
        texts += [text or "" for text in sample_texts(actor, examples.vectors[part], 1, 0.0, (0, 0)).texts]
        say(f"the AV's own texts: {len(texts):,} of {len(rows):,}")
    return texts
