"""Facts about upstream steering: restarting from a block is the whole forward with something added, and costs less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from nlabench.benchmark import restart
from nlabench.benchmark.reading import make_preamble, read_states
from nlabench.benchmark.restart import restart_upstream
from nlabench.benchmark.subject import Prefix, Subject
from torch import Tensor

FIRST = [3, 41, 17, 29, 8, 33, 52]
PROMPT = [9, 23, 42, 7, 36, 19, 5, 31]
TEXT = "The rain fell on the roof of the barn and"


def shifts_of(subject: Subject, n: int, size: float) -> Tensor:
    return torch.randn(n, subject.d_model, generator=torch.Generator().manual_seed(3)) * size


def hooked_forward(
    subject: Subject, ids: Sequence[int], n_prefix: int, shift: Tensor, injection: int, site: int
) -> Tensor:
    """The last token's stream at the site, with a plain hook that adds a shift at every token past the prefix."""

    def add(_: object, __: object, output: Tensor | tuple[Tensor, ...]) -> object:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, n_prefix:] += shift
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = subject.blocks[injection].register_forward_hook(add)
    try:
        with torch.inference_mode():
            out = subject.model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    finally:
        handle.remove()
    states: Tensor = out.hidden_states[site + 1][0, -1]
    return states


@pytest.fixture(scope="module")
def preamble(subject: Subject) -> Prefix:
    return make_preamble(subject, 19)


def test_adding_upstream_is_the_plain_forward_with_the_shift_at_every_token_past_the_prefix(any_tiny: Subject) -> None:
    shifts = shifts_of(any_tiny, 5, 2.0)
    moved = restart_upstream(any_tiny, any_tiny.make_prefix(FIRST, 2), PROMPT, shifts, 0, 2)
    for shift, state in zip(shifts, moved, strict=True):
        wanted = hooked_forward(any_tiny, FIRST + PROMPT, len(FIRST), shift, 0, 2)
        assert float((state - wanted).norm() / wanted.norm()) < 1e-5


def test_the_default_subject_moves_as_a_hook_moves_it(subject: Subject, preamble: Prefix) -> None:
    ids = subject.encode(TEXT)
    shifts = shifts_of(subject, 3, 1.0)
    moved = restart_upstream(subject, preamble, ids, shifts, 9, 19)
    for shift, state in zip(shifts, moved, strict=True):
        wanted = hooked_forward(subject, [*preamble.ids, *ids], len(preamble.ids), shift, 9, 19)
        assert float((state - wanted).norm() / wanted.norm()) < 1e-5


def test_without_a_shift_the_restart_is_the_plain_read(subject: Subject, preamble: Prefix) -> None:
    ids = subject.encode(TEXT)
    plain = dict(read_states(subject, preamble, [ids], [19]))[0][19][-1]
    restarted = restart_upstream(subject, preamble, ids, torch.zeros(1, subject.d_model), 9, 19)[0]
    assert float((restarted - plain).norm() / plain.norm()) < 1e-4


@pytest.mark.parametrize("others", [2, 6, 7, 22])
# A readout lies past the third token, so no prompt is shorter than four.
@pytest.mark.parametrize("text", ["The rain fell on", TEXT], ids=["4 tokens", "10 tokens"])
def test_a_zero_shift_is_the_unsteered_row_to_the_bit(
    subject: Subject, preamble: Prefix, text: str, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = subject.encode(text)
    monkeypatch.setattr(restart, "TOKENS_PER_RESTART", 8 * len(ids))  # batches of 8 rows: one, one full, two, three
    shifts = shifts_of(subject, others + 2, 1.0)
    shifts[[0, -1]] = 0
    moved = restart_upstream(subject, preamble, ids, shifts, 9, 19)
    assert torch.equal(moved[-1], moved[0])
    assert not torch.equal(moved[-2], moved[0])


def test_the_rows_come_back_in_order_whatever_the_batches(
    tiny: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = tiny("qwen2")
    prefix, shifts = subject.make_prefix(FIRST, 2), shifts_of(subject, 11, 2.0)
    whole = restart_upstream(subject, prefix, PROMPT, shifts, 0, 2)
    for budget in (1, 3 * len(PROMPT), 11 * len(PROMPT)):
        monkeypatch.setattr(restart, "TOKENS_PER_RESTART", budget)
        split = restart_upstream(subject, prefix, PROMPT, shifts, 0, 2)
        assert split.shape == whole.shape
        assert torch.allclose(split, whole, rtol=1e-4, atol=1e-4)


def test_blocks_before_the_injection_run_once_for_any_number_of_shifts(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    prefix = subject.make_prefix(FIRST, 2)
    calls = [0] * subject.n_blocks

    def counter(number: int) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[number] += 1

        return count

    handles = [block.self_attn.register_forward_hook(counter(i)) for i, block in enumerate(subject.blocks)]
    restart_upstream(subject, prefix, PROMPT, shifts_of(subject, 400, 1.0), 1, 2)
    for handle in handles:
        handle.remove()
    assert calls == [1, 1, 7, 0]  # 400 rows of 8 tokens are seven batches


def test_the_network_responds_to_an_upstream_shift(subject: Subject, preamble: Prefix) -> None:
    # At the readout the displacement would be the shift itself; upstream it is the shift and the blocks' answer to it.
    shift = shifts_of(subject, 1, 2.0)
    moved = restart_upstream(
        subject, preamble, subject.encode(TEXT), torch.cat([torch.zeros_like(shift), shift]), 9, 19
    )
    displacement = moved[1] - moved[0]
    assert float((displacement - shift[0]).norm() / shift.norm()) > 0.2
