"""Examples: a vector read at one position of a text, and the explanation that an AV should give of it.

An explanation carries theme *and* wording. The theme is the kind of text and the words that set its document apart (by
tf-idf over all documents); the wording is the last tokens up to the position. Both follow from the text alone: no
language model wrote a target, and neither a concept of the pack nor an encoder that scores had a part in it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from nlabench.benchmark.reading import FUNCTION_WORDS, PREAMBLE, batches_by_length
from nlabench.benchmark.store import write_atomically
from nlabench.benchmark.subject import Prefix, Subject, pad_batch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from .documents import Document

#: Tokens of a document that are read, and how far into it a readout lies at least.
LONGEST_CHUNK, FIRST_POSITION = 44, 6
#: Readouts of a chunk in training; the first is a function word where the chunk has one.
READOUTS = 2
THEME_WORDS, WORDING_TOKENS = 3, 10
#: The theme's words come from the text that was read and this many tokens after it.
TOKENS_AHEAD = 12

#: Half of the chunks follow the suite's neutral preamble, the others one of this many beginnings of documents.
OTHER_PREFIXES, PREFIX_TOKENS = 16, 60


@dataclass(frozen=True)
class Example:
    """source: the set that the text is from. explanation: what an AV should write of the vector."""

    source: str
    explanation: str


@dataclass(frozen=True)
class Examples:
    """vectors: [n, d_model], float32, residual stream, raw scale; examples: what each should be called."""

    vectors: Tensor
    examples: list[Example]

    def __len__(self) -> int:
        return len(self.examples)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self.vectors.contiguous()}, folder / "vectors.safetensors")
        lines = [json.dumps(asdict(example), ensure_ascii=False) for example in self.examples]
        write_atomically(folder / "examples.jsonl", "\n".join(lines))

    @classmethod
    def load(cls, folder: Path) -> Examples:
        lines = (folder / "examples.jsonl").read_text().split("\n")
        examples = [Example(**json.loads(line)) for line in lines]
        return cls(load_file(folder / "vectors.safetensors")["vectors"], examples)


def make_examples(
    subject: Subject,
    layer: int,
    documents: Sequence[Document],
    name_theme: Callable[[str, str], str],
    readouts: int,
    seed: int,
    say: Callable[[str], None],
) -> Examples:
    """Read every document once and take `readouts` positions of it. Equal seeds give equal examples.

    name_theme: see `learn_themes`.
    """
    rng = random.Random(seed)
    order = rng.sample(range(len(documents)), len(documents))
    starts = [subject.encode(documents[i].text)[:PREFIX_TOKENS] for i in order[: OTHER_PREFIXES * 4]]
    beginnings = [PREAMBLE, *(subject.tokenizer.decode(ids) for ids in starts if len(ids) == PREFIX_TOKENS)]
    prefixes = [subject.make_prefix(subject.encode_start(text), layer) for text in beginnings[: OTHER_PREFIXES + 1]]
    chunks: list[list[tuple[int, list[int]]]] = [[] for _ in prefixes]
    for number in range(len(documents)):
        ids = _cut(subject, documents[number].text, rng)
        if len(ids) > FIRST_POSITION + 1:
            chunks[0 if rng.random() < 0.5 else rng.randrange(1, len(prefixes))].append((number, ids))
    vectors, examples = [], []
    for prefix, part in zip(prefixes, chunks, strict=True):
        say(f"reading: {len(examples):,} examples so far")
        for number, position, state, ids in _read(subject, layer, prefix, part, readouts, rng):
            wording = subject.tokenizer.decode(ids[max(0, position + 1 - WORDING_TOKENS) : position + 1])
            theme = name_theme(documents[number].kind, subject.tokenizer.decode(ids[: position + 1 + TOKENS_AHEAD]))
            vectors.append(state)
            examples.append(Example(documents[number].source, f'{theme}: "{" ".join(wording.split())}"'))
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    return Examples(torch.stack([vectors[i] for i in order]), [examples[i] for i in order])


def learn_themes(documents: Sequence[Document]) -> Callable[[str, str], str]:
    """A function (kind, text) -> "{kind} about {words}": the text's words of the highest tf-idf, common and rare ones
    (which are names, mostly) left out."""
    counter = TfidfVectorizer(
        stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{4,}\b", min_df=20, max_df=0.02, sublinear_tf=True
    )
    counter.fit(document.text[:1200] for document in documents)
    vocabulary = counter.get_feature_names_out()

    def name_theme(kind: str, text: str) -> str:
        row = counter.transform([text])
        best = row.indices[np.argsort(-row.data, kind="stable")[:THEME_WORDS]]
        return kind + (f" about {', '.join(vocabulary[best])}" if len(best) else "")

    return name_theme


def _cut(subject: Subject, text: str, rng: random.Random) -> list[int]:
    """A chunk of a document as token ids, from the beginning of one of its sentences or lines."""
    window = text[:1600]
    starts = [0, *(m.end() for m in re.finditer(r"[.!?]\s|\n", window) if m.end() < len(window) - 60)]
    ids = subject.encode(window[rng.choice(starts) :].strip())
    return ids[: rng.randint(20, LONGEST_CHUNK)]


def _read(
    subject: Subject,
    layer: int,
    prefix: Prefix,
    chunks: Sequence[tuple[int, list[int]]],
    readouts: int,
    rng: random.Random,
) -> Iterator[tuple[int, int, Tensor, list[int]]]:
    """(number of the document, position, state [d_model], the chunk's ids) of every readout."""
    for batch in batches_by_length([len(ids) for _, ids in chunks]):
        ids, mask = pad_batch([chunks[i][1] for i in batch])
        states = subject.run(ids.to(subject.device), mask.to(subject.device), capture=[layer], prefix=prefix)[layer]
        for row, i in enumerate(batch):
            number, tokens = chunks[i]
            for position in choose_positions(subject, tokens, readouts, rng):
                yield number, position, states[row, position].float().cpu().clone(), tokens


def choose_positions(subject: Subject, tokens: Sequence[int], readouts: int, rng: random.Random) -> list[int]:
    """Positions of a chunk from FIRST_POSITION on.

    The first is a function word where there is one and several are asked for, or by the toss of a coin.
    """
    possible = list(range(FIRST_POSITION, len(tokens)))
    pieces = subject.tokenizer.convert_ids_to_tokens(list(tokens))
    function = [i for i in possible if pieces[i][:1] in "Ġ▁" and pieces[i][1:] in FUNCTION_WORDS]
    chosen = [rng.choice(function)] if function and (readouts > 1 or rng.random() < 0.5) else []
    others = [i for i in possible if i not in chosen]
    return chosen + rng.sample(others, min(len(others), readouts - len(chosen)))
