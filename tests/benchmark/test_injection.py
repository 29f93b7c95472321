"""Facts about how vectors enter a prompt: which states change, into what, and that nothing else does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.injection import VectorInjection, inject_vectors
from nlabench.benchmark.subject import Edit, Subject
from torch import Tensor

PROMPT = [3, 41, 17, 29, 8, 33, 52]
SLOT = 3

Tiny = Callable[[str], Subject]


@contextlib.contextmanager
def entering(subject: Subject, block: int) -> Iterator[list[Tensor]]:
    """What the first norm of a block is given, call by call: the stream that enters the block, after every edit."""
    seen: list[Tensor] = []
    norm: Any = getattr(subject.blocks[block], "input_layernorm", None) or subject.blocks[block].ln_1
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        yield seen
    finally:
        handle.remove()


def read_prompts(subject: Subject, n: int, edits: dict[int, Edit], block: int) -> Tensor:
    """The stream [n, t, d_model] that enters a block while n equal prompts are read under edits."""
    with entering(subject, block) as seen:
        decode(subject, [PROMPT] * n, max_new_tokens=1, edits=edits)
    return seen[0]


def vectors(n: int, d_model: int, seed: int = 3) -> Tensor:
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed)) * 7


def test_replacing_an_embedding_changes_that_row_alone_into_the_vector_at_its_norm(any_tiny: Subject) -> None:
    given = vectors(2, any_tiny.d_model)
    edits = inject_vectors(VectorInjection("replace_embedding", scale=20.0), given, [SLOT])
    plain = read_prompts(any_tiny, 2, {}, 0)
    changed = read_prompts(any_tiny, 2, edits, 0)
    rows = (plain != changed).any(-1)
    assert rows.sum(1).tolist() == [1, 1]
    assert rows[:, SLOT].all()
    torch.testing.assert_close(changed[:, SLOT], 20 * given / given.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("block", [-1, 0, 2])
def test_norm_matched_addition_moves_the_state_by_its_own_norm_times_the_coefficient(
    tiny: Tiny, family: str, block: int
) -> None:
    subject = tiny(family)
    given = vectors(2, subject.d_model)
    edits = inject_vectors(VectorInjection("add_norm_matched", block, coefficient=0.5), given, [SLOT, -1])
    plain = read_prompts(subject, 2, {}, block + 1)
    changed = read_prompts(subject, 2, edits, block + 1)
    moved = changed - plain
    assert (moved != 0).any(-1).nonzero().tolist() == [[row, slot] for row in (0, 1) for slot in (SLOT, 6)]
    for slot in (SLOT, 6):
        wanted = 0.5 * plain[:, slot].norm(dim=-1, keepdim=True) * given / given.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(moved[:, slot], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "norm"), [(4.0, 4.0), ("raw", None), ("state", None)])
def test_overwriting_puts_the_vector_there_at_the_norm_that_was_asked_for(
    tiny: Tiny, scale: Any, norm: float | None
) -> None:
    subject = tiny("qwen2")
    given = vectors(1, subject.d_model)
    plain = read_prompts(subject, 1, {}, 2)[:, SLOT]
    edits = inject_vectors(VectorInjection("overwrite_hidden", 1, scale), given, [SLOT])
    changed = read_prompts(subject, 1, edits, 2)[:, SLOT]
    assert float(torch.cosine_similarity(changed, given)) == pytest.approx(1, abs=1e-5)
    wanted = norm or float((given if scale == "raw" else plain).norm())
    assert float(changed.norm()) == pytest.approx(wanted, rel=1e-5)


def test_every_slot_may_have_a_vector_of_its_own(tiny: Tiny) -> None:
    subject = tiny("llama")
    given = vectors(6, subject.d_model).reshape(2, 3, -1)
    edits = inject_vectors(VectorInjection("overwrite_hidden", 0, "raw"), given, [1, 2, 5])
    changed = read_prompts(subject, 2, edits, 1)
    torch.testing.assert_close(changed[:, [1, 2, 5]], given)


def test_slots_counted_from_the_end_hold_in_prompts_of_different_length(tiny: Tiny) -> None:
    subject = tiny("llama")
    given = vectors(2, subject.d_model)
    edits = inject_vectors(VectorInjection("replace_embedding", scale=9.0), given, [-2])
    together = decode(subject, [PROMPT, PROMPT[2:]], max_new_tokens=6, edits=edits)
    alone = [
        decode(
            subject, [prompt], max_new_tokens=6,
            edits=inject_vectors(VectorInjection("replace_embedding", scale=9.0), given[[row]], [-2]),
        )[0].ids
        for row, prompt in enumerate((PROMPT, PROMPT[2:]))
    ]  # fmt: skip
    assert [text.ids for text in together] == alone


def test_nothing_enters_after_the_prompt(tiny: Tiny) -> None:
    subject = tiny("llama")
    edits = inject_vectors(VectorInjection("overwrite_hidden", 0, 50.0), vectors(1, subject.d_model), [-1])
    with entering(subject, 1) as seen:
        decode(subject, [PROMPT], max_new_tokens=4, edits=edits)
    norms = [float(states[0, -1].norm()) for states in seen]
    assert norms[0] == pytest.approx(50, rel=1e-5)
    assert all(norm < 45 for norm in norms[1:])


@pytest.mark.parametrize(
    ("mode", "block", "scale"),
    [
        ("replace_embedding", 2, 1.0),
        ("replace_embedding", -1, 0.0),
        ("replace_embedding", -1, float("nan")),
        ("add_norm_matched", 1, 5.0),
        ("overwrite_hidden", -2, "raw"),
        ("into_the_cache", 1, "raw"),
    ],
)
def test_an_injection_that_its_mode_does_not_have_is_refused(mode: Any, block: int, scale: Any) -> None:
    with pytest.raises(BadInput, match=f"{mode}.* at block {block}"):
        VectorInjection(mode, block, scale)


@pytest.mark.parametrize("bad", [torch.zeros(1, 4), torch.full((1, 4), torch.nan), torch.ones(1, 3, 4)])
def test_vectors_that_cannot_enter_are_refused(bad: Tensor) -> None:
    with pytest.raises(BadInput, match="were to enter 1 slots"):
        inject_vectors(VectorInjection("overwrite_hidden", 0, "raw"), bad, [0])
