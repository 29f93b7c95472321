"""Decoding in batches that share one prefix's key-value cache: greedy, or sampled with a seed for each row.

transformers' `generate` copies the growing cache at every token and runs a common prefix once per row; this loop
writes in place, runs the prefix once, drops rows that have ended, and gives the same tokens. What a row samples hangs
on its own seed and on nothing else: not on its batch, nor on its place in it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .subject import Edit, Prefix, Subject, pad_batch


@dataclass(frozen=True)
class Decoded:
    """A generated text: its token ids (without the stop token), the text and its log-probability in nats.

    The log-probability is the model's own (at temperature 1, however the tokens were chosen), the stop token included.
    """

    ids: tuple[int, ...]
    text: str
    logprob: float


@dataclass(frozen=True)
class Sampling:
    """Sampling at a temperature above 0. seeds: one for each prompt; see `seed_text`."""

    temperature: float
    seeds: tuple[int, ...]


def seed_text(seed: int, content: str, sample: int) -> int:
    """The seed of one text: of the run's seed, what the text is about (a fingerprint), and the sample's number."""
    digest = hashlib.sha256(f"{seed}/{sample}/{content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


@torch.inference_mode()
def decode(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    prefix: Prefix | None = None,
    edits: Mapping[int, Edit] | None = None,
    sampling: Sampling | None = None,
    stop_text: str | None = None,
) -> list[Decoded]:
    """Continue every prompt (token ids after the prefix) by at most `max_new_tokens` tokens; greedily by default.

    edits: per block, a change of the residual stream (see `Edit`), applied to the prompts and to every new token.
    stop_text: a row ends as soon as it holds this text (kept, with the whole of the token that completes it).
    A prompt may not be empty. Greedy, equal to `model.generate(do_sample=False)` on prefix + prompt in float32.
    """
    n_prefix = len(prefix.ids) if prefix else 0
    room = n_prefix + max(map(len, prompts)) + max_new_tokens
    if n_prefix and subject.has_window_under(room) and len(set(map(len, prompts))) > 1:
        return _decode_by_length(subject, prompts, max_new_tokens, prefix, edits or {}, sampling, stop_text)
    ids, mask = (t.to(subject.device) for t in pad_batch(prompts, left=True))
    blank = Prefix((), (), ()) if prefix is None else prefix
    cache = subject.start_cache(blank, len(prompts), room)
    rows = torch.arange(len(prompts), device=subject.device)  # the rows of the batch that are still being written
    stops = torch.tensor(sorted(subject.stop_ids()), device=subject.device)
    draws = _draw(sampling, max_new_tokens).to(subject.device) if sampling else None
    written: list[list[int]] = [[] for _ in prompts]
    logprobs = [0.0] * len(prompts)
    positions = (mask.cumsum(-1) - 1).clamp(min=0) + n_prefix
    mask = torch.cat([mask.new_ones(len(prompts), n_prefix), mask], dim=1)
    for step in range(max_new_tokens):
        with contextlib.ExitStack() as stack:
            for block, edit in (edits or {}).items():
                stack.enter_context(subject._edit_block(block, edit, rows, prefill=step == 0))
            logits: Tensor = subject.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1].float()  # fmt: skip
        if sampling is None or draws is None:
            token = logits.argmax(-1)
        else:
            token = _choose(logits / sampling.temperature, draws[rows, step])
        gain = (logits.gather(-1, token[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        ended = torch.isin(token, stops)
        for row, new, nats, stop in zip(rows.tolist(), token.tolist(), gain, ended.tolist(), strict=True):
            logprobs[row] += nats
            if not stop:
                written[row].append(new)
        if stop_text is not None:
            ended |= _hold(subject, [written[row] for row in rows.tolist()], stop_text)
        keep = (~ended).nonzero()[:, 0]
        if not len(keep):
            break
        if len(keep) < len(rows):
            cache.batch_select_indices(keep)
            rows, token, mask, positions = rows[keep], token[keep], mask[keep], positions[keep]
        ids, positions = token[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    texts = subject.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [Decoded(tuple(i), t, p) for i, t, p in zip(written, texts, logprobs, strict=True)]


def _draw(sampling: Sampling, n_tokens: int) -> Tensor:
    """Uniform numbers [n_prompts, n_tokens], float64, each row from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in sampling.seeds]
    return torch.stack([torch.rand(n_tokens, generator=g, dtype=torch.float64) for g in generators])


def _choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which each row's cumulative probability passes its uniform number [b]."""
    # In float64, what other rows do to the last digits of these logits moves a border by far less than a token's width.
    cumulative = logits.double().softmax(-1).cumsum(-1)
    token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)


def _hold(subject: Subject, written: Sequence[Sequence[int]], text: str) -> Tensor:
    """Which rows hold a text [b] bool. Only their ends are looked at: this is asked after every token."""
    longest = len(text.encode()) + 1  # a token has a byte at least, and the last one may go on past the text
    ends = subject.tokenizer.batch_decode([list(ids[-longest:]) for ids in written], skip_special_tokens=False)
    return torch.tensor([text in end for end in ends], device=subject.device)


def _decode_by_length(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    prefix: Prefix | None,
    edits: Mapping[int, Edit],
    sampling: Sampling | None,
    stop_text: str | None,
) -> list[Decoded]:
    """One length at a time: a sliding window would count the padding between the prefix and a shorter prompt."""
    decoded: dict[int, Decoded] = {}
    for length in {len(prompt) for prompt in prompts}:
        members = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        group = torch.tensor(members, device=subject.device)
        texts = decode(
            subject, [prompts[i] for i in members], max_new_tokens=max_new_tokens, prefix=prefix,
            edits={block: _renumber_rows(edit, group) for block, edit in edits.items()},
            sampling=replace(sampling, seeds=tuple(sampling.seeds[i] for i in members)) if sampling else None,
            stop_text=stop_text,
        )  # fmt: skip
        decoded.update(zip(members, texts, strict=True))
    return [decoded[i] for i in range(len(prompts))]


def _renumber_rows(edit: Edit, group: Tensor) -> Edit:
    return lambda states, rows, prefill: edit(states, group[rows], prefill)
