"""Greedy decoding in batches that share one prefix's key-value cache.

transformers' `generate` copies the growing cache at every token and runs a common prefix once per row; this loop
writes in place, runs the prefix once, drops rows that have ended, and gives the same tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .subject import Edit, Prefix, Subject, pad_batch


@dataclass(frozen=True)
class Decoded:
    """A generated text: its token ids (without the stop token), the text and its log-probability in nats."""

    ids: tuple[int, ...]
    text: str
    logprob: float


@torch.inference_mode()
def decode_greedily(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    prefix: Prefix | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> list[Decoded]:
    """Continue every prompt (token ids after the prefix) by at most `max_new_tokens` greedy tokens.

    edits: per block, a change of the residual stream (see `Edit`), applied to the prompts and to every new token.
    A prompt may not be empty. Equal to `model.generate(do_sample=False)` on prefix + prompt in float32.
    """
    n_prefix = len(prefix.ids) if prefix else 0
    room = n_prefix + max(map(len, prompts)) + max_new_tokens
    if n_prefix and subject.has_window_under(room) and len(set(map(len, prompts))) > 1:
        return _decode_by_length(subject, prompts, max_new_tokens, prefix, edits or {})
    ids, mask = (t.to(subject.device) for t in pad_batch(prompts, left=True))
    blank = Prefix((), (), ()) if prefix is None else prefix
    cache = blank.cache(len(prompts), room, subject.n_blocks)
    rows = torch.arange(len(prompts), device=subject.device)  # the rows of the batch that are still being written
    stops = torch.tensor(sorted(subject.stop_ids()), device=subject.device)
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
        best, token = logits.max(-1)
        gain = (best - logits.logsumexp(-1)).tolist()
        ended = torch.isin(token, stops)
        for row, new, nats, stop in zip(rows.tolist(), token.tolist(), gain, ended.tolist(), strict=True):
            logprobs[row] += nats
            if not stop:
                written[row].append(new)
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


def _decode_by_length(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    prefix: Prefix | None,
    edits: Mapping[int, Edit],
) -> list[Decoded]:
    """One length at a time: a sliding window would count the padding between the prefix and a shorter prompt."""
    decoded: dict[int, Decoded] = {}
    for length in {len(prompt) for prompt in prompts}:
        group = torch.tensor([i for i, prompt in enumerate(prompts) if len(prompt) == length], device=subject.device)
        numbered = {block: _renumber_rows(edit, group) for block, edit in edits.items()}
        same = [prompts[i] for i in group.tolist()]
        texts = decode_greedily(subject, same, max_new_tokens=max_new_tokens, prefix=prefix, edits=numbered)
        decoded.update(zip(group.tolist(), texts, strict=True))
    return [decoded[i] for i in range(len(prompts))]


def _renumber_rows(edit: Edit, group: Tensor) -> Edit:
    return lambda states, rows, prefill: edit(states, group[rows], prefill)
