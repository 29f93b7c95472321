"""A board as data: what pages are told of entries whose order is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nlabench.benchmark.records import GateRow, MetricRow, SaidRow
from nlabench.leaderboard.board import build_boards
from nlabench.leaderboard.columns import COLUMNS, FURTHER_COLUMNS, find_place, find_row, shown_columns
from nlabench.leaderboard.entries import Entry
from nlabench.leaderboard.profile import count_sayings, tradeoff_curve
from nlabench.leaderboard.ranking import compare

ENTRY_FIELDS = {
    "id", "slug", "name", "role", "status", "verified", "card", "failed", "n_texts", "texts_per_second", "seconds",
    "warnings", "eligible", "why_not", "cells", "dose", "tradeoff", "metrics", "families", "concepts", "said",
    "rescored",
}  # fmt: skip


@pytest.fixture(scope="module")
def board(planted_entries: dict[str, Entry]) -> dict[str, Any]:
    (board,) = build_boards(list(planted_entries.values()))
    return board


def change(entry: Entry, **fields: Any) -> Entry:
    return replace(entry, result=entry.result.model_copy(update=fields))


def row(entry: Entry, **fields: Any) -> MetricRow:
    given = {"verbalizer": entry.card.name, "scorer": entry.result.headline_scorer, "arm": "steered", "value": 0.5}
    return MetricRow(**{**given, **fields})


def test_a_board_is_plain_data_without_nan(board: dict[str, Any], planted_entries: dict[str, Entry]) -> None:
    assert json.loads(json.dumps(board, allow_nan=False)) == board
    assert {entry["name"] for entry in board["entries"]} == set(planted_entries)
    assert all(set(entry) == ENTRY_FIELDS for entry in board["entries"])
    assert board["n_items"] == board["entries"][0]["n_texts"]


def test_a_cell_holds_the_recorded_figure_its_place_and_its_rank(
    board: dict[str, Any], planted_entries: dict[str, Entry]
) -> None:
    good = next(entry for entry in board["entries"] if entry["name"] == "good")
    found = find_row(planted_entries["good"], COLUMNS[0])
    assert found is not None
    cell = good["cells"]["steered"]
    assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((found.value, found.low, found.high), abs=1e-4)
    assert (cell["best"], cell["worst"], cell["of"]) == (1, 2, 4)
    assert good["cells"]["gap"]["best"] is None


def test_pairs_are_differences_of_the_first_less_the_second(
    board: dict[str, Any], planted_entries: dict[str, Entry]
) -> None:
    order = [entry["id"] for entry in board["entries"]]
    by_id = {entry.id: entry for entry in planted_entries.values()}
    assert len(board["pairs"]) == 6
    for key, columns in board["pairs"].items():
        a, b = key.split("|")
        assert order.index(a) < order.index(b)
        one = compare(by_id[a], by_id[b], COLUMNS[0])
        assert one is not None
        expected = [None if np.isnan(x) else x for x in (one.estimate, one.low, one.high)]
        assert columns["steered"] == pytest.approx(expected, abs=1e-6)


def test_the_order_of_reading_changes_no_board(board: dict[str, Any], planted_entries: dict[str, Entry]) -> None:
    assert build_boards(list(planted_entries.values())[::-1]) == [board]


def test_other_benchmarks_and_private_packs_have_boards_of_their_own(planted_entries: dict[str, Entry]) -> None:
    good, like = planted_entries["good"], planted_entries["like"]
    made = like.result.provenance.model_copy(update={"pack": "core", "pack_fingerprint": "another", "arguments": {}})
    boards = build_boards([replace(good, private=True), change(like, provenance=made)])
    assert [(board["pack"], board["private"]) for board in boards] == [("core", False), ("planted", True)]
    assert boards[0]["key"] != boards[1]["key"]


def test_a_control_is_shown_without_a_rank(planted_entries: dict[str, Entry]) -> None:
    good = planted_entries["good"]
    ceiling = replace(good, card=good.card.model_copy(update={"role": "ceiling"}))
    (board,) = build_boards([ceiling, planted_entries["poor"], planted_entries["mute"]])
    shown = {entry["role"]: entry for entry in board["entries"] if entry["name"] != "mute"}
    assert not shown["ceiling"]["eligible"]
    assert shown["ceiling"]["why_not"] == "ceiling"
    assert shown["ceiling"]["cells"]["steered"]["best"] is None
    assert shown["submitted"]["cells"]["steered"]["best"] == 1
    assert len(board["pairs"]) == 3


def test_no_entries_make_no_board() -> None:
    assert build_boards([]) == []


def test_each_concept_and_family_has_its_values(board: dict[str, Any]) -> None:
    good = next(entry for entry in board["entries"] if entry["name"] == "good")
    assert set(good["families"]) == set(board["families"])
    for family, ends in good["families"].items():
        values = [concept["natural"] for concept in good["concepts"] if concept["family"] == family]
        assert ends["natural"]["value"] == pytest.approx(np.mean(values), abs=1e-4)
        assert ends["natural"]["n"] == len(values)
        assert ends["natural"]["low"] <= ends["natural"]["value"] <= ends["natural"]["high"]


def test_further_columns_are_shown_where_an_entry_has_them(planted_entries: dict[str, Entry]) -> None:
    good = planted_entries["good"]
    assert [column.name for column in shown_columns([good])] == [column.name for column in COLUMNS]
    fve = next(column for column in FURTHER_COLUMNS if column.name == "fve")
    added = row(good, task=fve.task, metric=fve.metric, arm="natural", scorer="none", value=0.3)
    assert fve in shown_columns([change(good, metrics=[*good.result.metrics, added])])


def test_a_lead_over_text_is_that_over_the_strongest_reader_and_over_no_control(
    planted_entries: dict[str, Entry],
) -> None:
    good = planted_entries["good"]
    column = next(column for column in FURTHER_COLUMNS if column.name == "information_natural")
    leads = {"weak": ("reader", 0.4), "strong": ("reader", -0.1), "probe": ("ceiling", -0.5)}
    record = good.result.verbalizers["good"]
    others = {name: record.model_copy(update={"card": {"role": role}}) for name, (role, _) in leads.items()}
    rows = [
        row(good, task=column.task, metric=column.metric, arm="natural", value=value, versus=name)
        for name, (_, value) in leads.items()
    ]
    entry = change(good, metrics=[*good.result.metrics, *rows], verbalizers={**good.result.verbalizers, **others})
    found = find_row(entry, column)
    assert found is not None
    assert (found.versus, found.value) == ("strong", -0.1)


def test_the_place_is_the_one_of_the_same_items(planted_entries: dict[str, Entry]) -> None:
    good = planted_entries["good"]
    steered = find_row(good, COLUMNS[0])
    assert steered is not None
    same = steered.model_copy(update={"metric": "place_in_pairs", "value": 0.7})
    other = same.model_copy(update={"kind": "final", "value": 0.2})
    rest = [metric for metric in good.result.metrics if not metric.metric.startswith("place")]
    assert find_place(change(good, metrics=[*rest, other, same]), steered) == same
    assert find_place(change(good, metrics=rest), steered) is None


def test_sayings_are_counted_where_most_directions_steer(planted_entries: dict[str, Entry]) -> None:
    good = planted_entries["good"]
    gate = {(0.1, "c0"): False, (0.1, "c1"): True, (0.3, "c0"): True, (0.3, "c1"): True, (0.3, "c2"): False}
    said = {(0.1, "c0"): True, (0.3, "c0"): True, (0.3, "c1"): False, (0.3, "c2"): True}
    same = {"score": 1.0, "permuted": 0.0, "p": 0.1, "q": 0.1}
    entry = change(
        good,
        gate=[
            GateRow(concept=c, r=r, loss=None, distinct_2=1, steers=steers, example="", **same)
            for (r, c), steers in gate.items()
        ],
        said=[
            SaidRow(verbalizer="good", scorer="words", concept=c, r=r, said=says, n_prompts=2, **same)
            for (r, c), says in said.items()
        ],
    )
    assert count_sayings(entry) == {
        "r": 0.3, "steers_and_said": 1, "steers_unsaid": 1, "said_without_steering": 1, "neither": 0,
    }  # fmt: skip
    assert count_sayings(change(good, said=[])) is None


def test_the_tradeoff_has_the_strengths_at_which_both_were_measured(planted_entries: dict[str, Entry]) -> None:
    good = planted_entries["good"]
    rows = [
        row(good, task=task, metric="auroc", injection="readout", r=r, value=value)
        for task, r, value in (
            ("concept_identification", 0.2, 0.6), ("concept_identification", 0.4, 0.8), ("content_retention", 0.4, 0.55)
        )
    ]  # fmt: skip
    empty = {"concept_low": None, "concept_high": None, "content_low": None, "content_high": None}
    assert tradeoff_curve(change(good, metrics=rows)) == [{"r": 0.4, "concept": 0.8, "content": 0.55, **empty}]
