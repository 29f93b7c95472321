"""A run's verbalizer as a submission: what is whole validates, and what was changed says where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import read_result
from nlabench.benchmark.rescoring import find_discrepancies
from nlabench.cli import app
from nlabench.leaderboard.entries import Card, hash_file, read_entry, read_items, write_manifest
from nlabench.leaderboard.hub import push, write_readme
from nlabench.leaderboard.results_store import add_entry
from nlabench.submitting import Validation, submit, validate
from typer.testing import CliRunner

Write = Callable[..., Path]
Say = Callable[..., list[str]]
CARD: dict[str, Any] = {
    "authors": ["A. Name"], "link": "https://example.org", "licence": "MIT", "training_data": "none of the pack",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    texts = {"mine": say_planted(0.1), "other": say_planted(0.6, seed=3)}
    return write_planted_run(tmp_path_factory.mktemp("run"), texts)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    return submit(run, tmp_path_factory.mktemp("submissions") / "mine", verbalizer="mine", **CARD)


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


def test_a_submission_holds_one_verbalizer_with_the_runs_numbers_and_no_scores(packed: Path, run: Path) -> None:
    entry, whole = read_entry(packed), read_result(run / "result.json")
    assert set(read_items(entry)["verbalizer"]) == {"mine"}  # "other" is no control
    assert not [column for column in read_items(entry) if column.startswith("score_")]
    own = whole.model_copy(update={"metrics": whole.select(verbalizer="mine", versus=None)})
    assert find_discrepancies(own, entry.result) == []
    assert entry.card.authors == ("A. Name",)
    assert entry.status == "self-reported"
    assert len(entry.estimates) > 5


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
        (lambda items: items.assign(text="x" * 20_001), "row 0, text: 20,001 characters; at most 20,000"),
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
    assert "too many more.py" in complaints(validate(submission))
    (submission / "more.py").unlink()
    (submission / "items.parquet").unlink()
    (submission / "items.parquet").symlink_to("/etc/hosts")
    assert "too many items.parquet" in complaints(validate(submission))


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


def test_a_card_that_leaves_out_who_or_where_names_the_options(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"does not say its author, link, licence, training_data.*--training-data"):
        submit(run, tmp_path / "mine", verbalizer="mine")
    with pytest.raises(BadInput, match="card of 'mine' cannot be used"):
        submit(run, tmp_path / "mine", verbalizer="mine", **{**CARD, "link": "javascript:alert(1)"})
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_numbers_were_changed_is_not_packed(run: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(run, tmp_path / "run"))
    content = json.loads((spoilt / "result.json").read_text())
    next(row for row in content["metrics"] if row["verbalizer"] == "mine")["value"] = 0.123
    (spoilt / "result.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="1 numbers of mine are not what its items give"):
        submit(spoilt, tmp_path / "mine", verbalizer="mine", **CARD)


def test_a_dry_run_to_the_hub_sends_nothing_and_its_metadata_is_read_back(packed: Path) -> None:
    assert push(packed, "me/mine") == [
        "README.md", "card.json", "result.json", "estimates.parquet", "items.parquet", "manifest.json",
    ]  # fmt: skip
    entry = read_entry(packed)
    readme = write_readme(entry)
    (natural,) = entry.result.select(metric="auroc_in_pairs", arm="natural", group=None, kind="function")
    assert f"value: {natural.value}" in readme
    assert "model-index" in readme


def test_a_cards_markup_is_text_in_the_readme(packed: Path) -> None:
    entry = read_entry(packed)
    card = Card(name="mine", authors=("<script>alert(1)</script>",), description="![x](http://evil)\n# Big")
    readme = write_readme(type(entry)(**{**entry.__dict__, "card": card})).partition("\n---\n")[2]
    assert "<script" not in readme.replace("\\<script", "")
    assert "\n# Big" not in readme
    assert "![" not in readme


def test_the_commands_pack_refuse_and_add(run: Path, tmp_path: Path, planted_pack: ConceptPack) -> None:
    options = ["--author", "A", "--link", CARD["link"], "--licence", "MIT", "--training-data", "none"]
    packs = CliRunner().invoke(
        app, ["submit", str(run), "--out", str(tmp_path / "mine"), "--verbalizer", "mine", *options]
    )
    assert packs.exit_code == 0, packs.output
    before = hash_file(tmp_path / "mine" / "manifest.json")
    again = CliRunner().invoke(app, ["submit", str(run), "--out", str(tmp_path / "mine"), "--verbalizer", "mine"])
    assert again.exit_code != 0
    assert hash_file(tmp_path / "mine" / "manifest.json") == before
    # The planted pack is no source that the command could load.
    refused = CliRunner().invoke(
        app, ["leaderboard", "add", str(tmp_path / "mine"), "--results", str(tmp_path / "results")]
    )
    assert refused.exit_code == 1
    assert "fingerprint" in refused.output
    assert not (tmp_path / "results").exists()
