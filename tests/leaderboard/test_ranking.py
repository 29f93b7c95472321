"""Ranks on entries whose order is planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.statistics import Clusters, Estimate, RankInterval, cluster_mean
from nlabench.leaderboard.columns import COLUMNS, find_row
from nlabench.leaderboard.entries import Entry, metric_key
from nlabench.leaderboard.ranking import (
    Board,
    compare,
    compare_all,
    group_boards,
    rank,
    rank_estimates,
    why_unranked,
)

STEERED, NATURAL, GAP, *_ = COLUMNS
N_CONCEPTS, N_PROMPTS = 24, 10


@pytest.fixture
def entries(planted_entries: dict[str, Entry]) -> dict[str, Entry]:
    return planted_entries


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


def test_one_entry_alone_has_no_rank(entries: dict[str, Entry]) -> None:
    found = rank(Board("one", (entries["mute"],)), STEERED)
    assert found == {}


def test_all_pairs_have_the_differences_of_each_pair(entries: dict[str, Entry]) -> None:
    (board,) = group_boards(list(entries.values()))
    found = compare_all(board, STEERED)
    assert len(found) == 6
    for a, b in (("good", "poor"), ("like", "mute")):
        one = compare(entries[a], entries[b], STEERED)
        assert one is not None
        assert found[entries[a].id, entries[b].id] == pytest.approx((one.estimate, one.low, one.high))


@pytest.mark.parametrize("fault", ["fewer concepts", "no number", "cells in a row"])
def test_an_estimate_that_fits_no_other_has_no_rank_and_takes_no_other_one(
    entries: dict[str, Entry], fault: str
) -> None:
    odd = entries["good"]
    key = metric_key(find_row(odd, STEERED))  # type: ignore[arg-type]
    kept = odd.estimates[key]
    e = kept.estimate
    faulty = {
        "fewer concepts": replace(e, by_concept=e.by_concept[1:], by_cell=e.by_cell[1:]),
        "no number": replace(e, point=np.asarray(np.nan)),
        "cells in a row": replace(e, by_cell=e.by_cell.ravel()),
    }[fault]
    odd = replace(odd, estimates={**odd.estimates, key: replace(kept, estimate=faulty)})
    changed = {**entries, "good": odd}
    assert ranks(changed) == {"like": (1, 1), "poor": (2, 2), "mute": (3, 3)}
    (board,) = group_boards(list(changed.values()))
    assert not any(odd.id in pair for pair in compare_all(board, STEERED))


# -- entries drawn from a population of concepts and prompts ----------------------------------------------------------


def draw_estimates(means: list[float], rng: np.random.Generator, noise: float = 1.0) -> list[Estimate]:
    """An entry's mean score for each true mean: concepts and prompts move all of them together, and each by itself."""
    concept, prompt = (grid.ravel() for grid in np.meshgrid(range(N_CONCEPTS), range(N_PROMPTS), indexing="ij"))
    together = rng.normal(size=N_CONCEPTS)[concept] + rng.normal(size=N_PROMPTS)[prompt]
    found = []
    for mean in means:
        alone = 0.5 * rng.normal(size=N_CONCEPTS)[concept] + 0.3 * rng.normal(size=N_PROMPTS)[prompt]
        values = mean + together + noise * (alone + rng.normal(size=len(concept)))
        found.append(cluster_mean(values, Clusters(concept, prompt), bounds=None))
    return found


def share_covered(shrink: float) -> float:
    """How often an entry's true rank lies in its interval, where every interval of a difference is shrunk."""
    rng, means = np.random.default_rng(5), [0.0, 0.1, 0.2, 0.3, 0.4]
    held = []
    for _ in range(150):
        drawn = [
            replace(e, by_concept=shrink * e.by_concept, by_prompt=shrink * e.by_prompt, by_cell=shrink * e.by_cell)
            for e in draw_estimates(means, rng)
        ]
        held += [r.best <= 5 - i <= r.worst for i, r in enumerate(rank_estimates(drawn))]
    return float(np.mean(held))


def test_the_true_rank_lies_in_the_interval_in_95_percent_of_repetitions() -> None:
    assert share_covered(1.0) >= 0.95


def test_the_simulation_would_notice_intervals_of_half_the_width() -> None:
    assert share_covered(0.5) < 0.95


def test_identical_entries_share_a_rank() -> None:
    one, other = draw_estimates([0.0, 2.0], np.random.default_rng(1))
    found = rank_estimates([one, other, one])
    assert [(r.best, r.worst) for r in found] == [(2, 3), (1, 1), (2, 3)]


def test_a_noisy_entry_may_have_every_rank_while_the_others_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    exact = draw_estimates([0.0, 1.0, 2.0], rng, noise=0.1)
    # What all share is drawn again for it: nothing cancels in its differences.
    (noisy,) = draw_estimates([1.0], rng, noise=8.0)
    assert [(r.best, r.worst) for r in rank_estimates(exact)] == [(3, 3), (2, 2), (1, 1)]
    assert rank_estimates([*exact, noisy])[3] == RankInterval(1, 4)
