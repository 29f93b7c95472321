"""Directions of concepts, directions that mean nothing, and how they are added to a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from .errors import BadInput

Method = Literal["difference_of_means", "logistic_probe", "file"]
Contrast = Literal["rest", "neutral", "opposite"]

#: Under this split-half cosine a direction is left out of the headline: it is mostly noise.
LEAST_SPLIT_HALF = 0.7


@dataclass(frozen=True)
class Direction:
    """A unit vector for a concept at a layer.

    vector: [d_model], float32, norm 1. length: the norm of the difference before scaling (nan for a file).
    split_half: mean cosine of the directions from two disjoint halves of the texts (nan for a file).
    """

    concept: str
    layer: int
    vector: Tensor
    method: Method
    contrast: Contrast
    length: float
    split_half: float


def unit(vector: Tensor) -> Tensor:
    """Scale to norm 1 along the last axis.

    Raises:
        BadInput: a vector is zero or not finite.
    """
    norm = vector.norm(dim=-1, keepdim=True)
    if not torch.isfinite(norm).all() or (norm == 0).any():
        raise BadInput("A direction is zero or not finite: its texts and the contrast have the same mean state.")
    scaled: Tensor = vector / norm
    return scaled


def difference_of_means(positive: Tensor, negative: Tensor) -> Tensor:
    """mean(positive) - mean(negative). positive, negative: [n_texts, d_model] pooled states -> [d_model]."""
    return positive.mean(0) - negative.mean(0)


def logistic_probe(positive: Tensor, negative: Tensor, *, seed: int = 0) -> Tensor:
    """The normal of an L2-regularised logistic probe, in the stream's own coordinates. Shapes as above."""
    from sklearn.linear_model import LogisticRegression

    states = torch.cat([positive, negative]).double()
    scale = states.std(0).clamp(min=1e-6)
    labels = [1] * len(positive) + [0] * len(negative)
    probe = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced", random_state=seed)
    probe.fit(((states - states.mean(0)) / scale).numpy(), labels)
    return (torch.from_numpy(probe.coef_[0]) / scale).float()


def extract_directions(
    pooled: Mapping[str, Tensor],
    neutral: Tensor,
    *,
    layer: int,
    method: Method = "difference_of_means",
    contrast: Contrast = "rest",
    opposites: Mapping[str, str | None] | None = None,
    seed: int = 0,
    n_splits: int = 10,
) -> dict[str, Direction]:
    """A direction per concept from its *direction* texts.

    pooled: per concept [n_texts, d_model]; neutral: [n_neutral, d_model]; all float32, mean over a text's tokens.
    The split-half cosine is the mean over `n_splits` random halvings of the concept's own texts and of the contrast.

    Raises:
        BadInput: the contrast is `opposite` and a concept has none.
    """
    extract = logistic_probe if method == "logistic_probe" else difference_of_means
    generator = torch.Generator().manual_seed(seed)
    directions = {}
    for concept, positive in pooled.items():
        negative = _contrast_states(concept, pooled, neutral, contrast, opposites or {})
        raw = extract(positive, negative)
        cosines = []
        for _ in range(n_splits):
            own = torch.randperm(len(positive), generator=generator).chunk(2)
            other = torch.randperm(len(negative), generator=generator).chunk(2)
            halves = [unit(extract(positive[a], negative[b])) for a, b in zip(own, other, strict=True)]
            cosines.append(float(halves[0] @ halves[1]))
        split_half = sum(cosines) / len(cosines)
        directions[concept] = Direction(concept, layer, unit(raw), method, contrast, float(raw.norm()), split_half)
    return directions


def _contrast_states(
    concept: str, pooled: Mapping[str, Tensor], neutral: Tensor, contrast: Contrast, opposites: Mapping[str, str | None]
) -> Tensor:
    if contrast == "neutral":
        return neutral
    if contrast == "opposite":
        opposite = opposites.get(concept)
        if opposite is None or opposite not in pooled:
            raise BadInput(
                f"The contrast 'opposite' was asked for, but {concept!r} has no opposite among the concepts of this "
                "run. Choose the contrast 'rest' or 'neutral', or a pack whose concepts have opposites."
            )
        return pooled[opposite]
    return torch.cat([*(states for name, states in pooled.items() if name != concept), neutral])


def permuted_directions(pooled: Mapping[str, Tensor], neutral: Tensor, n_draws: int, *, seed: int) -> Tensor:
    """Differences of means of shuffled labels: the primary control.

    A draw takes as many texts as a concept has, at random among all concepts' texts and the neutral ones, against the
    rest. It moves within the stream's own covariance, and toward nothing. Returns unit vectors [n_draws, d_model].
    """
    states = torch.cat([*pooled.values(), neutral])
    size = len(next(iter(pooled.values())))
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_draws):
        order = torch.randperm(len(states), generator=generator)
        draws.append(difference_of_means(states[order[:size]], states[order[size:]]))
    return unit(torch.stack(draws))


def random_directions(d_model: int, n_draws: int, *, seed: int) -> Tensor:
    """Isotropic unit vectors [n_draws, d_model], float32."""
    return unit(torch.randn(n_draws, d_model, generator=torch.Generator().manual_seed(seed)))


def load_directions(
    file: Path,
    concepts: Sequence[str],
    layer: int,
    d_model: int,
    n_blocks: int | None = None,
    unlayered: Mapping[str, Direction] | None = None,
) -> dict[str, Direction]:
    """Directions from a file that somebody else made: one tensor per concept, by name.

    `unlayered` takes the place of a vector without layers (upstream, where a vector of the site does not belong).
    safetensors, or `.pt` read with weights_only=True (a mapping of names to tensors; a bare tensor where there is one
    concept). Shapes [d_model], or [n_layers, d_model] of which row `layer` is taken.

    Raises:
        BadInput: not readable, a concept is missing, or a shape does not fit.
    """
    if not file.is_file():
        raise BadInput(f"There is no file of directions at {str(file)!r}. Give a .safetensors or .pt file.")
    try:
        loaded = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else torch.load(
            file, map_location="cpu", weights_only=True
        )  # fmt: skip
    except Exception as error:  # bytes that are no tensors raise a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise BadInput(
            f"{file} cannot be read as tensors: {reason}. Only plain tensors are loaded "
            "(weights_only=True); save the vectors with safetensors.torch.save_file({'concept': vector}, path)."
        ) from error
    tensors: Mapping[str, Tensor] = {concepts[0]: loaded} if isinstance(loaded, Tensor) else loaded
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise BadInput(
            f"{file} holds a {type(loaded).__name__} with other things than tensors; expected a mapping of concept "
            "names to tensors. Save the vectors with safetensors.torch.save_file({'concept': vector}, path)."
        )
    directions = {}
    for concept in concepts:
        if concept not in tensors:
            raise BadInput(
                f"{file} holds no direction for {concept!r}; it holds {', '.join(map(str, list(tensors)[:8]))}. Name "
                "one tensor per concept of the pack."
            )
        tensor = tensors[concept].float()
        if tensor.ndim == 1 and unlayered is not None:
            directions[concept] = unlayered[concept]
            continue
        if tensor.ndim == 2 and layer < len(tensor) and n_blocks in (None, len(tensor)):
            tensor = tensor[layer]
        if tensor.shape != (d_model,):
            raise BadInput(
                f"The direction of {concept!r} in {file} has shape {list(tensors[concept].shape)}; expected "
                f"[{d_model}], or [{n_blocks or 'n_blocks'}, {d_model}] with one row per block (row K is the stream "
                "after block K; drop the embedding's row from a stack of hidden_states)."
            )
        if not tensor.isfinite().all() or not tensor.any():
            raise BadInput(f"The direction of {concept!r} in {file} is zero or not finite. Leave it out, or mend it.")
        nan = float("nan")
        directions[concept] = Direction(concept, layer, unit(tensor), "file", "rest", nan, nan)
    return directions


def add_at_readout(states: Tensor, directions: Tensor, r: Tensor | float) -> Tensor:
    """h + r·‖h‖·v̂. states, directions: [n, d_model]; r: scalar or [n]. The displacement is exactly r·‖h‖."""
    strength = torch.as_tensor(r, dtype=states.dtype, device=states.device)
    moved: Tensor = states + (strength.reshape(-1, 1) * states.norm(dim=-1, keepdim=True)) * directions
    return moved


def ablate(states: Tensor, direction: Tensor) -> Tensor:
    """h - ⟨h, v̂⟩v̂: the stream without its component along a unit direction. states: [..., d_model]."""
    rest: Tensor = states - (states @ direction)[..., None] * direction
    return rest
