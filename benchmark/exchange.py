"""Verbalizers that live elsewhere: export activations blind, and score the texts that come back.

The export holds opaque ids, vectors and the site, in shuffled order. The labels stay in the run's `sealed` folder.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .activations import ActivationBatch, Site
from .concepts import ConceptPack
from .engine import Report
from .errors import BadInput
from .extraction import Activations
from .looking_ahead import look_ahead
from .planning import Plan
from .records import Result
from .roster import load_roster
from .runner import Bench, RunSettings, complete_run, plan_run, set_up
from .store import array_fingerprint, content_key, write_atomically
from .study import Study
from .verbalizers.base import VerbalizerCard
from .verbalizers.from_file import read_texts

EXPORT = Path("export") / "activations.parquet"
LABELS = Path("sealed") / "labels.parquet"
RUN_FILE = "run.json"


def export_activations(
    settings: RunSettings,
    out: Path,
    *,
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
    show_plan: Callable[[Plan, Bench], None] | None = None,
) -> Path:
    """Make a run's activations and write them without labels. Returns the parquet file.

    Columns: item_id, activation_vector (list of float32), subject, layer (site K: hidden_states[K + 1]), d_model. One
    item is the mean neutral activation, for the average-direction floor.

    Raises:
        BadInput: see `set_up`.
    """
    bench = set_up(settings, pack=pack, say=say, report=report)
    if show_plan:
        show_plan(plan_run(bench, None, look_ahead(bench.store, bench.measure)), bench)
    study, activations = bench.measure()
    vectors, ids = _exported(study, activations)
    table = pd.DataFrame(
        {
            "item_id": ids,
            "activation_vector": [vector.numpy() for vector in vectors],
            "subject": study.site.subject,
            "layer": study.site.layer,
            "d_model": study.site.d_model,
        }
    )
    settings_record = {"settings": asdict(settings), "vectors": array_fingerprint(activations.vectors.numpy())}
    write_atomically(out / LABELS, _parquet(activations.labels))
    write_atomically(out / RUN_FILE, json.dumps(settings_record, indent=1))
    write_atomically(out / EXPORT, _parquet(table))
    return out / EXPORT


def score_file(
    run: Path,
    texts: Path,
    card: VerbalizerCard,
    *,
    pack: ConceptPack | None = None,
    say: Callable[[str], None] = print,
    report: Report = lambda _: None,
) -> Result:
    """Score a file of texts for an exported run; the numbers are those of an in-process run of the same verbalizer.

    Raises:
        BadInput: no export there, an export made with other code or weights, or a file of texts that does not fit.
    """
    try:
        record = json.loads((run / RUN_FILE).read_text())
    except OSError as error:
        raise BadInput(
            f"There is no exported run at {run}: {error}. `nlabench export --out {run}` makes one."
        ) from error
    stored = record["settings"]
    bench = set_up(RunSettings(**{**stored, "scorers": tuple(stored["scorers"])}), pack=pack, say=say, report=report)
    study, activations = bench.measure()
    if array_fingerprint(activations.vectors.numpy()) != record["vectors"]:
        raise BadInput(
            f"The activations of {run} cannot be made again: the subject's weights, the pack or the code have changed "
            "since they were exported. Export again, verbalize, and score with the same version of nlabench."
        )
    vectors, ids = _exported(study, activations)
    by_id = {item_id: array_fingerprint(vector.numpy()) for item_id, vector in zip(ids, vectors, strict=True)}
    verbalizer = read_texts(texts, by_id, card)
    return complete_run(bench, study, activations, load_roster([verbalizer], study), scored_folder(run, card.name))


def scored_folder(run: Path, name: str) -> Path:
    """Where the result of a verbalizer that was scored from a file lies: one folder each, so that none is lost."""
    return run / "scored" / re.sub(r"[^\w.-]+", "-", name)


def read_export(file: Path) -> tuple[list[str], ActivationBatch]:
    """The ids and vectors of an exported `activations.parquet`, for whoever verbalizes them in Python.

    Raises:
        BadInput: the file is not an export.
    """
    try:
        table = pd.read_parquet(file)
        vectors = torch.from_numpy(np.stack(table["activation_vector"].tolist()).astype(np.float32))
        site = Site(str(table["subject"][0]), int(table["layer"][0]), int(table["d_model"][0]))
        return table["item_id"].tolist(), ActivationBatch(vectors, site)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{file} is not an export of activations: {error}. `nlabench export` writes one.") from error


def _exported(study: Study, activations: Activations) -> tuple[torch.Tensor, list[str]]:
    """The items of a run and the mean neutral activation among them, ordered by opaque id."""
    average = study.reference_vectors().mean(0, keepdim=True)
    average_id = content_key(what="average", seed=study.suite.seed)[:16]
    vectors = torch.cat([activations.vectors, average])
    ids = [*activations.labels["item_id"], average_id]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return vectors[order], [ids[i] for i in order]


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
