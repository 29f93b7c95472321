"""`verify()`: a maintainer's own run of a verbalizer beside its entry. Where they agree, the entry is verified."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .benchmark.errors import BadInput
from .benchmark.pairing import match_items
from .benchmark.records import MetricRow, Result
from .benchmark.stored_run import StoredRun, read_record, read_run
from .benchmark.verbalizers.asking import QUESTION
from .leaderboard.entries import Entry, Verification, hash_file, metric_key
from .leaderboard.ranking import COLUMNS, find_row
from .leaderboard.regression import check_comparable
from .leaderboard.results_store import add_verification, find_entry
from .validating import read_stored

#: How far a headline number of a rerun may lie from the entry's, in its own unit (above 1, as a share of it): more than
#: another processor's near ties make of it, less than intervals are wide.
TOLERANCE = 0.02

#: The floor that says the text of the mean direction: it goes by the name of the verbalizer whose text that is.
AVERAGE = "average-direction"

#: Seconds, kept to a thousandth, under which two runs of a floor take the same time by chance.
LEAST_TELLING = 0.1


@dataclass(frozen=True)
class Difference:
    """Where a rerun is not what the entry says. where: file and metric."""

    where: str
    entry: str
    rerun: str

    def __str__(self) -> str:
        return f"{self.where}: {self.entry} in the entry, {self.rerun} in the rerun"


@dataclass(frozen=True)
class Rerun:
    """What a rerun says of an entry. file: the `verified.json` that was written; None where they differ."""

    entry: Entry
    differences: tuple[Difference, ...]
    texts_equal: float
    file: Path | None


def verify(
    entry: Path | str,
    run: Path | str,
    *,
    by: str,
    results: Path | str = Path("leaderboard/results"),
    verbalizer: str | None = None,
    tolerance: float = TOLERANCE,
) -> Rerun:
    """Compare an entry with a maintainer's own run of its verbalizer, and say so beside it where they agree.

    They agree where the items are the same, no item failed that did not, and every headline number lies within the
    tolerance. entry: its folder, or its id in the store. run: the folder of a run of the same board, with the
    verbalizer under the entry's name or the one given.

    Raises:
        BadInput: no such entry or run, the two are not of one benchmark or items, the run is the one that the entry was
            made of, or the entry is verified already.
    """
    found, record = find_entry(entry, Path(results)), read_record(run)
    if not by.strip():
        raise BadInput("No name was given. Say who ran it again: --by NAME.")
    if found.private:
        raise BadInput(f"{found.folder} is of a private pack; whoever adds it has verified it, and others cannot.")
    name = verbalizer or found.card.name
    if name not in record.verbalizers:
        raise BadInput(f"{run} has no verbalizer {name!r}. It has {', '.join(record.verbalizers)}; name it.")
    check_comparable(found.result, record)
    if record.provenance.started == found.result.provenance.started:
        raise BadInput(
            f"{run} is the run that the entry {found.id} was made of (started {record.provenance.started}); expected "
            "another one. Run the verbalizer again, with a new $NLABENCH_CACHE."
        )
    _refuse_replay(found, record, name, run)
    equal = _share_of_equal_texts(read_stored(found), read_run(run, [name]), found.card.name, name)
    differences = (*_compare_failures(found, record, name), *_compare_numbers(found, record, name, tolerance))
    file = None
    if not differences:
        folder = Path(run) if Path(run).is_dir() else Path(run).parent
        verified = Verification(
            how="rerun", by=by, date=datetime.now(UTC).date().isoformat(), run=hash_file(folder / "result.json"),
            texts_equal=round(equal, 4),
            evidence=f"Run again with nlabench {record.provenance.nlabench}, started {record.provenance.started}: the "
            f"same items, every headline number within {tolerance:g}, {equal:.1%} of texts equal.",
        )  # fmt: skip
        file = add_verification(found, verified)
    return Rerun(found, differences, equal, file)


def _refuse_replay(entry: Entry, record: Result, name: str, run: Path | str) -> None:
    """Raise BadInput where a timing of the verbalizer, or of the floor made from it, is the entry's to the digit.

    The store gives the seconds of the run that wrote a text. A run of which some texts came from it adds up both, and
    is told by its floor alone, whose texts are kept apart.
    """
    pairs = {name: entry.card.name, f"{AVERAGE}:{name}": f"{AVERAGE}:{entry.card.name}"}
    for its, mine in pairs.items():
        if its not in record.verbalizers or mine not in entry.result.verbalizers:
            continue
        seconds = record.verbalizers[its].seconds
        least = 0.0 if its == name else LEAST_TELLING
        if seconds > least and seconds == entry.result.verbalizers[mine].seconds:
            raise BadInput(
                f"{run} wrote no text of {its!r}: they took exactly the {seconds:g} s of the entry's own run, so they "
                "came from the store. Run the verbalizer again with a new one: NLABENCH_CACHE=$(mktemp -d) nlabench "
                "run …"
            )


def _share_of_equal_texts(entry: StoredRun, run: StoredRun, name: str, of_run: str) -> float:
    """The share of items of which the verbalizer says the same; raises BadInput where the items are not the same."""
    order = match_items(entry, run)
    mine, its = entry.texts[QUESTION][name], run.texts[QUESTION][of_run]
    return float(sum(text == its[row] for text, row in zip(mine, order.tolist(), strict=True)) / len(mine))


def _compare_failures(entry: Entry, record: Result, name: str) -> list[Difference]:
    mine, its = entry.result.verbalizers[entry.card.name].n_failed, record.verbalizers[name].n_failed
    return [Difference("result.json: n_failed", str(mine), str(its))] if mine != its else []


def _compare_numbers(entry: Entry, record: Result, name: str, tolerance: float) -> list[Difference]:
    rows = {metric_key(row): row for row in record.metrics if row.verbalizer == name}
    differences = []
    for column in COLUMNS:
        mine = find_row(entry, column)
        if mine is None:
            continue
        its = rows.get(metric_key(mine))
        if its is None or not _agree(mine, its, tolerance):
            where = f"result.json: {column.title} ({mine.task}.{mine.metric})"
            differences.append(Difference(where, _show(mine), "no such number" if its is None else _show(its)))
    return differences


def _agree(a: MetricRow, b: MetricRow, tolerance: float) -> bool:
    if a.value is None or b.value is None:
        return a.value is b.value and a.censored_at == b.censored_at
    return abs(a.value - b.value) <= tolerance * max(1.0, abs(a.value))


def _show(row: MetricRow) -> str:
    if row.value is None:
        return f"> {row.censored_at:g}" if row.censored_at is not None else "no number"
    return f"{row.value:.4f}"
