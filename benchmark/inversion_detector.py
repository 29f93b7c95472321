"""The inversion ratio: a detector that is given the prompt, and asks whether any next token gives the state.

After the item's own prompt, up to its readout, every token of the vocabulary is tried (see `inversion_scan`). Where
nothing was moved, one of them gives the state within float32's rounding, and the second lies thousands of times as
far. A moved state lies about as far from the nearest as it was moved, and the second hardly farther.

The other detectors see a vector. This one sees the text before the readout as well, and the unmoved state is among what
it compares with: what it shows is that a state was moved *here*, and not that anything looks strange by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .activations import ItemSpec, Readout
from .engine import Chunk, Engine
from .inversion_scan import Scanner
from .store import Payload, array_fingerprint, content_key
from .study import Study
from .subject import Prefix, Subject

Floats = NDArray[np.float64]

#: Bump when the way the vocabulary is scanned for items changes.
SCAN_VERSION = 1

#: A distance below this share of the vector's own norm is float32's rounding and counts as this much: an exact hit has
#: no infinite ratio then, which would be no number to rank.
LEAST_SHARE = float(torch.finfo(torch.float32).eps)


def can_scan(study: Study) -> bool:
    """Whether a study's subject is in float32: in bfloat16 not even an unmoved state comes back."""
    return study.subject.dtype == torch.float32


def measure_inversion(study: Study, specs: Sequence[ItemSpec], vectors: Tensor, engine: Engine) -> Floats:
    """−log(second / nearest distance) of every item that is read in a readout prompt [n]; nan for the others.

    specs, vectors [n, d_model]: the items, as they were made. Higher: more likely moved; 0 is the most that there is.
    One scan of the vocabulary for each readout serves all of its items; a natural text would need one of its own.

    Raises:
        BadInput: the subject is not in float32 (see `can_scan`).
    """
    found = np.full(len(specs), np.nan)
    payloads = engine.run("scanning the vocabulary after each prompt (tokens)", plan_scans(study, specs, vectors))
    for own, payload in zip(find_scanned(study, specs).values(), payloads, strict=True):
        found[own] = -log_ratio(payload.arrays["distances"].astype(np.float64), vectors[own])
    return found


def find_scanned(study: Study, specs: Sequence[ItemSpec]) -> dict[Readout, list[int]]:
    """The readouts after which the vocabulary is scanned, each with the rows of its items."""
    prompts = {prompt.text.id for prompt in study.readout_prompts}
    rows: dict[Readout, list[int]] = {}
    for row, spec in enumerate(specs):
        if spec.readout.text_id in prompts:
            rows.setdefault(spec.readout, []).append(row)
    return rows


def plan_scans(study: Study, specs: Sequence[ItemSpec], vectors: Tensor) -> list[Chunk]:
    """The scans that serve these items, one for each readout of `find_scanned`. vectors: [n, d_model]."""
    return [_plan_scan(study, readout, vectors[own]) for readout, own in find_scanned(study, specs).items()]


def log_ratio(distances: Floats, vectors: Tensor) -> Floats:
    """log(second / nearest) of distances [n, 2], nearest first, from vectors [n, d_model]."""
    least = LEAST_SHARE * vectors.double().norm(dim=-1).numpy()
    nearest, second = np.maximum(distances, least[:, None]).T
    ratio: Floats = np.log(second / nearest)
    return ratio


def _plan_scan(study: Study, readout: Readout, targets: Tensor) -> Chunk:
    """The tokens tried at one readout, after the preamble and the prompt's tokens before it."""
    ids, layer = study.texts[readout.text_id].ids[: readout.index], study.site.layer
    key = content_key(
        version=SCAN_VERSION, **study.reading_key(), layer=layer, ids=ids, targets=array_fingerprint(targets.numpy())
    )
    scan = partial(_scan_chunk, study.subject, study.preamble, ids, layer, targets)
    return Chunk("inversion_ratios", key, study.subject.vocab_size, scan)


def _scan_chunk(subject: Subject, preamble: Prefix, ids: tuple[int, ...], layer: int, targets: Tensor) -> Payload:
    scanner = Scanner(subject, layer, prescan=True)
    prefix = subject.make_prefix(ids, layer, after=preamble)
    found = scanner.scan(prefix, targets, k=2)
    return Payload({"distances": found.distances.numpy(), "tokens": found.tokens.numpy()})
