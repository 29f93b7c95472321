"""What a run did, as records: the verbalizers, concepts, scorers and arms, and everything that decided a number."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .behaviour import FALSE_DISCOVERY_RATE, GATE_VERSION, LEAST_DISTINCT_2, MOST_LOSS, NEW_TOKENS
from .extraction import Activations
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


def tabulate_items(transcript: Transcript, scored: Scored) -> pd.DataFrame:
    """One row per item and verbalizer: its label, text, score rows, and what tasks measured (`task.column`).

    Where a task asked a question of its own, those answers are rows too, every item's; `question` tells them from the
    others. The text of an item that the question was not asked of is empty, and no task scores it.
    """
    tables = []
    for question, by_name in scored.scores.items():
        asked = transcript.asked(question)
        for name, rows in by_name.items():
            table = _tabulate(asked, name, rows, scored.scorer_names)
            verbalizer = transcript.roster.verbalizers.get(name)
            table["question"] = question if isinstance(verbalizer, Asked) and not verbalizer.fixed else None
            for task, measured in scored.measured.items():
                # Beside the texts that it was measured of: the answers to the task's own question, where there are any.
                answered = scored.asks[task] if name in scored.scores.get(scored.asks[task], {}) else QUESTION
                own = measured.get(name, {}) if question == answered else {}
                for column, values in {**measured.get(OF_VECTORS, {}), **own}.items():
                    table[f"{task}.{column}"] = list(values.astype(np.float32)) if values.ndim > 1 else values
            tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    return joined.astype({"logprob": "float64", "error": "object"})


def record_measured(measured: Mapping[str, Measured]) -> dict[str, dict[str, list[str]]]:
    """The names of the columns that tasks measured themselves, by task and verbalizer (see `Result.measured`)."""
    return {
        task: {name: list(columns) for name, columns in by_verbalizer.items()}
        for task, by_verbalizer in measured.items()
    }


def _tabulate(
    transcript: Transcript, name: str, scores: np.ndarray[Any, np.dtype[np.float64]], scorer_names: Sequence[str]
) -> pd.DataFrame:
    texts = transcript.verbalized[name].texts
    table = transcript.activations.labels.assign(
        verbalizer=name,
        text=[v.text for v in texts],
        logprob=[v.logprob for v in texts],
        error=[v.error for v in texts],
    )
    if any(v.samples for v in texts):
        table["samples"] = [list(v.samples) for v in texts]
    for scorer, rows in zip(scorer_names, scores, strict=True):
        table[f"score_{scorer}"] = list(rows.astype(np.float32))
    return table


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
