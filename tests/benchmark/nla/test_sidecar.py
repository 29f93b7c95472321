"""Facts about `nla_meta.yaml`: what is understood, and that every way in which a prompt can be wrong is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.injection import VectorInjection
from nlabench.benchmark.nla.sidecar import (
    SIDECAR,
    Sidecar,
    check_explanation_prompt,
    explanation_ids,
    mark_prompt,
    read_sidecar,
    write_sidecar,
)
from nlabench.benchmark.subject import Subject
from transformers import PreTrainedTokenizerFast

RELEASED = {
    "kind": "nla_model", "schema_version": 2, "role": "av", "stage": "rl", "d_model": 3584,
    "base_checkpoint": "Qwen/Qwen2.5-7B-Instruct",
    "trained_on": ["ultrafineweb"], "parent_checkpoints": [], "created_at": "2026-03-16",
    "created_by": "somebody", "extraction_layer_index": 20,
    "extraction": {"injection_scale": 150.0, "mse_scale": 59.87},
    "tokens": {
        "injection_char": "㈎", "injection_token_id": 149705, "injection_left_neighbor_id": 29,
        "injection_right_neighbor_id": 522, "critic_suffix_ids": None,
    },
    "prompt_templates": {"av": "v: <concept>{injection_char}</concept>", "ar": "<text>{explanation}</text> <summary>"},
}  # fmt: skip

Write = Callable[..., Path]
Make = Callable[[], PreTrainedTokenizerFast]


def sidecar(**changes: Any) -> Sidecar:
    return Sidecar.model_validate({**RELEASED, **changes})


@pytest.fixture(scope="module")
def folder(write_nla: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nla("llama", tmp_path_factory.mktemp("nla"))


def av(folder: Path, *, template: str | None = None, **tokens: Any) -> Sidecar:
    """The sidecar of the small AV with another template, or with other tokens."""
    content = yaml.safe_load((folder / "av" / SIDECAR).read_text(encoding="utf-8"))
    content["tokens"] |= tokens
    if template is not None:
        content["prompt_templates"]["av"] = template
    return Sidecar.model_validate(content)


class TestReading:
    def test_the_released_contract_is_read(self) -> None:
        found = sidecar()
        assert (found.role, found.extraction_layer_index, found.d_model) == ("av", 20, 3584)
        assert found.vector_injection() == VectorInjection("replace_embedding", scale=150.0)
        assert found.training_data == "ultrafineweb"

    def test_older_names_mean_the_same(self) -> None:
        older = {name: value for name, value in RELEASED.items() if name != "extraction_layer_index"}
        older |= {
            "role": "actor", "critic": {"extraction_layer_index": 20},
            "prompt_templates": {
                "actor": RELEASED["prompt_templates"]["av"], "critic": RELEASED["prompt_templates"]["ar"],
            },
        }  # fmt: skip
        found = Sidecar.model_validate(older)
        assert found.model_dump(exclude={"critic"}) == sidecar().model_dump()

    @pytest.mark.parametrize(("name", "role"), [("critic", "ar"), ("reconstructor", "ar"), ("verbalizer", "av")])
    def test_each_name_of_a_half_is_known(self, name: str, role: str) -> None:
        assert sidecar(role=name).role == role

    @pytest.mark.parametrize(("scale", "norm"), [("sqrt_d_model", math.sqrt(3584)), ("raw", "raw"), (80000, 80000.0)])
    def test_a_scale_is_a_number_or_a_word(self, scale: Any, norm: Any) -> None:
        found = sidecar(extraction={"injection_scale": scale})
        assert found.vector_injection().scale == norm

    @pytest.mark.parametrize("extraction", [{"injection_scale": None}, {}])
    def test_an_av_without_a_scale_is_refused(self, extraction: dict[str, Any]) -> None:
        with pytest.raises(BadInput, match=r"no `extraction\.injection_scale`"):
            sidecar(extraction=extraction).vector_injection()

    @pytest.mark.parametrize(
        ("section", "wanted"),
        [
            ({"mode": "add_norm_matched", "block": 1}, VectorInjection("add_norm_matched", 1)),
            (
                {"mode": "add_norm_matched", "block": 1, "coefficient": 2},
                VectorInjection("add_norm_matched", 1, coefficient=2.0),
            ),
            ({"mode": "overwrite_hidden", "block": 3, "scale": "state"}, VectorInjection("overwrite_hidden", 3)),
            ({"mode": "overwrite_hidden", "block": 3, "scale": "raw"}, VectorInjection("overwrite_hidden", 3, "raw")),
            ({"mode": "overwrite_hidden", "block": 3}, VectorInjection("overwrite_hidden", 3, 150.0)),
            ({"coefficient": 2}, VectorInjection("replace_embedding", scale=150.0, coefficient=2.0)),
        ],
    )
    def test_another_way_in_comes_from_the_injection_section(
        self, section: dict[str, Any], wanted: VectorInjection
    ) -> None:
        assert sidecar(injection=section).vector_injection() == wanted

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"role": "judge"}, "role"),
            ({"d_model": "wide"}, "d_model"),
            ({"kind": "nla_dataset"}, "kind"),
            ({"critic": {"extraction_layer_index": 19}}, "extraction_layer_index is given as 19 and as 20"),
            ({"prompt_templates": "text"}, "prompt_templates is no mapping"),
            ({"tokens": {"injection_token_id": "many"}}, r"tokens\.injection_token_id"),
            ({"extraction": {"injection_scale": float("inf")}}, r"extraction\.injection_scale"),
        ],
    )
    def test_a_sidecar_that_is_not_one_says_which_key(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        (tmp_path / SIDECAR).write_text(yaml.safe_dump({**RELEASED, **change}), encoding="utf-8")
        with pytest.raises(BadInput, match=said):
            read_sidecar(tmp_path)

    @pytest.mark.parametrize(("content", "said"), [(b"a: [", "YAML"), (b"- 1", "no mapping"), (b"\xff", "cannot be")])
    def test_a_file_that_is_no_sidecar_is_refused(self, tmp_path: Path, content: bytes, said: str) -> None:
        (tmp_path / SIDECAR).write_bytes(content)
        with pytest.raises(BadInput, match=said):
            read_sidecar(tmp_path)

    def test_a_folder_without_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=f"no {SIDECAR} in"):
            read_sidecar(tmp_path)

    def test_what_is_written_is_read_again_unknown_keys_and_all(self, tmp_path: Path) -> None:
        found = sidecar(optimizer={"lr": 1e-5}, injection={"mode": "add_norm_matched", "block": 1})
        write_sidecar(found, tmp_path)
        again = read_sidecar(tmp_path)
        assert again.model_dump(exclude={"critic"}) == found.model_dump()
        content = yaml.safe_load((tmp_path / SIDECAR).read_text(encoding="utf-8"))
        assert content["critic"]["extraction_layer_index"] == content["extraction_layer_index"] == 20
        assert content["tokens"]["injection_char"] == "㈎"


class TestTheMarker:
    def test_it_is_found_between_its_neighbours(self, folder: Path, nla_tokenizer: Make) -> None:
        tokenizer = nla_tokenizer()
        prompt = mark_prompt(av(folder), tokenizer)
        around = tokenizer.convert_ids_to_tokens(prompt.ids[prompt.slot - 1 : prompt.slot + 2])
        assert around == ["<concept>", "㈎", "</concept>"]
        assert list(prompt.ids[:2]) == tokenizer.convert_tokens_to_ids(["<s>", "<|user|>"])
        assert prompt.ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"template": "the cat sat"}, r"'㈎' \(token 50\) is missing"),
            ({"template": "{injection_char} <concept>{injection_char}</concept>"}, "occurs 2 times"),
            ({"template": "<concept>{injection_char}{injection_char}</concept>"}, "occurs 2 times"),
            ({"injection_char": "the cat"}, r"'the cat' is 2 tokens \[3, 8\]"),
            ({"injection_char": ""}, "is 0 tokens"),
            ({"injection_char": "㊗"}, r"is token 0 for this tokenizer \(its unknown token\)"),
            ({"injection_token_id": 51}, "is token 50 for this tokenizer; the sidecar says 51"),
            ({"template": "the {injection_char}</concept>"}, "are 0 and 49; the sidecar says 48 and 49"),
            ({"template": "<concept>{injection_char} cat"}, "are 48 and 8; the sidecar says 48 and 49"),
            ({"injection_left_neighbor_id": None}, "the sidecar says None and 49"),
            ({"template": "{vector}"}, "cannot be filled: KeyError"),
            ({"template": "{injection_char} {"}, "cannot be filled: ValueError"),
            ({"injection_char": None}, "lacks `tokens"),
        ],
    )
    def test_what_is_wrong_with_it_is_said(
        self, folder: Path, nla_tokenizer: Make, changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(BadInput, match=said):
            mark_prompt(av(folder, **changes), nla_tokenizer())

    def test_a_doubled_bos_is_refused(self, folder: Path, nla_tokenizer: Make) -> None:
        tokenizer = nla_tokenizer()
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        with pytest.raises(BadInput, match="starts with two BOS tokens"):
            mark_prompt(av(folder), tokenizer)

    def test_a_tokenizer_without_a_chat_template_is_refused(self, folder: Path, nla_tokenizer: Make) -> None:
        tokenizer = nla_tokenizer()
        tokenizer.chat_template = None
        with pytest.raises(BadInput, match="no chat template"):
            mark_prompt(av(folder), tokenizer)

    def test_a_special_token_of_the_default_subject_can_be_one(self, subject: Subject) -> None:
        # No character of U+3200 to 33FF is one token here; this one was left unused.
        tokens = {
            "injection_char": "<empty_output>", "injection_token_id": 16, "injection_left_neighbor_id": 46,
            "injection_right_neighbor_id": 9617,
        }  # fmt: skip
        prompt = mark_prompt(sidecar(d_model=576, tokens=tokens), subject.tokenizer)
        assert prompt.ids[prompt.slot] == 16
        assert prompt.ids == tuple(subject.chat_ids("v: <concept><empty_output></concept>"))
        with pytest.raises(BadInput, match="is 3 tokens"):
            mark_prompt(sidecar(tokens={**tokens, "injection_char": "㈎"}), subject.tokenizer)


class TestThePromptOfAnAR:
    template = "Summary of the following text: <text>{explanation}</text> <summary>"

    def ar(self, **tokens: Any) -> Sidecar:
        return sidecar(role="ar", prompt_templates={"ar": self.template}, tokens=tokens)

    def test_it_ends_as_the_ar_was_trained(self, subject: Subject) -> None:
        suffix = [2692, 46, 2067, 18347, 46]
        check_explanation_prompt(self.ar(critic_suffix_ids=suffix), subject.tokenizer)
        with pytest.raises(BadInput, match="ends in the tokens"):
            check_explanation_prompt(self.ar(critic_suffix_ids=[1, 2, 3]), subject.tokenizer)

    def test_it_gets_the_special_tokens_of_the_tokenizer_once(self, folder: Path, nla_tokenizer: Make) -> None:
        tokenizer = nla_tokenizer()
        found = read_sidecar(folder / "ar")
        check_explanation_prompt(found, tokenizer)
        ids = explanation_ids(found, tokenizer, "the cat {sat}")
        assert ids.count(tokenizer.bos_token_id) == 1 == ids[0]
        doubled = found.model_copy(
            update={"prompt_templates": found.prompt_templates.model_copy(update={"ar": "<s><text>{explanation}"})}
        )
        with pytest.raises(BadInput, match="two BOS"):
            check_explanation_prompt(doubled, tokenizer)

    @pytest.mark.parametrize("template", [None, "no place for a text"])
    def test_a_template_without_a_place_for_the_text_is_refused(
        self, nla_tokenizer: Make, template: str | None
    ) -> None:
        with pytest.raises(BadInput, match=r"expected a text with `{explanation}`"):
            check_explanation_prompt(sidecar(prompt_templates={"ar": template}), nla_tokenizer())
