"""What a run did, as records: the verbalizers, concepts, scorers and arms, and everything that decided a number."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .behaviour import FALSE_DISCOVERY_RATE, GATE_VERSION, LEAST_DISTINCT_2, MOST_LOSS, NEW_TOKENS
from .extraction import Activations
from .item_table import ROWS_AT_A_TIME
from .records import ArmRecord, ConceptRecord, Provenance, ScorerRecord, VerbalizerRecord, finite
from .roster import PERMUTED, Roster
from .scored import Scored
from .scoring.base import Standardized
from .scoring.validation import ScorerValidity
from .store import array_fingerprint
from .study import Study
from .task import Task
from .transcript import OF_VECTORS, Measured, Transcript
from .verbalizers.asking import QUESTION, Asked
from .verbalizing import verbalizer_fingerprint

_SCORES = pa.list_(pa.float32())


def tabulate_items(transcript: Transcript, scored: Scored) -> Iterator[pa.Table]:
    """One row per item and verbalizer: its label, text, score rows, and what tasks measured (`task.column`).

    In blocks of rows that all have the same columns. Where a task asked a question of its own, those answers are rows
    too, every item's; `question` tells them from the others. The text of an item that the question was not asked of is
    empty, and no task scores it.
    """
    schema = _describe_columns(transcript, scored)
    for question, by_name in scored.scores.items():
        asked = transcript.asked(question)
        for name, scores in by_name.items():
            verbalizer = transcript.roster.verbalizers.get(name)
            answers = isinstance(verbalizer, Asked) and not verbalizer.fixed
            measured = _measured_beside(scored, question, name)
            for start in range(0, scores.shape[1], ROWS_AT_A_TIME):
                block = slice(start, start + ROWS_AT_A_TIME)
                said = asked.verbalized[name].texts[block]
                columns = {
                    **transcript.activations.labels.iloc[block].to_dict("series"),
                    "verbalizer": [name] * len(said),
                    "text": [v.text for v in said],
                    "logprob": [v.logprob for v in said],
                    "error": [v.error for v in said],
                    "samples": [v.samples or None for v in said],
                    "question": [question if answers else None] * len(said),
                    **{f"score_{s}": rows[block] for s, rows in zip(scored.scorer_names, scores, strict=True)},
                    **{column: values[block] for column, values in measured.items()},
                }
                yield pa.table(
                    [_as_column(columns.get(field.name), field.type, len(said)) for field in schema], schema=schema
                )


def _measured_beside(scored: Scored, question: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """What tasks measured of the vectors, and of a verbalizer's texts, as columns beside those texts."""
    columns = {}
    for task, measured in scored.measured.items():
        # Beside the texts that it was measured of: the answers to the task's own question, where there are any.
        answered = scored.asks[task] if name in scored.scores.get(scored.asks[task], {}) else QUESTION
        own = measured.get(name, {}) if question == answered else {}
        for column, values in {**measured.get(OF_VECTORS, {}), **own}.items():
            columns[f"{task}.{column}"] = values
    return columns


def _describe_columns(transcript: Transcript, scored: Scored) -> pa.Schema:
    """The columns of all rows, whichever of them a verbalizer leaves empty."""
    labels = pa.Schema.from_pandas(transcript.activations.labels, preserve_index=False)
    types = {field.name: pa.string() if pa.types.is_null(field.type) else field.type for field in labels}
    types |= {"verbalizer": pa.string(), "text": pa.string(), "logprob": pa.float64(), "error": pa.string()}
    if any(said.samples for verbalized in transcript.verbalized.values() for said in verbalized.texts):
        types["samples"] = pa.list_(pa.string())
    types |= dict.fromkeys((f"score_{name}" for name in scored.scorer_names), _SCORES)
    types["question"] = pa.string()
    for question, by_name in scored.scores.items():
        for name in by_name:
            for column, values in _measured_beside(scored, question, name).items():
                types[column] = _SCORES if values.ndim > 1 else pa.float64()
    return pa.schema(types)


def _as_column(values: Any, kind: pa.DataType, n_rows: int) -> pa.Array:
    """Values as a column, in which nan is an empty field; rows of numbers in float32. None: all fields are empty."""
    if values is None:
        return pa.nulls(n_rows, kind)
    if kind == _SCORES:
        starts = np.arange(n_rows + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(starts, values.astype(np.float32).ravel())
    return pa.array(values, kind, from_pandas=True)


def record_measured(measured: Mapping[str, Measured]) -> dict[str, dict[str, list[str]]]:
    """The names of the columns that tasks measured themselves, by task and verbalizer (see `Result.measured`)."""
    return {
        task: {name: list(columns) for name, columns in by_verbalizer.items()}
        for task, by_verbalizer in measured.items()
    }


def record_verbalizer(name: str, transcript: Transcript, tasks: Sequence[Task]) -> VerbalizerRecord:
    """How a verbalizer did as a program."""
    roster, verbalized = transcript.roster, transcript.verbalized[name]
    study, activations = transcript.study, transcript.activations
    verbalizer = roster.verbalizers.get(name)
    card = verbalizer.card if verbalizer is not None else roster.permuted[name][0]
    fingerprint = _fingerprint_of(name, roster)
    answered = [by_name[name] for by_name in transcript.answers.values() if name in by_name]
    errors = [text.error for said in (verbalized, *answered) for text in said.texts if text.error is not None]
    warnings = []
    if card.min_position is not None:
        shallow = int((activations.labels["position"] + len(study.preamble.ids) < card.min_position).sum())
        if shallow:
            warnings.append(f"{shallow} items lie below position {card.min_position}, where it was not trained")
    agreed, checked = verbalized.rerun_agreed, verbalized.rerun_checked
    if agreed is not None and checked is not None and agreed < checked:
        warnings.append(f"{checked - agreed} of {checked} texts changed when their item was verbalized alone")
    if errors:
        warnings.append(f"it failed on {len(errors)} items, which are scored as empty texts")
    flags = Counter(flag for text in verbalized.texts for flag in text.flags)
    warnings += [f"{n} of {len(verbalized.texts)} texts: {flag}" for flag, n in flags.most_common()]
    return VerbalizerRecord(
        card=card.model_dump(),
        fingerprint=fingerprint,
        n_texts=len(verbalized.texts),
        n_failed=len(errors),
        first_error=errors[0] if errors else "",
        distinct_texts=len({text.text for text in verbalized.texts}) / len(verbalized.texts),
        seconds=round(verbalized.seconds, 3),
        texts_per_second=round(verbalized.n_asked / verbalized.seconds, 2) if verbalized.seconds else None,
        rerun_checked=checked,
        rerun_agreed=agreed,
        warnings=warnings,
        questions=_record_questions(verbalizer, tasks),
    )


def _record_questions(verbalizer: Any, tasks: Sequence[Task]) -> dict[str, str]:
    """What each task asked of a verbalizer that answers questions."""
    if not isinstance(verbalizer, Asked):
        return {}
    return {task.name: verbalizer.question if verbalizer.fixed else task.asks for task in tasks}


def _fingerprint_of(name: str, roster: Roster) -> str:
    source = roster.permuted[name][1] if name in roster.permuted else name
    fingerprint = verbalizer_fingerprint(roster.verbalizers[source])
    return f"{PERMUTED}:{fingerprint}" if name in roster.permuted else fingerprint


def record_concept(study: Study, name: str) -> ConceptRecord:
    concept = next(c for c in study.pack.concepts if c.name == name)
    direction, upstream = study.directions[name], study.upstream_directions[name]
    return ConceptRecord(
        name=name,
        title=concept.title,
        family=concept.family,
        description=concept.description,
        method=direction.method,
        contrast=direction.contrast,
        split_half=finite(direction.split_half),
        split_half_upstream=finite(upstream.split_half),
        length=finite(direction.length),
        matched_r={f"{i}/{k}": finite(found[name].r) for (i, k), found in study.matched.items()},
        natural_evidence={f"{i}/{k}": found[name].natural for (i, k), found in study.matched.items()},
        excluded={f"{i}/{k}": reason for i, k in study.matched if (reason := study.exclusion(name, i, k))},
    )


def record_scorer(scorer: Standardized, validity: ScorerValidity) -> ScorerRecord:
    fields = asdict(validity)
    fields["foreign"] = finite(validity.foreign)
    del fields["scorer"], fields["n_naming"], fields["n_being"]
    fields["weakest"] = [(name, value) for name, value in validity.weakest]
    return ScorerRecord(name=scorer.name, fingerprint=scorer.fingerprint, ranks=validity.passes, **fields)


def record_arms(labels: pd.DataFrame) -> list[ArmRecord]:
    strength = labels["r"].where((labels["level"] == "grid") & (labels["injection"] != "none"), -1.0)
    records = []
    for key, group in labels.groupby(["arm", "injection", "level", "kind", strength], sort=True):
        arm, injection, level, kind, r = key
        records.append(
            ArmRecord(
                arm=str(arm), injection=str(injection), level=str(level), kind=str(kind),
                r=None if r < 0 else float(r),
                n_items=len(group),
                n_outliers=int(group["outlier"].sum()),
                norm=float(group["norm"].mean()),
                displacement=float(group["displacement"].mean()),
                angle=float(group["angle"].mean()),
                evidence=None if group["evidence"].isna().all() else float(group["evidence"].mean()),
            )
        )  # fmt: skip
    return records


def record_provenance(
    study: Study,
    activations: Activations,
    tasks: Sequence[Task],
    arguments: dict[str, Any],
    started: float,
    resamples: int,
) -> Provenance:
    libraries = ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy", "scipy", "datasets")
    return Provenance(
        nlabench=_version("nlabench"),
        suite=study.suite.model_dump(mode="json"),
        tasks={task.name: task.version for task in tasks},
        subject=study.subject.name,
        subject_fingerprint=study.subject.fingerprint,
        subject_blocks=study.subject.n_blocks,
        dtype=str(study.subject.dtype).removeprefix("torch."),
        device=str(study.subject.device),
        layer=study.site.layer,
        d_model=study.site.d_model,
        injection_layer=study.injection_layer,
        preamble_tokens=len(study.preamble.ids),
        readout_prompts=[prompt.text.id for prompt in study.readout_prompts],
        pack=study.pack.name,
        pack_fingerprint=study.pack.fingerprint(),
        vectors_fingerprint=array_fingerprint(activations.vectors.numpy()),
        seed=study.suite.seed,
        resamples=resamples,
        libraries={name: _version(name) for name in libraries},
        python=platform.python_version(),
        git=_git_commit(),
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - started, 1),
        arguments=arguments,
        gate={
            "version": GATE_VERSION,
            "most_loss": MOST_LOSS,
            "least_distinct_2": LEAST_DISTINCT_2,
            "false_discovery_rate": FALSE_DISCOVERY_RATE,
            "new_tokens": NEW_TOKENS,
        },
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
