"""`validate()`: an entry's files, items and claims, and every number of it made again from its texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .benchmark.concepts import ConceptPack
from .benchmark.errors import BadInput, NoRoom
from .benchmark.item_table import ITEMS_FILE
from .benchmark.pairing import match_items
from .benchmark.records import write_result
from .benchmark.rescoring import SAME_TEXTS, find_discrepancies, find_scorers, score_texts_again
from .benchmark.stored_run import StoredRun, read_run
from .benchmark.verbalizers.asking import QUESTION
from .leaderboard.claims import (
    Problem,
    check_claims,
    check_estimates,
    check_labels,
    check_private,
    check_record,
    check_sentences,
)
from .leaderboard.entries import Entry, read_entry, read_items
from .leaderboard.entry_items import check_items
from .leaderboard.regression import check_comparable
from .leaderboard.results_store import read_store
from .leaderboard.suspicion import find_suspicious_texts
from .submitting import MAY_BE_EMPTY, SHARED_ROLES, controls_of, make_again

#: The share of a control's texts that another processor may change: near ties of a probe or a greedy token.
MOST_DIFFERENT = 0.02


@dataclass(frozen=True)
class Validation:
    """What checking a submission found. flags: what a person should look at; they do not reject."""

    entry: Entry | None
    problems: tuple[Problem, ...]
    flags: tuple[str, ...] = ()


def validate(
    folder: Path | str,
    results: Path | str | None = None,
    pack: ConceptPack | None = None,
    *,
    by_maintainer: bool = False,
) -> Validation:
    """Check a submission: files and hashes, items, and every number again from its texts.

    results: the store, whose entries of the same board say which items there are and what the controls say. pack: where
    the record's source is not at hand. What tasks measured themselves is taken as it is stored. by_maintainer: an entry
    of a private pack is accepted; it has no texts, and is held to its hashes, its schema and itself.

    Raises:
        BadInput: there is no such folder, or the machine has no room. Whatever is in it ends as a `Problem`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. `nlabench submit RUN` writes one.")
    try:
        with _blaming(folder, "files that `nlabench submit` wrote"):
            entry = read_entry(folder)
    except BadInput as error:
        return Validation(None, (_problem(folder, error),))
    problems: list[Problem] = []
    flags: list[str] = []
    try:
        if entry.private:
            _check_private(entry, results, by_maintainer, problems, flags)
        else:
            _check(entry, results, pack, problems, flags)
    except NoRoom:
        raise
    except BadInput as error:
        problems.append(_problem(folder, error))
    return Validation(entry, tuple(problems), tuple(flags))


def _problem(folder: Path, error: BadInput) -> Problem:
    said = str(error)
    return Problem(str(folder) if str(folder) not in said else "", said, "")


def read_stored(entry: Entry) -> StoredRun:
    """The entry as a run whose texts are not scored yet.

    Raises:
        BadInput: its items are no whole run; the message says which row or column.
    """
    items = read_items(entry)
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
        except NoRoom:
            raise
        except BadInput as error:  # a reader wants to know of the submission's file, not of this copy
            raise BadInput(str(error).replace(folder, str(entry.folder))) from error


def _check(
    entry: Entry, results: Path | str | None, pack: ConceptPack | None, problems: list[Problem], flags: list[str]
) -> None:
    """The checks of an entry with texts, the quick ones first; items that are none are scored by no task.

    What is found is appended to `problems` and `flags`. Raises BadInput where nothing more can be checked.
    """
    record, items = entry.folder / "result.json", entry.folder / ITEMS_FILE
    with _blaming(items, "the table that `nlabench submit` wrote"):
        problems += check_items(entry)
        of_items = len(problems)
    with _blaming(record, "the record that `nlabench submit` wrote"):
        problems += check_claims(entry, controls_of(entry.result, entry.card.name))
    if of_items:
        return
    with _blaming(items, "one row per item and verbalizer, as the run wrote them"):
        run = read_stored(entry)
        problems += check_record(entry, run.texts[QUESTION][entry.card.name])
    with _blaming(record, "the record of a run on this board"):
        problems += _check_against_store(entry, run, results)
    with _blaming(record, "the record of a run that can be scored again"):
        scorers = find_scorers(entry.result, pack)
        flags += _find_flags(entry, run)
        again, estimates = make_again(score_texts_again(run, pack, scorers), entry.card.name)
        problems += [
            Problem(f"{record}: {wrong.where}", str(wrong.recorded), f"{wrong.found}, made again from the texts")
            for wrong in find_discrepancies(entry.result, again, SAME_TEXTS)
        ]
        problems += check_sentences(entry, again) + check_estimates(entry, estimates, SAME_TEXTS)


def _check_private(
    entry: Entry, results: Path | str | None, by_maintainer: bool, problems: list[Problem], flags: list[str]
) -> None:
    """The checks of an entry without texts. Its numbers are the word of whoever ran it."""
    flags.append(
        "no number was made again: the pack is private and its texts are not here. Held to its hashes, its schema and "
        "its own estimates only"
    )
    if not by_maintainer:
        problems.append(
            Problem(
                str(entry.folder / ITEMS_FILE), "no texts: an entry of a private pack",
                "texts, or that a maintainer adds it: `nlabench leaderboard add … --verified-by NAME`",
            )
        )  # fmt: skip
    with _blaming(entry.folder / "result.json", "the record that `nlabench submit --private` wrote"):
        problems += check_claims(entry, controls_of(entry.result, entry.card.name)) + check_private(entry)
        problems += [
            Problem(
                f"{entry.folder / 'result.json'}: provenance.pack_fingerprint",
                "a pack that is published",
                f"texts, as {other.folder} of the same board has them",
            )
            for other in _read_board(entry, results)
            if not other.private
        ][:1]


@contextmanager
def _blaming(file: Path, expected: str) -> Iterator[None]:
    """Within it, whatever somebody's file does to a reader is said of the file, as BadInput."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{file}: {type(error).__name__}: {str(error)[:300]}; expected {expected}. Pack the run again."
        ) from error


def _read_board(entry: Entry, results: Path | str | None) -> Iterator[Entry]:
    """The entries of a store that were measured as this one was."""
    store = Path(results) if results is not None else None
    for other in read_store(store)[0] if store is not None and store.is_dir() else []:
        try:
            check_comparable(other.result, entry.result)
        except BadInput:
            continue
        yield other


def _check_against_store(entry: Entry, run: StoredRun, results: Path | str | None) -> list[Problem]:
    """Items and the texts of shared controls, against an entry of the same board."""
    for other in _read_board(entry, results):
        try:
            beside = read_stored(other)
        except BadInput:  # of a private pack, or broken
            continue
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


def _find_flags(entry: Entry, run: StoredRun) -> list[str]:
    if entry.card.role != "submitted":
        return []
    concepts = entry.result.concepts
    return find_suspicious_texts(
        run.texts[QUESTION][entry.card.name], [c.description for c in concepts], [c.title for c in concepts]
    )
