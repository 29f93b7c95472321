"""`submit()` and `validate()`: a run's verbalizer as an entry of the board, and its numbers made again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .benchmark.concepts import ConceptPack
from .benchmark.errors import BadInput
from .benchmark.pairing import match_items
from .benchmark.records import EstimatedMetric, Result, keep_estimates, write_result
from .benchmark.rescoring import (
    SAME_TEXTS,
    find_discrepancies,
    find_scorers,
    rescore,
    score_texts_again,
)
from .benchmark.stored_run import ITEMS_FILE, StoredRun, read_record, read_run
from .benchmark.transcript import OF_VECTORS
from .benchmark.verbalizers.asking import QUESTION
from .leaderboard.claims import Problem, check_claims, check_estimates, check_failures, check_labels, check_sentences
from .leaderboard.entries import (
    MOST_CHARACTERS,
    Card,
    Entry,
    metric_key,
    read_entry,
    read_items,
    write_estimates,
    write_manifest,
)
from .leaderboard.regression import check_comparable, choose_verbalizers
from .leaderboard.results_store import read_store
from .leaderboard.suspicion import find_suspicious_texts

if TYPE_CHECKING:
    from .benchmark.scoring.base import Standardized

#: Who speaks for the verbalizers that come with the benchmark.
OUR_AUTHORS = ("nlabench",)

#: Controls whose texts hang on nothing but the items: they are the same in every entry of a board.
SHARED_ROLES = ("floor", "ceiling", "reader")

#: Columns that an entry leaves out where they are empty throughout.
MAY_BE_EMPTY = ("logprob", "error", "question")


def submit(
    run: Path | str,
    out: Path | str | None = None,
    *,
    verbalizer: str | None = None,
    authors: Sequence[str] = (),
    link: str = "",
    licence: str = "",
    training_data: str = "",
    description: str = "",
) -> Path:
    """Pack a verbalizer of a run as a submission: a new folder with its card, numbers and texts.

    out: the folder; by default `submissions/` and the verbalizer's name. What is not given of the card is taken from
    the verbalizer's own. The numbers are made again from the stored scores, beside the controls that they need alone.

    Raises:
        BadInput: no such run or verbalizer, the card lacks something, the folder is there already, or the run's numbers
            are not those that its items give.
    """
    record = read_record(run)
    name = verbalizer or choose_verbalizers(record, record, None, None)[0]
    if name not in record.verbalizers:
        raise BadInput(f"{run} has no verbalizer {name!r}. It has {', '.join(record.verbalizers)}.")
    card = _make_card(record, name, authors, link, licence, training_data, description)
    folder = Path(out) if out is not None else Path("submissions") / name.replace(":", "-").replace("/", "-")
    if folder.exists():
        raise BadInput(f"{folder} is there already; a submission is a new folder. Give another --out, or remove it.")
    stored = _restrict(read_run(run, [name, *_controls_of(record, name)]), name)
    result, estimates = _score(stored, name)
    # Differences from verbalizers that the entry does not hold are left behind.
    beside = {row.versus for row in result.metrics}
    own = [row for row in record.metrics if row.verbalizer == name and row.versus in beside]
    recorded = record.model_copy(update={"metrics": own})
    if wrong := find_discrepancies(recorded, result):
        raise BadInput(
            f"{run}: {len(wrong)} numbers of {name} are not what its items give, such as {wrong[0]}. The files of the "
            "run were changed, or an earlier nlabench wrote them: run it again (finished work is kept)."
        )
    table = pd.read_parquet(stored.file, filters=[("verbalizer", "in", list(result.verbalizers))])
    empty = [column for column in MAY_BE_EMPTY if column in table and table[column].isna().all()]
    table = table.drop(columns=[*empty, *(column for column in table.columns if column.startswith("score_"))])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as making:
        half = Path(making) / "entry"
        half.mkdir()
        (half / "card.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (half / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
        table.to_parquet(half / ITEMS_FILE, index=False, compression="zstd", compression_level=19)
        write_estimates(estimates, half / "estimates.parquet")
        write_manifest(half, name, record.provenance.nlabench)
        half.rename(folder)
    return folder


@dataclass(frozen=True)
class Validation:
    """What checking a submission found. flags: what a person should look at; they do not reject."""

    entry: Entry | None
    problems: tuple[Problem, ...]
    flags: tuple[str, ...] = ()


def validate(folder: Path | str, results: Path | str | None = None, pack: ConceptPack | None = None) -> Validation:
    """Check a submission: files and hashes, items, and every number again from its texts.

    results: the store, whose entries of the same board say which items there are and what the controls say. pack: where
    the record's source is not at hand. What tasks measured themselves is taken as it is stored.

    Raises:
        BadInput: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. `nlabench submit RUN` writes one.")
    try:
        entry = read_entry(folder)
        problems = check_claims(entry, _controls_of(entry.result, entry.card.name)) + check_failures(entry)
        run = _read_stored(entry)
        scorers = find_scorers(entry.result, pack)
        again, estimates = _score(score_texts_again(run, pack), entry.card.name)
    except BadInput as error:
        return Validation(None, (Problem(str(folder), str(error), "a submission that can be scored again"),))
    problems += [
        Problem(
            f"{folder / 'result.json'}: {wrong.where}", str(wrong.recorded), f"{wrong.found}, made again from the texts"
        )
        for wrong in find_discrepancies(entry.result, again, SAME_TEXTS)
    ]
    problems += check_sentences(entry, again) + check_estimates(entry, estimates, SAME_TEXTS)
    problems += _check_against_store(entry, run, Path(results) if results is not None else None)
    return Validation(entry, tuple(problems), tuple(_find_flags(entry, run, scorers)))


def _make_card(
    record: Result, name: str, authors: Sequence[str], link: str, licence: str, training_data: str, description: str
) -> Card:
    """The card of a submission; raises BadInput where it does not say who, where, under what licence or of what."""
    own = record.verbalizers[name].card
    ours = own.get("role", "submitted") != "submitted" or name == "nla:reference"
    given = {
        "link": link or own.get("link", ""),
        "licence": licence or own.get("licence", ""),
        "training_data": training_data or own.get("training_data", ""),
    }
    missing = [] if ours else [field for field, value in {"author": authors, **given}.items() if not value]
    if missing:
        options = ", ".join(f"--{field.replace('_', '-')}" for field in missing)
        raise BadInput(
            f"The card of {name!r} does not say its {', '.join(missing)}. A reader of the board asks for them: pass "
            f"{options}."
        )
    try:
        return Card(
            name=name, version=str(own.get("version") or "1"), authors=tuple(authors) or OUR_AUTHORS,
            description=description or own.get("description", ""), role=own.get("role", "submitted"), **given,
        )  # fmt: skip
    except ValueError as error:
        raise BadInput(f"The card of {name!r} cannot be used: {error}") from error


def _controls_of(record: Result, name: str) -> list[str]:
    """The floors, ceiling and readers that a verbalizer's numbers need; floors made of another one are not."""
    return [
        other
        for other, found in record.verbalizers.items()
        if other != name
        and found.card.get("role") in SHARED_ROLES
        and (":" not in other or other.partition(":")[2] == name)
    ]


def _restrict(run: StoredRun, name: str) -> StoredRun:
    """The run as if no other verbalizer had been asked for."""
    kept = [name, *_controls_of(run.result, name)]
    order = [other for other in run.result.verbalizers if other in kept]
    result = run.result
    measured = {
        task: {who: columns for who, columns in by_name.items() if who in (OF_VECTORS, name)}
        for task, by_name in result.measured.items()
    }
    return replace(
        run,
        result=result.model_copy(
            update={
                "verbalizers": {other: result.verbalizers[other] for other in order},
                "measured": measured,
                "status": "self-reported",
            }
        ),
        measured={
            task: {who: columns for who, columns in by_name.items() if who in (OF_VECTORS, name)}
            for task, by_name in run.measured.items()
        },
    )


def _score(run: StoredRun, name: str) -> tuple[Result, list[EstimatedMetric]]:
    """The run's record with the verbalizer's own rows alone, and its Estimates by the headline scorer."""
    with keep_estimates() as kept:
        result = rescore(run)
    result = result.model_copy(
        update={
            "metrics": [row for row in result.metrics if row.verbalizer == name],
            "said": [row for row in result.said if row.verbalizer == name],
        }
    )
    rows = {metric_key(row): row for row in result.metrics}
    # Not those of further scorers of texts; a task may name what it compares in the scorer's place (a detector).
    others = {scorer.name for scorer in result.scorers} - {result.headline_scorer}
    estimates = {}
    for metric in kept:
        row, key = metric.row, metric_key(metric.row)
        of_board = row.verbalizer == name and row.group is None and row.versus is None and row.scorer not in others
        final = rows.get(key)  # a task may go on to change a row that it made
        value = final.value if final else None
        # The interval of a place is shifted once it is made: it is not that of the Estimate's own value.
        if of_board and final and value is not None and abs(value - float(metric.estimate.point)) <= 1e-9:
            estimates[key] = EstimatedMetric(final, metric.estimate)
    return result, list(estimates.values())


def _read_stored(entry: Entry) -> StoredRun:
    """The entry as a run whose texts are not scored yet."""
    items = read_items(entry)
    if "text" not in items:
        raise BadInput(f"{entry.folder / ITEMS_FILE}: there is no column 'text'. Expected the texts of a run.")
    long = items["text"].astype(str).str.len() > MOST_CHARACTERS
    if long.any():
        row = int(np.flatnonzero(long.to_numpy())[0])
        raise BadInput(
            f"{entry.folder / ITEMS_FILE}, row {row}, text: {len(str(items['text'].iloc[row])):,} characters; at most "
            f"{MOST_CHARACTERS:,} are accepted."
        )
    unscored = [np.zeros(len(entry.result.concepts), dtype=np.float32)] * len(items)
    for scorer in entry.result.scorers:
        items[f"score_{scorer.name}"] = unscored
    for column in MAY_BE_EMPTY:
        if column not in items:
            items[column] = None
    with tempfile.TemporaryDirectory() as folder:
        items.to_parquet(Path(folder) / ITEMS_FILE, index=False)
        write_result(entry.result, Path(folder) / "result.json")
        try:
            return replace(read_run(folder), file=entry.folder / ITEMS_FILE)
        except BadInput as error:  # a reader wants to know of the submission's file, not of this copy
            raise BadInput(str(error).replace(folder, str(entry.folder))) from error


def _check_against_store(entry: Entry, run: StoredRun, results: Path | None) -> list[Problem]:
    """Items and the texts of shared controls, against an entry of the same board."""
    for other in read_store(results)[0] if results is not None and results.is_dir() else []:
        try:
            check_comparable(other.result, entry.result)
        except BadInput:
            continue
        beside = _read_stored(other)
        try:
            order = match_items(beside, run)
        except BadInput as error:
            return [Problem(str(entry.folder / ITEMS_FILE), str(error), f"the items of {other.folder}")]
        problems = check_labels(
            entry, other, run.labels.iloc[order].reset_index(drop=True), beside.labels.reset_index(drop=True)
        )
        for name in beside.result.verbalizers:
            role = beside.result.verbalizers[name].card.get("role")
            # Readers are a suite's own choice; without the others a place between floor and ceiling is another one.
            needed = role in ("floor", "ceiling") and ":" not in name and name != other.card.name
            if needed and name not in run.result.verbalizers:
                problems.append(
                    Problem(f"{entry.folder / 'result.json'}: verbalizers", f"no {name}", f"the control {name}")
                )
            shared = name in run.result.verbalizers and ":" not in name and name != entry.card.name
            if shared and role in SHARED_ROLES:
                mine = [run.texts[QUESTION][name][row] for row in order]
                differ = [i for i, (a, b) in enumerate(zip(mine, beside.texts[QUESTION][name], strict=True)) if a != b]
                if len(differ) > MOST_DIFFERENT * len(mine):
                    item = beside.labels["item_id"].iloc[differ[0]]
                    problems.append(
                        Problem(
                            f"{entry.folder / ITEMS_FILE}: {name}, item {item}, text",
                            f"{len(differ)} other texts of {len(mine)}", f"the texts of {other.folder}",
                        )
                    )  # fmt: skip
        return problems
    return []


#: The share of a control's texts that another processor may change: near ties of a probe or a greedy token.
MOST_DIFFERENT = 0.02


def _find_flags(entry: Entry, run: StoredRun, scorers: Sequence[Standardized]) -> list[str]:
    if entry.card.role != "submitted":
        return []
    concepts = entry.result.concepts
    return find_suspicious_texts(
        run.texts[QUESTION][entry.card.name], [c.description for c in concepts], [c.title for c in concepts]
    )
