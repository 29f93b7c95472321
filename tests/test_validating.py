"""Submissions that are whole validate; what was changed is named by file, row and field, and is never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import read_result, write_result
from nlabench.leaderboard.entries import write_manifest
from nlabench.leaderboard.results_store import add_entry
from nlabench.submitting import submit
from nlabench.validating import Validation, validate

Write = Callable[..., Path]
Say = Callable[..., list[str]]
CARD: dict[str, Any] = {
    "authors": ["A. Name"], "link": "https://example.org", "licence": "MIT", "training_data": "none of the pack",
}  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    texts = {"mine": say_planted(0.1), "other": say_planted(0.6, seed=3)}
    run = write_planted_run(tmp_path_factory.mktemp("run"), texts)
    count_texts(run, texts["mine"])
    return submit(run, tmp_path_factory.mktemp("submissions") / "mine", verbalizer="mine", **CARD)


def count_texts(run: Path, texts: list[str]) -> None:
    """Say in the record of a planted run how many texts it has, as a real one does."""
    result = read_result(run / "result.json")
    record = result.verbalizers["mine"].model_copy(
        update={"n_texts": len(texts), "distinct_texts": len(set(texts)) / len(texts)}
    )
    verbalizers = {**result.verbalizers, "mine": record}
    write_result(result.model_copy(update={"verbalizers": verbalizers}), run / "result.json")


@pytest.fixture
def submission(packed: Path, tmp_path: Path) -> Path:
    """A copy of a whole submission, to be spoilt."""
    return Path(shutil.copytree(packed, tmp_path / "mine"))


def seal(folder: Path) -> None:
    """Hash the files anew: whoever changes a submission can do that too."""
    write_manifest(folder, "mine", "0")


def change_items(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    file = folder / "items.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    seal(folder)


def change_result(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "result.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    seal(folder)


def complaints(found: Validation) -> str:
    return "\n".join(map(str, found.problems))


def test_a_whole_submission_validates(submission: Path, planted_pack: ConceptPack) -> None:
    assert validate(submission, pack=planted_pack).problems == ()


def test_a_claim_that_the_texts_do_not_give_is_named_with_both_numbers(
    submission: Path, planted_pack: ConceptPack
) -> None:
    def claim(content: dict[str, Any]) -> None:
        row = next(row for row in content["metrics"] if row["metric"] == "auroc_in_pairs" and row["group"] is None)
        row["value"] = 0.999

    change_result(submission, claim)
    said = complaints(validate(submission, pack=planted_pack))
    assert "auroc_in_pairs" in said
    assert "found 0.999; expected 0.9" in said


def test_better_texts_than_those_that_were_scored_are_found(submission: Path, planted_pack: ConceptPack) -> None:
    change_items(submission, lambda items: items.assign(text=items["text"] + " " + items["concept"].fillna("")))
    said = complaints(validate(submission, pack=planted_pack))
    assert "result.json: concept_identification" in said
    assert "estimates.parquet: concept_identification" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda items: pd.concat([items, items.head(1)]), "items.parquet: row 264"),
        (lambda items: items.assign(concept="c0"), "cannot score the items of"),
        (lambda items: items.drop(columns="arm"), "arm"),
        (
            lambda items: items.assign(text="x" * 20_001),
            "'text', row 0: found 20,001 characters; expected at most 20,000",
        ),
        (lambda items: items.drop(columns="text"), "there is no column 'text'"),
    ],
)
def test_items_that_are_not_a_runs_are_refused(
    submission: Path, planted_pack: ConceptPack, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    change_items(submission, change)
    assert said in complaints(validate(submission, pack=planted_pack))


def test_an_item_that_is_missing_is_found_by_another_entry_of_the_board(
    submission: Path, packed: Path, tmp_path: Path, planted_pack: ConceptPack
) -> None:
    add_entry(packed, tmp_path / "results")
    assert validate(submission, tmp_path / "results", planted_pack).problems == ()
    change_items(submission, lambda items: items.drop(index=items.index[items["arm"] == "steered"][0]))
    assert "do not have the same items: 1 of the baseline's" in complaints(
        validate(submission, tmp_path / "results", planted_pack)
    )


def test_a_changed_file_a_further_file_and_a_link_are_refused(submission: Path) -> None:
    (submission / "card.json").write_text((submission / "card.json").read_text() + " ")
    assert "card.json has the SHA-256" in complaints(validate(submission))
    seal(submission)
    (submission / "more.py").write_text("print()")
    assert "extra more.py" in complaints(validate(submission))
    (submission / "more.py").unlink()
    (submission / "items.parquet").unlink()
    (submission / "items.parquet").symlink_to("/etc/hosts")
    assert "extra items.parquet" in complaints(validate(submission))


def test_failures_that_the_record_hides_are_found(submission: Path, planted_pack: ConceptPack) -> None:
    change_items(submission, lambda items: items.assign(error=["no answer"] + [None] * (len(items) - 1)))
    said = complaints(validate(submission, pack=planted_pack))
    assert "mine, n_failed: found 0; expected 1, the errors in items.parquet" in said


def test_nobody_verifies_themselves(submission: Path, planted_pack: ConceptPack) -> None:
    change_result(submission, lambda content: content.update(status="verified"))
    assert "status: found 'verified'" in complaints(validate(submission, pack=planted_pack))
    change_result(submission, lambda content: content.update(status="self-reported"))
    seal_of_ones_own = {"how": "rerun", "by": "me", "date": "2026-01-01", "evidence": "trust me"}
    (submission / "verified.json").write_text(json.dumps(seal_of_ones_own))
    assert "no such file: maintainers verify" in complaints(validate(submission, pack=planted_pack))


# -- every way to spoil a good entry that we could think of: at least one problem each, and never a traceback -------


def with_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        number = table.column_names.index(name) if name in table.column_names else None
        if number is None:
            return table.append_column(name, values)
        return table.set_column(number, name, values)

    return change


def repeated(value: object, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Array]:
    return lambda table: pa.array([value] * len(table), kind)


def with_value(name: str, value: object, row: int = 7) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return with_column(name, pa.array(values, table[name].type))(table)

    return change


def as_type(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(name, table[name].cast(kind))(table)


def all_of(name: str, value: object, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(name, repeated(value, kind)(table))(table)


ITEM_CHANGES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "no rows": (lambda table: table.slice(0, 0), "no items"),
    "a row twice": (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "is there twice"),
    "a column twice": (lambda t: t.append_column("arm", t["arm"]), "'arm': found the column more than once"),
    "no id": (lambda table: table.drop_columns(["item_id"]), "no column 'item_id'"),
    "no verbalizer": (lambda table: table.drop_columns(["verbalizer"]), "no column 'verbalizer'"),
    "another column": (all_of("note", "see me"), "column 'note': found a column of string; expected one of item_id"),
    "a nested column": (all_of("more", {"a": [{"b": "c"}]}), "column 'more'"),
    "scores": (all_of("score_words", [1.0] * 24), "column 'score_words'"),
    "numbers as text": (as_type("r", pa.string()), "column 'r': found the type string; expected numbers"),
    "text as numbers": (all_of("text", 3), "column 'text': found the type int64; expected text"),
    "binary text": (as_type("text", pa.binary()), "column 'text': found the type binary"),
    "a dictionary of texts": (lambda t: with_column("text", t["text"].dictionary_encode())(t), "column 'text'"),
    "positions as floats": (as_type("position", pa.float64()), "column 'position': found the type double"),
    "outliers as numbers": (as_type("outlier", pa.int64()), "column 'outlier'"),
    "a missing text": (with_value("text", None), "column 'text', row 7: found nothing"),
    "a missing id": (with_value("item_id", None), "column 'item_id', row 7: found nothing"),
    "a missing arm": (with_value("arm", None), "column 'arm', row 7: found nothing"),
    "nan for a strength": (with_value("r", float("nan")), "column 'r', row 7: found nan; expected a number from 0"),
    "an infinite norm": (with_value("norm", float("inf")), "column 'norm', row 7: found inf"),
    "a negative norm": (with_value("norm", -1.0), "column 'norm', row 7: found -1.0; expected a number from 0"),
    "a huge position": (with_value("position", 2**62), f"column 'position', row 7: found {2**62}"),
    "a negative position": (with_value("position", -5), "column 'position', row 7: found -5"),
    "a huge draw": (with_value("draw", 2**62), "column 'draw', row 7"),
    "an angle of 400": (with_value("angle", 400.0), "column 'angle', row 7"),
    "a strange id": (with_value("item_id", "x" * 501), "column 'item_id', row 7: found 501 characters"),
    "a foreign verbalizer": (with_value("verbalizer", "somebody"), "row 7 is of 'somebody'"),
    "an unknown concept": (with_value("concept", "c99"), "'c99'"),
    "an unknown arm": (all_of("arm", "sideways"), "mine"),
    "all outliers": (all_of("outlier", True), "mine"),
    "samples that are no texts": (all_of("samples", [1, 2]), "column 'samples'"),
    "an error that is a number": (all_of("error", 1), "column 'error'"),
    "a long error": (all_of("error", "x" * 5001), "column 'error', row 0: found 5,001 characters"),
    "a question": (all_of("question", "Who are you?", pa.string()), "mine"),
    "a log-probability that is text": (all_of("logprob", "low"), "column 'logprob'"),
    "a date for a word": (all_of("word", np.datetime64("2026-01-01", "s")), "column 'word'"),
    "a decimal strength": (as_type("r", pa.decimal128(38, 10)), "column 'r': found the type decimal128"),
}  # fmt: skip


def complain_of_items(folder: Path, pack: ConceptPack, change: Callable[[pa.Table], pa.Table]) -> str:
    file = folder / "items.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    seal(folder)
    return complaints(validate(folder, pack=pack))


@pytest.mark.parametrize("name", list(ITEM_CHANGES))
def test_a_table_of_items_that_is_none_is_named_by_column_and_row(
    submission: Path, planted_pack: ConceptPack, name: str
) -> None:
    change, said = ITEM_CHANGES[name]
    assert said in complain_of_items(submission, planted_pack, change)


def test_a_column_of_another_verbalizers_measurements_may_stand_there_empty(
    submission: Path, planted_pack: ConceptPack
) -> None:
    empty = all_of("confabulation.sure", float("nan"))
    assert complain_of_items(submission, planted_pack, empty) == ""
    assert "column 'confabulation.sure'" in complain_of_items(
        submission, planted_pack, all_of("confabulation.sure", 1.0)
    )


ESTIMATE_CHANGES: dict[str, tuple[str, Any]] = {
    "no matrix": ("design", {"by_cell": [24]}),
    "three axes": ("design", {"by_cell": [24, 4, 2]}),
    "a negative axis": ("design", {"by_cell": [-1, 8]}),
    "an axis that is text": ("design", {"by_cell": "24"}),
    "more concepts than effects": ("design", {"n_concepts": 10_000}),
    "huge degrees": ("design", {"df_concept": 10**30}),
    "negative degrees": ("design", {"df_prompt": -1}),
    "degrees as text": ("design", {"df_cell": "3"}),
    "bounds the wrong way round": ("design", {"bounds": [1, 0]}),
    "bounds that are one number": ("design", {"bounds": [1]}),
    "nan bounds": ("design", {"bounds": [float("nan"), 1]}),
    "a scale of its own": ("design", {"scale": "log"}),
    "pools that are none": ("design", {"pools": "natural"}),
    "fewer effects": ("by_concept", [0.1]),
    "an effect that is nan": ("by_prompt", [float("nan")] * 8),
    "no effects": ("by_cell", None),
    "no point": ("point", None),
    "an infinite point": ("point", float("inf")),
    "a row of text": ("row", "hello"),
    "a row nested without end": ("row", "[" * 100_000),
    "a design nested without end": ("design", "[" * 100_000),
}


@pytest.mark.parametrize("name", list(ESTIMATE_CHANGES))
def test_an_estimate_of_the_wrong_rank_length_or_range_is_named_by_its_row(
    submission: Path, planted_pack: ConceptPack, name: str
) -> None:
    field, value = ESTIMATE_CHANGES[name]
    file = submission / "estimates.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    crossed = next(i for i, row in enumerate(rows) if len(row["by_cell"] or ()) and len(row["by_prompt"] or ()))
    rows[crossed][field] = (
        json.dumps({**json.loads(rows[crossed][field]), **value}) if isinstance(value, dict) else value
    )
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    seal(submission)
    assert f"estimates.parquet, row {crossed}: " in complaints(validate(submission, pack=planted_pack))


def test_estimates_in_columns_of_another_type_are_refused(submission: Path, planted_pack: ConceptPack) -> None:
    file = submission / "estimates.parquet"
    whole = pq.read_table(file)
    for change, said in (
        (lambda t: t.drop_columns(["by_cell"]), "has the columns"),
        (all_of("more", 1), "has the columns"),
        (all_of("by_concept", [["a"]]), "the column 'by_concept' is of type list"),
        (all_of("point", "high"), "the column 'point' is of type string"),
    ):
        pq.write_table(change(whole), file)
        seal(submission)
        assert said in complaints(validate(submission, pack=planted_pack))


RESULT_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "nan": (lambda r: r["provenance"].update(seconds=float("nan")), "provenance.seconds: found nan"),
    "infinity": (lambda r: r["concepts"][3].update(length=float("inf")), "concepts.3.length: found inf"),
    "a huge whole number": (lambda r: r["metrics"][0].update(n_items=10**400), "metrics.0.n_items: found a number of"),
    "a huge seed": (lambda r: r["provenance"].update(seed=2**70), "provenance.seed"),
    "a negative seed": (lambda r: r["provenance"].update(seed=-1), "seed -1"),
    "no resamples": (lambda r: r["provenance"].update(resamples=0), "0 resamples"),
    "extra resamples": (lambda r: r["provenance"].update(resamples=10**9), "1000000000 resamples"),
    "a huge text": (lambda r: r.update(findings=["x" * 20_001]), "findings.0: found xxx"),
    "nested deep": (lambda r: r["provenance"].update(arguments={"a": json.loads("[" * 40 + "]" * 40)}), "nested more"),
    "no concepts": (lambda r: r.update(concepts=[]), "mine"),
    "no scorers": (lambda r: r.update(scorers=[]), "mine"),
    "no verbalizers": (lambda r: r.update(verbalizers={}), "the result has"),
    "no metrics": (lambda r: r.update(metrics=[]), "found None; expected a row, made again"),
    "a concept twice": (lambda r: r["concepts"].append(r["concepts"][0]), "mine"),
    "no prompts": (lambda r: r["provenance"].update(readout_prompts=[]), "readout prompts"),
    "a prompt twice": (lambda r: r["provenance"]["readout_prompts"].append("p0"), "mine"),
    "an unknown task": (lambda r: r["provenance"]["tasks"].update(mind_reading="1"), "mind_reading"),
    "a task of another version": (lambda r: r["provenance"]["tasks"].update(confabulation="9"), "version 9"),
    "a measurement of nothing": (lambda r: r.update(measured={"confabulation": {"mine": ["x"]}}), "confabulation.x"),
    "a scorer of its own": (lambda r: r["scorers"][0].update(name="praise"), "praise"),
    "a suite of another form": (lambda r: r["provenance"].update(suite={"gate_strengths": 3}), "provenance.suite."),
    "strengths that are text": (lambda r: r["provenance"]["suite"].update(strengths=["a", "b"]), "suite.strengths.0"),
    "fewer texts": (lambda r: r["verbalizers"]["mine"].update(n_texts=3), "n_texts: found 3; expected 264, its items"),
    "more texts": (lambda r: r["verbalizers"]["mine"].update(n_texts=10**9), "n_texts: found 1000000000"),
    "all texts distinct": (lambda r: r["verbalizers"]["mine"].update(distinct_texts=0.1), "distinct_texts: found 0.1"),
    "a negative time": (lambda r: r["verbalizers"]["mine"].update(seconds=-3), "seconds: found -3"),
    "a card without a role": (lambda r: r["verbalizers"]["mine"].update(card={}), "mine"),
    "a role that is a list": (lambda r: r["verbalizers"]["mine"].update(card={"role": ["floor"]}), "role"),
    "a further field": (lambda r: r.update(rank=1), "rank"),
    "the wrong schema": (lambda r: r.update(schema_version=2), "schema_version"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RESULT_CHANGES))
def test_a_record_that_is_none_is_named_by_its_field(submission: Path, planted_pack: ConceptPack, name: str) -> None:
    change, said = RESULT_CHANGES[name]
    change_result(submission, change)
    assert said in complaints(validate(submission, pack=planted_pack))


@pytest.mark.parametrize("name", ["card.json", "result.json", "estimates.parquet", "items.parquet", "manifest.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"a": NaN}', b'{"name": "\\ud800"}', b"PAR1PAR1"],
)
def test_a_file_of_something_else_is_a_problem(submission: Path, name: str, content: bytes) -> None:
    (submission / name).write_bytes(content)
    if name != "manifest.json":
        seal(submission)
    assert name in complaints(validate(submission))


@pytest.mark.parametrize("name", ["items.parquet", "estimates.parquet"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_table_that_was_cut_off_or_flipped_is_a_problem(submission: Path, name: str, share: float) -> None:
    whole = (submission / name).read_bytes()
    (submission / name).write_bytes(whole[: int(share * len(whole))])
    seal(submission)
    assert name in complaints(validate(submission))
    spoilt = bytearray(whole)
    place = int(share * len(whole))
    spoilt[place : place + 40] = bytes(byte ^ 0xFF for byte in spoilt[place : place + 40])
    (submission / name).write_bytes(bytes(spoilt))
    seal(submission)
    assert complaints(validate(submission))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["card.json", "result.json", "estimates.parquet", "items.parquet"]),
    place=st.floats(0, 1, exclude_max=True),
    bits=st.binary(min_size=1, max_size=16),
)
def test_bytes_that_are_flipped_are_found_by_their_hash_and_never_raise_when_hashed_anew(
    packed: Path,
    tmp_path_factory: pytest.TempPathFactory,
    planted_pack: ConceptPack,
    name: str,
    place: float,
    bits: bytes,
) -> None:
    folder = Path(shutil.copytree(packed, tmp_path_factory.mktemp("flipped") / "mine"))
    content = bytearray((folder / name).read_bytes())
    start = int(place * len(content))
    for offset, bit in enumerate(bits[: len(content) - start]):
        content[start + offset] ^= bit or 1
    (folder / name).write_bytes(bytes(content))
    assert f"{name} has the SHA-256" in complaints(validate(folder, pack=planted_pack))
    seal(folder)
    validate(folder, pack=planted_pack)  # a byte of a description may be any: here it must only not raise


def test_a_broken_entry_of_the_store_takes_no_submission_down(
    submission: Path, packed: Path, tmp_path: Path, planted_pack: ConceptPack
) -> None:
    place = add_entry(packed, tmp_path / "results")
    change = all_of("text", None, pa.string())
    pq.write_table(change(pq.read_table(place / "items.parquet")), place / "items.parquet")
    seal(place)
    place.rename(place.parent / "000000000000")
    assert validate(submission, tmp_path / "results", planted_pack).problems == ()


def test_there_is_no_folder() -> None:
    with pytest.raises(BadInput, match="There is no folder nowhere"):
        validate("nowhere")
