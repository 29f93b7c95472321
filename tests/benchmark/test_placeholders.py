"""Facts about prompts with placeholders: one step of tokenizing, and slots that are the placeholders' tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import transformers as hf
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.placeholders import encode_prompt, render_chat
from nlabench.benchmark.subject import Subject


def test_the_slots_are_the_placeholders_tokens_and_the_ids_the_chat_templates_own(subject: Subject) -> None:
    prompt = encode_prompt(subject, render_chat(subject, "cats: _ _ _ are late"), "_ _ _", rendered=True)
    assert list(prompt.ids) == subject.chat_ids("cats: _ _ _ are late")
    assert [subject.tokenizer.decode(prompt.ids[slot]).strip() for slot in prompt.slots] == ["_", "_", "_"]
    assert prompt.slots == tuple(range(prompt.slots[0], prompt.slots[0] + 3))


def test_the_beginning_of_an_answer_follows_the_templates_last_token(subject: Subject) -> None:
    answered = subject.encode(render_chat(subject, "cats", "Sure, cats:"))
    assert answered == subject.chat_ids("cats") + subject.encode("Sure, cats:")


def test_placeholders_that_occur_earlier_too_are_found_by_what_stands_before_them(subject: Subject) -> None:
    text = render_chat(subject, "Really ? Layer: 3\n ? ?\nReally ?")
    prompt = encode_prompt(subject, text, " ? ?", lead="Layer: 3\n", rendered=True)
    before = subject.tokenizer.decode(prompt.ids[: prompt.slots[0]])
    assert before.endswith("Really ? Layer: 3\n")
    assert len(prompt.slots) == 2


@pytest.mark.parametrize("ends", [False, True])
def test_a_plain_prompt_starts_with_the_tokenizers_bos_and_has_no_eos(
    tiny: Callable[[str], Subject], word_tokenizer: Callable[..., hf.PreTrainedTokenizerFast], ends: bool
) -> None:
    plain = replace(tiny("llama"), tokenizer=word_tokenizer(ends=ends))
    prompt = encode_prompt(plain, "the cat sat _ _ in the night", "_ _", rendered=False)
    assert list(prompt.ids) == plain.encode_start("the cat sat _ _ in the night")
    assert prompt.slots == (4, 5)


def test_a_template_that_changes_the_message_is_refused(subject: Subject) -> None:
    shouting = copy.deepcopy(subject.tokenizer)
    shouting.chat_template = "{{ messages[0]['content'] | replace('_', '-') }}"
    other = replace(subject, tokenizer=shouting)
    with pytest.raises(BadInput, match="should hold '_ _'"):
        encode_prompt(other, render_chat(other, "_ _"), "_ _", rendered=True)
