"""`submit()`: a verbalizer of a run as an entry of the board, ready for a pull request."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from .benchmark.errors import BadInput
from .benchmark.item_table import ITEMS_FILE
from .benchmark.records import EstimatedMetric, Result, keep_estimates
from .benchmark.rescoring import find_discrepancies, rescore
from .benchmark.stored_run import StoredRun, read_record, read_run
from .benchmark.transcript import OF_VECTORS
from .leaderboard.entries import Card, metric_key, write_estimates, write_manifest
from .leaderboard.entry_items import accepted_columns
from .leaderboard.redaction import redact
from .leaderboard.regression import choose_verbalizers

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
    private: bool = False,
) -> Path:
    """Pack a verbalizer of a run as a submission: a new folder with its card, numbers and texts.

    out: the folder; by default `submissions/` and the verbalizer's name. What is not given of the card is taken from
    the verbalizer's own. The numbers are made again from the stored scores, beside the controls that they need alone.
    private: the run's pack is not published, so the entry has numbers alone: no texts, and no names of concepts.

    Raises:
        BadInput: no such run or verbalizer, the card lacks something, the folder is there already, or the run's numbers
            are not those that its items give.
    """
    record = read_record(run)
    name = verbalizer or choose_verbalizers(record, record, None, None)[0]
    if name not in record.verbalizers:
        raise BadInput(f"{run} has no verbalizer {name!r}. It has {', '.join(record.verbalizers)}.")
    if private and has_public_pack(record):
        raise BadInput(
            f"{run} was made with {record.provenance.pack!r}, which everybody has. An entry of a public pack holds its "
            "texts, so that everybody can score them again: pack it without --private."
        )
    card = _make_card(record, name, authors, link, licence, training_data, description)
    folder = Path(out) if out is not None else Path("submissions") / name.replace(":", "-").replace("/", "-")
    if folder.exists():
        raise BadInput(f"{folder} is there already; a submission is a new folder. Give another --out, or remove it.")
    stored = restrict(read_run(run, [name, *controls_of(record, name)]), name)
    result, estimates = make_again(stored, name)
    # Differences from verbalizers that the entry does not hold are left behind.
    beside = {row.versus for row in result.metrics}
    own = [row for row in record.metrics if row.verbalizer == name and row.versus in beside]
    recorded = record.model_copy(update={"metrics": own})
    if wrong := find_discrepancies(recorded, result):
        raise BadInput(
            f"{run}: {len(wrong)} numbers of {name} are not what its items give, such as {wrong[0]}. The files of the "
            "run were changed, or an earlier nlabench wrote them: run it again (finished work is kept)."
        )
    if private:
        result = redact(result)
        rows = {metric_key(row): row for row in result.metrics}
        estimates = [replace(metric, row=rows[metric_key(metric.row)]) for metric in estimates]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as making:
        half = Path(making) / "entry"
        half.mkdir()
        (half / "card.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (half / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
        if not private:
            items = _choose_columns(stored, result)
            items.to_parquet(half / ITEMS_FILE, index=False, compression="zstd", compression_level=19)
        write_estimates(estimates, half / "estimates.parquet")
        write_manifest(half, name, record.provenance.nlabench, private=private)
        half.rename(folder)
    return folder


def has_public_pack(result: Result) -> bool:
    """Whether the pack comes with nlabench or from a public data set, so that an entry publishes nothing of it."""
    made = result.provenance
    # A file may bear the name of a pack that ships: the source says which it was.
    sources = made.pack, made.arguments.get("pack", "core")
    return all(str(source).partition(":")[0] in ("core", "sae-probes") for source in sources)


def _choose_columns(run: StoredRun, result: Result) -> pd.DataFrame:
    """The rows of the entry's verbalizers, without scores and without what was measured of others."""
    table = pd.read_parquet(run.file, filters=[("verbalizer", "in", list(result.verbalizers))])
    empty = [column for column in MAY_BE_EMPTY if column in table and table[column].isna().all()]
    accepted = accepted_columns(result)
    return table[[column for column in table.columns if column in accepted and column not in empty]]


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
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, part['loc']))} is {str(part['input'])[:80]!r} ({part['msg']})"
            for part in error.errors()
        ]
        raise BadInput(
            f"The card of {name!r} cannot be used: {'; '.join(wrong)}. A link begins with http:// or https://; correct "
            "it, and pack again."
        ) from error


def controls_of(record: Result, name: str) -> list[str]:
    """The floors, ceiling and readers that a verbalizer's numbers need; floors made of another one are not."""
    return [
        other
        for other, found in record.verbalizers.items()
        if other != name
        and found.card.get("role") in SHARED_ROLES
        and (":" not in other or other.partition(":")[2] == name)
    ]


def restrict(run: StoredRun, name: str) -> StoredRun:
    """The run as if no other verbalizer had been asked for."""
    kept = [name, *controls_of(run.result, name)]
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


def make_again(run: StoredRun, name: str) -> tuple[Result, list[EstimatedMetric]]:
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
