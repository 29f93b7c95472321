"""Prompts with placeholders: rendered and tokenized in one step, and the tokens that vectors may take."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadInput
from .subject import Subject


@dataclass(frozen=True)
class SlottedPrompt:
    """Token ids of a whole prompt. slots: the positions of the tokens that its placeholders became, in order."""

    ids: tuple[int, ...]
    slots: tuple[int, ...]


def render_chat(subject: Subject, request: str, answer: str = "") -> str:
    """One user message by the subject's chat template, and the beginning of the answer (without a thinking part).

    The subject must have a chat template.
    """
    # A template that knows no thinking ignores the option.
    rendered: str = subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": request}], add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    return rendered + answer


def encode_prompt(subject: Subject, text: str, placeholders: str, *, lead: str = "", rendered: bool) -> SlottedPrompt:
    """Tokenize a prompt and find the tokens that its placeholders became.

    lead: what stands before the placeholders, where they alone could be found elsewhere too. rendered: by a chat
    template, which has written the special tokens; else the tokenizer adds its own at the start.

    Raises:
        BadInput: the placeholders are not in the prompt, or the tokenizer does not say where its tokens lie.
    """
    start = text.find(lead + placeholders) + len(lead)
    if start < len(lead) or not subject.tokenizer.is_fast:
        raise BadInput(
            f"The prompt {text[:200]!r} should hold {lead + placeholders!r}, and its tokenizer say where its tokens "
            "lie. Choose a subject with a chat template that leaves a message as it is, and with a fast tokenizer."
        )
    encoded = subject.tokenizer(text, add_special_tokens=not rendered, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    if not rendered and ids[-1] == subject.tokenizer.eos_token_id:  # some tokenizers end every text
        ids = ids[:-1]
    spans = encoded["offset_mapping"][: len(ids)]
    slots = tuple(i for i, (low, high) in enumerate(spans) if low < start + len(placeholders) and high > start)
    return SlottedPrompt(tuple(ids), slots)
