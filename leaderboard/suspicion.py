"""Texts that a person should look at: written for the pack's scorers and not from the vector. They reject nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: So many words in a row from a description are no chance.
RUN_OF_WORDS = 8

#: A text that names so many concepts is a list of them.
MANY_CONCEPTS = 5

#: The share of texts from which a pattern is worth a look.
SHARE = 0.01


def find_suspicious_texts(texts: Sequence[str], descriptions: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Sentences on what was seen: texts that copy a description, that list many concepts, that are all alike.

    descriptions, titles: those of the pack's concepts. A linear probe that says descriptions is flagged, and should be.
    """
    if not texts:
        return []
    runs = {run for description in descriptions for run in _runs(description)}
    names = [re.compile(rf"\b{re.escape(' '.join(_words(title)))}\b") for title in titles]
    seen = {text: (_copies(text, runs), _lists(text, names)) for text in dict.fromkeys(texts)}
    found = []
    copied, listed = (sum(seen[text][i] for text in texts) for i in (0, 1))
    if copied > SHARE * len(texts):
        found.append(f"{copied} of {len(texts)} texts copy {RUN_OF_WORDS} words or more of a concept's description")
    if listed > SHARE * len(texts):
        found.append(f"{listed} of {len(texts)} texts name {MANY_CONCEPTS} concepts or more")
    if len(seen) <= SHARE * len(texts):
        found.append(f"{len(texts)} texts are {len(seen)} different ones")
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _runs(text: str) -> set[tuple[str, ...]]:
    """Every run of `RUN_OF_WORDS` words; the whole where it is shorter than that, if it is no mere name."""
    words = _words(text)
    if len(words) < RUN_OF_WORDS:
        return {tuple(words)} if len(words) > 3 else set()
    return {tuple(words[i : i + RUN_OF_WORDS]) for i in range(len(words) - RUN_OF_WORDS + 1)}


def _copies(text: str, runs: set[tuple[str, ...]]) -> bool:
    words, lengths = _words(text), {len(run) for run in runs}
    return any(tuple(words[i : i + n]) in runs for n in lengths for i in range(len(words) - n + 1))


def _lists(text: str, names: Sequence[re.Pattern[str]]) -> bool:
    joined = " ".join(_words(text))
    return sum(bool(name.search(joined)) for name in names) >= MANY_CONCEPTS
