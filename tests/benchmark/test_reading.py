"""Facts about the preamble, the readout positions and the states there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlabench.benchmark.concepts import Text
from nlabench.benchmark.reading import (
    FUNCTION_WORDS,
    PREAMBLE,
    batches_by_length,
    make_preamble,
    pool_states,
    read_states,
    tokenize,
)
from nlabench.benchmark.subject import Subject, wrap_subject
from torch import Tensor

TEXTS = [
    "The rain fell on the roof of the barn and the people came home late",
    "In the end, with all of that behind her, she walked to the sea.",
    "Yes.",
    "The captain, who had been at the wheel since dawn, steered for the gap between the two headlands and prayed.",
]


def texts(*contents: str) -> list[Text]:
    return [Text(f"c/natural/{i}", content) for i, content in enumerate(contents)]


def plain_states(subject: Subject, ids: Sequence[int], layer: int) -> Tensor:
    with torch.inference_mode():
        out = subject.model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    states: Tensor = out.hidden_states[layer + 1][0]
    return states


def test_the_preamble_reaches_past_position_50(subject: Subject) -> None:
    assert len(make_preamble(subject, 0).ids) > 50


def test_states_are_those_of_the_preamble_and_the_text_read_together(subject: Subject) -> None:
    prefix = make_preamble(subject, 19)
    rows = [subject.encode(text) for text in TEXTS]
    read = dict(read_states(subject, prefix, rows, [9, 19]))
    assert sorted(read) == list(range(len(TEXTS)))
    assert list(prefix.ids) == subject.encode(PREAMBLE)
    for number, row in enumerate(rows):
        for layer in (9, 19):
            wanted = plain_states(subject, [*prefix.ids, *row], layer)[len(prefix.ids) :]
            found = read[number][layer]
            assert found.dtype == torch.float32
            assert found.shape == (len(row), subject.d_model)
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_the_preamble_keeps_readouts_away_from_the_attention_sink(subject: Subject) -> None:
    row = subject.encode(TEXTS[0])
    with_preamble = dict(read_states(subject, make_preamble(subject, 19), [row], [19]))[0][19].norm(dim=-1)
    without = plain_states(subject, row, 19).norm(dim=-1)
    assert without[0] > 20 * without[1:].median()
    assert with_preamble.max() < 3 * with_preamble.median()


def test_function_words_are_read_past_the_third_token_and_before_the_last(subject: Subject) -> None:
    for tokenized in tokenize(subject, texts(*TEXTS)):
        assert tokenized.ids == tuple(subject.encode(tokenized.text.text))
        for readout in tokenized.function:
            assert 3 <= readout.index < len(tokenized.ids) - 1
            assert readout.word in FUNCTION_WORDS
            assert subject.tokenizer.decode([tokenized.ids[readout.index]]) == f" {readout.word}"
        assert tokenized.readouts == (*tokenized.function, tokenized.final)
        assert tokenized.final.index == len(tokenized.ids) - 1


def test_function_words_too_early_or_at_the_end_are_left_out(subject: Subject) -> None:
    # "from" is the third token and "of" the fourth; a last token is read as such, whatever its word.
    (tokenized,) = tokenize(subject, texts("People came from of all the places they had known with"))
    assert [(r.index, r.word) for r in tokenized.function] == [(3, "of"), (5, "the")]
    assert (tokenized.final.word, tokenized.final.kind) == ("with", "final")


def test_every_function_word_of_a_text_is_found(subject: Subject) -> None:
    (tokenized,) = tokenize(subject, texts(TEXTS[0]))
    # The text's first "The" is no function word (a capital), "on" stands at index 3, "late" is the last token.
    assert [r.word for r in tokenized.function] == ["on", "the", "of", "the", "and", "the"]
    assert (tokenized.final.word, tokenized.final.kind) == ("late", "final")


def test_a_piece_inside_a_word_is_no_function_word(subject: Subject) -> None:
    # "in" ends "Aladdin" and "by" ends "Moby": only a piece that starts a word counts.
    (tokenized,) = tokenize(subject, texts("We read about Aladdin, (of) Moby, Ravin and Querby yesterday"))
    assert [r.word for r in tokenized.function] == ["and"]


def test_a_short_text_has_its_last_token_only(subject: Subject) -> None:
    (tokenized,) = tokenize(subject, texts("Yes."))
    assert tokenized.function == ()
    assert (tokenized.final.index, tokenized.final.word) == (len(tokenized.ids) - 1, ".")


def test_sentencepiece_words_are_found_too(tiny: Callable[[str], Subject]) -> None:
    (tokenized,) = tokenize(tiny("llama"), texts("the cat sat with the mat of rain and night"))
    assert [(r.index, r.word) for r in tokenized.function] == [(3, "with"), (4, "the"), (6, "of"), (8, "and")]


@pytest.mark.parametrize("ends", [False, True], ids=["BOS", "BOS and EOS"])
def test_the_preamble_starts_with_bos_and_never_ends_with_eos(
    tiny: Callable[[str], Subject], word_tokenizer: Callable[..., object], ends: bool
) -> None:
    plain = tiny("llama")
    subject = wrap_subject(plain.model, word_tokenizer(ends=ends), "tiny", "tiny")
    ids = make_preamble(subject, 1).ids
    assert ids[0] == subject.tokenizer.bos_token_id
    assert list(ids[1:]) == subject.encode(PREAMBLE)


def test_one_text_alone_reads_as_among_others(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("gemma3-text")
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 60, (n,), generator=generator).tolist() for n in (3, 60, 9, 31, 14, 9)] * 9
    prefix = subject.make_prefix(rows[1], 2)
    together = dict(read_states(subject, prefix, rows, [2]))
    for number in range(6):
        alone = dict(read_states(subject, prefix, [rows[number]], [2]))[0][2]
        assert torch.allclose(together[number][2], alone, rtol=1e-4, atol=1e-4)
        assert torch.allclose(together[number + 48][2], alone, rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(1, 700), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_text_once_and_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40))
def test_batches_are_of_like_length(lengths: list[int]) -> None:
    batches = list(batches_by_length(lengths, 100))
    shortest = [min(lengths[i] for i in batch) for batch in batches]
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert all(before >= after for before, after in zip(shortest, longest[1:], strict=False))


def test_pooling_is_the_mean_over_tokens() -> None:
    states = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert pool_states(states).tolist() == [2.0, 4.0]
