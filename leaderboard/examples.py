"""Texts of an entry for reading: what it says of a natural activation and of a steered one, at the same word."""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd

from .entries import Entry

#: Characters of a text that are shown; the entry has the whole.
LONGEST_TEXT = 600

_COLUMNS = ("verbalizer", "arm", "injection", "level", "kind", "pair", "prompt", "position", "word", "concept", "r")


def pick_examples(entry: Entry, items: pd.DataFrame, n: int = 12) -> list[dict[str, Any]]:
    """A sample of `n` token-matched pairs at matched evidence, one concept at most once while there are others.

    Pairs are drawn by the hash of their items' ids. How they scored plays no part, so they are what a reader would
    meet, and not the best. Texts are anybody's. An empty list where the items have no such pairs.
    """
    if not {*_COLUMNS, "item_id", "text"} <= set(items):
        return []
    titles = {concept.name: concept.title for concept in entry.result.concepts}
    columns = [*_COLUMNS, "item_id", "text", *(["question"] if "question" in items else [])]
    own = items.loc[items["verbalizer"] == entry.card.name, columns].drop_duplicates("item_id")
    if "question" in own:  # an item that was asked several: the one of the general question is first
        own = own.sort_values("question", na_position="first", kind="stable").drop_duplicates("item_id")
    natural = own[own["arm"] == "natural"]
    at = natural["prompt"].astype(str) + "@" + natural["position"].astype(str)
    by_pair = dict(zip(at, natural.to_dict("records"), strict=True))
    steered = own[(own["arm"] == "steered") & (own["level"] == "matched") & own["pair"].notna()]
    steered = steered[(steered["injection"] == "readout") & (steered["kind"] == "function")]
    pairs = [
        (by_pair[row["pair"]], row)
        for row in steered.to_dict("records")
        if row["pair"] in by_pair and row["concept"] in titles
    ]
    pairs.sort(key=lambda pair: hashlib.sha256(f"{pair[0]['item_id']}/{pair[1]['item_id']}".encode()).digest())
    met: dict[str, int] = {}
    turns = []
    for pair in pairs:
        concept = str(pair[1]["concept"])
        turns.append(met.setdefault(concept, 0))
        met[concept] += 1
    order = sorted(range(len(pairs)), key=lambda number: turns[number])  # stable: by hash within a turn
    return [_show(*pairs[number], titles) for number in order[:n]]


def _show(natural: dict[Any, Any], steered: dict[Any, Any], titles: dict[str, str]) -> dict[str, Any]:
    concept = str(steered["concept"])
    return {
        "concept": concept,
        "title": titles[concept],
        "word": str(steered["word"]),
        "natural": _cut(natural["text"]),
        "steered": _cut(steered["text"]),
        "r": round(float(steered["r"]), 4),
    }


def _cut(text: Any) -> str:
    shown = text if isinstance(text, str) else ""
    return shown if len(shown) <= LONGEST_TEXT else shown[:LONGEST_TEXT] + "…"
