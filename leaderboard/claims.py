"""What a submission says, against what its texts give: everything that a board shows and that can be made again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ..benchmark.records import EstimatedMetric, Result
from ..benchmark.statistics import interval
from ..benchmark.suites import Suite
from .entries import Entry, metric_key, read_items
from .redaction import redact

#: What an item is made of. Each decides which metric it counts in, so each is that of the items that are on the board.
DESIGN = ("arm", "injection", "level", "concept", "prompt", "position", "kind", "word", "draw", "pair")

#: The share of items that another processor may put across the bound between outliers and others.
MOST_OUTLIERS = 0.01

#: How far a number in a finding may lie from its record: they are rounded to two digits.
ROUNDING = 0.011


#: How far a bound may lie from the one that effects give which were stored in float32.
SAME_INTERVAL = 1e-4


@dataclass(frozen=True)
class Problem:
    """Why a submission cannot be added. where: file, row and field. expected: empty where `found` says it all."""

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        if not self.expected:
            return f"{self.where}: {self.found}" if self.where else self.found
        return f"{self.where}: found {self.found}; expected {self.expected}"


def check_claims(entry: Entry, controls: Sequence[str]) -> list[Problem]:
    """What a submission may not say of itself. controls: the verbalizers that its numbers need beside its own."""
    file, result, name = entry.folder / "result.json", entry.result, entry.card.name
    problems = []
    if entry.verified:
        problems.append(Problem(str(entry.folder), "verified.json", "no such file: maintainers verify"))
    if result.status != "self-reported":
        problems.append(Problem(f"{file}: status", repr(result.status), "'self-reported': maintainers verify"))
    try:
        Suite.model_validate(result.provenance.suite)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problems.append(
            Problem(f"{file}: provenance.suite.{where}", str(first["input"])[:200], f"a suite's: {first['msg']}")
        )
    role = result.verbalizers[name].card.get("role", "submitted")
    if entry.card.role != role:
        problems.append(
            Problem(f"{entry.folder / 'card.json'}: role", repr(entry.card.role), f"{role!r} as in the result")
        )
    problems += [
        Problem(f"{file}: verbalizers, {other}", repr(other), f"{name!r} and its controls alone")
        for other in result.verbalizers
        if other != name and other not in controls
    ]
    for field in ("metrics", "said"):
        problems += [
            Problem(f"{file}: {field}, row {number}, verbalizer", repr(row.verbalizer), f"{name!r} and no other")
            for number, row in enumerate(getattr(result, field))
            if row.verbalizer != name
        ]
    twice = [key for key, n in Counter(map(metric_key, result.metrics)).items() if n > 1]
    problems += [Problem(f"{file}: {_show(key)}", "the row more than once", "every row once") for key in twice]
    return problems


def check_record(entry: Entry, texts: Sequence[str]) -> list[Problem]:
    """What the record says of the verbalizer as a program, against its rows.

    texts: what it said of each item. Items that it failed on are scored as empty texts, and cost it its rank.
    """
    items, name = read_items(entry), entry.card.name
    own, record = items[items["verbalizer"] == name], entry.result.verbalizers[name]
    failed = int(own["error"].notna().sum()) if "error" in own else 0
    distinct = len(set(texts)) / max(1, len(texts))
    found: list[tuple[str, object, object, bool]] = [
        ("n_failed", record.n_failed, f"{failed}, the errors in items.parquet", record.n_failed == failed),
        ("n_texts", record.n_texts, f"{len(texts)}, its items", record.n_texts == len(texts)),
        (
            "distinct_texts", record.distinct_texts, f"{distinct:.4f}, of its texts",
            abs(record.distinct_texts - distinct) <= ROUNDING,
        ),
        ("seconds", record.seconds, "0 or more", record.seconds >= 0),
        ("texts_per_second", record.texts_per_second, "0 or more", (record.texts_per_second or 0) >= 0),
    ]  # fmt: skip
    where = f"{entry.folder / 'result.json'}: verbalizers, {name}"
    return [Problem(f"{where}, {field}", str(said), str(wanted)) for field, said, wanted, holds in found if not holds]


def check_private(entry: Entry) -> list[Problem]:
    """What an entry without items can be held to: that it tells nothing of its pack, and agrees with itself."""
    file, result = entry.folder / "result.json", entry.result
    without = redact(result)
    problems = [
        Problem(f"{file}: {field}", "names, sentences or texts of the pack", "what `nlabench submit --private` leaves")
        for field in type(result).model_fields
        if getattr(result, field) != getattr(without, field)
    ]
    rows = {metric_key(row): row for row in result.metrics}
    for key, metric in entry.estimates.items():
        where = f"{entry.folder / 'estimates.parquet'}: {_show(key)}"
        if metric.row != rows.get(key):
            problems.append(Problem(f"{where}: row", "another row", "that of result.json"))
            continue
        made = interval(metric.estimate)
        pairs = ((metric.row.value, made.estimate), (metric.row.low, made.low), (metric.row.high, made.high))
        if any(said is not None and not abs(said - number) <= SAME_INTERVAL for said, number in pairs):
            shown = f"{made.estimate:.5g} [{made.low:.5g}, {made.high:.5g}]"
            problems.append(Problem(where, f"{pairs[0][0]} [{pairs[1][0]}, {pairs[2][0]}]", f"{shown}, of its effects"))
    return problems


def check_sentences(entry: Entry, again: Result) -> list[Problem]:
    """What is said, the notes beside numbers, and the findings, where they are not what the texts give."""
    file = entry.folder / "result.json"
    recorded, anew = entry.result, again
    notes = {metric_key(row): row.note for row in anew.metrics}
    problems = [
        Problem(f"{file}: {_show(metric_key(row))}: note", repr(row.note), repr(notes[metric_key(row)]))
        for row in recorded.metrics
        if not _agree(row.note, notes.get(metric_key(row), row.note))
    ]
    said, made = ({(s.scorer, s.concept, s.r): s.said for s in result.said} for result in (recorded, anew))
    if said != made or len(recorded.said) != len(said):
        wrong = next((key for key in [*said, *made] if said.get(key) != made.get(key)), "a row")
        problems.append(Problem(f"{file}: said, {wrong}", "another verdict or row", "what the texts say"))
    if len(recorded.findings) != len(anew.findings):
        problems.append(Problem(f"{file}: findings", f"{len(recorded.findings)}", f"{len(anew.findings)}"))
    problems += [
        Problem(f"{file}: findings, row {number}", repr(a), repr(b))
        for number, (a, b) in enumerate(zip(recorded.findings, anew.findings, strict=False))
        if not _agree(a, b)
    ]
    return problems


def check_estimates(entry: Entry, again: Sequence[EstimatedMetric], tolerance: float) -> list[Problem]:
    """Estimates that are not what the texts give, and rows beside them that are not the result's."""
    file, anew = entry.folder / "estimates.parquet", {metric_key(metric.row): metric for metric in again}
    rows = {metric_key(row): row for row in entry.result.metrics}
    problems = []
    for key in dict.fromkeys([*entry.estimates, *anew]):
        where = f"{file}: {_show(key)}"
        if key not in entry.estimates or key not in anew:
            problems.append(
                Problem(where, "a row" if key in entry.estimates else "none", "a row for each metric that has one")
            )
            continue
        if entry.estimates[key].row != rows.get(key):
            problems.append(Problem(f"{where}: row", "another row", "that of result.json"))
        a, b = entry.estimates[key].estimate, anew[key].estimate
        for field in _ARRAYS:
            x, y = getattr(a, field), getattr(b, field)
            # Effects without cells or concepts are empty, in whichever shape they were written.
            same = x.size == y.size == 0 or x.shape == y.shape
            if not same or not np.allclose(x, y.reshape(x.shape), rtol=0, atol=tolerance, equal_nan=True):
                problems.append(Problem(f"{where}: {field}", "other numbers", "those that the texts give"))
                break
        problems += [
            Problem(f"{where}: {field}", str(getattr(a, field)), str(getattr(b, field)))
            for field in _DESIGN_OF_ESTIMATE
            if getattr(a, field) != getattr(b, field)
        ]
    return problems


def check_labels(entry: Entry, other: Entry, labels: pd.DataFrame, theirs: pd.DataFrame) -> list[Problem]:
    """What decides which items count for what, against an entry of the same board.

    labels, theirs: one row per item, matched: the same number is the same item in both.
    """
    file, problems = entry.folder / "items.parquet", []
    for column in DESIGN:
        a, b = (table[column].astype(object).where(table[column].notna(), None).tolist() for table in (labels, theirs))
        differ = [number for number, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        if differ:
            problems.append(
                Problem(
                    f"{file}: item {labels['item_id'].iloc[differ[0]]}, {column}", repr(a[differ[0]]),
                    f"{b[differ[0]]!r} as in {other.folder}",
                )
            )  # fmt: skip
    moved = int((labels["outlier"].to_numpy() != theirs["outlier"].to_numpy()).sum())
    if moved > MOST_OUTLIERS * len(labels):
        problems.append(Problem(f"{file}: outlier", f"{moved} other outliers", f"those of {other.folder}"))
    record = entry.folder / "result.json"
    problems += [
        Problem(
            f"{record}: concepts, {mine.name}, {field}", str(getattr(mine, field)),
            f"{getattr(its, field)} as in {other.folder}",
        )
        for mine, its in zip(entry.result.concepts, other.result.concepts, strict=True)
        for field in ("excluded", "family", "title")
        if getattr(mine, field) != getattr(its, field)
    ]  # fmt: skip
    return problems


_ARRAYS = ("point", "by_concept", "by_prompt", "by_cell")
_DESIGN_OF_ESTIMATE = (
    "n_concepts", "n_prompts", "df_concept", "df_prompt", "df_cell", "crossed_prompts", "pools", "bounds", "scale",
)  # fmt: skip

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _agree(a: str, b: str) -> bool:
    """Whether two sentences are the same, but for what rounding makes of their numbers."""
    mine, theirs = _NUMBER.findall(a), _NUMBER.findall(b)
    return (
        _NUMBER.sub("#", a) == _NUMBER.sub("#", b)
        and len(mine) == len(theirs)
        and all(abs(float(x) - float(y)) <= ROUNDING for x, y in zip(mine, theirs, strict=True))
    )


def _show(key: Sequence[object]) -> str:
    return ", ".join(str(part) for part in key if part is not None)
