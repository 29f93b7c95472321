"""Facts about checkpoints: what a spec names, what is loaded from it, and which checkpoints are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.nla import checkpoint
from nlabench.benchmark.nla.checkpoint import Checkpoint, find_autoencoder, hash_checkpoint, load_adapter, load_half
from nlabench.benchmark.nla.sidecar import SIDECAR, read_sidecar
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers.nla import NLAPair, load_nla

Write = Callable[..., Path]
Tiny = Callable[[str], Subject]


@pytest.fixture
def folder(write_nla: Write, tmp_path: Path) -> Path:
    return write_nla("llama", tmp_path / "mine")


def change_sidecar(folder: Path, **changes: Any) -> None:
    content = yaml.safe_load((folder / SIDECAR).read_text(encoding="utf-8"))
    (folder / SIDECAR).write_text(yaml.safe_dump({**content, **changes}, allow_unicode=True), encoding="utf-8")


def half(folder: Path) -> Checkpoint:
    return Checkpoint(folder, read_sidecar(folder))


class TestFinding:
    def test_a_folder_of_both_halves_a_pair_and_an_av_alone_are_found(self, folder: Path) -> None:
        both = find_autoencoder(str(folder))
        assert (both.name, both.av.folder, both.ar and both.ar.folder) == ("mine", folder / "av", folder / "ar")
        pair = find_autoencoder(f"{folder / 'av'},{folder / 'ar'}")
        assert (pair.name, pair.av, pair.ar) == ("mine", both.av, both.ar)
        alone = find_autoencoder(str(folder / "av"))
        assert (alone.name, alone.ar) == ("mine", None)
        shutil.copytree(folder / "av", folder.parent / "qwen-L20")
        assert find_autoencoder(str(folder.parent / "qwen-L20")).name == "qwen-L20"

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("{0}/ar", "holds an AR .* needs an AV"),
            ("{0}/ar,{0}/av", "holds an AR .* needs an AV"),
            ("{0}/av,{0}/av", "holds an AV .* needs an AR"),
            ("{0}/av,{0}/ar,{0}/ar", "does not name one or two checkpoints"),
            ("{0}/av,", "does not name one or two checkpoints"),
            ("", "does not name one or two checkpoints"),
            ("{0}/nothing/here", "There is no folder"),
        ],
    )
    def test_what_is_no_nla_is_refused(self, folder: Path, spec: str, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            find_autoencoder(spec.format(folder))

    def test_halves_of_two_sites_are_no_pair(self, folder: Path) -> None:
        change_sidecar(folder / "ar", extraction_layer_index=2, critic={})
        with pytest.raises(BadInput, match=r"reads vectors of block 1 \(d_model 32\), its AR writes those of block 2"):
            find_autoencoder(str(folder))

    def test_the_reference_is_missed_with_a_word_on_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint, "REFERENCE_FOLDER", tmp_path)
        with pytest.raises(BadInput, match=r"not in this installation.*train_reference_nla\.py"):
            find_autoencoder("reference")


class TestFullDirectories:
    def test_the_weights_and_the_tokenizer_are_the_folders(self, folder: Path, tiny: Tiny) -> None:
        model = load_half(half(folder / "av"))
        wanted = tiny("llama").model.state_dict()
        assert all(torch.equal(weight, wanted[name]) for name, weight in model.model.state_dict().items())
        assert "<|user|>" in model.tokenizer.chat_template

    def test_an_ar_has_the_blocks_that_its_site_needs(self, folder: Path) -> None:
        assert load_half(half(folder / "ar")).n_blocks == 2
        change_sidecar(folder / "ar", extraction_layer_index=2, critic={})
        with pytest.raises(BadInput, match=r"has 2 blocks; for vectors of block K = 2 it has K \+ 1 = 3"):
            load_half(half(folder / "ar"))

    def test_an_ar_that_names_no_site_is_refused(self, folder: Path) -> None:
        change_sidecar(folder / "ar", extraction_layer_index=None, critic=None)
        with pytest.raises(BadInput, match="does not say which block"):
            load_half(half(folder / "ar"))

    def test_another_width_than_the_sidecars_is_refused(self, folder: Path) -> None:
        change_sidecar(folder / "av", d_model=64)
        with pytest.raises(BadInput, match="has width 32; its sidecar says d_model 64"):
            load_half(half(folder / "av"))

    def test_weights_that_are_not_finite_are_refused(self, folder: Path) -> None:
        file = folder / "av" / "model.safetensors"
        weights = safetensors.torch.load_file(file)
        weights["model.norm.weight"][3] = torch.nan
        safetensors.torch.save_file(weights, file, {"format": "pt"})
        with pytest.raises(BadInput, match=r"1 weights of .* are NaN or infinite \(first: model.norm.weight\)"):
            load_half(half(folder / "av"))

    def test_what_changes_an_output_changes_the_fingerprint(self, folder: Path) -> None:
        before = load_half(half(folder / "av")).fingerprint
        (folder / "av" / "README.md").write_text("A card.")
        assert load_half(half(folder / "av")).fingerprint == before
        change_sidecar(folder / "av", stage="sft")
        changed = load_half(half(folder / "av")).fingerprint
        assert changed != before
        assert hash_checkpoint(folder / "av", weights=False) in changed


class TestAdapters:
    @pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
    def test_an_adapter_and_its_merged_directory_say_and_reconstruct_the_same(
        self, write_nla: Write, tmp_path: Path, family: str
    ) -> None:
        adapters = write_nla(family, tmp_path / "adapters", adapters=True)
        for role in ("av", "ar"):
            merged = load_half(half(adapters / role))
            merged.model.save_pretrained(tmp_path / "full" / role)
            merged.tokenizer.save_pretrained(tmp_path / "full" / role)
            shutil.copy(adapters / role / SIDECAR, tmp_path / "full" / role)
        shutil.copy(adapters / "ar" / "value_head.safetensors", tmp_path / "full" / "ar")
        site = Site(f"tiny-{family}", 1, 32)
        batch = ActivationBatch(torch.randn(4, 32, generator=torch.Generator().manual_seed(2)), site)
        one, other = (load_nla(f"{tmp_path / kind}?new_tokens=12") for kind in ("adapters", "full"))
        assert isinstance(one, NLAPair)
        assert isinstance(other, NLAPair)
        assert [v.text for v in one.verbalize(batch)] == [v.text for v in other.verbalize(batch)]
        texts = ["the cat sat", "rain", ""]
        torch.testing.assert_close(one.reconstruct(texts, site), other.reconstruct(texts, site))
        # And the adapter does something: the base alone says something else.
        shutil.copy(adapters / "av" / SIDECAR, adapters / "base")
        base = load_nla(f"{adapters / 'base'}?new_tokens=12")
        assert [v.text for v in base.verbalize(batch)] != [v.text for v in one.verbalize(batch)]

    def test_laid_out_by_transformers_an_adapter_says_the_same(self, write_nla: Write, tmp_path: Path) -> None:
        folder = write_nla("llama", tmp_path, adapters=True)
        site = Site("tiny-llama", 1, 32)
        batch = ActivationBatch(torch.randn(4, 32, generator=torch.Generator().manual_seed(2)), site)
        plain, laid_out = (load_nla(f"{folder}?new_tokens=8", device_map=layout) for layout in (None, "auto"))
        assert isinstance(plain, NLAPair)
        assert isinstance(laid_out, NLAPair)
        assert plain.verbalize(batch) == laid_out.verbalize(batch)
        assert torch.equal(plain.reconstruct(["rain", ""], site), laid_out.reconstruct(["rain", ""], site))

    def test_a_base_may_be_named_from_the_adapters_folder(self, write_nla: Write, tmp_path: Path) -> None:
        folder = write_nla("llama", tmp_path, adapters=True)
        absolute = load_adapter(folder / "av").model.state_dict()
        file = folder / "av" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "../base"}))
        relative = load_adapter(folder / "av").model.state_dict()
        assert all(torch.equal(absolute[name], weight) for name, weight in relative.items())

    def test_an_adapter_of_another_base_is_refused(self, write_nla: Write, tmp_path: Path) -> None:
        folder = write_nla("llama", tmp_path / "one", adapters=True)
        deeper = write_nla("llama", tmp_path / "two", adapters=True)
        shutil.copy(folder / "ar" / "adapter_model.safetensors", deeper / "av" / "adapter_model.safetensors")
        # Only the first blocks have weights: PEFT would leave the others as they were made, and say so to nobody.
        with pytest.raises(BadInput, match=r"28 weights of the adapter in .* do not match"):
            load_half(half(deeper / "av"))
        other = write_nla("gpt2", tmp_path / "three")
        file = folder / "av" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(other / "av")}))
        with pytest.raises(BadInput, match="does not fit its base"):
            load_half(half(folder / "av"))

    def test_an_adapter_without_a_base_or_without_safetensors_is_refused(
        self, write_nla: Write, tmp_path: Path
    ) -> None:
        folder = write_nla("llama", tmp_path, adapters=True)
        file = folder / "av" / "adapter_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "base_model_name_or_path": None}))
        with pytest.raises(BadInput, match="has no `base_model_name_or_path`"):
            load_half(half(folder / "av"))
        file.write_text(json.dumps(config))
        (folder / "av" / "adapter_model.safetensors").rename(folder / "av" / "adapter_model.bin")
        with pytest.raises(BadInput, match=r"no adapter_model\.safetensors"):
            load_half(half(folder / "av"))
