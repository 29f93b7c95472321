"""Activation Oracles: an adapter on the subject that was trained to answer questions about vectors.

Karvonen et al. 2025, "Activation Oracles: Training and Evaluating LLMs as General-Purpose Activation Explainers"
(arXiv 2512.15674); github.com/adamkarvonen/activation_oracles, `experiments/activation_oracle_demo.ipynb`. One user
message names the layer (block K, as here), holds a placeholder for each vector and asks the question; the chat template
is filled with thinking switched off. While the prompt is read, a vector v is added to its placeholder's state h after
block 1, as long as that is: h + ‖h‖ v / ‖v‖ (coefficient 1, as published).

`activation-oracle:PATH` takes a PEFT adapter, a folder or a hub id, and is asked each task's question;
`activation-oracle:PATH?question=…` is asked that one by all. Released adapters were trained on vectors at 25, 50 and
75% of the depth. Answers are greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..activations import ActivationBatch
from ..decoding import Decoded, decode
from ..errors import BadInput
from ..injection import VectorInjection, inject_vectors
from ..nla.checkpoint import base_of_adapter, fetch_checkpoint, load_adapter, place_beside
from ..placeholders import SlottedPrompt, encode_prompt, render_chat
from ..study import Study
from ..subject import Prefix, Subject
from .asking import QUESTION, Asked
from .base import Verbalization, VerbalizerCard, check_made_for, name_of_base, strip_controls

PLACEHOLDER = " ?"
INJECTION = VectorInjection("add_norm_matched", block=1)
NEW_TOKENS = 40


@dataclass(frozen=True)
class ActivationOracle:
    """model: the subject with the adapter merged in. layer: of the site, which the prompt names."""

    card: VerbalizerCard
    model: Subject
    layer: int

    def answer(self, batch: ActivationBatch, question: str) -> list[Verbalization]:
        answers = ask_oracle(self.model, batch.vectors[:, None], self.layer, question)
        return [Verbalization(strip_controls(answer.text), answer.logprob) for answer in answers]


def ask_oracle(model: Subject, vectors: Tensor, layer: int, question: str) -> list[Decoded]:
    """One answer for each item, about all of its vectors.

    vectors: [n_items, n_vectors, d_model], of one site and in the order of the text that they were read from.

    Raises:
        BadInput: the tokenizer has no chat template or no placeholder, or a vector cannot be scaled.
    """
    prompt = write_prompt(model, vectors.shape[1], layer, question)
    start = prompt.slots[0]
    slots: Sequence[int] = [slot - start for slot in prompt.slots]
    return decode(
        model, [prompt.ids[start:]] * len(vectors), max_new_tokens=NEW_TOKENS,
        prefix=model.make_prefix(prompt.ids[:start]) if start else Prefix((), (), ()),
        edits=inject_vectors(INJECTION, vectors, slots),
    )  # fmt: skip


def write_prompt(model: Subject, n_vectors: int, layer: int, question: str) -> SlottedPrompt:
    """The prompt that an oracle was trained on, with a slot for every vector.

    Raises:
        BadInput: the tokenizer has no chat template, or the placeholder is not one token of its vocabulary.
    """
    token = model.encode(PLACEHOLDER)
    if model.tokenizer.chat_template is None or len(token) != 1 or token[0] == model.tokenizer.unk_token_id:
        raise BadInput(
            f"The tokenizer of {model.name!r} has no chat template, or does not know {PLACEHOLDER!r} as one token. An "
            "oracle's prompt is a chat message with that token for each vector; give an adapter that was trained on a "
            "chat model."
        )
    lead, placeholders = f"Layer: {layer}\n", PLACEHOLDER * n_vectors
    text = render_chat(model, f"{lead}{placeholders} \n{question}")
    prompt = encode_prompt(model, text, placeholders, lead=lead, rendered=True)
    if [prompt.ids[slot] for slot in prompt.slots] != token * n_vectors:
        raise BadInput(
            f"The {n_vectors} placeholders of the oracle's prompt became the tokens "
            f"{[prompt.ids[slot] for slot in prompt.slots]} with the tokenizer of {model.name!r}; {token[0]} once for "
            "each was expected. Its chat template rewrites the message: use the tokenizer of the adapter's base."
        )
    return prompt


def read_spec(argument: str) -> tuple[Path, str, str]:
    """Of what follows `activation-oracle:`, the adapter's folder, its name, and the question ("" where none is given).

    Raises:
        BadInput: no adapter is named or there, or there is no such option.
    """
    where, _, asked = argument.partition("?question=")
    if not where or "?" in where or ("?question=" in argument and not asked.strip()):
        raise BadInput(
            f"'activation-oracle:{argument}' does not say which oracle, or has an option that there is not. Give a "
            "folder with a PEFT adapter or a hub id, and a question if you like: activation-oracle:PATH?question=What "
            "language is this text in?"
        )
    folder = fetch_checkpoint(where, "a folder with a PEFT adapter in it (adapter_config.json)")
    return folder, folder.resolve().name if Path(where).expanduser().is_dir() else where, asked


def build(study: Study, argument: str) -> Asked:
    """The oracle of an adapter, for the run's subject.

    Raises:
        BadInput: see `read_spec`; or it was made for another subject.
    """
    folder, named, asked = read_spec(argument)
    site = study.site
    card = VerbalizerCard(
        name=f"activation-oracle:{named}" + (f"?question={asked}" if asked else ""),
        description="An adapter of the subject that was trained to answer questions about vectors.",
        subject=name_of_base(base_of_adapter(folder), site.subject),
    )
    check_made_for(card, site)  # before its base is loaded: the wrong one may be large
    model = load_adapter(folder, **place_beside(study.subject))
    settings = {
        "weights": model.fingerprint,
        "layer": site.layer,
        "prompt": model.tokenizer.decode(write_prompt(model, 1, site.layer, asked or QUESTION).ids),
        "block": INJECTION.block,
        "coefficient": INJECTION.coefficient,
        "new_tokens": NEW_TOKENS,
    }
    card = card.model_copy(update={"d_model": model.d_model, "settings": settings})
    return Asked(ActivationOracle(card, model, site.layer), asked or QUESTION, fixed=bool(asked))


VERBALIZERS = {"activation-oracle": build}
CHECKS = {"activation-oracle": read_spec}
