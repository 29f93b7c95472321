"""An AR: from a text back to a vector of the site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..activations import Site
from ..errors import BadInput
from ..placement import DeviceMap
from ..reading import read_states
from ..subject import Prefix, Subject
from .checkpoint import VALUE_HEAD, Checkpoint, load_half
from .sidecar import Sidecar, check_explanation_prompt, explanation_ids


@dataclass(frozen=True)
class NLAReconstructor:
    """The first K + 1 blocks of a model and a linear map of its stream at the last token.

    value_head: [d_model, d_model], float32. prefix: what all prompts begin with, run once.

    The scale of what it returns is the map's own and carries no meaning: ARs of the contract are trained on
    directions, with prediction and target both scaled to the sidecar's `mse_scale` (L2 = √d_model) before they are
    compared. Nothing is rescaled here; a metric that compares vectors scales both sides itself.
    """

    sidecar: Sidecar
    model: Subject
    value_head: Tensor
    prefix: Prefix

    def reconstruct(self, texts: Sequence[str], site: Site) -> Tensor:
        """The vector of each text [n_texts, d_model], float32, raw scale, on the CPU; it hangs on no other text.

        Raises:
            BadInput: the AR was made for another site.
        """
        made_for = (self.sidecar.extraction_layer_index, self.sidecar.d_model)
        if made_for != (site.layer, site.d_model):
            raise BadInput(
                f"The AR was made for block {made_for[0]} (d_model {made_for[1]}); vectors of block {site.layer} "
                f"({site.d_model}) were asked for. Choose an NLA for this site."
            )
        # Equal texts have equal vectors: the floors of a benchmark say one text of every item.
        distinct = list(dict.fromkeys(texts))
        prompts = [explanation_ids(self.sidecar, self.model.tokenizer, text) for text in distinct]
        states = torch.empty(len(distinct), site.d_model)
        start = len(self.prefix.ids)
        shared = [len(prompt) > start and prompt[:start] == list(self.prefix.ids) for prompt in prompts]
        # A text may merge with the end of the prefix into one token; such prompts run whole.
        for prefix, skipped, chosen in ((self.prefix, start, True), (Prefix((), (), ()), 0, False)):
            numbers = [i for i, fits in enumerate(shared) if fits is chosen]
            tails = [prompts[i][skipped:] for i in numbers]
            for number, streams in read_states(self.model, prefix, tails, [site.layer]):
                states[numbers[number]] = streams[site.layer][-1]  # the last token of the row's own, never padding
        vectors = states @ self.value_head.T
        numbered = {text: i for i, text in enumerate(distinct)}
        return vectors[[numbered[text] for text in texts]]


def load_reconstructor(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: DeviceMap | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> NLAReconstructor:
    """Load an AR: its blocks, its value head, and its prompt's shared beginning.

    device, dtype, device_map: as for `load_subject`.

    Raises:
        BadInput: a value head that is missing, not [d, d] or not finite; or see `load_half` and
            `check_explanation_prompt`.
    """
    sidecar, file = checkpoint.sidecar, checkpoint.folder / VALUE_HEAD
    try:
        head = safetensors.torch.load_file(file)["weight"].float()
    except (OSError, KeyError, SafetensorError) as error:
        raise BadInput(
            f"The AR in {checkpoint.folder} has no usable {VALUE_HEAD} ({type(error).__name__}: {error}). It holds one "
            "tensor, `weight` [d_model, d_model], and cannot be derived from the rest: ask whoever trained it."
        ) from error
    if head.shape != (sidecar.d_model, sidecar.d_model) or not torch.isfinite(head).all():
        raise BadInput(
            f"The value head in {file} is {list(head.shape)}{'' if torch.isfinite(head).all() else ' with NaN'}; "
            f"expected finite [{sidecar.d_model}, {sidecar.d_model}]. Give the head that belongs to this AR."
        )
    model = load_half(checkpoint, device=device, dtype=dtype, device_map=device_map, say=say)
    check_explanation_prompt(sidecar, model.tokenizer)
    # No text at all is among them: what follows it merges with the prompt as the texts do that merge at all.
    samples = [explanation_ids(sidecar, model.tokenizer, text) for text in ("", "one", "Other")]
    shared = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*samples, strict=False))]
    prefix = model.make_prefix(shared) if shared else Prefix((), (), ())
    return NLAReconstructor(sidecar, model, head, prefix)
