"""A concept pack out of one labelled set of sae-probes: every class is a concept.

The classes' names are all that such a set says of them, so the descriptions are made of names, and there are no
validation texts that name a concept: a scorer is tested on held-out texts of the classes, and a result says so.
"""

from __future__ import annotations

import hashlib
import re

import pandas as pd

from .concepts import ConceptPack, load_pack, pack_from_rows
from .errors import BadInput
from .pack_check import WORDS, WORDS_OF_VALIDATION, function_words
from .sae_probes import load_labelled_texts

#: Texts of one class: at most twice the built-in pack's (classes are few, and their labels noisy), at least as many.
MOST_TEXTS, FEWEST_TEXTS = 88, 44

#: As long as texts and validation texts of a pack may be, so that every text can serve either.
SHORTEST, LONGEST = WORDS[0], min(WORDS[1], WORDS_OF_VALIDATION[1])

FEWEST_FUNCTION_WORDS = 2

#: What scraping left behind: character references without their ampersand, links, backslashes.
_LEFTOVER = re.compile(r"#\d+;|\b(?:quot|amp|lt|gt|nbsp);|https?:|\\")

#: The end of a sentence, which is not the full stop of an initial, a number or a title.
_SENTENCE_END = re.compile(
    r"(?<![A-Z0-9]\.)(?<!Mr\.|Ms\.|Dr\.|St\.|vs\.)(?<!Mrs\.)(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z])"
)


def load_labelled_pack(name: str) -> ConceptPack:
    """The pack of a set with classes that have names; neutral prompts are the built-in pack's.

    Texts are cut to their first whole sentences, 8 to 30 words, and must offer readouts at function words. Which are
    taken, and for which purpose, is decided by their content alone.

    Raises:
        BadInput: there is no such set, its labels are no names, or a class has too few texts that can be read.
    """
    table = load_labelled_texts(name)
    _check_names(name, table["target"])
    family = name.partition("_")[2]
    rows = []
    for label, texts in sorted(_readable_texts(table).items()):
        if len(texts) < FEWEST_TEXTS:
            raise BadInput(
                f"The class {label!r} of sae-probes:{name} has {len(texts)} texts that begin with whole sentences of "
                f"{SHORTEST} to {LONGEST} words, {FEWEST_FUNCTION_WORDS} function words among them; a pack needs "
                f"{FEWEST_TEXTS}. Choose a set of longer texts, for instance sae-probes:97_news_class."
            )
        rows += [{"text": text, "concept": label, "family": family} for text in texts[:MOST_TEXTS]]
    columns = {key: key for key in ("text", "concept", "family")}
    return pack_from_rows(f"sae-probes:{name}", rows, load_pack().neutral, columns=columns)


def _check_names(name: str, labels: pd.Series[str]) -> None:
    values = sorted(set(labels), key=str)
    if any(not isinstance(value, str) or len(value) < 2 for value in values):
        some = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
        raise BadInput(
            f"The labels of sae-probes:{name} are {some}: they name nothing that a text could say. Choose a set whose "
            "labels are words, for instance sae-probes:97_news_class; or give the classes descriptions of your own: "
            "load_labelled_texts in nlabench.benchmark.sae_probes and pack_from_rows in nlabench.benchmark.concepts."
        )


def _readable_texts(table: pd.DataFrame) -> dict[str, list[str]]:
    """The usable texts of every class, in the order of their hashes.

    Texts that open alike are one text (agencies print each other's reports), and it is left out where classes share it.
    """
    pairs = [(_first_sentences(prompt), label) for prompt, label in zip(table["prompt"], table["target"], strict=True)]
    usable = [(text, label) for text, label in pairs if len(function_words(text)) >= FEWEST_FUNCTION_WORDS]
    usable.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    labels_of: dict[str, set[str]] = {}
    for text, label in usable:
        labels_of.setdefault(_opening(text), set()).add(label)
    one_each = {_opening(text): (text, label) for text, label in reversed(usable)}
    found: dict[str, list[str]] = {label: [] for label in table["target"]}
    for text, label in reversed(one_each.values()):
        if len(labels_of[_opening(text)]) == 1:
            found[label].append(text)
    return found


def _first_sentences(text: str) -> str:
    """As many whole sentences from the beginning as LONGEST words hold; nothing where that is too short or unclean."""
    sentences = _SENTENCE_END.sub(lambda end: end[0].rstrip() + "\n", " ".join(text.split())).split("\n")
    taken: list[str] = []
    for sentence in sentences:
        if len(" ".join([*taken, sentence]).split()) > LONGEST:
            break
        taken.append(sentence)
    whole = " ".join(taken)
    return whole if len(whole.split()) >= SHORTEST and not _LEFTOVER.search(whole) else ""


def _opening(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())[:5])
