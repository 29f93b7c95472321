"""E5, copying: does a request to repeat the steered answer bring its tokens' states to the steered ones?

As in the public code: the steered answer stands in a request to repeat it, the subject reads the same tokens again as
its answer, without steering, and their states are compared with those under steering, and with the natural ones of the
same tokens after the original prompt. What the subject itself writes to that request is compared token by token.
"""

from __future__ import annotations

from typing import Any

from nlabench.benchmark.decoding import decode

from .many_shot import count_tokens, write_answers
from .matching import REACHABLE
from .prompts import SETS
from .setup import Setup, read_states
from .states import mean, token_distances
from .timing import time_answers, time_reading

#: How often the answer stands in the request.
TIMES = (1, 4)


def count_prompts(setup: Setup) -> int:
    return 3 if setup.quick else 10


def estimate(setup: Setup) -> float:
    """From answers to the prompts and to requests to repeat another text of as many tokens, and the longest reading."""
    subject, n_tokens, prompts = setup.subject, count_tokens(setup), setup.prompts["refusal"][: count_prompts(setup)]
    text = (subject.encode(REACHABLE) * n_tokens)[:n_tokens]
    seconds = time_answers(setup, prompts, n_tokens)
    copies = [subject.chat_ids(ask_to_repeat(subject.tokenizer.decode(text), times)) for times in TIMES]
    seconds += sum(time_answers(setup, [copy] * len(prompts), n_tokens) for copy in copies)
    n_read = sum(len(copy + text) + 2 * len(prompts[0] + text) for copy in copies)  # in the copy, steered, natural
    a_token = time_reading(setup, copies[-1] + text) / len(copies[-1] + text)
    return len(SETS) * (seconds + len(prompts) * n_read * a_token)


def ask_to_repeat(text: str, times: int) -> str:
    """The request, in our words."""
    return "Please write the text below once more, word for word and with nothing else.\n\n" + "\n\n".join(
        [text] * times
    )


def measure_copying(setup: Setup) -> dict[str, Any]:
    """Per set and number of times, means over prompts and the answer's tokens.

    shift: from the natural states of the answer to the steered ones; to_steered, to_natural: from the states in the
    copy; exact: answers that the subject repeats token by token.
    """
    found: dict[str, Any] = {}
    for name in SETS:
        prompts = setup.prompts[name][: count_prompts(setup)]
        answers = write_answers(setup, name, prompts)
        found[name] = {f"{times}": measure_set(setup, name, prompts, answers, times) for times in TIMES}
    setup.say("E5: copying done")
    return found


def measure_set(
    setup: Setup, name: str, prompts: list[list[int]], answers: list[tuple[int, ...]], times: int
) -> dict[str, float]:
    """One set, each answer so many times in the request. answers: under steering, as token ids."""
    subject, site = setup.subject, setup.layer_of(name)
    copies = [subject.chat_ids(ask_to_repeat(subject.tokenizer.decode(list(a)), times)) for a in answers]
    shift, to_steered, to_natural = [], [], []
    for ids, copy, answer in zip(prompts, copies, answers, strict=True):
        steered = setup.states(name, [*ids, *answer], setup.shift(name))[len(ids) :]
        natural = read_states(subject, [*ids, *answer], site)[len(ids) :]
        copied = read_states(subject, [*copy, *answer], site)[len(copy) :]
        shift.append(float(token_distances(steered, natural).mean()))
        to_steered.append(float(token_distances(copied, steered).mean()))
        to_natural.append(float(token_distances(copied, natural).mean()))
    longest = max(map(len, answers))
    written = decode(subject, copies, max_new_tokens=longest)
    exact = sum(w.ids[: len(answer)] == answer for w, answer in zip(written, answers, strict=True))
    return {
        "prompts": len(prompts),
        "shift": mean(shift),
        "to_steered": mean(to_steered),
        "to_natural": mean(to_natural),
        "exact": exact,
    }
