"""A study: one subject, site and pack, read and measured, from which every task takes its items.

Everything here is computed once and kept in the store by content: the states of the pack's texts, the directions and
their controls, and the matched strengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .activations import Injection, PositionKind, Readout, Site, check_vectors
from .concepts import ConceptPack, Text
from .engine import Chunk, Engine
from .errors import BadInput
from .evidence import MatchedEvidence, match_at_readout, match_on_grid
from .reading import TokenizedText, make_preamble, pool_states, read_states, tokenize
from .restart import restart_upstream
from .steering import (
    LEAST_SPLIT_HALF,
    Direction,
    extract_directions,
    load_directions,
    permuted_directions,
    random_directions,
)
from .store import Payload, array_fingerprint, content_key, merge_arrays
from .subject import Prefix, Subject
from .suites import Suite

#: Bump when the way states are read changes: old files in the store are then never used.
READING_VERSION = 1

#: Draws of each control direction; the readout prompts take them in turn.
CONTROL_DRAWS = 8

#: Reference prompts on which upstream evidence is measured.
CALIBRATION_PROMPTS = 4

#: An unsteered norm further from the median than this many (scaled) median absolute deviations is an outlier.
NORM_CUT = 6.0

TEXTS_PER_CHUNK = 96


@dataclass(frozen=True)
class Readings:
    """States of texts: at every readout position of the site, and pooled over the text at both layers.

    at: {readout: [d_model]}; pooled: {text id: [d_model]} at the site; pooled_upstream: the same at the injection
    layer. upstream_norm: the median norm of a token at the injection layer.
    """

    at: dict[Readout, Tensor]
    pooled: dict[str, Tensor]
    pooled_upstream: dict[str, Tensor]
    upstream_norm: float


@dataclass(frozen=True)
class Study:
    """Everything that tasks and verbalizers of the benchmark draw on. Vectors are float32 on the CPU."""

    subject: Subject
    suite: Suite
    pack: ConceptPack
    site: Site
    injection_layer: int
    preamble: Prefix
    texts: dict[str, TokenizedText]
    readings: Readings
    readout_prompts: tuple[TokenizedText, ...]
    directions: dict[str, Direction]
    upstream_directions: dict[str, Direction]
    permuted: Tensor  # [CONTROL_DRAWS, d_model], unit, at the site
    permuted_upstream: Tensor
    random: Tensor
    random_upstream: Tensor
    matched: dict[tuple[Injection, PositionKind], dict[str, MatchedEvidence]]

    def reading_key(self) -> dict[str, Any]:
        """What decides a state beside the text and the layer: part of every key in the store."""
        subject = self.subject
        return {
            "subject": subject.fingerprint, "dtype": str(subject.dtype), "device": subject.device.type,
            "preamble": self.preamble.ids,
        }  # fmt: skip

    def state(self, readout: Readout) -> Tensor:
        """The state [d_model] at a readout. One of the kind `mid` is a function word's, read once."""
        return self.readings.at[replace(readout, kind="function") if readout.kind == "mid" else readout]

    def late_readouts(self, text_id: str) -> list[Readout]:
        """Function words in the second half of a text (all of them where it has none there): the concept has been
        expressed by then."""
        text = self.texts[text_id]
        late = [readout for readout in text.function if readout.index >= len(text.ids) / 2]
        return late or list(text.function)

    def reference_vectors(self) -> Tensor:
        """States of neutral *reference* prompts at function words and last tokens [n, d_model]."""
        return torch.stack(
            [self.readings.at[r] for text in self.pack.neutral["reference"] for r in self.texts[text.id].readouts]
        )

    def purpose_states(self, purpose: str, concept: str, kind: PositionKind) -> Tensor:
        """States of a concept's texts of one purpose, at one kind of position [n, d_model]."""
        chosen = next(c for c in self.pack.concepts if c.name == concept)
        texts = chosen.texts[purpose]  # type: ignore[index]
        return torch.stack([self.readings.at[r] for text in texts for r in self._readouts(text.id, kind)])

    def neutral_states(self, purpose: str, kind: PositionKind) -> Tensor:
        """States of neutral prompts of one purpose, at one kind of position [n, d_model]."""
        texts = self.pack.neutral[purpose]  # type: ignore[index]
        return torch.stack([self.readings.at[r] for text in texts for r in self._readouts(text.id, kind)])

    def _readouts(self, text_id: str, kind: PositionKind) -> Sequence[Readout]:
        return [self.texts[text_id].final] if kind == "final" else self.late_readouts(text_id)

    def exclusion(self, concept: str, injection: Injection, kind: PositionKind) -> str:
        """Why a concept is left out of the headline for this injection and kind of position ("" if it is in)."""
        used = [self.directions[concept]]
        if injection == "upstream":  # v̂ at the site measures the evidence, its own block's direction is what is added
            used.append(self.upstream_directions[concept])
        least = min(direction.split_half for direction in used)
        if least < LEAST_SPLIT_HALF:
            return f"split-half cosine {least:.2f} < {LEAST_SPLIT_HALF}"
        return self.matched[injection, kind][concept].reason

    def norm_bounds(self) -> tuple[float, float]:
        """The range of unsteered norms that are not outliers (natural texts and neutral prompts together)."""
        norms = torch.stack([state.norm() for state in self.readings.at.values()]).log()
        centre = norms.median()
        spread = 1.4826 * (norms - centre).abs().median()
        return float((centre - NORM_CUT * spread).exp()), float((centre + NORM_CUT * spread).exp())


def sketch_study(
    subject: Subject,
    pack: ConceptPack,
    suite: Suite,
    *,
    layer: int | None = None,
    injection_layer: int | None = None,
) -> Study:
    """A study before anything is read: its texts, prompts and layers, enough to say which items a run will make.

    Matched strengths are stand-ins (about the smallest of the grid, no two alike, as measured ones are); directions and
    states are absent.

    Raises:
        BadInput: a layer is out of range, or the pack is too small for the suite or cannot be read at function words.
    """
    site_layer = subject.check_layer(default_layer(subject) if layer is None else layer)
    upstream = subject.check_layer(max((site_layer + 1) // 2 - 1, 0) if injection_layer is None else injection_layer)
    if upstream >= site_layer or site_layer == 0:
        raise BadInput(
            f"The injection layer {upstream} is not before the site's layer {site_layer}. Choose an earlier one "
            f"(half the site's depth is {(site_layer + 1) // 2 - 1})."
        )
    chosen = pack.select(suite.n_concepts)
    texts = {t.text.id: t for t in tokenize(subject, _texts_to_read(chosen))}
    _check_readable(chosen, texts)
    ends: list[tuple[Injection, PositionKind]] = [("readout", "function"), ("readout", "final")]
    ends += [("upstream", "function")] if suite.upstream_strengths else []
    some = {name: suite.strengths[0] * (1 + number / 1000) for number, name in enumerate(chosen.names)}
    none = torch.empty(0, subject.d_model)
    return Study(
        subject=subject,
        suite=suite,
        pack=chosen,
        site=Site(subject.name, site_layer, subject.d_model),
        injection_layer=upstream,
        preamble=make_preamble(subject, site_layer),
        texts=texts,
        readings=Readings({}, {}, {}, math.nan),
        readout_prompts=_choose_readout_prompts(chosen, texts, suite),
        directions={},
        upstream_directions={},
        permuted=none,
        permuted_upstream=none,
        random=none,
        random_upstream=none,
        matched={end: {name: MatchedEvidence(name, some[name], math.nan, "") for name in chosen.names} for end in ends},
    )


def complete_study(sketch: Study, engine: Engine, *, directions_file: Path | None = None) -> Study:
    """Read the pack with the subject and measure what the tasks need: directions, controls, matched strengths.

    Raises:
        BadInput: the subject gives states that are not finite, or the file of directions does not fit.
    """
    pack, suite, subject = sketch.pack, sketch.suite, sketch.subject
    readings = _read_pack(sketch, engine)
    opposites = {c.name: c.opposite for c in pack.concepts}

    def pool(states: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        own = {c.name: torch.stack([states[t.id] for t in c.texts["direction"]]) for c in pack.concepts}
        return own, torch.stack([states[t.id] for t in pack.neutral["direction"]])

    def directions_at(layer: int, own: dict[str, Tensor], neutral: Tensor) -> dict[str, Direction]:
        extracted = extract_directions(
            own, neutral, layer=layer, method=suite.method, contrast=suite.contrast, opposites=opposites,
            seed=suite.seed,
        )  # fmt: skip
        if directions_file is None:
            return extracted
        # A vector without layers belongs to the site; upstream its place is taken by the pack's own direction.
        unlayered = None if layer == sketch.site.layer else extracted
        return load_directions(directions_file, pack.names, layer, subject.d_model, subject.n_blocks, unlayered)

    own, neutral = pool(readings.pooled)
    own_upstream, neutral_upstream = pool(readings.pooled_upstream)
    measured = replace(
        sketch,
        readings=readings,
        directions=directions_at(sketch.site.layer, own, neutral),
        upstream_directions=directions_at(sketch.injection_layer, own_upstream, neutral_upstream),
        permuted=permuted_directions(own, neutral, CONTROL_DRAWS, seed=suite.seed),
        permuted_upstream=permuted_directions(own_upstream, neutral_upstream, CONTROL_DRAWS, seed=suite.seed),
        random=random_directions(subject.d_model, CONTROL_DRAWS, seed=3 * suite.seed + 1),
        random_upstream=random_directions(subject.d_model, CONTROL_DRAWS, seed=3 * suite.seed + 2),
    )
    return replace(measured, matched=_match_all(measured, engine))


def _check_readable(pack: ConceptPack, texts: dict[str, TokenizedText]) -> None:
    for concept in pack.concepts:
        for text in concept.texts["natural"]:
            if not texts[text.id].function:
                raise BadInput(
                    f"The text {text.id!r} has no function word past its third token for this tokenizer, so it cannot "
                    f"be read: {text.text[:80]!r}. Reword it; `nlabench concepts check` finds such texts."
                )
        if not any(texts[text.id].function for text in concept.texts["probe"]):
            raise BadInput(
                f"None of the probe texts of {concept.name!r} has a function word past its third token, so its natural "
                "evidence cannot be measured. Reword them; `nlabench concepts check` finds such texts."
            )


def default_layer(subject: Subject) -> int:
    """Two thirds of the subject's depth, where released NLAs read."""
    return round(2 * subject.n_blocks / 3) - 1


def _texts_to_read(pack: ConceptPack) -> list[Text]:
    concept_texts = [t for c in pack.concepts for p in ("direction", "probe", "natural") for t in c.texts[p]]
    neutral_texts = [t for p in ("direction", "readout", "reference") for t in pack.neutral[p]]
    return concept_texts + neutral_texts


def _choose_readout_prompts(
    pack: ConceptPack, texts: dict[str, TokenizedText], suite: Suite
) -> tuple[TokenizedText, ...]:
    usable = [texts[t.id] for t in pack.neutral["readout"] if texts[t.id].function]
    if len(usable) < suite.readout_prompts:
        raise BadInput(
            f"The suite {suite.name!r} reads {suite.readout_prompts} neutral prompts, but the pack {pack.name!r} has "
            f"{len(usable)} readout prompts with a function word. Add prompts, or lower `readout_prompts`."
        )
    # Those with the most different function words come first: they serve as partners of the most natural items.
    by_variety = sorted(usable, key=lambda t: (-len({r.word for r in t.function}), t.text.id))
    return tuple(by_variety[: suite.readout_prompts])


def _read_pack(study: Study, engine: Engine) -> Readings:
    subject, texts = study.subject, list(study.texts.values())
    layers = [study.injection_layer, study.site.layer]
    chunks = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        group = texts[start : start + TEXTS_PER_CHUNK]
        key = content_key(
            version=READING_VERSION, **study.reading_key(), layers=layers, texts=[t.ids for t in group],
        )  # fmt: skip
        size = sum(len(t.ids) for t in group)
        chunks.append(Chunk("readings", key, size, partial(_read_chunk, subject, study.preamble, group, *layers)))
    payloads = engine.run("reading the pack (tokens)", chunks)
    arrays = {name: torch.from_numpy(a) for name, a in merge_arrays([p.arrays for p in payloads]).items()}
    check_vectors(arrays["states"], f"the subject {subject.name!r} at layer {study.site.layer}")
    readouts = [readout for text in texts for readout in text.readouts]
    return Readings(
        at=dict(zip(readouts, arrays["states"], strict=True)),
        pooled={t.text.id: row for t, row in zip(texts, arrays["pooled"], strict=True)},
        pooled_upstream={t.text.id: row for t, row in zip(texts, arrays["pooled_upstream"], strict=True)},
        upstream_norm=float(arrays["upstream_norms"].median()),
    )


def _read_chunk(subject: Subject, preamble: Prefix, chunk: list[TokenizedText], upstream: int, site: int) -> Payload:
    rows: list[dict[str, Tensor]] = [{} for _ in chunk]
    for index, states in read_states(subject, preamble, [t.ids for t in chunk], [upstream, site]):
        rows[index] = {
            "states": torch.stack([states[site][r.index] for r in chunk[index].readouts]),
            "pooled": pool_states(states[site])[None],
            "pooled_upstream": pool_states(states[upstream])[None],
            "upstream_norms": states[upstream].norm(dim=-1),
        }
    return Payload({name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]})


def _match_all(study: Study, engine: Engine) -> dict[tuple[Injection, PositionKind], dict[str, MatchedEvidence]]:
    kinds: tuple[PositionKind, ...] = ("function", "final")
    matched: dict[tuple[Injection, PositionKind], dict[str, MatchedEvidence]] = {}
    for kind in kinds:
        neutral = study.neutral_states("reference", kind)
        matched["readout", kind] = {
            name: match_at_readout(
                name, study.purpose_states("probe", name, kind), neutral, study.directions[name].vector,
                study.suite.strengths[-1],
            )
            for name in study.pack.names
        }  # fmt: skip
    if study.suite.upstream_strengths:
        grid = [0.0, *sorted({0.05, 0.1, 0.2, 0.3, 0.5, 1.0, *study.suite.upstream_strengths})]
        steered = _calibrate_upstream(study, grid, engine)
        neutral = study.neutral_states("reference", "function")
        matched["upstream", "function"] = {
            name: match_on_grid(
                name, study.purpose_states("probe", name, "function"), neutral, study.directions[name].vector, grid,
                steered[number],
            )
            for number, name in enumerate(study.pack.names)
        }  # fmt: skip
    return matched


def _calibrate_upstream(study: Study, grid: list[float], engine: Engine) -> Tensor:
    """States at the site when reference prompts are steered upstream [n_concepts, n_strengths, n_prompts, d_model]."""
    vectors = torch.stack([study.upstream_directions[name].vector for name in study.pack.names])
    prompts = [study.texts[t.id] for t in study.pack.neutral["reference"] if study.texts[t.id].function]
    prompts = prompts[:CALIBRATION_PROMPTS]
    key = content_key(
        version=READING_VERSION, **study.reading_key(), layers=[study.injection_layer, study.site.layer], grid=grid,
        norm=study.readings.upstream_norm,
        prompts=[p.ids for p in prompts], directions=array_fingerprint(vectors.numpy()),
    )  # fmt: skip
    shifts = (vectors[:, None] * (torch.tensor(grid) * study.readings.upstream_norm)[None, :, None]).flatten(0, 1)

    def steer() -> Payload:
        columns = [
            restart_upstream(
                study.subject, study.preamble, prompt.ids[: study.late_readouts(prompt.text.id)[0].index + 1], shifts,
                study.injection_layer, study.site.layer,
            )
            for prompt in prompts
        ]  # fmt: skip
        return Payload({"states": torch.stack(columns, 1).numpy()})

    size = len(shifts) * len(prompts)
    payload = engine.run("calibrating upstream (states)", [Chunk("calibration", key, size, steer)])[0]
    states = torch.from_numpy(payload.arrays["states"])
    return states.reshape(len(vectors), len(grid), len(prompts), -1)


def matched_r(study: Study, concept: str, injection: Injection, kind: PositionKind) -> float | None:
    """The matched strength of a concept, or None where it has none."""
    found = study.matched[injection, kind][concept].r
    return None if math.isnan(found) else found
