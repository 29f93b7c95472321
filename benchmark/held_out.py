"""Held-out activations under the treatment of an item: what a mean is taken of that no item of the run takes part in.

A steered item holds r·v̂ beside what its prompt put there. About a mean of natural activations that shared part counts
as variance, and a reconstructor that says nothing but v̂ would explain more the further everything is moved. So the mean
that an item is compared with is of *reference* prompts moved the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .activations import ItemSpec
from .extraction import readout_direction
from .nla.fidelity import normalize_vectors
from .steering import add_at_readout
from .study import Study

#: What was done to an item, whatever its prompt: its arm, its direction (a concept's, a draw's, or toward a state), r.
Treatment = tuple[object, ...]

#: The cell of items whose treatments differ in the direction alone.
Cell = tuple[object, ...]


def held_out_states(study: Study, spec: ItemSpec) -> Tensor:
    """Held-out states [n, d_model] under the treatment of an item at the readout.

    Natural (and grafted all the way, which is a natural state): the concept's *probe* texts. Else the neutral
    *reference* prompts, moved as the item was. Isotropic noise has mean zero.
    """
    if spec.arm == "natural" or spec.level == "full":
        return study.purpose_states("probe", spec.concept or "", "function")
    states = study.neutral_states("reference", "function")
    if spec.arm == "gaussian":
        return torch.zeros_like(states[:1])
    if spec.arm == "neutral":
        return states
    return add_at_readout(states, readout_direction(study, spec).expand_as(states), spec.r)


def held_out_means(study: Study, specs: Sequence[ItemSpec]) -> tuple[Tensor, Tensor]:
    """Per item, two means of held-out states at L2 = √d, both [n_items, d_model] and not normalised themselves.

    The first is its cell's (arm, level and, on the grid, r), every treatment counting the same; the second is of its
    own treatment, so that of a steered item it knows the concept and r: the rock.
    """
    of_treatment: dict[Treatment, Tensor] = {}
    cells: dict[Cell, dict[Treatment, Tensor]] = {}
    for spec in specs:
        treatment = _treatment(spec)
        if treatment not in of_treatment:
            of_treatment[treatment] = normalize_vectors(held_out_states(study, spec)).mean(0)
        cells.setdefault(_cell(spec), {})[treatment] = of_treatment[treatment]
    of_cell = {cell: torch.stack(list(means.values())).mean(0) for cell, means in cells.items()}
    return (
        torch.stack([of_cell[_cell(spec)] for spec in specs]),
        torch.stack([of_treatment[_treatment(spec)] for spec in specs]),
    )


def _treatment(spec: ItemSpec) -> Treatment:
    # A graft moves toward a state that its own readout decides, so each is a treatment of its own.
    toward = (spec.readout, spec.pair) if spec.arm in ("graft", "graft_concept") else None
    draw = spec.draw if spec.arm in ("permuted", "random", "graft") else 0
    return spec.arm, spec.level, spec.concept, draw, spec.r, toward


def _cell(spec: ItemSpec) -> Cell:
    return spec.arm, spec.level, spec.r if spec.level == "grid" else None
