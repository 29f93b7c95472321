"""Detectors: what tells how likely it is that an activation was moved. Higher: more likely, by the detector's lights.

Detectors of the vector alone are fitted on activations that nobody moved, at function words of texts that no item is
made of; they never see a moved one. A verbalizer may offer a detector of its own (`Detector`): a reject option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .activations import ActivationBatch, Site
from .engine import Chunk, Engine
from .errors import BadInput
from .store import Payload, array_fingerprint, content_key
from .study import Study
from .verbalizers.asking import Asked
from .verbalizers.base import Detector
from .verbalizing import ITEMS_PER_CHUNK, RERUN_ITEMS, verbalizer_fingerprint

Floats = NDArray[np.float64]

#: Bump when the way vectors are handed to a verbalizer's `detect` changes.
DETECTION_VERSION = 1

#: Fitted activations that a vector's distance is averaged over; all of them where there are fewer.
NEIGHBOURS = 10

#: What a value may change by when its vector is given alone, in standard deviations of the values: batched arithmetic
#: rounds in another order, and in bfloat16 that shows.
LARGEST_CHANGE = 0.1


def unmoved_states(study: Study) -> Tensor:
    """What detectors are fitted on [n, d_model]: states at late function words of texts that no item is made of.

    The neutral *reference* and *direction* prompts, and the concepts' *direction* texts: so that a concept's presence
    by itself is nothing strange.
    """
    pack = study.pack
    texts = [*pack.neutral["reference"], *pack.neutral["direction"]]
    texts += [text for concept in pack.concepts for text in concept.texts["direction"]]
    return torch.stack([study.state(readout) for text in texts for readout in study.late_readouts(text.id)])


def mahalanobis(unmoved: Tensor, vectors: Tensor) -> Floats:
    """√((x − μ)ᵀ Σ⁻¹ (x − μ)) of vectors [n, d_model] -> [n], Σ shrunk (Ledoit & Wolf 2004, "A well-conditioned
    estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88(2)).

    unmoved: [n_fitted, d_model]; far fewer than Σ has entries, hence the shrinkage. It is toward a multiple of the
    identity, so coordinates are standardized first: a stream's few giant ones would set that multiple for all.
    """
    scaler = StandardScaler().fit(unmoved.double().numpy())
    fitted = LedoitWolf().fit(scaler.transform(unmoved.double().numpy()))
    squared: Floats = fitted.mahalanobis(scaler.transform(vectors.double().numpy()))
    return np.sqrt(squared)


def nearest_neighbours(unmoved: Tensor, vectors: Tensor) -> Floats:
    """The mean distance to the NEIGHBOURS nearest of `unmoved` [n_fitted, d_model], of vectors [n, d_model] -> [n].

    As deep nearest neighbours (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", ICML),
    with the mean in the place of the k-th distance, in standardized coordinates, and without scaling vectors to one
    length: length is part of what moving changes.
    """
    scaler = StandardScaler().fit(unmoved.double().numpy())
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(unmoved)))
    index.fit(scaler.transform(unmoved.double().numpy()))
    distances, _ = index.kneighbors(scaler.transform(vectors.double().numpy()))
    mean: Floats = distances.mean(axis=1)
    return mean


def norm(unmoved: Tensor, vectors: Tensor) -> Floats:
    """The length of vectors [n, d_model] -> [n], which needs no fit.

    A shift of r·‖h‖ across h makes it longer by √(1 + r²), and one against h shorter: an AUROC under one half says so.
    """
    lengths: Floats = vectors.double().norm(dim=-1).numpy()
    return lengths


#: Detectors of the vector alone: (unmoved activations, vectors) -> how likely each vector was moved.
OF_THE_VECTOR: dict[str, Callable[[Tensor, Tensor], Floats]] = {
    "mahalanobis": mahalanobis,
    "nearest_neighbours": nearest_neighbours,
    "norm": norm,
}


def find_detector(verbalizer: Any) -> Detector | None:
    """The detector that a verbalizer offers, where it offers one."""
    author = verbalizer.answerer if isinstance(verbalizer, Asked) else verbalizer
    return author if isinstance(author, Detector) else None


def ask_detector(verbalizer: Any, detector: Detector, vectors: Tensor, site: Site, engine: Engine) -> Floats:
    """What a verbalizer's detector says of vectors [n, d_model] -> [n]. It sees them and their site, and nothing else.

    Equal vectors are asked about once; a few are asked about again, alone.

    Raises:
        BadInput: it raised, returned something else than one finite number per vector, or a value depends on the other
            vectors of its batch.
    """
    name, fingerprint = verbalizer.card.name, verbalizer_fingerprint(verbalizer)
    keys = [array_fingerprint(vector.numpy()) for vector in vectors]
    distinct = dict(zip(keys, vectors, strict=True))
    shown = list(distinct)

    def plan(part: Sequence[str]) -> Chunk:
        key = content_key(version=DETECTION_VERSION, verbalizer=fingerprint, site=asdict(site), items=list(part))
        batch = torch.stack([distinct[item] for item in part])
        return Chunk("detections", key, len(part), partial(_detect_chunk, name, detector, batch, site))

    parts = [shown[start : start + ITEMS_PER_CHUNK] for start in range(0, len(shown), ITEMS_PER_CHUNK)]
    payloads = engine.run(f"{name} (moved or not)", [plan(part) for part in parts])
    values = np.concatenate([payload.arrays["values"] for payload in payloads])
    again = np.linspace(0, len(shown) - 1, min(RERUN_ITEMS, len(shown))).astype(int)
    payloads = engine.run(f"{name} (moved or not, one by one)", [plan([shown[i]]) for i in again])
    for i, alone in zip(again, (float(payload.arrays["values"][0]) for payload in payloads), strict=True):
        if abs(alone - values[i]) > LARGEST_CHANGE * values.std():
            raise BadInput(
                f"detect() of the verbalizer {name!r} gave a vector {values[i]:g} in its batch and {alone:g} "
                f"alone. A value may not depend on the other vectors, nor on chance: a batch mixes moved and "
                "unmoved ones. Compute it of each vector by itself, with a seed taken from the vector."
            )
    by_key = dict(zip(shown, values, strict=True))
    return np.array([by_key[key] for key in keys])


def _detect_chunk(name: str, detector: Detector, vectors: Tensor, site: Site) -> Payload:
    try:
        # A copy: a detector that works in place must not change anybody's activations.
        returned = detector.detect(ActivationBatch(vectors.clone(), site))
    except Exception as error:  # whatever the user's code does
        raise BadInput(
            f"detect() of the verbalizer {name!r} failed on {len(vectors)} vectors: {type(error).__name__}: {error}. "
            "It is given a float32 tensor [n, d_model] on the CPU, in `batch.vectors`. Mend it, or leave it out."
        ) from error
    return Payload({"values": _check_values(name, returned, len(vectors))})


def _check_values(name: str, returned: Any, n_vectors: int) -> Floats:
    try:
        values: Floats = torch.as_tensor(returned, dtype=torch.float64).detach().cpu().numpy()
        found = f"an array {list(values.shape)}" if values.shape != (n_vectors,) else ""
    except (TypeError, ValueError, RuntimeError):
        found = f"a {type(returned).__name__} that holds other things than numbers"
    if not found and not np.isfinite(values).all():
        found = f"NaN or infinite values ({int((~np.isfinite(values)).sum())} of {n_vectors})"
    if found:
        raise BadInput(
            f"detect() of the verbalizer {name!r} was given {n_vectors} vectors and returned {found}. Return a list of "
            "finite numbers, one per vector in the same order, higher where the vector was more likely moved."
        )
    return values
