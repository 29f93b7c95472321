"""Ranks on entries whose order is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.leaderboard.entries import Entry, read_entry
from nlabench.leaderboard.ranking import COLUMNS, Board, compare, find_row, group_boards, rank, why_unranked
from nlabench.submitting import submit

Write = Callable[..., Path]
Say = Callable[..., list[str]]
STEERED, NATURAL, GAP, *_ = COLUMNS
#: The share of items on which each says nothing: two that are alike, one far behind, one that guesses.
SILENT = {"good": 0.1, "like": 0.1, "poor": 0.6, "mute": 1.0}
CARD = {"authors": ["A"], "link": "https://example.org", "licence": "MIT", "training_data": "none"}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> dict[str, Entry]:
    home = tmp_path_factory.mktemp("home")
    said = {name: say_planted(share, seed=i) for i, (name, share) in enumerate(SILENT.items())}
    run = write_planted_run(home / "run", said)
    found = {}
    for name in said:
        entry = read_entry(submit(run, home / name, verbalizer=name, **CARD))
        record = entry.result.verbalizers[name]
        whole = record.model_copy(update={"n_texts": sum(arm.n_items for arm in entry.result.arms)})
        verbalizers = {**entry.result.verbalizers, name: whole}
        found[name] = replace(entry, result=entry.result.model_copy(update={"verbalizers": verbalizers}))
    return found


def ranks(entries: dict[str, Entry], column: object = STEERED) -> dict[str, tuple[int, int]]:
    (board,) = group_boards(list(entries.values()))
    found = rank(board, column)  # type: ignore[arg-type]
    return {name: (found[e.id].best, found[e.id].worst) for name, e in entries.items() if e.id in found}


@pytest.mark.parametrize("column", [STEERED, NATURAL])
def test_the_planted_order_comes_back_and_two_that_are_alike_share_a_rank(
    entries: dict[str, Entry], column: object
) -> None:
    assert ranks(entries, column) == {"good": (1, 2), "like": (1, 2), "poor": (3, 3), "mute": (4, 4)}


def test_a_figure_that_is_better_lower_is_ranked_from_below(entries: dict[str, Entry]) -> None:
    turned = replace(STEERED, lower_is_better=True)
    assert ranks(entries, turned) == {"good": (3, 4), "like": (3, 4), "poor": (2, 2), "mute": (1, 1)}


def test_a_gap_has_no_rank(entries: dict[str, Entry]) -> None:
    assert ranks(entries, GAP) == {}


def test_the_paired_difference_is_that_of_the_two_figures_and_excludes_zero_where_ranks_are_apart(
    entries: dict[str, Entry],
) -> None:
    found = compare(entries["good"], entries["poor"], STEERED)
    rows = [find_row(entries[name], STEERED) for name in ("good", "poor")]
    assert found is not None
    assert found.estimate == pytest.approx(rows[0].value - rows[1].value)  # type: ignore[union-attr, operator]
    assert found.low > 0
    same = compare(entries["good"], entries["like"], STEERED)
    assert same is not None
    assert same.low < 0 < same.high


def test_who_failed_is_no_contestant_lacks_items_or_is_superseded_is_shown_and_not_ranked(
    entries: dict[str, Entry],
) -> None:
    good = entries["good"]

    def spoil(**fields: object) -> Entry:
        record = good.result.verbalizers["good"].model_copy(update=fields)
        return replace(good, result=good.result.model_copy(update={"verbalizers": {"good": record}}))

    assert why_unranked(good, [good]) == ""
    assert why_unranked(spoil(n_failed=3)) == "failed on 3 items"
    assert "of" in why_unranked(spoil(n_texts=7))
    assert why_unranked(replace(good, card=good.card.model_copy(update={"role": "reader"}))) == "reader"
    provenance = good.result.provenance.model_copy(update={"started": "2999"})
    newer = replace(good, id="new", result=good.result.model_copy(update={"provenance": provenance}))
    assert why_unranked(good, [good, newer]) == "superseded by new"
    assert why_unranked(newer, [good, newer]) == ""
    spoilt = {**entries, "good": spoil(n_failed=1)}
    assert ranks(spoilt) == {"like": (1, 1), "poor": (2, 2), "mute": (3, 3)}


def test_entries_of_another_benchmark_are_on_another_board_and_are_not_compared(entries: dict[str, Entry]) -> None:
    good = entries["good"]
    provenance = good.result.provenance.model_copy(update={"subject_fingerprint": "another"})
    foreign = replace(good, id="foreign", result=good.result.model_copy(update={"provenance": provenance}))
    boards = group_boards([*entries.values(), foreign])
    assert [len(board.entries) for board in boards] == [4, 1]
    with pytest.raises(BadInput, match="not of one benchmark"):
        compare(good, foreign, STEERED)


def test_a_board_of_one_has_the_rank_one(entries: dict[str, Entry]) -> None:
    found = rank(Board("one", (entries["mute"],)), STEERED)
    assert [(interval.best, interval.worst) for interval in found.values()] == [(1, 1)]
