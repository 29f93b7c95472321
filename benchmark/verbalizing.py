"""Feeding activations blind to a verbalizer, in chunks whose composition is frozen, and taking its texts."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from .activations import ActivationBatch, Site
from .engine import Chunk, Engine
from .errors import BadInput
from .extraction import Activations
from .memory import halve_on_overflow, ran_out_of_memory
from .store import Payload, array_fingerprint, content_key
from .study import Study
from .verbalizers.asking import Asked
from .verbalizers.base import ReadPrompt, TextReader, Verbalization, Verbalizer, check_texts, hash_code
from .verbalizers.from_file import TextsFromFile

VERBALIZING_VERSION = 1
ITEMS_PER_CHUNK = 96

#: Items verbalized a second time, one by one: a text may not depend on the other items of its batch.
RERUN_ITEMS = 4


@dataclass(frozen=True)
class Verbalized:
    """A verbalizer's texts for the items of a run, in their order, and what making them took.

    seconds: spent when the texts were first made (a resumed run adds up both), on n_asked distinct questions.
    rerun_agreed is None where a rerun means nothing.
    """

    texts: list[Verbalization]
    seconds: float
    n_asked: int
    rerun_checked: int | None
    rerun_agreed: int | None


def verbalize_items(
    verbalizer: Verbalizer | TextReader, activations: Activations, study: Study, engine: Engine
) -> Verbalized:
    """Every item's text. An item on which the verbalizer raises gets an empty text with the error.

    Raises:
        BadInput: the verbalizer failed on every item, or returned something that is not one text per vector.
    """
    ask, asked = _questions(verbalizer, activations, study)
    questions = _ask_once(asked)
    parts, shown = list(questions.values()), list(questions)
    fingerprint = verbalizer_fingerprint(verbalizer)
    name = verbalizer.card.name
    of = "prompts" if isinstance(verbalizer, TextReader) else "activations"
    payloads = engine.run(f"{name} (texts of distinct {of})", _plan_chunks(verbalizer, ask, questions, study))
    answers = [_read_record(text) for payload in payloads for text in payload.record]
    seconds = sum(float(payload.arrays["seconds"][0]) for payload in payloads)
    errors = [answer.error for answer in answers if answer.error is not None]
    if len(errors) == len(answers) and verbalizer.card.role == "submitted":
        raise BadInput(
            f"The verbalizer {name!r} failed on all {len(asked)} items; the first error was: {errors[0]}. Try it on "
            "one vector: it is given a float32 tensor [n, d_model] on the CPU, in `batch.vectors`."
        )
    again = 0 if isinstance(verbalizer, TextsFromFile) else min(RERUN_ITEMS, len(parts))
    chosen = np.linspace(0, len(parts) - 1, again).astype(int)
    alone = [
        Chunk(
            "alone",
            content_key(version=VERBALIZING_VERSION, verbalizer=fingerprint, site=asdict(study.site), items=shown[i]),
            1,
            partial(_verbalize_chunk, name, ask, [parts[i]]),
            _without_errors,
        )
        for i in chosen
    ]
    repeated = [payload.record[0]["text"] for payload in engine.run(f"{name} (texts again, one by one)", alone)]
    agreed = sum(text == answers[i].text for text, i in zip(repeated, chosen, strict=True))
    by_question = dict(zip(shown, answers, strict=True))
    texts = [by_question[_show_question(question)] for question in asked]
    return Verbalized(texts, seconds, len(parts), again or None, agreed if again else None)


def plan_texts(verbalizer: Verbalizer | TextReader, activations: Activations, study: Study) -> list[Chunk]:
    """The work of `verbalize_items`: distinct questions, in the order in which the items ask them."""
    ask, asked = _questions(verbalizer, activations, study)
    return _plan_chunks(verbalizer, ask, _ask_once(asked), study)


def _plan_chunks(
    verbalizer: Verbalizer | TextReader, ask: Ask, questions: Mapping[str, Any], study: Study
) -> list[Chunk]:
    parts, shown = list(questions.values()), list(questions)
    fingerprint = verbalizer_fingerprint(verbalizer)
    chunks = []
    for start in range(0, len(parts), ITEMS_PER_CHUNK):
        part = slice(start, start + ITEMS_PER_CHUNK)
        key = content_key(
            version=VERBALIZING_VERSION, verbalizer=fingerprint, site=asdict(study.site), items=shown[part]
        )
        work = partial(_verbalize_chunk, verbalizer.card.name, ask, parts[part])
        chunks.append(Chunk("texts", key, len(parts[part]), work, _without_errors))
    return chunks


def _ask_once(asked: Sequence[Any]) -> dict[str, Any]:
    """Items with the same vector (or, for a reader, the same prompt) are one question, asked once: by its name."""
    return dict(zip(map(_show_question, asked), asked, strict=True))


def _show_question(question: Any) -> str:
    return array_fingerprint(question.numpy()) if isinstance(question, torch.Tensor) else repr(question)


def permute_texts(verbalized: Sequence[Verbalization], labels: pd.DataFrame, seed: int) -> list[Verbalization]:
    """The floor that knows the distribution of texts and nothing else: texts permuted within arm, injection and r."""
    rng = np.random.default_rng(seed)
    texts = list(verbalized)
    strength = labels["r"].where(labels["level"] == "grid", -1.0)
    groups = labels.groupby([labels["arm"], labels["injection"], labels["kind"], labels["level"], strength])
    for members in groups.indices.values():
        for target, source in zip(members, rng.permutation(members), strict=True):
            texts[target] = verbalized[source]
    return texts


def verbalizer_fingerprint(verbalizer: Verbalizer | TextReader) -> str:
    """What identifies a verbalizer in the store: its card, and its code.

    The code is in it so that a text is never taken from a store that an edited verbalizer would not write. Built-in
    verbalizers name all that decides their texts in their cards.
    """
    if isinstance(verbalizer, Asked):
        inner: Any = verbalizer.answerer
        return content_key(question=verbalizer.question, answerer=verbalizer_fingerprint(inner))
    if type(verbalizer).__module__.startswith(f"{__package__}."):
        return content_key(card=verbalizer.card.model_dump(), source=inspect.getsource(type(verbalizer)))
    return content_key(card=verbalizer.card.model_dump(), code=hash_code(verbalizer))


Ask = Callable[[Sequence[Any]], Any]


def _questions(verbalizer: Verbalizer | TextReader, activations: Activations, study: Study) -> tuple[Ask, list[Any]]:
    """How to ask, and what about: vectors for a verbalizer, prompts for the benchmark's text-only readers."""
    if isinstance(verbalizer, TextReader):
        return verbalizer.read, read_prompts(activations.labels, study)
    vectors = list(activations.vectors)

    def ask(part: Sequence[Any], site: Site = study.site) -> Any:
        # A copy: a verbalizer that works in place must not change anybody's activations.
        return verbalizer.verbalize(ActivationBatch(torch.stack(list(part)).clone(), site))

    return ask, vectors


def read_prompts(labels: pd.DataFrame, study: Study) -> list[ReadPrompt]:
    """The text up to each item's readout, for the readers of text."""
    prompts = []
    for prompt, position in zip(labels["prompt"], labels["position"], strict=True):
        ids = study.texts[prompt].ids[: position + 1]
        decode = study.subject.tokenizer.decode
        prompts.append(ReadPrompt(decode(list(ids)), decode([ids[-1]]), decode(list(ids[-4:]))))
    return prompts


def _without_errors(payload: Payload) -> bool:
    return all(text["error"] is None for text in payload.record)


def _read_record(record: Mapping[str, Any]) -> Verbalization:
    """A verbalization as the store keeps it: tuples come back as lists, and fields that were added later are absent."""
    lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
    return Verbalization(**{**record, **lists})


def _verbalize_chunk(name: str, ask: Ask, part: Sequence[Any]) -> Payload:
    start = time.perf_counter()
    texts = halve_on_overflow(partial(_answer, name, ask), part, list.__add__, "vectors")
    seconds = np.array([time.perf_counter() - start])
    return Payload({"seconds": seconds}, [asdict(text) for text in texts])


def _answer(name: str, ask: Ask, part: Sequence[Any]) -> list[Verbalization]:
    """Ask about all at once; if that raises, about each by itself, so that one bad item costs one text.

    Raises:
        MemoryError, torch.OutOfMemoryError: memory does not hold several at once.
    """
    try:
        returned = ask(part)
    except Exception as error:
        if len(part) == 1:
            return [Verbalization("", error=f"{type(error).__name__}: {error}"[:500])]
        if ran_out_of_memory(error):
            raise
        return [text for single in part for text in _answer(name, ask, [single])]
    return check_texts(name, returned, len(part))
