"""A run's numbers follow from its two files, and files that are no run are refused where they are wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.errors import BadInput, NoRoom
from nlabench.benchmark.records import Result, read_result, write_result
from nlabench.benchmark.rescoring import (
    find_changed_scores,
    find_discrepancies,
    find_scorers,
    find_tasks,
    rebuild_panels,
    rescore,
    score_recorded,
    score_texts_again,
)
from nlabench.benchmark.scoring.base import DIGITS, score_unique
from nlabench.benchmark.stored_run import read_run
from nlabench.benchmark.transcript import OF_VECTORS
from nlabench.benchmark.verbalizers.asking import QUESTION

Say = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Callable[..., Path], say_planted: Say) -> Path:
    texts = {"mine": say_planted(0.1), "other": say_planted(0.6, seed=1)}
    return write_planted_run(tmp_path_factory.mktemp("run"), texts)


def change(run: Path, folder: Path, items: Callable[[pd.DataFrame], pd.DataFrame] = lambda t: t, **record: Any) -> Path:
    """A copy with other items or other fields of the result."""
    shutil.copytree(run, folder)
    items(pd.read_parquet(run / "items.parquet")).to_parquet(folder / "items.parquet", index=False)
    write_result(read_result(run / "result.json").model_copy(update=record), folder / "result.json")
    return folder


# -- the same numbers -----------------------------------------------------------------------------------------------


def test_every_metric_follows_from_the_two_files_whatever_the_order_of_rows(run: Path, tmp_path: Path) -> None:
    recorded = read_result(run / "result.json")
    assert len(recorded.metrics) > 100
    shuffled = change(run, tmp_path / "shuffled", lambda items: items.sample(frac=1, random_state=0))
    for folder in (run, shuffled):
        assert find_discrepancies(recorded, rescore(read_run(folder)), tolerance=0) == []


def test_prompts_are_numbered_as_the_record_says_and_not_by_name(run: Path) -> None:
    panel = rebuild_panels(read_run(run))[QUESTION]
    moved = panel.items[panel.items["arm"] != "natural"]
    order = moved.drop_duplicates("prompt").sort_values("prompt_number")["prompt"].tolist()
    assert order == read_result(run / "result.json").provenance.readout_prompts != sorted(order)


def test_scores_come_back_from_float32_as_they_were_ties_included(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = np.round(np.concatenate([rng.normal(size=9_000) * 3, rng.uniform(-128, 128, 9_000)]), DIGITS)
    n_items, n_concepts = 200, len(read_result(run / "result.json").concepts)
    table = rng.choice(given, (n_items, n_concepts))

    def replace_scores(items: pd.DataFrame) -> pd.DataFrame:
        some = items[items["verbalizer"] == "mine"].sort_values("item_id").head(n_items)
        kept = items[items["item_id"].isin(some["item_id"]) & (items["verbalizer"] == "mine")].sort_values("item_id")
        return kept.assign(score_words=list(table.astype(np.float32)))

    stored = read_run(change(run, tmp_path / "changed", replace_scores), ["mine"])
    assert np.array_equal(stored.scores[QUESTION]["mine"][0], table)


def test_texts_scored_again_get_the_scores_that_are_stored(run: Path, planted_pack: ConceptPack) -> None:
    stored = read_run(run)
    again = score_texts_again(stored, planted_pack)
    assert find_changed_scores(stored, again, tolerance=0) == []
    assert rescore(again) == rescore(stored)


def test_a_score_that_is_not_its_texts_is_found_and_so_is_a_metric_that_is_not_its_scores(
    run: Path, tmp_path: Path, planted_pack: ConceptPack
) -> None:
    def boast(items: pd.DataFrame) -> pd.DataFrame:
        items.at[5, "score_words"] = items.at[5, "score_words"] + np.float32(0.01)
        return items

    boasted = read_run(change(run, tmp_path / "boasted", boast))
    item = pd.read_parquet(run / "items.parquet").loc[5]
    found = find_changed_scores(boasted, score_texts_again(boasted, planted_pack))
    assert [d.where.partition(", score")[0] for d in found] == [f"{item['verbalizer']}, item {item['item_id']}"]

    recorded = read_result(run / "result.json")
    row = next(number for number, row in enumerate(recorded.metrics) if row.value == row.value is not None and row.low)
    claimed = [*recorded.metrics]
    claimed[row] = claimed[row].model_copy(update={"high": (claimed[row].high or 0) + 0.01})
    claim = recorded.model_copy(update={"metrics": claimed[:-1]})
    found = find_discrepancies(claim, rescore(read_run(run)))
    assert [d.where.rpartition(": ")[2] for d in found][:1] == ["high"]
    assert found[1].recorded is None
    assert len(found) == 2


def test_outliers_are_left_out_as_in_the_run(run: Path, tmp_path: Path) -> None:
    def mark(items: pd.DataFrame) -> pd.DataFrame:
        return items.assign(outlier=items["item_id"] == items["item_id"].min())

    stored = read_run(change(run, tmp_path / "marked", mark))
    assert len(rebuild_panels(stored)[QUESTION].items) == len(stored.labels) - 1
    assert sum(rescore(stored).excluded_items.values()) == 1


def test_answers_to_a_tasks_own_question_stand_in_that_questions_panel(run: Path, tmp_path: Path) -> None:
    def ask(items: pd.DataFrame) -> pd.DataFrame:
        own = items[items["verbalizer"] == "mine"]
        answers = own.assign(text=[f"answer {i}" for i in own["item_id"]], question="Why?")
        return pd.concat([items.assign(question=None), answers], ignore_index=True)

    stored = read_run(change(run, tmp_path / "asked", ask))
    panels = rebuild_panels(stored)
    assert panels["Why?"].texts["mine"] == [f"answer {i}" for i in panels["Why?"].items["item_id"]]
    assert panels["Why?"].texts["other"] == panels[QUESTION].texts["other"]
    assert panels[QUESTION].texts["mine"] == read_run(run).texts[QUESTION]["mine"]


def test_what_a_task_measured_is_its_verbalizers_or_the_vectors(run: Path, tmp_path: Path) -> None:
    def measure(items: pd.DataFrame) -> pd.DataFrame:
        own = (items["verbalizer"] == "mine").to_numpy()
        number = np.arange(len(items)) % 7.0
        rows = [np.array([x, np.nan], dtype=np.float32) if mine else None for x, mine in zip(number, own, strict=True)]
        return items.assign(**{"t.norm": 3.0, "t.cosine": np.where(own, number, np.nan), "t.table": rows})

    columns = {"t": {OF_VECTORS: ["norm"], "mine": ["cosine", "table"], "other": []}}
    stored = read_run(change(run, tmp_path / "measured", measure, measured=columns))
    found = stored.measured["t"]
    assert {name: list(own) for name, own in found.items()} == columns["t"]
    assert (found[OF_VECTORS]["norm"] == 3).all()
    cosine, table = found["mine"]["cosine"], found["mine"]["table"]
    assert np.array_equal(table[:, 0], cosine)
    assert np.isnan(table[:, 1]).all()
    assert len(set(cosine)) == 7


def test_a_verbalizer_by_itself_is_read_as_among_others(run: Path) -> None:
    alone, among = read_run(run / "result.json", ["other"]), read_run(run)
    assert list(alone.scores[QUESTION]) == ["other"]
    assert np.array_equal(alone.scores[QUESTION]["other"], among.scores[QUESTION]["other"])
    assert alone.labels.equals(among.labels)


def test_rows_are_scored_by_the_records_scorers(run: Path, planted_pack: ConceptPack) -> None:
    result = read_result(run / "result.json")
    (scorer,) = find_scorers(result, planted_pack)
    stored = read_run(run)
    assert np.array_equal(score_unique([scorer], stored.texts[QUESTION]["mine"]), stored.scores[QUESTION]["mine"])


# -- what is refused ------------------------------------------------------------------------------------------------


def drop_row(items: pd.DataFrame) -> pd.DataFrame:
    return items.drop(index=items.index[items["verbalizer"] == "other"][3])


def repeat_row(items: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([items, items.iloc[[4]]], ignore_index=True)


def relabel(items: pd.DataFrame) -> pd.DataFrame:
    items.loc[items.index[items["verbalizer"] == "other"][3], "r"] = 0.5
    return items


def shorten(items: pd.DataFrame) -> pd.DataFrame:
    items.at[6, "score_words"] = items.at[6, "score_words"][:-1]
    return items


def lose_score(items: pd.DataFrame) -> pd.DataFrame:
    items.at[6, "score_words"] = np.full_like(items.at[6, "score_words"], np.nan)
    return items


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_row, r"the items of 'other' are not those of 'mine': 1 missing, 0 extra"),
        (repeat_row, r"row \d+: the item \w+ of 'mine' is there twice"),
        (relabel, r"the 'r' of an item is not the same for 'other' as for 'mine'"),
        (shorten, r"column 'score_words', row 6 holds 23 numbers; expected 24"),
        (lose_score, r"column 'score_words', row 6: a score is missing"),
        (lambda items: items.drop(columns="score_words"), r"there is no column 'score_words'"),
        (lambda items: items.drop(columns="pair"), r"there is no column 'pair'"),
        (lambda items: items.assign(score_words=1.0), r"'score_words' is of type double; expected a list of numbers"),
        (lambda items: items.assign(outlier=0), r"'outlier' is of type int64; expected true or false"),
        (lambda items: items.assign(text=items["text"].where(items.index != 7)), r"'text', row 7 is empty"),
        (
            lambda items: items.replace({"verbalizer": {"other": "third"}}),
            r"is of 'third'; expected those of its result",
        ),
        (lambda items: items.assign(question=3), r"'question' is of type int64; expected text"),
        (lambda items: items[:0], r"it has no items of 'mine'"),
    ],
)
def test_a_table_that_is_no_whole_run_is_refused_where_it_is_wrong(
    run: Path, tmp_path: Path, damage: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    damaged = change(run, tmp_path / "damaged", damage)
    with pytest.raises(BadInput, match=f"damaged/items.parquet: .*{said}"):
        read_run(damaged)


def test_items_of_nobody_are_told_whatever_was_measured_of_them(run: Path, tmp_path: Path) -> None:
    def rename(items: pd.DataFrame) -> pd.DataFrame:
        foreign = items["verbalizer"] == "other"
        rows = [np.ones(2, dtype=np.float32) for _ in range(len(items))]
        return items.assign(item_id=items["item_id"].mask(foreign, "x" + items["item_id"]), **{"t.table": rows})

    columns = {"t": {"mine": ["table"], "other": ["table"]}}
    with pytest.raises(BadInput, match=r"the items of 'other' are not those of 'mine': (\d+) missing, \1 extra"):
        read_run(change(run, tmp_path / "foreign", rename, measured=columns))


def test_a_full_disk_is_not_the_tasks_fault_nor_the_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise NoRoom("no room")

    stored = read_run(run)
    panels = rebuild_panels(stored)
    task = find_tasks(stored.result)[0]
    monkeypatch.setattr(type(task), "score", full)
    with pytest.raises(NoRoom):
        score_recorded(stored, [task], panels)


def test_a_file_that_is_missing_or_no_parquet_is_refused(run: Path, tmp_path: Path) -> None:
    folder = change(run, tmp_path / "files")
    (folder / "items.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInput, match=r"items.parquet: it cannot be read"):
        read_run(folder)
    (folder / "items.parquet").unlink()
    with pytest.raises(BadInput, match=r"There is no .*items.parquet"):
        read_run(folder)
    with pytest.raises(BadInput, match=r"There is no result at"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"There is no verbalizer 'third'"):
        read_run(run, ["third"])


def test_items_of_other_prompts_or_concepts_than_the_records_are_refused(run: Path, tmp_path: Path) -> None:
    for column, value in (("prompt", {"p1": "p99"}), ("concept", {"c1": "c99"})):
        foreign = change(run, tmp_path / column, lambda items, c=column, v=value: items.replace({c: v}))  # type: ignore[misc]
        with pytest.raises(BadInput, match=rf"has items of '{next(iter(value.values()))}'"):
            rebuild_panels(read_run(foreign))


def test_a_task_that_makes_nothing_of_the_items_is_named(run: Path, tmp_path: Path) -> None:
    fewer = change(run, tmp_path / "fewer", lambda items: items[items["arm"] != "neutral"])
    with pytest.raises(BadInput, match=r"The task confabulation cannot score the items of .*fewer/items.parquet: "):
        rescore(read_run(fewer))


def changed_provenance(result: Result, **fields: Any) -> Result:
    return result.model_copy(update={"provenance": result.provenance.model_copy(update=fields)})


def test_a_record_that_asks_for_more_resamples_than_fit_is_refused(run: Path, tmp_path: Path) -> None:
    greedy = changed_provenance(read_result(run / "result.json"), resamples=10**9)
    with pytest.raises(BadInput, match="has 1000000000 resamples of the seed 0; expected 1 to 100,000"):
        rescore(read_run(change(run, tmp_path / "greedy", provenance=greedy.provenance)))


def test_a_record_without_the_order_of_prompts_says_so(run: Path, tmp_path: Path) -> None:
    older = changed_provenance(read_result(run / "result.json"), readout_prompts=[])
    folder = change(run, tmp_path / "older", provenance=older.provenance)
    with pytest.raises(BadInput, match="does not say in which order its readout prompts are numbered"):
        rescore(read_run(folder))


def test_tasks_of_another_version_and_other_packs_and_scorers_are_refused(run: Path, planted_pack: ConceptPack) -> None:
    result = read_result(run / "result.json")
    with pytest.raises(BadInput, match=r"confabulation is of version 0; version \d+ is installed"):
        find_tasks(changed_provenance(result, tasks={"confabulation": "0"}))
    with pytest.raises(BadInput, match=r"the result was made with .* \('planted'\)"):
        find_scorers(result)  # the pack that is built in
    with pytest.raises(
        BadInput, match=r"The result's pack 'planted' is not at hand: There is no concept pack at 'gone'"
    ):
        find_scorers(changed_provenance(result, arguments={"pack": "gone"}))
    another = result.scorers[0].model_copy(update={"fingerprint": "another"})
    with pytest.raises(BadInput, match=r"The scorer 'words' has the fingerprint words:.*another"):
        find_scorers(result.model_copy(update={"scorers": [another]}), planted_pack)
