"""Entries as folders: what is written is read back, and a folder that is not whole is refused with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import EstimatedMetric, MetricRow
from nlabench.benchmark.statistics import Clusters, cluster_mean, interval_arrays, macro_auroc, paired_difference
from nlabench.leaderboard.entries import (
    FILES,
    Card,
    Manifest,
    Verification,
    entry_id,
    read_entry,
    read_estimates,
    read_items,
    write_estimates,
    write_manifest,
)
from nlabench.submitting import submit

CARD = {"authors": ["A. Person"], "link": "https://example.org/mine", "licence": "MIT", "training_data": "Nothing."}


@pytest.fixture(scope="module")
def packed(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return submit(write_planted_run(folder / "run", {"mine": say_planted(0.3)}), folder / "entry", **CARD)  # type: ignore[arg-type]


@pytest.fixture
def entry(packed: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(packed, tmp_path / "entry"))


def repack(folder: Path) -> Path:
    """The manifest again, so that a changed file is not found by its hash."""
    (folder / "manifest.json").unlink(missing_ok=True)
    write_manifest(folder, "mine", "0")
    return folder


def change_json(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_an_entry_reads_back_with_its_card_numbers_items_and_id(packed: Path, planted_labels: object) -> None:
    entry = read_entry(packed)
    assert (entry.card.name, entry.card.authors, entry.status) == ("mine", ("A. Person",), "self-reported")
    assert entry.id == entry_id(packed)
    assert len(entry.id) == 12
    assert {row.verbalizer for row in entry.result.metrics} == {"mine"}
    items = read_items(entry)
    assert len(items) == len(planted_labels)  # type: ignore[arg-type]
    assert not [column for column in items.columns if column.startswith("score_")]


def test_estimates_are_those_of_the_macro_rows_and_give_their_intervals(packed: Path) -> None:
    entry = read_entry(packed)
    assert entry.estimates
    for metric in entry.estimates.values():
        assert metric.row.group is None
        assert metric.row.versus is None
        assert metric.row in entry.result.metrics
        assert float(metric.estimate.point) == pytest.approx(metric.row.value, abs=1e-9)
        if metric.row.low is not None:
            low, high, _ = interval_arrays(metric.estimate)
            assert (float(low), float(high)) == pytest.approx((metric.row.low, metric.row.high), abs=1e-6)


def test_stored_estimates_give_the_paired_difference_of_the_ones_that_were_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    concepts, prompts = np.repeat(np.arange(6), 8), np.tile(np.arange(8), 6)
    fields = {"task": "t", "metric": "m", "scorer": "s", "arm": "steered"}
    crossed = macro_auroc(rng.normal(size=(2, 48, 6)), Clusters(concepts, prompts), n_prompts=8)
    nested = cluster_mean(rng.random((2, 6)), Clusters(np.arange(6), np.arange(6), nested=True))
    for number, made in enumerate((crossed, nested)):
        read = []
        for set_number in (0, 1):
            estimate = made.at(set_number)
            row = MetricRow(verbalizer="v", value=float(estimate.point), **fields)  # type: ignore[arg-type]
            file = tmp_path / f"{number}-{set_number}.parquet"
            write_estimates([EstimatedMetric(row, estimate)], file)
            ((found),) = read_estimates(file).values()
            assert found.row == row
            read.append(found.estimate)
        for a, b in zip(
            interval_arrays(paired_difference(made.at(0), made.at(1))),
            interval_arrays(paired_difference(*read)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_verification_beside_the_files_makes_it_verified_and_keeps_its_id(entry: Path) -> None:
    before = read_entry(entry).id
    seal = Verification(how="rerun", by="maintainer", date="2026-01-01", evidence="https://example.org")
    (entry / "verified.json").write_text(seal.model_dump_json())
    found = read_entry(entry)
    assert (found.id, found.status, found.verified) == (before, "verified", seal)


@pytest.mark.parametrize(
    ("field", "value"),
    [("how", "trust me"), ("by", ""), ("date", "yesterday"), ("evidence", ""), ("run", "abc"), ("texts_equal", 1.5)],
)
def test_a_verification_that_does_not_say_how_who_or_when_is_refused(entry: Path, field: str, value: object) -> None:
    seal = {"how": "rerun", "by": "maintainer", "date": "2026-01-01", "evidence": "https://example.org"}
    (entry / "verified.json").write_text(json.dumps({**seal, field: value}))
    with pytest.raises(BadInput, match=rf"verified\.json: {field}"):
        read_entry(entry)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(entry: Path, name: str) -> None:
    (entry / name).unlink()
    with pytest.raises(BadInput, match=f"missing {name}"):
        read_entry(entry)


@pytest.mark.parametrize("name", list(FILES))
def test_a_changed_file_is_named_with_both_hashes(entry: Path, name: str) -> None:
    with (entry / name).open("ab") as opened:
        opened.write(b" ")
    with pytest.raises(BadInput, match=f"{name} has the SHA-256 [0-9a-f]{{64}}; the manifest says [0-9a-f]{{64}}"):
        read_entry(entry)


def test_a_file_folder_or_link_too_many_is_named(entry: Path) -> None:
    (entry / "notes.txt").write_text("")
    with pytest.raises(BadInput, match=r"extra notes\.txt"):
        read_entry(entry)
    (entry / "notes.txt").unlink()
    (entry / "folder").mkdir()
    with pytest.raises(BadInput, match="extra folder"):
        read_entry(entry)
    (entry / "folder").rmdir()
    (entry / "card.json").rename(entry.parent / "card.json")
    (entry / "card.json").symlink_to(entry.parent / "card.json")
    with pytest.raises(BadInput, match=r"extra card\.json"):
        read_entry(entry)


@pytest.mark.parametrize("name", ["../card.json", "/etc/passwd", "verified.json"])
def test_a_manifest_names_the_files_of_an_entry_and_no_path(entry: Path, name: str) -> None:
    files = json.loads((entry / "manifest.json").read_text())["files"]
    change_json(entry / "manifest.json", files={**files, name: "0" * 64})
    with pytest.raises(BadInput, match="files names"):
        read_entry(entry)


def test_a_file_beyond_its_bound_is_not_read(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "items.parquet", 1000)
    with pytest.raises(BadInput, match=r"items\.parquet has [\d,]+ bytes; at most 1,000"):
        read_entry(entry)


def test_a_small_file_that_unpacks_to_a_huge_table_is_not_read(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlabench.leaderboard.tables.MOST_ROWS", 10)
    with pytest.raises(BadInput, match=r"estimates\.parquet has [\d,]+ rows.* at most 10"):
        read_entry(entry)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("link", "javascript:alert(1)"),
        ("link", 'https://example.org/" onclick="'),
        ("description", "x" * 2001),
        ("authors", []),
        ("authors", ["x" * 2001]),
        ("role", "winner"),
        ("rank", 1),
    ],
)
def test_a_card_with_a_field_that_is_not_one_is_refused(entry: Path, field: str, value: object) -> None:
    change_json(entry / "card.json", **{field: value})
    with pytest.raises(BadInput, match=rf"card\.json: {field}"):
        read_entry(repack(entry))


def test_another_name_in_the_card_than_in_the_manifest_is_refused(entry: Path) -> None:
    change_json(entry / "card.json", name="other")
    with pytest.raises(BadInput, match="the card of 'other'"):
        read_entry(repack(entry))


@pytest.mark.parametrize("name", ["items.parquet", "estimates.parquet"])
def test_a_table_that_is_none_is_named(entry: Path, name: str) -> None:
    (entry / name).write_bytes(b"PAR1 and nothing")
    with pytest.raises(BadInput, match=rf"{name} cannot be read"):
        read_items(read_entry(repack(entry)))


@pytest.mark.parametrize(
    ("column", "value"), [("row", "{}"), ("design", "[]"), ("design", "{}"), ("by_cell", [0.0] * 7), ("point", None)]
)
def test_an_estimate_that_is_none_is_named_by_its_row(entry: Path, column: str, value: object) -> None:
    file = entry / "estimates.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    with pytest.raises(BadInput, match=r"estimates\.parquet, row 1"):
        read_entry(repack(entry))


def test_the_same_estimate_twice_is_refused(entry: Path) -> None:
    file = entry / "estimates.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), file)
    with pytest.raises(BadInput, match=rf"row {len(table)}.*twice"):
        read_entry(repack(entry))


def test_a_folder_that_is_not_there_is_said() -> None:
    with pytest.raises(BadInput, match="There is no folder"):
        read_entry(Path("nowhere"))


def test_manifests_and_cards_take_no_further_fields() -> None:
    for model in (Card, Manifest):
        assert model.model_config["extra"] == "forbid"
