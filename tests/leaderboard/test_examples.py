"""Examples are a sample of token-matched pairs that scores have no part in."""

from __future__ import annotations

import pandas as pd
import pytest
from nlabench.leaderboard.entries import Entry
from nlabench.leaderboard.examples import LONGEST_TEXT, pick_examples

CONCEPTS = 5


@pytest.fixture
def entry(planted_entries: dict[str, Entry]) -> Entry:
    return planted_entries["good"]


@pytest.fixture
def items() -> pd.DataFrame:
    """Four pairs for each of five concepts, and a steered item whose natural one is missing."""
    rows = []
    for c in range(CONCEPTS):
        for k in range(4):
            at = {"kind": "function", "word": f"w{k}", "concept": f"c{c}", "position": 5, "verbalizer": "good"}
            text = f"c{c}/natural/{k}"
            rows += [
                {**at, "item_id": f"n{c}{k}", "arm": "natural", "injection": "none", "level": "grid", "prompt": text,
                 "pair": None, "r": 0.0, "text": f"natural {c} {k}"},
                {**at, "item_id": f"s{c}{k}", "arm": "steered", "injection": "readout", "level": "matched",
                 "prompt": f"p{k}", "pair": f"{text}@5", "r": 0.07, "text": f"steered {c} {k}"},
            ]  # fmt: skip
    table = pd.DataFrame(rows)
    return table[table["item_id"] != "n00"].reset_index(drop=True)


def test_a_pair_is_of_one_concept_and_one_word(entry: Entry, items: pd.DataFrame) -> None:
    found = pick_examples(entry, items, n=100)
    assert len(found) == 4 * CONCEPTS - 1
    for example in found:
        c, k = example["natural"].split()[1:]
        assert example["steered"] == f"steered {c} {k}"
        assert (example["concept"], example["word"], example["r"]) == (f"c{c}", f"w{k}", 0.07)


def test_a_sample_has_every_concept_before_one_twice(entry: Entry, items: pd.DataFrame) -> None:
    assert {example["concept"] for example in pick_examples(entry, items, n=CONCEPTS)} == {
        f"c{c}" for c in range(CONCEPTS)
    }


def test_neither_order_nor_text_nor_score_of_items_changes_the_sample(entry: Entry, items: pd.DataFrame) -> None:
    chosen = [(e["concept"], e["word"]) for e in pick_examples(entry, items, n=6)]
    other = items.sample(frac=1, random_state=3).assign(text="else", score_words=1.0)
    assert [(e["concept"], e["word"]) for e in pick_examples(entry, other, n=6)] == chosen


def test_only_the_entrys_own_texts_are_shown(entry: Entry, items: pd.DataFrame) -> None:
    both = pd.concat([items.assign(verbalizer="constant", text="no"), items])
    assert pick_examples(entry, both) == pick_examples(entry, items)
    assert pick_examples(entry, items.assign(verbalizer="constant")) == []


def test_long_texts_are_cut_and_missing_ones_are_empty(entry: Entry, items: pd.DataFrame) -> None:
    (long, *_) = pick_examples(entry, items.assign(text="x" * 5000))
    assert long["natural"] == "x" * LONGEST_TEXT + "…"
    (none, *_) = pick_examples(entry, items.assign(text=None))
    assert none["steered"] == ""


def test_items_without_pairs_give_no_examples(entry: Entry, items: pd.DataFrame) -> None:
    assert pick_examples(entry, items.drop(columns="pair")) == []
    assert pick_examples(entry, items.assign(pair=None)) == []
    assert pick_examples(entry, items.iloc[:0]) == []
