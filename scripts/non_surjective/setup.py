"""What every experiment starts from: a subject, prompts, directions, and states read as the paper reads them.

The paper's place of steering: λv is added to the *input* of block `layer`, at every position from the first on, and
states are read *after* that block. In nlabench's words: upstream by one block, injected after block `layer - 1`, read
at site `layer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.steering import difference_of_means, random_directions, unit
from nlabench.benchmark.subject import Edit, Subject
from torch import Tensor

from .prompts import SETS, Trait, load_built_in, load_requests, load_trait
from .refusals import is_answered

Arm = Literal["steered", "permuted", "random"]
ARMS: tuple[Arm, ...] = ("steered", "permuted", "random")

#: Tokens of one answer from which the persona direction is made.
ANSWER_TOKENS = 24

#: Tokens of an answer that tell whether a request is declined, and the fewest requests that a direction is made of.
JUDGED_TOKENS, FEWEST_REQUESTS = 10, 6


@dataclass(frozen=True)
class Published:
    """The layers and strengths at which the paper steers a subject."""

    layers: Mapping[str, int]
    strengths: Mapping[str, float]


#: By the end of the subject's name. gemma-3-1b-it's layers are not given in the paper's text: half the depth.
PUBLISHED = {
    "Llama-3.2-1B-Instruct": Published({"persona": 8, "refusal": 8}, {"persona": 1.0, "refusal": -1.0}),
    "Qwen2.5-0.5B-Instruct": Published({"persona": 12, "refusal": 18}, {"persona": 2.0, "refusal": -1.0}),
}
#: Why no vector is added at the input of block 0.
NO_LAYER_0 = (
    "the vector is added to the input of that block, and a direction is read there, but before block 0 there are only "
    "embeddings"
)

STRENGTHS = {"persona": 1.0, "refusal": -1.0}


@dataclass(frozen=True)
class Setup:
    """What is the same for all experiments.

    layer: the block at whose input the vector is added and after which states are read; `layer_of` where the paper has
    another one for each set. directions: per set, the raw difference of means [d_model], float32 on the CPU. controls:
    per set and arm (permuted, random), a vector of the same norm. made_of: on either side of each direction, how many
    texts. strengths: λ per set. prompts: per set, token ids after the chat template. spans: per set and prompt, where
    the request itself lies, as [start, stop). requests: the texts. invert: whether E1's inversions are made in this
    run, for E2 and sip-it to use. shots: the most demonstrations of E3.
    """

    subject: Subject
    layer: int
    layers: Mapping[str, int]
    directions: Mapping[str, Tensor]
    controls: Mapping[str, Mapping[str, Tensor]]
    made_of: Mapping[str, tuple[int, int]]
    strengths: Mapping[str, float]
    prompts: Mapping[str, list[list[int]]]
    spans: Mapping[str, list[tuple[int, int]]]
    requests: Mapping[str, list[str]]
    quick: bool
    seed: int
    say: Callable[[str], None]
    invert: bool = False
    shots: int = 8

    def layer_of(self, name: str) -> int:
        return self.layers.get(name, self.layer)

    def vector(self, name: str, arm: Arm = "steered") -> Tensor:
        """The vector of an arm [d_model]: the set's direction, or a control of its norm."""
        return self.directions[name] if arm == "steered" else self.controls[name][arm]

    def shift(self, name: str, arm: Arm = "steered", strength: float | None = None) -> Tensor:
        """λv [d_model], float32; λ is the set's own unless given."""
        return (self.strengths[name] if strength is None else strength) * self.vector(name, arm)

    def states(self, name: str, ids: Sequence[int], shift: Tensor | None = None) -> Tensor:
        """The stream after block `layer` at every position [n_tokens, d_model], float32 on the CPU."""
        layer = self.layer_of(name)
        return read_states(self.subject, ids, layer, layer, shift)


def add_everywhere(subject: Subject, shifts: Tensor) -> Edit:
    """Adds a row's shift at every position, prompt and answer alike. shifts: [n_rows, d_model]."""
    moved = shifts.to(subject.device, subject.dtype)

    def edit(states: Tensor, rows: Tensor, prefill: bool) -> Tensor:
        return states + moved[rows][:, None]

    return edit


def read_states(
    subject: Subject, ids: Sequence[int], site: int, layer: int | None = None, shift: Tensor | None = None
) -> Tensor:
    """The stream after block `site` [n_tokens, d_model], float32 on the CPU, with a shift at the input of `layer`."""
    tokens = torch.tensor([list(ids)], device=subject.device)
    edits = {} if shift is None or layer is None else {layer - 1: add_everywhere(subject, shift[None])}
    read = subject.run(tokens, torch.ones_like(tokens), capture=[site], edits=edits)[site][0]
    return read.float().cpu()


def say_time(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def make_setup(
    subject: Subject,
    *,
    layer: int | None = None,
    prompts: Path | None = None,
    quick: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = say_time,
    invert: bool = False,
    shots: int = 8,
) -> Setup:
    """Read the prompts and make the directions (half a minute for the default subject on two cores).

    layer: for both sets; where it is not given, the paper's own for the subjects that it has, else half the depth.
    prompts: a list in the refusal_direction split format, in place of the built-in refusal prompts.

    Raises:
        BadInput: the layer is 0 or not the subject's, the list cannot be read, or there are not so many shots.
    """
    known = next((found for name, found in PUBLISHED.items() if subject.name.split("@")[0].endswith(name)), None)
    middle = subject.check_layer(layer if layer is not None else subject.n_blocks // 2)
    check_shots(shots)
    if middle == 0:
        raise BadInput(f"Layer 0 was asked for: {NO_LAYER_0}. Choose a layer from 1 on.")
    own = layer is None and known is not None
    layers = {name: known.layers[name] if own and known else middle for name in SETS}
    requests = list_requests(prompts)
    say("persona: answers under kind and unkind system prompts")
    pairs = {"persona": _trait_states(subject, layers["persona"], load_trait())}
    say("refusal: which requests are declined")
    pairs["refusal"] = _refusal_states(subject, layers["refusal"])
    directions = {name: difference_of_means(*pair) for name, pair in pairs.items()}
    return Setup(
        subject=subject,
        layer=layers["refusal"],
        layers=layers,
        directions=directions,
        controls={name: _controls(*pair, seed) for name, pair in pairs.items()},
        made_of={name: (len(positive), len(negative)) for name, (positive, negative) in pairs.items()},
        strengths=dict(known.strengths if known else STRENGTHS),
        prompts={name: [subject.chat_ids(text) for text in texts] for name, texts in requests.items()},
        spans={name: [find_request(subject, text) for text in texts] for name, texts in requests.items()},
        requests=requests,
        quick=quick,
        seed=seed,
        say=say,
        invert=invert,
        shots=shots,
    )


def check_shots(shots: int) -> None:
    """
    Raises:
        BadInput: none, or more than there are demonstrations.
    """
    most = len(load_built_in("declined"))
    if not 1 <= shots <= most:
        raise BadInput(f"{shots} demonstrations were asked for; there are {most} built-in ones. Choose 1 to {most}.")


def list_requests(prompts: Path | None) -> dict[str, list[str]]:
    """The texts of every set; prompts: a list that stands in the place of the built-in refusal requests.

    Raises:
        BadInput: the list cannot be read, or is none.
    """
    lists = {name: load_built_in(name) for name in SETS}
    if prompts is not None:
        lists["refusal"] = load_requests(prompts)
    return {name: [request.instruction for request in found] for name, found in lists.items()}


def find_request(subject: Subject, request: str) -> tuple[int, int]:
    """Where a request lies in its chat prompt, as [start, stop): what the template wraps around it is left out."""
    ids = subject.chat_ids(request)
    before, after = (template_ends(subject)[i] for i in (0, 1))
    start = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), min(len(ids), len(before)))
    return start, len(ids) - len(after)


def template_ends(subject: Subject) -> tuple[list[int], list[int]]:
    """The token ids that the chat template puts before and after any request."""
    one, other = subject.chat_ids("Yes"), subject.chat_ids("no 7")
    n_before = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    n_after = next((i for i, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), 0)
    return one[:n_before], one[len(one) - n_after :]


def chat_ids_under(subject: Subject, system: str, request: str) -> list[int]:
    """A request after a system prompt; before the request's own text where the template knows no system turn."""
    if subject.tokenizer.chat_template is not None:
        try:
            ids: list[int] = subject.tokenizer.apply_chat_template(
                [{"role": "system", "content": system}, {"role": "user", "content": request}],
                add_generation_prompt=True, tokenize=True, return_dict=False,
            )  # fmt: skip
            return ids
        except Exception as error:  # a template says in its own words that it has no such role
            if "system" not in str(error).lower():
                raise
    return subject.chat_ids(f"{system}\n\n{request}")


def _trait_states(subject: Subject, layer: int, trait: Trait) -> tuple[Tensor, Tensor]:
    """Means over greedy answers' tokens at the input of `layer`, under either kind of system prompt [n, d_model]."""
    pooled = []
    for systems in (trait.shown, trait.opposite):
        prompts = [chat_ids_under(subject, system, question) for system in systems for question in trait.questions]
        answers = decode(subject, prompts, max_new_tokens=ANSWER_TOKENS)
        pooled.append(
            torch.stack(
                [
                    read_states(subject, [*ids, *answer.ids], layer - 1)[len(ids) :].mean(0)
                    for ids, answer in zip(prompts, answers, strict=True)
                    if answer.ids
                ]
            )
        )
    return pooled[0], pooled[1]


def _refusal_states(subject: Subject, layer: int) -> tuple[Tensor, Tensor]:
    """States of the last prompt token at the input of `layer`: requests that are declined, harmless ones [n, d].

    As in the refusal_direction code, a request counts only where the subject does what its list says: a subject that
    declines half of what it should has a direction of half the length otherwise. All count where too few would.
    """
    declined, harmless = ([r.instruction for r in load_built_in(name)] for name in ("declined", "harmless"))
    answered = _which_answered(subject, [*declined, *harmless])
    kept = [
        [text for text, yes in zip(declined, answered, strict=False) if not yes],
        [text for text, yes in zip(harmless, answered[len(declined) :], strict=True) if yes],
    ]
    if min(map(len, kept)) < FEWEST_REQUESTS:
        kept = [declined, harmless]
    first, second = (
        torch.stack([read_states(subject, subject.chat_ids(text), layer - 1)[-1] for text in texts]) for texts in kept
    )
    return first, second


def _which_answered(subject: Subject, requests: Sequence[str]) -> list[bool]:
    before = template_ends(subject)[0]
    prefix = subject.make_prefix(before) if before else None
    prompts = [subject.chat_ids(request)[len(before) :] for request in requests]
    return [is_answered(d.text) for d in decode(subject, prompts, max_new_tokens=JUDGED_TOKENS, prefix=prefix)]


def _controls(positive: Tensor, negative: Tensor, seed: int) -> dict[str, Tensor]:
    """Vectors of the direction's norm that mean nothing: shuffled labels, and an isotropic one [d_model].

    Each side of the shuffled difference takes half of the positive and half of the negative texts: with so few texts an
    unbalanced shuffle would keep a good part of the direction.
    """
    length = difference_of_means(positive, negative).norm()
    generator = torch.Generator().manual_seed(seed)
    halves = [states[torch.randperm(len(states), generator=generator)].chunk(2) for states in (positive, negative)]
    one, other = (torch.stack([half[side].mean(0) for half in halves]).mean(0) for side in (0, 1))
    return {
        "permuted": unit(one - other) * length,
        "random": random_directions(len(one), 1, seed=seed)[0] * length,
    }


def describe(setup: Setup) -> dict[str, Any]:
    """What decides the numbers, for provenance."""
    return {
        "layers": dict(setup.layers),
        "strengths": dict(setup.strengths),
        "lengths": {name: float(vector.norm()) for name, vector in setup.directions.items()},
        "cosines": {
            name: {arm: float(unit(setup.directions[name]) @ unit(vector)) for arm, vector in arms.items()}
            for name, arms in setup.controls.items()
        },
        "made_of": {name: list(counts) for name, counts in setup.made_of.items()},
        "requests": dict(setup.requests),
        "seed": setup.seed,
    }
