"""A maintainer's own run beside an entry: where they agree the entry is verified, and else the numbers are shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import write_result
from nlabench.benchmark.rescoring import rescore
from nlabench.benchmark.stored_run import read_run
from nlabench.cli import app
from nlabench.leaderboard.entries import Entry, hash_file, read_entry
from nlabench.leaderboard.results_store import add_entry
from nlabench.submitting import submit
from nlabench.verifying import TOLERANCE, verify
from typer.testing import CliRunner

Write = Callable[..., Path]
Say = Callable[..., list[str]]
CARD: dict[str, Any] = {
    "authors": ["A. Name"], "link": "https://example.org", "licence": "MIT", "training_data": "none of the pack",
}  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    folder = tmp_path_factory.mktemp("submitted")
    run = write_planted_run(folder / "run", {"mine": say_planted(0.3)}, started="2026-01-01T00:00:00+00:00")
    return submit(run, folder / "mine", **CARD)


@pytest.fixture
def stored(packed: Path, tmp_path: Path) -> Entry:
    return read_entry(add_entry(packed, tmp_path / "store"))


@pytest.fixture(scope="module")
def rerun(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    """The same texts but for one, from a run of its own."""
    texts = say_planted(0.3)
    texts[0] = texts[0] + " and a word more"
    folder = tmp_path_factory.mktemp("rerun")
    return write_planted_run(folder, {"mine": texts}, started="2026-02-02T00:00:00+00:00")


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    folder = tmp_path_factory.mktemp("worse")
    return write_planted_run(folder, {"mine": say_planted(0.6)}, started="2026-02-02T00:00:00+00:00")


def test_a_rerun_that_agrees_verifies_the_entry_and_says_who_when_and_which_run(stored: Entry, rerun: Path) -> None:
    found = verify(stored.folder, rerun, by="M. Aintainer")
    assert found.differences == ()
    again = read_entry(stored.folder)
    assert (again.id, again.status) == (stored.id, "verified")
    assert again.verified is not None
    assert (again.verified.how, again.verified.by) == ("rerun", "M. Aintainer")
    assert again.verified.run == hash_file(rerun / "result.json")
    assert again.verified.texts_equal == pytest.approx(263 / 264, abs=1e-4)
    assert f"within {TOLERANCE:g}, 99.6% of texts equal" in again.verified.evidence
    assert len(again.verified.date) == len("2026-02-02")


def test_a_rerun_whose_texts_came_from_the_store_is_refused(rerun: Path, tmp_path: Path) -> None:
    """The store gives the seconds of the run that wrote the texts, to the last digit."""

    def timed(name: str, seconds: float, started: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(rerun, folder)
        record = json.loads((folder / "result.json").read_text())
        record["verbalizers"]["mine"]["seconds"] = seconds
        record["provenance"]["started"] = started
        (folder / "result.json").write_text(json.dumps(record))
        return folder

    first = submit(timed("first", 12.345678, "2026-01-01T00:00:00+00:00"), tmp_path / "mine", **CARD)
    entry = add_entry(first, tmp_path / "store")
    replayed = timed("replayed", 12.345678, "2026-03-03T00:00:00+00:00")
    with pytest.raises(BadInput, match=r"wrote no text of 'mine'.*12.3457 s.*NLABENCH_CACHE="):
        verify(entry, replayed, by="M. Aintainer")
    assert not (entry / "verified.json").exists()
    assert verify(entry, timed("written", 12.4, "2026-03-03T00:00:00+00:00"), by="M. Aintainer").file is not None


def test_a_rerun_whose_floor_came_from_the_store_took_texts_from_there(
    write_planted_run: Write, say_planted: Say, tmp_path: Path
) -> None:
    """Of a run that wrote some texts anew the seconds differ; the floor's are kept apart."""
    floor = "average-direction:mine"

    def timed(name: str, seconds: dict[str, float], started: str) -> Path:
        said = {"mine": say_planted(0.3), floor: ["a sentence"] * len(say_planted(0.3))}
        folder = write_planted_run(tmp_path / name, said, started=started)
        record = json.loads((folder / "result.json").read_text())
        for verbalizer, taken in seconds.items():
            record["verbalizers"][verbalizer]["seconds"] = taken
        record["verbalizers"][floor]["card"]["role"] = "floor"
        (folder / "result.json").write_text(json.dumps(record))
        write_result(rescore(read_run(folder)), folder / "result.json")
        return folder

    run = timed("first", {"mine": 12.345, floor: 1.771}, "2026-01-01T00:00:00+00:00")
    entry = add_entry(submit(run, tmp_path / "mine", verbalizer="mine", **CARD), tmp_path / "store")
    assert read_entry(entry).result.verbalizers[floor].seconds == 1.771
    partly = timed("partly", {"mine": 7.1, floor: 1.771}, "2026-03-03T00:00:00+00:00")
    with pytest.raises(BadInput, match=r"wrote no text of 'average-direction:mine'.* 1\.771 s"):
        verify(entry, partly, by="M. Aintainer")
    anew = timed("anew", {"mine": 7.1, floor: 1.802}, "2026-03-03T00:00:00+00:00")
    assert verify(entry, anew, by="M. Aintainer").file is not None


def test_a_rerun_that_differs_writes_nothing_and_shows_both_numbers(stored: Entry, worse: Path) -> None:
    found = verify(stored.folder, worse, by="M. Aintainer")
    assert found.file is None
    assert not (stored.folder / "verified.json").exists()
    said = "\n".join(map(str, found.differences))
    (natural,) = stored.result.select(metric="auroc_in_pairs", arm="natural", group=None)
    assert f"natural (concept_identification.auroc_in_pairs): {natural.value:.4f} in the entry, 0." in said


def test_a_tolerance_of_its_own_is_stated_where_it_decided(stored: Entry, worse: Path) -> None:
    found = verify(stored.folder, worse, by="M. Aintainer", tolerance=1.0)
    assert found.file is not None
    assert "within 1," in json.loads(found.file.read_text())["evidence"]


def test_items_that_failed_in_the_rerun_alone_are_a_difference(stored: Entry, rerun: Path, tmp_path: Path) -> None:
    failing = Path(shutil.copytree(rerun, tmp_path / "failing"))
    content = json.loads((failing / "result.json").read_text())
    content["verbalizers"]["mine"]["n_failed"] = 3
    (failing / "result.json").write_text(json.dumps(content))
    (difference,) = verify(stored.folder, failing, by="M. Aintainer").differences
    assert str(difference) == "result.json: n_failed: 0 in the entry, 3 in the rerun"


def test_the_entrys_own_run_is_no_rerun_and_an_other_benchmark_is_none(
    stored: Entry, rerun: Path, tmp_path: Path
) -> None:
    for change, message in (
        ({"started": "2026-01-01T00:00:00+00:00"}, "is the run that the entry .* was made of"),
        ({"layer": 3}, "not of one benchmark"),
    ):
        other = Path(shutil.copytree(rerun, tmp_path / message[:6].strip()))
        content = json.loads((other / "result.json").read_text())
        content["provenance"].update(change)
        (other / "result.json").write_text(json.dumps(content))
        with pytest.raises(BadInput, match=message):
            verify(stored.folder, other, by="M. Aintainer")


def test_a_verified_entry_stays_as_it_is_unless_the_same_is_said_again(
    stored: Entry, rerun: Path, tmp_path: Path
) -> None:
    verify(stored.folder, rerun, by="M. Aintainer")
    before = (stored.folder / "verified.json").read_bytes()
    verify(stored.folder, rerun, by="M. Aintainer")
    with pytest.raises(BadInput, match=r"is there already \(rerun, by M. Aintainer on"):
        verify(stored.folder, rerun, by="Somebody Else")
    assert (stored.folder / "verified.json").read_bytes() == before
    assert [path.name for path in stored.folder.parent.iterdir()] == [stored.id]


def test_the_command_takes_an_id_and_exits_with_1_where_they_differ(
    stored: Entry, rerun: Path, worse: Path, tmp_path: Path
) -> None:
    options = ["--by", "M. Aintainer", "--results", str(tmp_path / "store")]
    differ = CliRunner().invoke(app, ["leaderboard", "verify", stored.id, "--run", str(worse), *options])
    assert differ.exit_code == 1
    assert "not verified" in differ.output
    agree = CliRunner().invoke(app, ["leaderboard", "verify", stored.id, "--run", str(rerun), *options])
    assert agree.exit_code == 0, agree.output
    assert read_entry(stored.folder).status == "verified"
    with pytest.raises(BadInput, match="There is no entry '0123'"):
        verify("0123", rerun, by="M. Aintainer", results=tmp_path / "store")
