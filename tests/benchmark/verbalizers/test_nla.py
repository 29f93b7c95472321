"""Facts about the NLA verbalizer: what enters the model, what comes out, and what the benchmark makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from nlabench.benchmark import roster
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.nla.checkpoint import place_beside
from nlabench.benchmark.nla.explanation import CLOSING
from nlabench.benchmark.nla.sidecar import SIDECAR, mark_prompt, read_sidecar, write_sidecar
from nlabench.benchmark.roster import load_roster
from nlabench.benchmark.store import Store
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers.base import Reconstructor, Verbalization, Verbalizer, check_made_for
from nlabench.benchmark.verbalizers.nla import NLA, NLAPair, load_nla, read_decoding
from nlabench.benchmark.verbalizers.registry import load_verbalizer
from nlabench.benchmark.verbalizing import verbalize_items, verbalizer_fingerprint
from torch import Tensor

FAMILIES = ["llama", "qwen2", "qwen3", "gemma2", "gemma3-text", "gemma3"]
VECTORS = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)) * 9

Write = Callable[..., Path]
Tiny = Callable[[str], Subject]


def batch(vectors: Tensor = VECTORS, family: str = "llama") -> ActivationBatch:
    return ActivationBatch(vectors, Site(f"tiny-{family}", 1, 32))


def texts(verbalizer: NLA | NLAPair, vectors: Tensor = VECTORS) -> list[str]:
    return [v.text for v in verbalizer.verbalize(batch(vectors))]


@pytest.fixture(scope="module")
def folder(write_nla: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nla("llama", tmp_path_factory.mktemp("nla") / "mine")


@pytest.fixture(params=FAMILIES)
def av(request: pytest.FixtureRequest, write_nla: Write, tmp_path: Path) -> NLA:
    found = load_nla(f"{write_nla(request.param, tmp_path)}/av?new_tokens=12")
    assert isinstance(found, NLA)
    return found


class TestWhatEnters:
    def test_one_row_differs_from_the_plain_prompts_and_it_is_the_vector_at_the_sidecars_norm(self, av: NLA) -> None:
        prompt = torch.tensor([[*av.prefix.ids, *av.tail]])
        with torch.inference_mode():
            plain = av.model.model(input_ids=prompt, output_hidden_states=True).hidden_states[0]
        norm: Any = av.model.blocks[0].input_layernorm
        seen: list[Tensor] = []
        handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        list(av.verbalize(batch()))
        handle.remove()
        # The prompt up to the marker ran when the NLA was loaded, and knows nothing of a vector.
        slot = len(av.prefix.ids)
        entered = torch.cat([plain[:, :slot].expand(len(VECTORS), -1, -1), seen[0]], dim=1)
        rows = (entered - plain).abs().amax(-1) > 1e-4
        assert rows.sum(1).tolist() == [1] * len(VECTORS)
        assert rows[:, slot].all()
        torch.testing.assert_close(entered[:, slot], 20 * VECTORS / VECTORS.norm(dim=-1, keepdim=True))

    def test_a_text_is_what_transformers_generates_from_these_embeddings(self, av: NLA) -> None:
        model, tokenizer = av.model.model, av.model.tokenizer
        embed = model.get_input_embeddings()  # Gemma 3's multiplies, as the family does
        ids = torch.tensor([[*av.prefix.ids, *av.tail]])
        for vector, said in zip(VECTORS, av.verbalize(batch()), strict=True):
            embeddings = embed(ids).clone()
            embeddings[0, len(av.prefix.ids)] = 20 * vector / vector.norm()
            answer: list[int] = []
            while len(answer) < 12 and answer[-1:] != [tokenizer.eos_token_id]:
                with torch.inference_mode():
                    answer.append(int(model(inputs_embeds=embeddings, use_cache=False).logits[0, -1].argmax()))
                embeddings = torch.cat([embeddings, embed(torch.tensor([answer[-1:]]))], dim=1)
            before, closing, _ = tokenizer.decode(answer).removesuffix("</s>").partition(CLOSING)
            assert said.text == before.partition("<explanation>")[2 if "<explanation>" in before else 0].strip()
            assert bool(said.flags) is not bool(closing)

    def test_a_vector_and_its_multiple_give_the_same_text(self, av: NLA) -> None:
        first = texts(av)
        assert texts(av, VECTORS * 3) == texts(av, VECTORS * 0.01) == first
        assert len(set(first)) > 1
        assert texts(av, -VECTORS) != first

    def test_a_text_does_not_depend_on_its_batch(self, av: NLA) -> None:
        assert [texts(av, vector[None])[0] for vector in VECTORS] == texts(av)

    def test_the_prompt_is_the_sidecars(self, folder: Path) -> None:
        found = load_nla(str(folder / "av"))
        assert isinstance(found, NLA)
        prompt = mark_prompt(read_sidecar(folder / "av"), found.model.tokenizer)
        assert (*found.prefix.ids, *found.tail) == prompt.ids
        assert len(found.prefix.ids) == prompt.slot


class TestWhereItLies:
    def test_with_blocks_on_disk_it_says_the_same_and_so_does_its_ar(self, folder: Path) -> None:
        whole = load_nla(f"{folder}?new_tokens=8")
        assert isinstance(whole, NLAPair)
        model = whole.verbalizer.model.model
        names = [name for name, _ in model.model.named_children() if name != "layers"]
        layout: dict[str, int | str] = {f"model.{name}": "cpu" for name in names} | {"lm_head": "cpu"}
        layout |= {f"model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(whole.verbalizer.model.n_blocks)}
        split = load_nla(f"{folder}?new_tokens=8", device_map=layout)
        assert isinstance(split, NLAPair)
        assert all(weight.is_meta for weight in split.verbalizer.model.blocks[1].parameters())
        assert all(weight.is_meta for weight in split.reconstructor.model.blocks[1].parameters())
        assert verbalizer_fingerprint(split) == verbalizer_fingerprint(whole)
        assert texts(split) == texts(whole)
        vectors = whole.reconstruct(texts(whole), batch().site)
        assert torch.equal(split.reconstruct(texts(whole), batch().site), vectors)

    def test_it_lies_where_the_subject_does(self, folder: Path, tiny: Tiny) -> None:
        subject = tiny("llama")
        assert place_beside(subject) == {"dtype": "float32", "device": "cpu"}
        laid_out = load_subject(str(folder / "av"), device_map="auto")
        assert place_beside(laid_out) == {"dtype": "float32", "device_map": "auto"}
        study: Any = SimpleNamespace(subject=laid_out, site=batch().site)
        found = load_verbalizer(f"nla:{folder}", study)
        assert isinstance(found, NLAPair)
        for model in (found.verbalizer.model, found.reconstructor.model):
            assert model.recipe is not None
            assert model.recipe.device_map == "auto"


def change(folder: Path, **changes: Any) -> None:
    content = yaml.safe_load((folder / SIDECAR).read_text(encoding="utf-8"))
    (folder / SIDECAR).write_text(yaml.safe_dump({**content, **changes}, allow_unicode=True), encoding="utf-8")


def test_older_key_names_give_the_same_texts(write_nla: Write, tmp_path: Path) -> None:
    folder = write_nla("llama", tmp_path) / "av"
    before = texts(load_nla(f"{folder}?new_tokens=8"))
    named = yaml.safe_load((folder / SIDECAR).read_text(encoding="utf-8"))["prompt_templates"]
    change(
        folder,
        role="actor",
        prompt_templates={"actor": named["av"], "critic": named["ar"]},
        extraction_layer_index=None,
    )
    found = load_nla(f"{folder}?new_tokens=8")
    assert texts(found) == before
    assert found.card.layer == 1


@pytest.mark.parametrize(
    "section",
    [
        {"mode": "add_norm_matched", "block": 1},
        {"mode": "overwrite_hidden", "block": 1, "scale": "state"},
        {"mode": "overwrite_hidden", "block": 2},
    ],
)
def test_checkpoints_with_another_way_in_need_no_class_of_their_own(
    write_nla: Write, tmp_path: Path, section: dict[str, Any]
) -> None:
    folder = write_nla("llama", tmp_path) / "av"
    change(folder, injection=section, extraction={})
    found = load_nla(f"{folder}?new_tokens=8")
    assert isinstance(found, NLA)
    assert (found.injection.mode, found.injection.block) == (section["mode"], section["block"])
    assert len(set(texts(found))) > 1
    assert texts(found, VECTORS * 3) == texts(found)


def test_an_injection_past_the_last_block_is_refused(write_nla: Write, tmp_path: Path) -> None:
    folder = write_nla("llama", tmp_path) / "av"
    change(folder, injection={"mode": "add_norm_matched", "block": 4})
    with pytest.raises(BadInput, match="numbered 0 to 3"):
        load_nla(str(folder))


class TestSampling:
    def test_samples_do_not_depend_on_the_batch_or_on_how_many_there_are(self, folder: Path) -> None:
        many = load_nla(f"{folder}?temperature=1&samples=3&new_tokens=8")
        together = many.verbalize(batch())
        alone = [many.verbalize(batch(vector[None]))[0] for vector in VECTORS]
        assert [(v.text, v.samples) for v in alone] == [(v.text, v.samples) for v in together]
        assert all(len(v.samples) == 2 for v in together)
        assert texts(load_nla(f"{folder}?temperature=1&new_tokens=8")) == [v.text for v in together]

    def test_samples_differ_and_another_seed_gives_others(self, folder: Path) -> None:
        found = load_nla(f"{folder}?temperature=1&samples=3&new_tokens=8").verbalize(batch())
        assert all(len({v.text, *v.samples}) == 3 for v in found)
        other = load_nla(f"{folder}?temperature=1&samples=3&new_tokens=8&seed=1").verbalize(batch())
        assert sum(one.text != another.text for one, another in zip(found, other, strict=True)) >= 4

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("samples=3", "3 samples were asked for at temperature 0"),
            ("heat=1", "heat"),
            ("temperature=-1&samples=2", "temperature"),
            ("temperature=warm", "temperature"),
            ("temperature", "cannot be used"),
        ],
    )
    def test_options_that_cannot_be_used_are_refused(self, query: str, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            read_decoding(query, 200)

    def test_the_sidecar_says_how_long_an_answer_may_be_and_an_option_overrules_it(
        self, write_nla: Write, tmp_path: Path
    ) -> None:
        folder = write_nla("llama", tmp_path / "short")
        assert load_nla(str(folder)).card.settings["decoding"]["new_tokens"] == 200  # the contract's own
        sidecar = read_sidecar(folder / "av")
        write_sidecar(sidecar.model_copy(update={"max_new_tokens": 5}), folder / "av")
        assert load_nla(str(folder)).card.settings["decoding"]["new_tokens"] == 5
        assert load_nla(f"{folder}?new_tokens=7").card.settings["decoding"]["new_tokens"] == 7


class TestTheCard:
    def test_it_says_what_it_was_made_for_and_all_that_decides_its_texts(self, folder: Path) -> None:
        card = load_nla(str(folder)).card
        assert (card.name, card.subject, card.layer, card.d_model) == ("nla:mine", "tiny-llama", 1, 32)
        assert (card.min_position, card.training_data, card.role) == (50, "nothing", "submitted")
        assert card.settings["injection"] == {
            "mode": "replace_embedding", "block": -1, "scale": 20.0, "coefficient": 1.0,
        }  # fmt: skip
        assert card.settings["decoding"] == {"temperature": 0.0, "samples": 1, "seed": 0, "new_tokens": 200}
        check_made_for(card, Site("tiny-llama", 1, 32))
        with pytest.raises(BadInput, match="made for tiny-llama at block 1"):
            check_made_for(card, Site("tiny-llama", 2, 32))

    def test_the_subject_may_be_the_base_under_another_path_or_revision(self, folder: Path) -> None:
        assert load_nla(str(folder), subject="somebody/Tiny-Llama@main").card.subject == "somebody/Tiny-Llama@main"
        assert load_nla(str(folder), subject="somebody/tiny-llama-2").card.subject == "tiny-llama"

    def test_the_store_tells_checkpoints_and_options_apart(
        self, write_nla: Write, folder: Path, tmp_path: Path
    ) -> None:
        def fingerprint(spec: str) -> str:
            return verbalizer_fingerprint(load_nla(spec))

        one = fingerprint(str(folder))
        assert fingerprint(str(folder)) == one
        copy = write_nla("llama", tmp_path / "mine")
        assert fingerprint(str(copy)) == one
        change(copy / "av", extraction={"injection_scale": 21.0})
        assert fingerprint(str(copy)) != one
        adapted = write_nla("llama", tmp_path / "other" / "mine", adapters=True)
        assert len({fingerprint(f"{home}{query}") for home in (folder, adapted) for query in ("", "?seed=1")}) == 4


class TestInTheBenchmark:
    def test_an_av_with_its_ar_is_a_reconstructor_and_one_without_is_none(self, folder: Path) -> None:
        pair, alone = load_nla(str(folder)), load_nla(str(folder / "av"))
        assert isinstance(pair, Verbalizer)
        assert isinstance(pair, Reconstructor)
        assert isinstance(alone, Verbalizer)
        assert not isinstance(alone, Reconstructor)
        assert texts(pair) == texts(alone)
        vectors = pair.reconstruct(["the cat", "the rain"], Site("tiny-llama", 1, 32))
        assert vectors.shape == (2, 32)

    def test_it_is_found_by_name_and_gets_the_floors_that_belong_to_it(
        self, folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study: Any = SimpleNamespace(
            subject=tiny("llama"),
            site=Site("tiny-llama", 1, 32),
            reference_vectors=lambda: VECTORS,
            suite=SimpleNamespace(readers=()),
        )
        monkeypatch.setattr(roster, "ALWAYS", ())
        found = load_roster([f"nla:{folder}?new_tokens=8"], study)
        name = "nla:mine?new_tokens=8"
        assert found.names == [name, f"average-direction:{name}", f"permuted-texts:{name}"]
        floor = found.verbalizers[f"average-direction:{name}"]
        assert isinstance(floor, Verbalizer)
        said = {v.text for v in floor.verbalize(batch()) if isinstance(v, Verbalization)}
        assert said == {texts(load_nla(f"{folder}?new_tokens=8"), VECTORS.mean(0, keepdim=True))[0]}
        study.site = Site("tiny-llama", 2, 32)
        with pytest.raises(BadInput, match="made for tiny-llama at block 1"):
            load_verbalizer(f"nla:{folder}", study)

    def test_flags_and_samples_come_back_from_the_store(self, folder: Path, tmp_path: Path) -> None:
        verbalizer = load_nla(f"{folder}?temperature=1&samples=2&new_tokens=8")
        study: Any = SimpleNamespace(site=Site("tiny-llama", 1, 32))
        activations = Activations(VECTORS, pd.DataFrame(index=range(len(VECTORS))))
        engine = LocalEngine(Store(tmp_path))
        first = verbalize_items(verbalizer, activations, study, engine)
        again = verbalize_items(verbalizer, activations, study, engine)
        assert first.texts == again.texts == verbalizer.verbalize(batch())
        assert any(v.flags for v in first.texts)
        assert first.rerun_agreed == first.rerun_checked
