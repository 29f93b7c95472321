"""Facts about Activation Oracles: the prompt, where the vectors enter it, and which adapters are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers import activation_oracle
from nlabench.benchmark.verbalizers.activation_oracle import ActivationOracle, ask_oracle, write_prompt
from nlabench.benchmark.verbalizers.asking import QUESTION, Asked
from tokenizers import Tokenizer
from torch import Tensor

LAYER = 3


def add_placeholder(tokenizer: hf.PreTrainedTokenizerFast) -> hf.PreTrainedTokenizerFast:
    """The tokenizer with " ?" as a token, as the vocabularies of chat models have it."""
    raw = tokenizer.backend_tokenizer.to_str().replace('"t0"', '"▁?"')
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(raw), unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<unk>", chat_template=tokenizer.chat_template,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(
    tiny: Callable[[str], Subject],
    nla_tokenizer: Callable[[], hf.PreTrainedTokenizerFast],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A random adapter in `oracle` over a small model in `base`."""
    home = tmp_path_factory.mktemp("oracles")
    tiny("llama").model.save_pretrained(home / "base")
    add_placeholder(nla_tokenizer()).save_pretrained(home / "base")
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    adapted = peft.get_peft_model(hf.AutoModelForCausalLM.from_pretrained(home / "base"), config)
    config.base_model_name_or_path = str(home / "base")
    adapted.save_pretrained(home / "oracle")
    return home


@pytest.fixture(scope="module")
def base(folder: Path) -> Subject:
    return load_subject(str(folder / "base"))


@pytest.fixture(scope="module")
def oracle(folder: Path, base: Subject) -> ActivationOracle:
    answerer = build(base, str(folder / "oracle")).answerer
    assert isinstance(answerer, ActivationOracle)
    return answerer


def build(subject: Subject, argument: str) -> Asked:
    study: Any = SimpleNamespace(subject=subject, site=Site(subject.name, LAYER, subject.d_model))
    return activation_oracle.build(study, argument)


def draw_vectors(*shape: int) -> Tensor:
    return 30 * torch.randn(*shape, 32, generator=torch.Generator().manual_seed(5))


def watch(model: Subject, vectors: Tensor) -> tuple[list[Tensor], list[int]]:
    """What enters block 2 in each forward of an answer (prefix, rest of the prompt, each token), and its ids."""
    entered: list[Tensor] = []
    handle = model.blocks[2].register_forward_pre_hook(
        lambda _, args, kwargs: entered.append((args[0] if args else kwargs["hidden_states"]).clone()), with_kwargs=True
    )
    try:
        answers = ask_oracle(model, vectors, LAYER, QUESTION)
    finally:
        handle.remove()
    return entered, list(answers[0].ids)


def expect_states(model: Subject, vectors: Tensor, generated: list[int]) -> Tensor:
    """The stream after block 1 of prompt and answer [t, d_model], with h + ‖h‖ v / ‖v‖ at each placeholder."""
    prompt = write_prompt(model, vectors.shape[1], LAYER, QUESTION)
    ids = torch.tensor([[*prompt.ids, *generated]])
    states = model.run(ids, torch.ones_like(ids), capture=[1])[1][0].clone()
    for slot, vector in zip(prompt.slots, vectors[0], strict=True):
        states[slot] = states[slot] + states[slot].norm() * vector / vector.norm()
    return states


@pytest.mark.parametrize("n_vectors", [1, 3])
def test_vectors_are_added_at_the_placeholders_norm_after_block_1_and_nowhere_else(
    oracle: ActivationOracle, n_vectors: int
) -> None:
    vectors = draw_vectors(1, n_vectors)
    entered, generated = watch(oracle.model, vectors)
    assert len(generated) > 3
    seen = torch.cat([step[0] for step in entered])  # the last token of an answer is never run
    expected = expect_states(oracle.model, vectors, generated)[: len(seen)]
    assert len(seen) >= len(write_prompt(oracle.model, n_vectors, LAYER, QUESTION).ids) + len(generated) - 1
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


def test_the_prompt_is_one_chat_message_with_the_layer_and_a_placeholder_for_each_vector(
    oracle: ActivationOracle,
) -> None:
    prompt = write_prompt(oracle.model, 3, 17, "Is the cat late ?")
    tokenizer = oracle.model.tokenizer
    message = [{"role": "user", "content": "Layer: 17\n ? ? ? \nIs the cat late ?"}]
    assert list(prompt.ids) == tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert [prompt.ids[slot] for slot in prompt.slots] == oracle.model.encode(" ?") * 3
    assert prompt.slots == tuple(range(prompt.slots[0], prompt.slots[0] + 3))


def test_the_default_subjects_tokenizer_can_write_the_prompt(subject: Subject) -> None:
    prompt = write_prompt(subject, 2, 19, QUESTION)
    assert subject.tokenizer.decode(prompt.ids[prompt.slots[0] :]).startswith(f" ? ? \n{QUESTION}<|im_end|>")


def test_a_vector_and_its_multiple_give_one_answer_and_another_vector_another(oracle: ActivationOracle) -> None:
    vectors, site = draw_vectors(2), Site(oracle.card.subject or "", LAYER, 32)
    texts = [answer.text for answer in oracle.answer(ActivationBatch(vectors, site), QUESTION)]
    assert texts[0] != texts[1]
    scaled = ActivationBatch(vectors * torch.tensor([[7.0], [0.01]]), site)
    assert [answer.text for answer in oracle.answer(scaled, QUESTION)] == texts
    assert oracle.answer(ActivationBatch(vectors[1:], site), QUESTION)[0].text == texts[1]


def test_several_vectors_are_told_apart_by_their_order(oracle: ActivationOracle) -> None:
    vectors = draw_vectors(1, 2)
    forwards, backwards = (ask_oracle(oracle.model, v, LAYER, QUESTION)[0].ids for v in (vectors, vectors.flip(1)))
    assert forwards != backwards


def test_the_adapter_is_merged_and_the_subject_left_as_it_was(oracle: ActivationOracle, base: Subject) -> None:
    ids = torch.tensor([base.encode("the cat sat")])
    mask = torch.ones_like(ids)
    adapted, plain = (m.run(ids, mask, capture=[LAYER])[LAYER] for m in (oracle.model, base))
    assert not torch.allclose(adapted, plain, rtol=1e-2)
    assert oracle.card.settings["weights"] != base.fingerprint


def test_the_question_is_part_of_the_name_and_of_the_record(folder: Path, base: Subject) -> None:
    asked = build(base, f"{folder / 'oracle'}?question=Is it late, and 5% of what?")
    assert asked.card.name == "activation-oracle:oracle?question=Is it late, and 5% of what?"
    assert asked.card.settings["question"] == "Is it late, and 5% of what?"
    default = build(base, str(folder / "oracle"))
    assert (default.card.name, default.card.settings["question"]) == ("activation-oracle:oracle", QUESTION)
    assert default.card.subject == base.name


@pytest.mark.parametrize("argument", ["", "?question=What?", "PATH?question= ", "PATH?temperature=1"])
def test_an_unclear_spec_is_refused(base: Subject, argument: str) -> None:
    with pytest.raises(BadInput, match="does not say which oracle"):
        build(base, argument)


def test_an_adapter_of_another_subject_is_refused_before_its_base_is_loaded(
    folder: Path, base: Subject, tmp_path: Path
) -> None:
    for file in (folder / "oracle").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "some-lab/a-model-of-600-gigabytes"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="was made for some-lab/a-model-of-600-gigabytes"):
        build(base, str(tmp_path))


def test_a_folder_without_an_adapter_is_refused(folder: Path, base: Subject) -> None:
    with pytest.raises(BadInput, match="no `base_model_name_or_path`"):
        build(base, str(folder / "base"))


def test_a_tokenizer_that_does_not_know_the_placeholder_is_refused(tiny: Callable[[str], Subject]) -> None:
    with pytest.raises(BadInput, match="has no chat template, or does not know ' \\?' as one token"):
        write_prompt(tiny("llama"), 1, LAYER, QUESTION)
