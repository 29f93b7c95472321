"""The result of a run: a versioned schema, in which everything that decides a number is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .errors import BadInput
from .statistics import Estimate, Interval
from .store import write_atomically

SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricRow(_Record):
    """One number with its interval. A number that is not defined is null, and `note` says why."""

    task: str
    metric: str
    verbalizer: str
    scorer: str
    #: Which items: an arm (or "steered-natural" for a paired difference), its injection, level and kind of position.
    arm: str
    injection: str = "none"
    level: str = "grid"
    kind: str = "function"
    #: Relative strength; null where the cell holds no single one (matched evidence: each concept has its own).
    r: float | None = None
    #: A concept or family; null for the macro value.
    group: str | None = None
    #: The verbalizer that the value is a paired difference from, on the same items; null for a value of its own.
    versus: str | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    n_items: int = 0
    n_concepts: int = 0
    n_prompts: int = 0
    #: r50 only: the end of the grid, where the value or the upper bound lies beyond it ("> r_max").
    censored_at: float | None = None
    note: str = ""

    @model_validator(mode="after")
    def _finite(self) -> MetricRow:
        numbers = (self.value, self.low, self.high, self.r)
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise ValueError("numbers are finite or null")
        return self


class ConceptRecord(_Record):
    """What was measured of a concept's direction, whatever the verbalizer."""

    name: str
    title: str
    family: str
    description: str
    method: str
    contrast: str
    split_half: float | None
    split_half_upstream: float | None
    length: float | None
    #: Matched strength by "injection/kind"; null where there is none, with the reason.
    matched_r: dict[str, float | None]
    natural_evidence: dict[str, float]
    excluded: dict[str, str]


class GateRow(_Record):
    """The behaviour gate for one concept at one strength."""

    concept: str
    r: float
    score: float
    permuted: float
    p: float
    q: float
    loss: float | None
    distinct_2: float
    steers: bool
    example: str


class SaidRow(_Record):
    """Whether a verbalizer's texts say a concept that was steered upstream at one strength (see `said`)."""

    verbalizer: str
    scorer: str
    concept: str
    r: float
    score: float
    permuted: float
    p: float
    q: float
    said: bool
    n_prompts: int


class ScorerRecord(_Record):
    """A scorer's validity on the pack's *validation* texts (see scoring/validation.py)."""

    name: str
    fingerprint: str
    ranks: bool
    naming: float
    being: float
    empty: float
    all_concepts: float
    negated: float
    stuffed: float
    foreign: float | None
    naming_top1: float
    being_top1: float
    weakest: list[tuple[str, float]]
    #: False where the pack does not say which texts name their concept: `naming` and `being` are then one figure.
    forms_marked: bool = True


class VerbalizerRecord(_Record):
    """How a verbalizer did as a program, beside how its texts scored."""

    card: dict[str, Any]
    fingerprint: str
    n_texts: int
    n_failed: int
    first_error: str = ""
    distinct_texts: float
    seconds: float
    texts_per_second: float | None
    #: Items verbalized again, one at a time, and how many of those texts agreed; null where it cannot be done.
    rerun_checked: int | None
    rerun_agreed: int | None
    warnings: list[str] = []
    #: Of a verbalizer that answers questions: what each task asked.
    questions: dict[str, str] = {}


class ArmRecord(_Record):
    """Geometry of one cell of items: where its activations lie."""

    arm: str
    injection: str
    level: str
    kind: str
    r: float | None
    n_items: int
    n_outliers: int
    norm: float
    displacement: float
    angle: float
    evidence: float | None


class Provenance(_Record):
    """Everything that decides a number."""

    nlabench: str
    suite: dict[str, Any]
    tasks: dict[str, str]
    subject: str
    subject_fingerprint: str
    subject_blocks: int
    dtype: str
    device: str
    layer: int
    d_model: int
    injection_layer: int
    preamble_tokens: int
    #: Ids of the neutral prompts in the order in which they are numbered, and resampled; results of nlabench before
    #: this was recorded have none.
    readout_prompts: list[str] = []
    pack: str
    pack_fingerprint: str
    vectors_fingerprint: str
    seed: int
    resamples: int
    libraries: dict[str, str]
    python: str
    git: str | None
    started: str
    seconds: float
    arguments: dict[str, Any]
    #: The behaviour gate's bounds.
    gate: dict[str, float] = {}
    #: When and by which version the numbers were made again from the texts, where that was not in the run itself.
    rescored: str = ""


class Result(_Record):
    """`result.json`. The headline scorer is the first in `scorers` that ranks."""

    schema_version: Literal[1] = 1
    status: Literal["self-reported", "verified"] = "self-reported"
    provenance: Provenance
    #: What was found, in sentences that follow from the numbers.
    findings: list[str]
    scorers: list[ScorerRecord]
    scorer_agreement: list[tuple[str, str, float]]
    verbalizers: dict[str, VerbalizerRecord]
    concepts: list[ConceptRecord]
    gate: list[GateRow]
    #: Beside the gate, by the headline scorer: is what steers also said?
    said: list[SaidRow] = []
    arms: list[ArmRecord]
    excluded_items: dict[str, int]
    #: Which columns of `items.parquet` hold what a task measured itself, named `task.column`: by task and verbalizer,
    #: "" where it was measured of the vectors, whoever verbalizes them.
    measured: dict[str, dict[str, list[str]]] = {}
    metrics: list[MetricRow]

    @property
    def headline_scorer(self) -> str:
        """The first scorer that passed its gate; the first of all where none did (and the findings say so)."""
        return next((s.name for s in self.scorers if s.ranks), self.scorers[0].name)

    def select(self, **conditions: Any) -> list[MetricRow]:
        """The metric rows whose fields equal the conditions."""
        return [row for row in self.metrics if all(getattr(row, k) == v for k, v in conditions.items())]

    def one(self, **conditions: Any) -> MetricRow | None:
        """The one metric row that fits, or None."""
        found = self.select(**conditions)
        if len(found) > 1:
            raise ValueError(f"{len(found)} metric rows fit {conditions}; expected one. Name more fields.")
        return found[0] if found else None


def write_result(result: Result, file: Path) -> None:
    """Write `result.json` atomically. Raises BadInput where it cannot be written."""
    write_atomically(file, result.model_dump_json(indent=1))


def read_result(file: Path) -> Result:
    """Read a `result.json`.

    Raises:
        BadInput: not there, not a result, or of another schema version.
    """
    try:
        return Result.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"There is no result at {file}: {error.strerror}. `nlabench run` writes one.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"{file} is not a result of schema version {SCHEMA_VERSION}: {'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}. Run it again with this version of nlabench."
        ) from error


def metric_row(interval: Interval, **fields: Any) -> MetricRow:
    """A metric row from an interval; infinite and undefined numbers become null."""
    notes = "; ".join(note for note in (interval.note, fields.pop("note", "")) if note)
    row = MetricRow(
        value=finite(interval.estimate), low=finite(interval.low), high=finite(interval.high),
        n_concepts=interval.n_concepts, n_prompts=interval.n_prompts, note=notes, **fields,
    )  # fmt: skip
    kept = _KEPT.get()
    if kept is not None and interval.source is not None:
        kept.append(EstimatedMetric(row, interval.source.at(interval.number)))
    return row


@dataclass(frozen=True)
class EstimatedMetric:
    """A metric row with the Estimate of one set that its interval was computed from."""

    row: MetricRow
    estimate: Estimate


@dataclass(frozen=True)
class MetricPair:
    """One metric of two runs on the same items: rows that differ in the verbalizer alone."""

    baseline: EstimatedMetric
    candidate: EstimatedMetric


_KEPT: ContextVar[list[EstimatedMetric] | None] = ContextVar("kept", default=None)


@contextmanager
def keep_estimates() -> Iterator[list[EstimatedMetric]]:
    """Within it, `metric_row` keeps what each row's interval was computed from, for whoever pairs rows.

    A task returns rows, and two rows' intervals do not give their difference's. Not kept otherwise: the Estimates of a
    whole run take gigabytes.
    """
    kept: list[EstimatedMetric] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def finite(number: float) -> float | None:
    """The number, or None where it is infinite or undefined."""
    return float(number) if math.isfinite(number) else None
