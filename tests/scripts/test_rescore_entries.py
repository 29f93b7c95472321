"""Entries after a change of scoring: texts stay, numbers are made again, and other boards' entries are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import read_result
from nlabench.leaderboard.entries import ITEMS, Entry, Verification, hash_file, read_entry, write_manifest
from nlabench.leaderboard.results_store import add_entry, add_verification, read_store
from nlabench.submitting import submit
from rescore_entries import main

Write = Callable[..., Path]
Say = Callable[..., list[str]]
CARD: dict[str, Any] = {
    "authors": ["A. Name"], "link": "https://example.org", "licence": "MIT", "training_data": "none of the pack",
}  # fmt: skip
GATE = {"most_loss": 1.0}


def write_entry(folder: Path, run: Path, **of_provenance: Any) -> Path:
    """A submission of the run as an earlier version would have packed it, with a wrong number."""
    made = submit(run, folder, **CARD)
    record = json.loads((made / "result.json").read_text())
    record["provenance"].update(of_provenance)
    record["metrics"][0]["value"] = 0.123
    (made / "result.json").write_text(json.dumps(record))
    write_manifest(made, "mine", "0")
    return made


@pytest.fixture
def now(tmp_path: Path, write_planted_run: Write, say_planted: Say) -> Path:
    """A run of the installed version, on other texts."""
    return write_planted_run(tmp_path / "now", {"control": say_planted(0.9, seed=1)}, gate=GATE, git="abc")


@pytest.fixture
def entry(tmp_path: Path, write_planted_run: Write, say_planted: Say) -> Entry:
    run = write_planted_run(tmp_path / "then", {"mine": say_planted(0.3)})
    tasks = dict.fromkeys(read_result(run / "result.json").provenance.tasks, "0")
    return read_entry(add_entry(write_entry(tmp_path / "mine", run, tasks=tasks), tmp_path / "store"))


def test_an_entry_of_earlier_versions_is_scored_again_from_its_own_texts(
    entry: Entry, now: Path, tmp_path: Path, planted_pack: ConceptPack, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("nlabench.benchmark.rescoring.load_pack", lambda _: planted_pack)
    main(now, tmp_path / "store")
    (found,), broken = read_store(tmp_path / "store")
    assert not broken
    assert f"{entry.id} (mine): rescored as {found.id}" in capsys.readouterr().out
    assert hash_file(found.folder / ITEMS) == hash_file(tmp_path / "mine" / ITEMS)
    record = read_result(now / "result.json")
    assert found.result.provenance.tasks == record.provenance.tasks
    assert (found.result.provenance.gate, found.result.gate) == (GATE, record.gate)
    assert found.result.provenance.rescored.endswith("(abc)")
    honest = read_entry(submit(tmp_path / "then", tmp_path / "honest", **CARD))
    assert entry.result.metrics != honest.result.metrics
    assert (found.result.metrics, found.result.said) == (honest.result.metrics, honest.result.said)
    assert hash_file(found.folder / "estimates.parquet") == hash_file(honest.folder / "estimates.parquet")
    main(now, tmp_path / "store")
    assert "left as it is: its numbers are of the installed versions" in capsys.readouterr().out
    assert [one.id for one in read_store(tmp_path / "store")[0]] == [found.id]


def test_entries_of_other_boards_and_verified_ones_are_left_alone(
    entry: Entry, now: Path, tmp_path: Path, write_planted_run: Write, say_planted: Say,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    elsewhere = write_planted_run(tmp_path / "elsewhere", {"mine": say_planted(0.3)}, layer=3)
    other = add_entry(submit(elsewhere, tmp_path / "other", **CARD), tmp_path / "store")
    add_verification(entry, Verification(how="rerun", by="M.", date="2026-01-01", evidence="run again"))
    main(now, tmp_path / "store")
    said = capsys.readouterr().out
    assert f"{entry.id} (mine): left as it is: it is verified" in said
    assert f"{other.name} (mine): left as it is: The two runs are not of one benchmark. layer: 3" in said
    assert {one.id for one in read_store(tmp_path / "store")[0]} == {entry.id, other.name}


def test_a_run_of_other_items_is_refused_and_nothing_is_lost(
    entry: Entry, now: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = pd.read_parquet(now / "items.parquet")
    items.loc[0, ["item_id", "position"]] = ["0" * 16, 99]
    items.to_parquet(now / "items.parquet", index=False)
    with pytest.raises(typer.Exit) as caught:
        main(now, tmp_path / "store")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value.__cause__, BadInput)
    assert "item" in capsys.readouterr().err
    assert [one.id for one in read_store(tmp_path / "store")[0]] == [entry.id]
