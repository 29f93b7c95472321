"""Sites, items and the batches of vectors that a verbalizer sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import BadInput
from .store import content_key

Arm = Literal["natural", "steered", "permuted", "random", "graft", "graft_concept", "neutral", "gaussian"]
Injection = Literal["none", "readout", "upstream"]
Level = Literal["grid", "matched", "full"]
PositionKind = Literal["function", "final", "mid"]

#: Arms whose items carry no concept; all concepts share them.
CONCEPT_FREE: frozenset[Arm] = frozenset({"permuted", "random", "graft", "neutral", "gaussian"})


@dataclass(frozen=True)
class Site:
    """Where a vector was read: the stream after block `layer`, which is `hidden_states[layer + 1]`."""

    subject: str
    layer: int
    d_model: int


@dataclass(frozen=True)
class Readout:
    """One position of one text of a pack. `index` counts the text's own tokens, the preamble's excluded.

    kind: a function word (`function`), the last token (`final`), or a function word with enough of the text to follow
    that what the subject makes of the rest can be measured (`mid`).
    """

    text_id: str
    index: int
    kind: PositionKind
    word: str


@dataclass(frozen=True)
class ItemSpec:
    """The sealed label of an item: how its activation is made.

    r is the relative strength (displacement at the readout over the item's own unsteered norm; upstream, lambda over
    the median norm at the injection site); `level` says whether r comes from the grid, from matched evidence, or is the
    full way to another state. `draw` numbers the direction of a permuted, random or graft item. `pair` is the readout
    of the natural item that a steered item is token-matched with.
    """

    arm: Arm
    readout: Readout
    injection: Injection = "none"
    concept: str | None = None
    r: float = 0.0
    level: Level = "grid"
    draw: int = 0
    pair: Readout | None = None

    def item_id(self, seed: int) -> str:
        """An opaque id: nothing about the item can be read from it without its label."""
        return content_key(spec=repr(self), seed=seed)[:16]


@dataclass(frozen=True)
class ActivationBatch:
    """What a verbalizer sees, all of it: vectors and their site.

    vectors: [n_items, d_model], float32, residual stream, raw scale.
    """

    vectors: Tensor
    site: Site

    def __len__(self) -> int:
        return len(self.vectors)


def check_vectors(vectors: Tensor, origin: str) -> Tensor:
    """The vectors themselves, if every one is finite and none is zero.

    Raises:
        BadInput: says which rows are not.
    """
    bad = ~torch.isfinite(vectors).all(-1)
    zero = ~bad & (vectors.abs().amax(-1) == 0)
    for rows, what in ((bad, "NaN or infinite values"), (zero, "only zeros")):
        if rows.any():
            numbers = rows.nonzero()[:, 0].tolist()
            raise BadInput(
                f"{len(numbers)} of {len(vectors)} vectors from {origin} hold {what} (rows "
                f"{', '.join(map(str, numbers[:5]))}{', …' if len(numbers) > 5 else ''}). An activation is finite and "
                "not zero; check the model's weights and dtype (float16 overflows on some models: try --dtype float32)."
            )
    return vectors
