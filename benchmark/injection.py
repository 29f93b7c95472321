"""How vectors enter a prompt: in place of an embedding, in place of a state, or added to one.

Every method that lets a model talk about a vector does one of three things to a placeholder's token in a prompt, and
only while the prompt is read: what is generated afterwards is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import BadInput
from .subject import Edit

Mode = Literal["replace_embedding", "add_norm_matched", "overwrite_hidden"]

#: The L2 norm at which a vector enters: a number, its own ("raw"), or that of the state in its slot ("state").
Scale = float | Literal["raw", "state"]


@dataclass(frozen=True)
class VectorInjection:
    """Where and how a vector v enters, with h the state of its slot.

    replace_embedding: what enters block 0 becomes v at norm `scale` (`block` is -1); past the multiplication of
    embeddings in families that have one, and past learned positions in the few families that add them (GPT-2).
    add_norm_matched: after `block`, h + coefficient ‖h‖ v / ‖v‖ (`scale` is "state").
    overwrite_hidden: after `block`, h becomes v at norm `scale`.
    `coefficient` multiplies the norm in each mode.

    Raises:
        BadInput: a block or a scale that the mode does not have.
    """

    mode: Mode
    block: int = -1
    scale: Scale = "state"
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        positive = isinstance(self.scale, str) or self.scale > 0
        fits = {
            "replace_embedding": self.block == -1,
            "add_norm_matched": self.scale == "state" and self.block >= -1,
            "overwrite_hidden": self.block >= -1,
        }
        if not fits.get(self.mode, False) or not positive:
            raise BadInput(
                f"An injection of mode {self.mode!r} at block {self.block} with scale {self.scale!r} was given. "
                "`replace_embedding` has block -1 and a scale above 0; `add_norm_matched` has a block and no scale of "
                'its own ("state"); `overwrite_hidden` has a block and a scale above 0, "raw" or "state". Correct it.'
            )


def inject_vectors(injection: VectorInjection, vectors: Tensor, slots: Sequence[int]) -> dict[int, Edit]:
    """The edits that put vectors into the slots of a batch of prompts, for `decode` and `Subject.run`.

    vectors: [n_prompts, d_model], one vector in all slots of its prompt, or [n_prompts, n_slots, d_model].
    slots: positions among the tokens that are run (a prefix excluded). Prompts of different length are padded on the
    left by `decode`: count their slots from the end then (-1 is the last token).

    Raises:
        BadInput: a vector is zero or not finite, or there are more vectors than slots.
    """
    each = vectors.float()[:, None].expand(-1, len(slots), -1) if vectors.ndim == 2 else vectors.float()
    norms = each.norm(dim=-1, keepdim=True)
    if not torch.isfinite(norms).all() or (norms == 0).any() or each.shape[1] != len(slots):
        raise BadInput(
            f"Vectors of shape {list(vectors.shape)} with norms from {float(norms.min()):g} to {float(norms.max()):g} "
            f"were to enter {len(slots)} slots. Give one vector a slot, or one a prompt, each finite and not zero."
        )
    directions = each / norms
    where = list(slots)

    def edit(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        if not prefill:
            return states
        held = states[:, where].float()  # [b, n_slots, d_model]
        chosen = rows.to(directions.device)
        lengths: float | Tensor
        if injection.scale == "state":
            lengths = held.norm(dim=-1, keepdim=True)
        elif injection.scale == "raw":
            lengths = norms[chosen].to(states.device)
        else:
            lengths = injection.scale
        entering = directions[chosen].to(states.device) * lengths * injection.coefficient
        if injection.mode == "add_norm_matched":
            entering = held + entering
        changed = states.clone()
        changed[:, where] = entering.to(states.dtype)
        return changed

    return {injection.block: edit}
