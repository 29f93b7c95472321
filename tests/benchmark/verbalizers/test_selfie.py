"""Facts about SelfIE: what its slots hold, and when."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers import selfie
from nlabench.benchmark.verbalizers.selfie import Selfie
from torch import Tensor


def build(subject: Subject, argument: str = "") -> Selfie:
    study: Any = SimpleNamespace(subject=subject, site=Site(subject.name, subject.n_blocks - 1, subject.d_model))
    return selfie.build(study, argument)


def draw_vectors(verbalizer: Selfie, n: int) -> ActivationBatch:
    site = Site(verbalizer.subject.name, verbalizer.subject.n_blocks - 1, verbalizer.subject.d_model)
    generator = torch.Generator().manual_seed(5)
    return ActivationBatch(30 * torch.randn(n, site.d_model, generator=generator), site)


def watch(verbalizer: Selfie, batch: ActivationBatch, block: int) -> list[Tensor]:
    """What enters the block after `block` in each forward of a verbalization: the prompt's tail, then each token."""
    entered: list[Tensor] = []
    handle = verbalizer.subject.blocks[block + 1].register_forward_pre_hook(
        lambda _, args, kwargs: entered.append((args[0] if args else kwargs["hidden_states"]).clone()), with_kwargs=True
    )
    try:
        verbalizer.verbalize(batch)
    finally:
        handle.remove()
    return entered


@pytest.mark.parametrize("block", [0, 2])
def test_every_slot_holds_the_vector_at_the_norm_of_the_state_that_it_replaced(any_tiny: Subject, block: int) -> None:
    verbalizer = build(any_tiny, str(block))
    batch = draw_vectors(verbalizer, 2)
    entered = watch(verbalizer, batch, block)[0]
    ids = torch.tensor([[*verbalizer.prefix.ids, *verbalizer.tail]] * 2)
    plain = any_tiny.run(ids, torch.ones_like(ids), capture=[block])[block][:, len(verbalizer.prefix.ids) :]
    slots = list(verbalizer.slots)
    assert len(slots) == 5
    directions = batch.vectors / batch.vectors.norm(dim=-1, keepdim=True)
    expected = directions[:, None] * plain[:, slots].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(entered[:, slots], expected, rtol=1e-4, atol=1e-4)
    others = [i for i in range(len(verbalizer.tail)) if i not in slots]
    torch.testing.assert_close(entered[:, others], plain[:, others], rtol=1e-4, atol=1e-4)


def test_a_vector_and_its_multiple_give_one_text_and_another_vector_another(tiny: Callable[[str], Subject]) -> None:
    verbalizer = build(tiny("qwen2"))
    batch = draw_vectors(verbalizer, 2)
    texts = [text.text for text in verbalizer.verbalize(batch)]
    assert texts[0] != texts[1]
    scaled = ActivationBatch(batch.vectors * torch.tensor([[7.0], [0.01]]), batch.site)
    assert [text.text for text in verbalizer.verbalize(scaled)] == texts
    assert verbalizer.verbalize(ActivationBatch(batch.vectors[1:], batch.site))[0].text == texts[1]


def test_the_default_subject_is_asked_in_its_own_chat_format(subject: Subject) -> None:
    verbalizer = build(subject)
    assert verbalizer.card.name == "selfie"
    whole = subject.tokenizer.decode([*verbalizer.prefix.ids, *verbalizer.tail])
    assert whole == verbalizer.card.settings["prompt"]
    assert whole.endswith("_ _ _ _ _<|im_end|>\n<|im_start|>assistant\nSure, I will summarize the message:")
    assert verbalizer.slots == (0, 1, 2, 3, 4)
    texts = [text.text for text in verbalizer.verbalize(draw_vectors(verbalizer, 2))]
    assert all(texts)
    assert texts[0] != texts[1]


def test_another_block_is_another_verbalizer(tiny: Callable[[str], Subject]) -> None:
    assert build(tiny("llama"), "2").card.name == "selfie:2"
    assert build(tiny("llama"), "2").card.settings["block"] == 2
    with pytest.raises(BadInput, match="has 4 blocks"):
        build(tiny("llama"), "4")
