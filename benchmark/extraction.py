"""From item specs to vectors: states that were read are looked up, readout steering is added, upstream is restarted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from .activations import ItemSpec, Readout, check_vectors
from .engine import Chunk, Engine
from .restart import restart_upstream
from .steering import add_at_readout, unit
from .store import Payload, array_fingerprint, content_key
from .study import Study

#: Bump when the way items are made changes.
EXTRACTION_VERSION = 1


@dataclass(frozen=True)
class Activations:
    """The items of a run: vectors [n_items, d_model] (float32), their sealed labels and their specs, in one order."""

    vectors: Tensor
    labels: pd.DataFrame
    specs: tuple[ItemSpec, ...] = ()

    def select(self, rows: NDArray[np.int64]) -> Activations:
        """Some of the items, in the order of their row numbers."""
        specs = tuple(self.specs[row] for row in rows)
        return Activations(self.vectors[rows], self.labels.iloc[rows].reset_index(drop=True), specs)


def make_activations(study: Study, specs: Iterable[ItemSpec], engine: Engine) -> Activations:
    """Make every item once, in a shuffled order (by opaque id), with its label and measured displacement.

    Raises:
        BadInput: a vector is not finite or zero.
    """
    ids = {spec.item_id(study.suite.seed): spec for spec in specs}
    ordered = [ids[key] for key in sorted(ids)]
    upstream = [spec for spec in ordered if spec.injection == "upstream"]
    moved = _make_upstream(study, upstream, engine)
    vectors = torch.stack(
        [moved[spec] if spec.injection == "upstream" else _make_at_readout(study, spec) for spec in ordered]
    )
    check_vectors(vectors, f"subject {study.subject.name!r}")
    return Activations(vectors, _label(study, sorted(ids), ordered, vectors), tuple(ordered))


def _make_at_readout(study: Study, spec: ItemSpec) -> Tensor:
    state = study.state(spec.readout)
    if spec.arm in ("natural", "neutral"):
        return state
    if spec.arm == "gaussian":
        generator = torch.Generator().manual_seed(1_000_003 * (study.suite.seed + 1) + spec.draw)
        noise = torch.randn(state.shape, generator=generator)
        return torch.mul(unit(noise), state.norm())
    if spec.level == "full":
        return study.state(_paired(spec))
    return add_at_readout(state[None], readout_direction(study, spec)[None], spec.r)[0]


def readout_direction(study: Study, spec: ItemSpec) -> Tensor:
    """The unit direction [d_model] that a spec moves along at the readout."""
    if spec.arm == "steered":
        return study.directions[spec.concept or ""].vector
    if spec.arm == "permuted":
        return study.permuted[spec.draw]
    if spec.arm == "random":
        return study.random[spec.draw]
    target = _paired(spec) if spec.arm == "graft_concept" else _graft_partner(study, spec)
    return unit(study.state(target) - study.state(spec.readout))


def _paired(spec: ItemSpec) -> Readout:
    if spec.pair is None:
        raise ValueError(f"{spec.arm} item without the readout that it is paired with: {spec}")
    return spec.pair


def graft_target(prompt: int, draw: int, n_prompts: int) -> int:
    """The number of the readout prompt toward whose state a prompt is grafted: another one, by the draw."""
    return (prompt + 1 + draw % (n_prompts - 1)) % n_prompts


def _graft_partner(study: Study, spec: ItemSpec) -> Readout:
    """Another readout prompt's activation at the same word where there is one, else at its last function word."""
    numbers = [prompt.text.id for prompt in study.readout_prompts]
    other = study.readout_prompts[graft_target(numbers.index(spec.readout.text_id), spec.draw, len(numbers))]
    same = [readout for readout in other.function if readout.word == spec.readout.word]
    return same[-1] if same else other.function[-1]


def _make_upstream(study: Study, specs: Sequence[ItemSpec], engine: Engine) -> dict[ItemSpec, Tensor]:
    """All upstream items, one chunk of work per readout.

    Row 0 of every restart is r = 0 and the displacement is measured from it. The random arm is scaled at the read site
    to the mean displacement of all concepts' directions at the same r: an isotropic shift of the same λ is damped or
    amplified by the blocks in its own way, and the comparison is at equal distance.
    """
    groups: dict[Readout, list[ItemSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.readout, []).append(spec)
    concepts = torch.stack([study.upstream_directions[name].vector for name in study.pack.names])
    plans = [_plan_restart(study, readout, group, concepts) for readout, group in groups.items()]
    payloads = engine.run("steering upstream (states)", plans)
    made: dict[ItemSpec, Tensor] = {}
    for group, payload in zip(groups.values(), payloads, strict=True):
        states = torch.from_numpy(payload.arrays["states"])
        neutral, strengths = states[0], _random_strengths(group)
        by_strength = states[1 : 1 + len(strengths) * len(concepts)].reshape(
            len(strengths), len(concepts), neutral.numel()
        )
        wanted = dict(zip(strengths, (by_strength - neutral).norm(dim=-1).mean(-1), strict=True))
        for spec, state in zip(group, states[1 + len(strengths) * len(concepts) :], strict=True):
            shift = state - neutral
            made[spec] = neutral + shift * (wanted[spec.r] / shift.norm()) if spec.arm == "random" else state
    return made


def _random_strengths(group: Sequence[ItemSpec]) -> list[float]:
    return sorted({spec.r for spec in group if spec.arm == "random"})


def _plan_restart(study: Study, readout: Readout, group: Sequence[ItemSpec], concepts: Tensor) -> Chunk:
    """One readout under every shift of a group: r = 0, then all concepts per strength of the random arm, then the
    group's own."""
    norm = study.readings.upstream_norm
    shifts = [torch.zeros(1, study.subject.d_model)]
    shifts += [concepts * (r * norm) for r in _random_strengths(group)]
    for spec in group:
        if spec.arm == "steered":
            direction = study.upstream_directions[spec.concept or ""].vector
        else:
            direction = (study.permuted_upstream if spec.arm == "permuted" else study.random_upstream)[spec.draw]
        shifts.append((direction * (spec.r * norm))[None])
    rows = torch.cat(shifts)
    ids = study.texts[readout.text_id].ids[: readout.index + 1]
    layers = study.injection_layer, study.site.layer
    key = content_key(
        version=EXTRACTION_VERSION, **study.reading_key(), layers=layers, ids=ids,
        shifts=array_fingerprint(rows.numpy()),
    )  # fmt: skip

    def restart() -> Payload:
        return Payload({"states": restart_upstream(study.subject, study.preamble, ids, rows, *layers).numpy()})

    return Chunk("upstream", key, len(rows), restart)


def _label(study: Study, ids: Sequence[str], specs: Sequence[ItemSpec], vectors: Tensor) -> pd.DataFrame:
    low, high = study.norm_bounds()
    rows = []
    for item_id, spec, vector in zip(ids, specs, vectors, strict=True):
        origin = study.state(spec.readout)
        shift = vector - origin
        cosine = float(torch.cosine_similarity(vector, origin, dim=0).clamp(-1, 1))
        unsteered = float(origin.norm())
        held = {
            name: float(vector @ study.directions[name].vector / vector.norm())
            for name in ([spec.concept] if spec.concept else [])
        }
        rows.append(
            {
                "item_id": item_id,
                "arm": spec.arm,
                "injection": spec.injection,
                "level": spec.level,
                "concept": spec.concept,
                "prompt": spec.readout.text_id,
                "position": spec.readout.index,
                "kind": spec.readout.kind,
                "word": spec.readout.word,
                "r": float(shift.norm()) / unsteered if spec.level == "full" else spec.r,
                "draw": spec.draw,
                "pair": f"{spec.pair.text_id}@{spec.pair.index}" if spec.pair else None,
                "norm": float(vector.norm()),
                "unsteered_norm": unsteered,
                "displacement": float(shift.norm()) / unsteered,
                "angle": math.degrees(math.acos(cosine)),
                "evidence": held.get(spec.concept or "", math.nan),
                "outlier": not low <= unsteered <= high,
            }
        )
    return pd.DataFrame(rows)
