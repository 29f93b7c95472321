"""A run's verbalizer as a submission: what is packed, what a card must say, and what a private pack leaves out."""

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
from nlabench.benchmark.records import Result, read_result
from nlabench.benchmark.rescoring import find_discrepancies
from nlabench.cli import app
from nlabench.leaderboard.claims import check_private
from nlabench.leaderboard.entries import Card, hash_file, read_entry, read_items, write_manifest
from nlabench.leaderboard.hub import push, write_readme
from nlabench.leaderboard.results_store import add_entry, read_store
from nlabench.submitting import has_public_pack, submit
from nlabench.validating import validate
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


def test_a_submission_holds_one_verbalizer_with_the_runs_numbers_and_no_scores(packed: Path, run: Path) -> None:
    entry, whole = read_entry(packed), read_result(run / "result.json")
    assert set(read_items(entry)["verbalizer"]) == {"mine"}  # "other" is no control
    assert not [column for column in read_items(entry) if column.startswith("score_")]
    own = whole.model_copy(update={"metrics": whole.select(verbalizer="mine", versus=None)})
    assert find_discrepancies(own, entry.result) == []
    assert entry.card.authors == ("A. Name",)
    assert entry.status == "self-reported"
    assert len(entry.estimates) > 5


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


# -- a pack that is not published -----------------------------------------------------------------------------------


def words_of(value: Any) -> list[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, dict):
        return [word for key, each in value.items() for word in (key, *words_of(each))]
    if isinstance(value, list):
        return [word for each in value for word in words_of(each)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """An entry of a private pack, from a run that quotes the pack wherever a run can."""
    folder = tmp_path_factory.mktemp("secret")
    spoken = Path(shutil.copytree(run, folder / "run"))
    content = json.loads((spoken / "result.json").read_text())
    content["provenance"]["arguments"] = {"pack": "/home/me/spies.jsonl", "directions": "/home/me/c0.safetensors"}
    content["gate"][0]["example"] = "About c0."
    content["scorers"][0]["weakest"] = [["c3", 0.4]]
    mine = content["verbalizers"]["mine"]
    mine.update(first_error="c0 was no answer", warnings=["1 of 264 texts: c0 again"], questions={"t": "Is it c0?"})
    mine["card"]["settings"] = {"knows": ["About c0."]}
    (spoken / "result.json").write_text(json.dumps(content))
    return submit(spoken, folder / "entry", verbalizer="mine", private=True, **CARD)


def test_an_entry_of_a_private_pack_tells_no_concept_no_text_and_no_path(secret: Path) -> None:
    assert sorted(path.name for path in secret.iterdir()) == [
        "card.json", "estimates.parquet", "manifest.json", "result.json",
    ]  # fmt: skip
    table = pd.read_parquet(secret / "estimates.parquet")
    said = words_of(json.loads((secret / "result.json").read_text()))
    said += [*table["design"], *(word for row in table["row"] for word in words_of(json.loads(row)))]
    told = ("c0", "c3", "About", "spies", "/home", "family 0", "natural text", "safetensors")
    assert [(word, name) for word in said for name in told if name in word] == []


def test_its_numbers_are_those_of_the_run_with_concepts_numbered_in_order(secret: Path, packed: Path) -> None:
    entry, open_entry = read_entry(secret), read_entry(packed)
    assert entry.private
    assert [concept.name for concept in entry.result.concepts[:2]] == ["concept 1", "concept 2"]
    assert [row.value for row in entry.result.metrics] == [row.value for row in open_entry.result.metrics]
    assert len({row.group for row in entry.result.metrics if row.group}) == len(entry.result.concepts)
    assert len(entry.estimates) == len(open_entry.estimates)
    with pytest.raises(BadInput, match="of a private pack, whose texts are not published"):
        read_items(entry)


def test_only_a_maintainer_adds_it_and_it_is_then_verified(secret: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    refused = CliRunner().invoke(app, ["validate", str(secret)])
    assert refused.exit_code == 1
    assert "found no texts: an entry of a private pack" in refused.output
    assert CliRunner().invoke(app, ["leaderboard", "add", str(secret), "--results", str(store)]).exit_code == 1
    with pytest.raises(BadInput, match="--verified-by NAME"):
        add_entry(secret, store)
    options = ["--results", str(store), "--verified-by", "M. Aintainer"]
    added = CliRunner().invoke(app, ["leaderboard", "add", str(secret), *options])
    assert added.exit_code == 0, added.output
    assert "no number was made again" in added.output
    ((entry,), broken) = read_store(store)
    assert broken == []
    assert entry.verified is not None
    assert (entry.status, entry.verified.how, entry.verified.by) == ("verified", "private pack", "M. Aintainer")


def test_an_entry_with_texts_is_not_verified_by_adding_it(packed: Path, tmp_path: Path) -> None:
    options = ["--results", str(tmp_path / "store"), "--verified-by", "M. Aintainer"]
    with pytest.raises(BadInput, match="everybody can score it again"):
        CliRunner().invoke(app, ["leaderboard", "add", str(packed), *options], catch_exceptions=False)
    assert not (tmp_path / "store").exists()


def test_a_pack_that_is_published_is_not_private(run: Path, packed: Path, secret: Path, tmp_path: Path) -> None:
    spoken = Path(shutil.copytree(run, tmp_path / "run"))
    content = json.loads((spoken / "result.json").read_text())
    content["provenance"]["pack"] = "core"
    (spoken / "result.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="which everybody has"):
        submit(spoken, tmp_path / "entry", verbalizer="mine", private=True, **CARD)
    open_entry = Path(shutil.copytree(packed, tmp_path / "open"))
    content = json.loads((open_entry / "result.json").read_text())
    prompts = read_entry(secret).result.provenance.readout_prompts  # a real pack's ids are kept; planted ones are not
    content["provenance"]["readout_prompts"] = prompts
    (open_entry / "result.json").write_text(json.dumps(content))
    write_manifest(open_entry, "mine", "0")
    add_entry(open_entry, tmp_path / "store")  # of the same pack, with its texts
    (problem,) = validate(secret, tmp_path / "store", by_maintainer=True).problems
    assert "found a pack that is published" in str(problem)


def tell_a_name(content: dict[str, Any]) -> None:
    content["concepts"][0]["title"] = "the moon"


def claim_more(content: dict[str, Any]) -> None:
    row = next(row for row in content["metrics"] if row["metric"] == "auroc_in_pairs" and row["group"] is None)
    row["value"], row["high"] = 0.999, 1.0


def find_more(content: dict[str, Any]) -> None:
    content["findings"].append("It is the best of all.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tell_a_name, "concepts: found names, sentences or texts of the pack"),
        (claim_more, "row: found another row; expected that of result.json"),
        (find_more, "findings: found names, sentences or texts"),
    ],
)
def test_a_private_entry_that_tells_or_claims_more_is_named(
    secret: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    spoilt = Path(shutil.copytree(secret, tmp_path / "spoilt"))
    content = json.loads((spoilt / "result.json").read_text())
    change(content)
    (spoilt / "result.json").write_text(json.dumps(content))
    write_manifest(spoilt, "mine", "0", private=True)
    assert said in "\n".join(map(str, check_private(read_entry(spoilt))))


def test_a_private_number_and_interval_must_be_those_of_its_effects(secret: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(secret, tmp_path / "spoilt"))
    table = pd.read_parquet(spoilt / "estimates.parquet")
    content = json.loads((spoilt / "result.json").read_text())
    number = next(i for i, row in enumerate(table["row"]) if json.loads(row)["low"] is not None)
    row = json.loads(table["row"][number])
    same = content["metrics"].index(row)
    surer = {**row, "low": row["value"] - 1e-3, "high": row["value"] + 1e-3}
    content["metrics"][same] = surer
    table.loc[number, "row"] = json.dumps(surer)
    (spoilt / "result.json").write_text(json.dumps(content))
    table.to_parquet(spoilt / "estimates.parquet", index=False)
    write_manifest(spoilt, "mine", "0", private=True)
    (problem,) = (p for p in check_private(read_entry(spoilt)) if "estimates.parquet" in p.where)
    assert "of its effects" in problem.expected


def test_items_in_a_private_entry_and_none_in_another_are_refused(secret: Path, packed: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(secret, tmp_path / "both"))
    shutil.copyfile(packed / "items.parquet", both / "items.parquet")
    with pytest.raises(BadInput, match=r"extra items\.parquet"):
        read_entry(both)
    neither = Path(shutil.copytree(packed, tmp_path / "neither"))
    (neither / "items.parquet").unlink()
    with pytest.raises(BadInput, match=r"missing items\.parquet"):
        read_entry(neither)


def test_packing_a_pack_of_ones_own_says_what_it_publishes(run: Path, tmp_path: Path) -> None:
    options = ["--author", "A", "--link", CARD["link"], "--licence", "MIT", "--training-data", "none"]
    arguments = ["submit", str(run), "--verbalizer", "mine", *options]
    told = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "open")])
    assert "names, their descriptions and words of its prompts" in told.output
    kept = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "closed"), "--private"])
    assert "leaderboard add" in kept.output
    assert read_entry(tmp_path / "closed").private
    with pytest.raises(BadInput, match="--to hub was given with --private"):
        CliRunner().invoke(app, [*arguments, "--private", "--to", "hub", "--repo", "a/b"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("pack", "source", "public"),
    [
        ("core", None, True),
        ("core", "core", True),
        ("sae-probes:x", "sae-probes:x", True),
        ("core", "/home/me/core.jsonl", False),
        ("mine", None, False),
    ],
)
def test_a_pack_is_public_by_its_source_and_not_by_its_files_name(
    run: Path, pack: str, source: str | None, public: bool
) -> None:
    result: Result = read_result(run / "result.json")
    arguments = {} if source is None else {"pack": source}
    made = result.provenance.model_copy(update={"pack": pack, "arguments": arguments})
    assert has_public_pack(result.model_copy(update={"provenance": made})) is public
