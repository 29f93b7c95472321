"""Facts about decoding: greedy, the tokens of transformers' own generate; sampled, the model's own distribution.

Either way whatever is cached, padded, edited or decoded beside a text changes nothing.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from nlabench.benchmark.decoding import Sampling, decode, seed_text
from nlabench.benchmark.subject import Subject
from torch import Tensor

FIRST = [3, 41, 17, 29, 8, 33, 52]
ROWS = [[11, 4, 50], [9, 23, 42, 7, 36, 19, 5, 31], [44], [6, 15, 27, 38, 12, 49, 21, 33, 10, 47, 18], [20, 14, 35]]
NEW_TOKENS = 9

Tiny = Callable[[str], Subject]


def generate(subject: Subject, ids: Sequence[int], n: int = NEW_TOKENS) -> list[int]:
    """transformers' greedy continuation of one row, the token that stops it included."""
    prompt = torch.tensor([list(ids)])
    out = subject.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=n, pad_token_id=0,
        eos_token_id=sorted(subject.stop_ids()),
    )  # fmt: skip
    return [int(i) for i in out[0, len(ids) :]]


def without_stop(subject: Subject, ids: list[int]) -> tuple[int, ...]:
    return tuple(ids[:-1] if ids and ids[-1] in subject.stop_ids() else ids)


def stopping_at(subject: Subject, stops: list[int]) -> Subject:
    """A copy of a subject that ends its texts at other tokens."""
    changed = copy.deepcopy(subject)
    changed.model.generation_config.eos_token_id = stops
    return changed


@contextlib.contextmanager
def added_past(subject: Subject, block: int, shift: Tensor, first: int) -> Iterator[None]:
    """A plain forward hook that adds a shift after a block, at every token from number `first` on."""
    seen = 0

    def hook(_: object, __: object, output: Tensor | tuple[Tensor, ...]) -> object:
        nonlocal seen
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, max(0, first - seen) :] += shift
        seen += states.shape[1]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = subject.blocks[block].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("prefixed", [False, True], ids=["whole prompts", "shared prefix"])
def test_greedy_texts_are_those_of_transformers_generate(any_tiny: Subject, prefixed: bool) -> None:
    # Rows of different length, and a prompt, a prefix and an answer that all outgrow the sliding window of 5.
    before = FIRST if prefixed else []
    prefix = any_tiny.make_prefix(FIRST) if prefixed else None
    decoded = decode(any_tiny, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix)
    wanted = [without_stop(any_tiny, generate(any_tiny, before + row)) for row in ROWS]
    assert [text.ids for text in decoded] == wanted
    assert len({token for text in decoded for token in text.ids}) > 5  # the tiny models do say something


@pytest.mark.parametrize("prefixed", [False, True], ids=["whole prompts", "shared prefix"])
def test_rows_that_end_early_leave_the_others_as_they_were(any_tiny: Subject, prefixed: bool) -> None:
    before = FIRST if prefixed else []
    free = stopping_at(any_tiny, [])
    free.tokenizer.eos_token = None
    # Two of the five answers are ended in their middle, by whatever they say there.
    stops = [generate(free, before + ROWS[row])[step] for row, step in ((1, 2), (3, 4))]
    stopped = stopping_at(any_tiny, stops)
    answers = [generate(stopped, before + row) for row in ROWS]
    prefix = stopped.make_prefix(FIRST) if prefixed else None
    decoded = decode(stopped, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix)
    assert [text.ids for text in decoded] == [without_stop(stopped, answer) for answer in answers]
    assert len({len(text.ids) for text in decoded}) > 1


@pytest.mark.parametrize("prefixed", [False, True], ids=["whole prompts", "shared prefix"])
def test_an_edited_text_is_what_a_forward_hook_makes_generate_say(any_tiny: Subject, prefixed: bool) -> None:
    # Every row has its own shift, so that a row that is dropped or regrouped must not take its neighbour's.
    before = FIRST if prefixed else []
    prefix = any_tiny.make_prefix(FIRST) if prefixed else None
    shifts = torch.randn(len(ROWS), any_tiny.d_model, generator=torch.Generator().manual_seed(5)) * 4
    decoded = decode(
        any_tiny, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix,
        edits={1: lambda states, rows, prefill: states + shifts[rows][:, None]},
    )  # fmt: skip
    plain = decode(any_tiny, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix)
    for row, shift, text in zip(ROWS, shifts, decoded, strict=True):
        with added_past(any_tiny, 1, shift, len(before)):
            assert text.ids == without_stop(any_tiny, generate(any_tiny, before + row))
    assert [text.ids for text in decoded] != [text.ids for text in plain]


def test_rows_keep_their_own_edit_when_others_have_ended(tiny: Tiny) -> None:
    subject = tiny("llama")
    shifts = torch.randn(len(ROWS), subject.d_model, generator=torch.Generator().manual_seed(6)) * 4
    prefix = subject.make_prefix(FIRST)

    def edit(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        return states + shifts[rows][:, None]

    free = stopping_at(subject, [])
    free.tokenizer.eos_token = None
    first = decode(free, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix, edits={1: edit})
    stopped = stopping_at(free, [first[0].ids[0], first[2].ids[1]])  # the first row ends at once
    stopped.tokenizer.eos_token = None
    decoded = decode(stopped, ROWS, max_new_tokens=NEW_TOKENS, prefix=prefix, edits={1: edit})
    assert decoded[0].ids == ()
    for whole, cut in zip(first, decoded, strict=True):
        ends = [i for i, token in enumerate(whole.ids) if token in stopped.stop_ids()]
        assert cut.ids == whole.ids[: ends[0] if ends else None]


def test_prefill_is_the_prompt_and_nothing_after_it(tiny: Tiny) -> None:
    seen: list[tuple[int, bool]] = []

    def watch(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        seen.append((states.shape[1], prefill))
        return states

    decode(tiny("qwen2"), [ROWS[1]], max_new_tokens=3, edits={0: watch})
    assert seen == [(len(ROWS[1]), True), (1, False), (1, False)]


@pytest.mark.parametrize("family", ["llama", "gemma3-text", "gpt2"])
def test_the_log_probability_is_that_of_the_answer_and_its_stop(tiny: Tiny, family: str) -> None:
    subject = tiny(family)
    stopped = stopping_at(subject, [generate(subject, FIRST + ROWS[1])[2]])
    decoded = decode(stopped, ROWS, max_new_tokens=NEW_TOKENS, prefix=stopped.make_prefix(FIRST))
    for row, text in zip(ROWS, decoded, strict=True):
        answer = generate(stopped, FIRST + row)
        ids = torch.tensor([FIRST + row + answer])
        with torch.inference_mode():
            logits = stopped.model(input_ids=ids, use_cache=False).logits[0]
        spent = logits.log_softmax(-1)[-len(answer) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).sum()
        assert text.logprob == pytest.approx(float(spent), rel=1e-4, abs=1e-4)


def test_decoding_stops_when_every_row_has(tiny: Tiny) -> None:
    subject = tiny("llama")
    stopped = stopping_at(subject, list(range(subject.vocab_size)))
    calls = []
    handle = stopped.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    decoded = decode(stopped, ROWS, max_new_tokens=NEW_TOKENS)
    handle.remove()
    assert [text.ids for text in decoded] == [()] * len(ROWS)
    assert [text.text for text in decoded] == [""] * len(ROWS)
    assert len(calls) == 1


def test_greedy_texts_do_not_depend_on_the_batch(subject: Subject) -> None:
    requests = ["Name a colour.", "What is the capital of France, and what is it known for?", "Hi", "Count to ten."]
    prompts = [subject.chat_ids(request) for request in requests]
    together = decode(subject, prompts, max_new_tokens=12)
    alone = [decode(subject, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert [text.ids for text in together] == [text.ids for text in alone]
    assert "Paris" in together[1].text
    assert together[1].text == subject.tokenizer.decode(together[1].ids)


def test_the_default_subject_says_what_generate_says(subject: Subject) -> None:
    prompts = [subject.chat_ids(request) for request in ("Name a colour.", "Say only the word yes, and stop.")]
    shared = next(i for i, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
    prefix = subject.make_prefix(prompts[0][:shared])
    decoded = decode(subject, [prompt[shared:] for prompt in prompts], max_new_tokens=16, prefix=prefix)
    wanted = [without_stop(subject, generate(subject, prompt, 16)) for prompt in prompts]
    assert [text.ids for text in decoded] == wanted


def sampled(
    subject: Subject, rows: Sequence[int], n: int = NEW_TOKENS, temperature: float = 1.0
) -> list[tuple[int, ...]]:
    """Sampled texts of some of ROWS, decoded together, each with the seed that is its own."""
    texts = decode(
        subject, [ROWS[row] for row in rows], max_new_tokens=n, prefix=subject.make_prefix(FIRST),
        sampling=Sampling(temperature, tuple(seed_text(0, str(row), 0) for row in rows)),
    )  # fmt: skip
    return [text.ids for text in texts]


def test_a_sampled_text_does_not_depend_on_its_batch(any_tiny: Subject) -> None:
    together = sampled(any_tiny, range(5))
    assert sampled(any_tiny, [4, 2, 0, 3, 1]) == [together[row] for row in (4, 2, 0, 3, 1)]
    assert [sampled(any_tiny, [row])[0] for row in range(5)] == together
    assert sampled(any_tiny, range(5), temperature=2.0) != together


def test_a_seed_is_of_the_run_the_content_and_the_number_of_the_sample() -> None:
    seeds = {seed_text(*parts) for parts in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}
    assert len(seeds) == 4
    assert seed_text(3, "vector", 2) == seed_text(3, "vector", 2)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_come_as_often_as_the_model_says(tiny: Tiny, temperature: float) -> None:
    subject = tiny("llama")
    draws = 4000
    seeds = tuple(seed_text(0, "one prompt", number) for number in range(draws))
    drawn = decode(subject, [ROWS[1]] * draws, max_new_tokens=1, sampling=Sampling(temperature, seeds))
    with torch.inference_mode():
        logits = subject.model(input_ids=torch.tensor([ROWS[1]])).logits[0, -1]
    wanted = (logits / temperature).softmax(-1).double()
    tokens = [text.ids[0] if text.ids else subject.tokenizer.eos_token_id for text in drawn]
    found = torch.tensor(tokens).bincount(minlength=len(wanted)) / draws
    # Four standard errors of a share of 4,000 draws.
    assert ((found - wanted).abs() <= 4 * (wanted * (1 - wanted) / draws).sqrt() + 1e-3).all()
    # The log-probability stays the model's own, whatever the temperature.
    shares = logits.log_softmax(-1)
    for token, text in zip(tokens[:50], drawn[:50], strict=True):
        assert text.logprob == pytest.approx(float(shares[token]), abs=1e-4)


def test_at_a_low_temperature_samples_are_the_greedy_texts(tiny: Tiny) -> None:
    subject = tiny("qwen3")
    greedy = decode(subject, ROWS, max_new_tokens=NEW_TOKENS, prefix=subject.make_prefix(FIRST))
    assert sampled(subject, range(5), temperature=1e-4) == [text.ids for text in greedy]


def test_a_text_ends_as_soon_as_it_holds_the_text_to_stop_at(subject: Subject) -> None:
    prompts = [subject.chat_ids(request) for request in ("Name a colour.", "What is the capital of France?")]
    whole = decode(subject, prompts, max_new_tokens=24)
    # The middle of the second answer, several tokens long; the first one does not hold it.
    piece = subject.tokenizer.decode(whole[1].ids[3:6])
    assert piece not in whole[0].text
    first = next(n for n in range(len(whole[1].ids) + 1) if piece in subject.tokenizer.decode(whole[1].ids[:n]))
    calls = []
    handle = subject.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    stopped = decode(subject, prompts[1:], max_new_tokens=24, stop_text=piece)
    handle.remove()
    assert stopped[0].ids == whole[1].ids[:first]
    assert len(calls) == first
    both = decode(subject, prompts, max_new_tokens=24, stop_text=piece)
    assert [text.ids for text in both] == [whole[0].ids, whole[1].ids[:first]]
