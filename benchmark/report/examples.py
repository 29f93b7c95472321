"""Which texts the page carries for reading: token-matched pairs, and how a text changes with the strength.

A page must stay small enough to open and to mail, so texts are stored once each, long ones are cut, and where they are
still too many a sample is taken: the same one for the same items, whatever their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..item_table import ROWS_AT_A_TIME
from ..records import Result
from ..verbalizers.asking import QUESTION
from .shown import in_reading_order, rounded

MOST_PAIRS = 2_000
MOST_SERIES = 2_000
#: Unique characters of text that pairs may take, and that pairs and series may take together.
PAIR_CHARACTERS = 1_400_000
ALL_CHARACTERS = 2_200_000
LONGEST_TEXT = 2_000

#: The columns of items that the page reads: of every item, and of those that it shows (with the headline scorer's).
LABELS = (
    "item_id", "arm", "injection", "level", "concept", "prompt", "position", "kind", "word", "r", "pair",
)  # fmt: skip
SHOWN = ("item_id", "concept", "verbalizer", "text", "error")


#: What a verbalizer said of one item: text, error, rank of the right concept, the concept that ranks first.
_Said = tuple[str, str | None, float | None, int | None]


@dataclass
class _Shelf:
    """Texts, each stored once, and the items already on the page."""

    by_verbalizer: dict[str, dict[str, _Said]]  # then by item id
    texts: dict[str, int] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)  # only of texts that were cut
    items: dict[str, int] = field(default_factory=dict)
    said: dict[str, list[list[Any]]] = field(default_factory=dict)
    characters: int = 0

    def place(self, item_id: str) -> int:
        """The item's number on the page; its texts are stored when it is new."""
        if item_id not in self.items:
            self.items[item_id] = len(self.items)
            for name, said in self.by_verbalizer.items():
                self.said.setdefault(name, []).append(self._entry(said.get(item_id)))
        return self.items[item_id]

    def _entry(self, said: _Said | None) -> list[Any]:
        if said is None:
            return [None, None, None]
        text, error, rank, top = said
        return [self._store(text), rank, top, *([error[:300]] if error else [])]

    def _store(self, text: str) -> int:
        if text not in self.texts:
            number = self.texts[text] = len(self.texts)
            self.characters += min(len(text), LONGEST_TEXT)
            if len(text) > LONGEST_TEXT:
                self.lengths[number] = len(text)
        return self.texts[text]


def read_labels(file: Path) -> pd.DataFrame:
    """The labels of every item of an `items.parquet`, whichever verbalizer's rows stand first."""
    blocks: list[pa.RecordBatch] = []
    for block in _read_general(file, (*LABELS, "verbalizer")):
        first = blocks[0]["verbalizer"][0] if blocks else block["verbalizer"][0]
        blocks.append(block.filter(pc.equal(block["verbalizer"], first)))
    return pa.Table.from_batches(blocks).to_pandas() if blocks else pd.DataFrame(columns=list(LABELS))


def _read_general(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a table of items, those that it has, block by block.

    Of an item that was asked several questions, the general one's rows: what single tasks asked is other rows.
    """
    with pq.ParquetFile(file, pre_buffer=False) as opened:  # buffered beforehand, all columns would be in memory
        present = [name for name in (*columns, "question") if name in opened.schema_arrow.names]
        for block in opened.iter_batches(ROWS_AT_A_TIME, columns=present):
            if "question" in present:
                asked = block["question"].cast(pa.string())
                block = block.filter(pc.fill_null(pc.equal(asked, QUESTION), True))
            if len(block):
                yield block


def pick_examples(result: Result, labels: pd.DataFrame, file: Path) -> dict[str, Any]:
    """The page's examples: `texts`, `items`, `said` by verbalizer, `pairs` and `series` (see the fields below).

    labels: as `read_labels` gives them. file: the table of items, of which the rows that the page shows are read.
    """
    if labels.empty:
        return {"texts": [], "cut": {}, "items": [], "said": {}, "pairs": [], "series": [], "n_pairs": 0, "n_series": 0}
    all_pairs, all_series = list(_pairs(labels)), list(_series(labels))
    some_pairs, some_series = _sampled(all_pairs)[:MOST_PAIRS], _sampled(all_series)[:MOST_SERIES]
    # Of a large run few items can be on the page: no other one's texts and scores are looked at.
    wanted = {item for unit in (*some_pairs, *some_series) for item in unit}
    labels = labels[labels["item_id"].isin(wanted)]
    ids = pa.array(sorted(wanted), pa.string())
    rows = _read_general(file, (*SHOWN, f"score_{result.headline_scorer}"))
    shown = [block.take(pc.indices_nonzero(pc.is_in(block["item_id"].cast(pa.string()), ids))) for block in rows]
    chosen = pa.Table.from_batches(shown).to_pandas()
    said = _what_they_said(_rank_right_concept(result, chosen))
    shelf = _Shelf({name: said[name] for name in in_reading_order(result.verbalizers) if name in said})
    pairs, series = [], []
    for pair in some_pairs:
        if shelf.characters > PAIR_CHARACTERS:
            break
        pairs.append([shelf.place(item) if item else None for item in pair[:3]])
    for line in some_series:
        if shelf.characters > ALL_CHARACTERS:
            break
        series.append([shelf.place(item) for item in line])
    order = {concept.name: number for number, concept in enumerate(result.concepts)}
    by_id = labels.set_index("item_id").to_dict("index")
    described = [_describe(by_id[item], order) for item in shelf.items]

    def in_pack_order(number: int) -> tuple[Any, ...]:
        item = described[number]
        return (-1 if item["concept"] is None else item["concept"], item["prompt"], item["position"])

    return {
        "texts": [text[:LONGEST_TEXT] for text in shelf.texts],
        "cut": shelf.lengths,
        "items": described,
        "said": shelf.said,
        # [natural, steered, neutral or null], numbers into `items`
        "pairs": sorted(pairs, key=lambda pair: in_pack_order(pair[0])),
        # the steered items of one concept, prompt and injection by r, after the neutral one where there is one
        "series": sorted(series, key=lambda line: in_pack_order(line[-1])),
        "n_pairs": len(all_pairs),
        "n_series": len(all_series),
    }


def _what_they_said(ranked: pd.DataFrame) -> dict[str, dict[str, _Said]]:
    """Per verbalizer, its texts by item id."""
    columns = ("verbalizer", "item_id", "text", "error", "right_rank", "top_concept")
    said: dict[str, dict[str, _Said]] = {}
    for name, item, text, error, rank, top in zip(*(ranked[column].tolist() for column in columns), strict=True):
        said.setdefault(name, {})[item] = (text or "", error if isinstance(error, str) else None, rank, top)
    return said


def _rank_right_concept(result: Result, items: pd.DataFrame) -> pd.DataFrame:
    """The items with `right_rank` (of the right concept; 1 is best, ties take their expected rank) and `top_concept`.

    Both are None where the headline scorer has no scores; `right_rank` also where an item is of no concept.
    """
    numbers = {concept.name: number for number, concept in enumerate(result.concepts)}
    column = f"score_{result.headline_scorer}"
    ranks: list[float | None] = []
    tops: list[int | None] = []
    for row, concept in zip(items.get(column, [None] * len(items)), items["concept"], strict=True):
        scores = np.asarray([] if row is None else row, dtype=float)
        if len(scores) != len(numbers) or not np.isfinite(scores).all():
            ranks.append(None)
            tops.append(None)
            continue
        tops.append(int(scores.argmax()))
        mine = scores[numbers[concept]] if concept in numbers else None
        ranks.append(None if mine is None else float(1 + (scores > mine).sum() + ((scores == mine).sum() - 1) / 2))
    return items.assign(
        right_rank=pd.Series(ranks, index=items.index, dtype=object),
        top_concept=pd.Series(tops, index=items.index, dtype=object),
    )


def _pairs(labels: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """(natural, steered, neutral or "") item ids that share the natural readout."""
    natural = labels[labels["arm"] == "natural"]
    by_readout = {
        (f"{row.prompt}@{row.position}", row.concept, row.kind): str(row.item_id) for row in natural.itertuples()
    }
    neutral: dict[tuple[str, str], str] = {
        (str(row.prompt), str(row.kind)): str(row.item_id) for row in labels[labels["arm"] == "neutral"].itertuples()
    }
    for row in labels[(labels["arm"] == "steered") & (labels["level"] == "matched")].itertuples():
        partner = by_readout.get((str(row.pair), row.concept, row.kind))
        if partner is not None:
            yield partner, str(row.item_id), neutral.get((str(row.prompt), str(row.kind)), "")


def _series(labels: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """Item ids of one concept, prompt and injection over the grid: the neutral item (where there is one), then by r."""
    neutral = labels[labels["arm"] == "neutral"]
    at_rest = {(row.prompt, row.position): str(row.item_id) for row in neutral.itertuples()}
    is_grid = (labels["arm"] == "steered") & (labels["level"] == "grid")
    unit = ["concept", "prompt", "position", "injection"]
    grid = labels.loc[is_grid, [*unit, "r", "item_id"]].sort_values([*unit, "r"])
    starts = np.flatnonzero((grid[unit] != grid[unit].shift()).any(axis=1)).tolist()
    prompts, positions, ids = (grid[column].tolist() for column in ("prompt", "position", "item_id"))
    for start, end in pairwise([*starts, len(ids)]):
        rest = at_rest.get((prompts[start], positions[start]))
        yield (*([] if rest is None else [rest]), *ids[start:end])


def _sampled(units: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The units in an order that depends on nothing but their items: its beginning is a sample."""
    return sorted(units, key=lambda unit: hashlib.sha256("/".join(unit).encode()).digest())


def _describe(row: Mapping[Hashable, Any], order: dict[str, int]) -> dict[str, Any]:
    return {
        "arm": str(row["arm"]),
        "injection": str(row["injection"]),
        "kind": str(row["kind"]),
        "concept": order.get(row["concept"]),
        "prompt": str(row["prompt"]),
        "position": int(row["position"]),
        "word": str(row["word"]),
        "r": rounded(float(row["r"])),
    }
