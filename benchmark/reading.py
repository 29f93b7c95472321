"""Reading texts with a subject: the preamble, the readout positions, and the states there.

Every text follows one fixed neutral preamble, whose key-value cache is computed once. That keeps readouts past the
attention sinks (the first tokens, whose norm is a hundred times the others') and past position 50, where released
NLAs were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .activations import Readout
from .concepts import Text
from .subject import Prefix, Subject, pad_batch

PREAMBLE = (
    "The following is one entry of a large and mixed collection of short texts. The entries were gathered from many "
    "places and were written by many people for many purposes. They are given here without their titles, in no "
    "particular order, and each one stands by itself. Nothing was changed, and nothing was left out.\n\n"
)

#: Words that say nothing of a concept by themselves: readouts of the kind `function`.
FUNCTION_WORDS = frozenset({"the", "and", "of", "in", "with", "from", "to", "for", "on", "at", "by"})

#: A function word is read past the text's third token, so that there is something to know.
FIRST_FUNCTION_INDEX = 3

#: Tokens that follow a readout of the kind `mid`, at the least.
FOLLOWING_TOKENS = 8

TOKENS_PER_BATCH = 1536  # tokens, padding included, in one forward: keeps the peak of memory low and the cores busy


@dataclass(frozen=True)
class TokenizedText:
    """A text of the pack as token ids, with its readout positions."""

    text: Text
    ids: tuple[int, ...]
    function: tuple[Readout, ...]
    final: Readout

    @property
    def readouts(self) -> tuple[Readout, ...]:
        return (*self.function, self.final)

    @property
    def mid(self) -> tuple[Readout, ...]:
        """The function words that at least FOLLOWING_TOKENS tokens follow."""
        early = (r for r in self.function if len(self.ids) - 1 - r.index >= FOLLOWING_TOKENS)
        return tuple(replace(readout, kind="mid") for readout in early)


def tokenize(subject: Subject, texts: Sequence[Text]) -> list[TokenizedText]:
    """Tokenize texts and find their readout positions (function words after a space, and the last token)."""
    tokenized = []
    for text in texts:
        ids = subject.encode(text.text)
        pieces = subject.tokenizer.convert_ids_to_tokens(ids)
        # Ġ (byte-level BPE) and ▁ (SentencePiece) mark a token that starts a word.
        words = [piece[1:] if piece[:1] in "Ġ▁" else "" for piece in pieces]
        function = tuple(
            Readout(text.id, i, "function", word)
            for i, word in enumerate(words)
            if word in FUNCTION_WORDS and FIRST_FUNCTION_INDEX <= i < len(ids) - 1
        )
        last = Readout(text.id, len(ids) - 1, "final", subject.tokenizer.decode(ids[-1:]).strip())
        tokenized.append(TokenizedText(text, tuple(ids), function, last))
    return tokenized


def make_preamble(subject: Subject, last_block: int) -> Prefix:
    """The preamble's cache, for blocks 0..last_block (with the tokenizer's own BOS where it has one)."""
    return subject.make_prefix(subject.encode_start(PREAMBLE), last_block)


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Indices in batches of like length, so that little of a batch is padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def read_states(
    subject: Subject, prefix: Prefix, token_lists: Sequence[Sequence[int]], layers: Sequence[int]
) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
    """The streams of every text at the given layers, each as soon as its batch is done.

    Yields (number of the text, {layer: [n_tokens, d_model] float32 on the CPU}), the preamble's tokens excluded.
    """
    for batch in batches_by_length([len(tokens) for tokens in token_lists]):
        ids, mask = pad_batch([token_lists[i] for i in batch])
        streams = subject.run(ids.to(subject.device), mask.to(subject.device), capture=layers, prefix=prefix)
        moved = {layer: stream.float().cpu() for layer, stream in streams.items()}
        for row, index in enumerate(batch):
            yield index, {layer: stream[row, : len(token_lists[index])] for layer, stream in moved.items()}


def pool_states(states: Tensor) -> Tensor:
    """The mean over all tokens of a text. states: [n_tokens, d_model] -> [d_model]."""
    return torch.mean(states, dim=0)
