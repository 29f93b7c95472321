"""What a submission says that its texts do not give, hashes and all: each is found and named."""

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
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.records import read_result, write_result
from nlabench.benchmark.rescoring import rescore
from nlabench.benchmark.stored_run import read_run
from nlabench.leaderboard.entries import write_manifest
from nlabench.leaderboard.results_store import add_entry
from nlabench.submitting import submit
from nlabench.validating import validate

CARD: dict[str, Any] = {
    "authors": ["A. Name"], "link": "https://example.org", "licence": "MIT", "training_data": "none of the pack",
}  # fmt: skip
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def packed(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    said = {"mine": say_planted(0.3), "constant": ["text"] * len(say_planted()), "top": say_planted(0.0, seed=5)}
    run = write_planted_run(folder / "run", said)
    result = read_result(run / "result.json")
    roles = {"mine": "submitted", "constant": "floor", "top": "ceiling"}
    records = {
        name: record.model_copy(
            update={
                "card": {"name": name, "role": roles[name]},
                "n_texts": len(said[name]),
                "distinct_texts": len(set(said[name])) / len(said[name]),
            }
        )
        for name, record in result.verbalizers.items()
    }
    write_result(result.model_copy(update={"verbalizers": records}), run / "result.json")
    write_result(rescore(read_run(run)), run / "result.json")
    return submit(run, folder / "entry", verbalizer="mine", **CARD)


@pytest.fixture
def entry(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "entry"))


@pytest.fixture
def store(packed: Path, tmp_path: Path) -> Path:
    """A store that holds the entry as it was before it is spoiled."""
    add_entry(packed, tmp_path / "store")
    return tmp_path / "store"


def change_result(folder: Path, change: Change) -> None:
    content = json.loads((folder / "result.json").read_text())
    change(content)
    (folder / "result.json").write_text(json.dumps(content))
    write_manifest(folder, "mine", "0")


def change_estimates(folder: Path, change: Change) -> None:
    file = folder / "estimates.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    write_manifest(folder, "mine", "0")


def change_items(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    file = folder / "items.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    write_manifest(folder, "mine", "0")


def complain(folder: Path, pack: ConceptPack, store: Path | None = None) -> str:
    return "\n".join(map(str, validate(folder, store, pack).problems))


def test_with_its_controls_a_whole_submission_validates(entry: Path, store: Path, planted_pack: ConceptPack) -> None:
    assert complain(entry, planted_pack, store) == ""


def _better_twin(content: dict[str, Any]) -> None:
    content["metrics"].insert(0, {**content["metrics"][0], "value": 0.999})


def _of_another(content: dict[str, Any]) -> None:
    content["metrics"].append({**content["metrics"][0], "verbalizer": "constant"})


def _noted(content: dict[str, Any]) -> None:
    content["metrics"][0]["note"] = "independently confirmed"


def _finding(content: dict[str, Any]) -> None:
    content["findings"].append("It is the best of all.")


def _number(content: dict[str, Any]) -> None:
    content["findings"][0] = content["findings"][0].replace("0.", "0.9", 1)


def _saying(content: dict[str, Any]) -> None:
    content["said"].append(
        {
            "verbalizer": "mine", "scorer": "words", "concept": "c0", "r": 0.3, "score": 9.0, "permuted": 0.0,
            "p": 0.01, "q": 0.01, "said": True, "n_prompts": 8,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_better_twin, "the row more than once"),
        (_of_another, "found 'constant'; expected 'mine' and no other"),
        (_noted, "note: found 'independently confirmed'"),
        (_finding, "findings"),
        (_number, "findings, row 0"),
        (_saying, "said, ('words', 'c0', 0.3)"),
    ],
)
def test_a_record_that_says_more_than_its_texts_is_named(
    entry: Path, planted_pack: ConceptPack, change: Change, said: str
) -> None:
    change_result(entry, change)
    assert said in complain(entry, planted_pack)


def _row_value(line: dict[str, Any]) -> None:
    line["row"] = json.dumps({**json.loads(line["row"]), "value": 0.999})


def _degrees(line: dict[str, Any]) -> None:
    line["design"] = json.dumps({**json.loads(line["design"]), "df_concept": 1000})


def _certain(line: dict[str, Any]) -> None:
    line["by_concept"] = list(np.zeros(len(line["by_concept"])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_row_value, "row: found another row; expected that of result.json"),
        (_degrees, "df_concept: found 1000; expected 2"),
        (_certain, "by_concept: found other numbers"),
    ],
)
def test_an_estimate_that_is_surer_than_its_texts_is_named(
    entry: Path, planted_pack: ConceptPack, change: Change, said: str
) -> None:
    change_estimates(entry, change)
    assert said in complain(entry, planted_pack)


def test_a_control_that_was_left_out_or_says_something_else_is_named(
    entry: Path, store: Path, planted_pack: ConceptPack
) -> None:
    spoiled = Path(shutil.copytree(entry, entry.parent / "spoiled"))
    other = lambda items: items.assign(text=items["text"].where(items["verbalizer"] != "top", "nothing"))  # noqa: E731
    change_items(spoiled, other)
    assert "top, item" in complain(spoiled, planted_pack, store)
    change_items(entry, lambda items: items[items["verbalizer"] != "constant"])
    change_result(entry, lambda content: content["verbalizers"].pop("constant"))
    assert "found no constant; expected the control constant" in complain(entry, planted_pack, store)


def test_an_item_that_counts_for_something_else_than_on_the_board_is_named(
    entry: Path, store: Path, planted_pack: ConceptPack
) -> None:
    swapped = Path(shutil.copytree(entry, entry.parent / "swapped"))

    def swap(items: pd.DataFrame) -> pd.DataFrame:
        names = {"c0": "c3", "c3": "c0"}
        return items.assign(concept=items["concept"].map(lambda name: names.get(name, name)))

    change_items(swapped, swap)
    assert "concept: found 'c" in complain(swapped, planted_pack, store)

    def leave_out(items: pd.DataFrame) -> pd.DataFrame:
        hard = ~items["text"].str.contains("c") & items["concept"].notna()
        ids = set(items.loc[hard & (items["verbalizer"] == "mine"), "item_id"])
        return items.assign(outlier=items["item_id"].isin(ids))

    change_items(entry, leave_out)
    assert "other outliers" in complain(entry, planted_pack, store)


def test_a_concept_that_is_left_out_is_named(entry: Path, store: Path, planted_pack: ConceptPack) -> None:
    def exclude(content: dict[str, Any]) -> None:
        content["concepts"][0]["excluded"] = {"readout/function": "it was hard"}

    change_result(entry, exclude)
    assert "concepts, c0, excluded" in complain(entry, planted_pack, store)
