"""Exported NLAs: the same NLA as before, in the released contract, for both versions of transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
import yaml
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.nla.export import export_checkpoint
from nlabench.benchmark.nla.portable import add_older_names, write_portable
from nlabench.benchmark.verbalizers.nla import NLAPair, load_nla
from nlabench.cli import app
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar
from typer.testing import CliRunner

READER = Path(__file__).parent / "read_export.py"

#: The last of the 4.x series, and what it needs in an older version than transformers 5 does.
TRANSFORMERS_4 = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.0")

WriteNLA = Callable[..., Path]

disable_progress_bar()


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def load_pair(spec: str) -> NLAPair:
    found = load_nla(spec, device="cpu")
    assert isinstance(found, NLAPair)
    return found


class TestExportedNLA:
    @pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3-text", "gemma3"])
    @pytest.mark.parametrize("adapters", [False, True])
    def test_it_writes_the_same_texts_and_vectors(
        self, write_nla: WriteNLA, tmp_path: Path, family: str, adapters: bool
    ) -> None:
        source = write_nla(family, tmp_path / "source", adapters=adapters)
        av, ar = export_checkpoint(f"nla:{source}", tmp_path / "out")
        before, after = load_pair(f"{source}?new_tokens=8"), load_pair(f"{av.parent}?new_tokens=8")
        vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)) * 5
        batch = ActivationBatch(vectors, Site(f"tiny-{family}", 1, 32))
        assert [v.text for v in after.verbalize(batch)] == [v.text for v in before.verbalize(batch)]
        texts = ["the cat sat", "rain fell slowly in the night"]
        torch.testing.assert_close(after.reconstruct(texts, batch.site), before.reconstruct(texts, batch.site))
        assert not (av / "adapter_config.json").exists()
        assert not (ar / "adapter_config.json").exists()

    def test_its_directories_are_those_of_the_contract(self, write_nla: WriteNLA, tmp_path: Path) -> None:
        source = write_nla("gemma3", tmp_path / "source")
        sidecar = yaml.safe_load((source / "ar/nla_meta.yaml").read_text())
        sidecar["extraction"]["mse_scale"] = "sqrt_d_model"
        (source / "ar/nla_meta.yaml").write_text(yaml.safe_dump(sidecar, allow_unicode=True))
        (source / "av/LICENSE").write_text("do what you like")
        av, ar = export_checkpoint(str(source), tmp_path / "out")
        assert config_of(av)["num_hidden_layers"] == 4
        assert config_of(ar)["num_hidden_layers"] == len(config_of(ar)["layer_types"]) == 2  # K + 1
        assert config_of(av)["model_type"] == config_of(ar)["model_type"] == "gemma3_text"  # images are not needed
        assert {name: tuple(w.shape) for name, w in load_file(ar / "value_head.safetensors").items()} == {
            "weight": (32, 32)
        }
        assert not any("lm_head" in name for name in load_file(ar / "model.safetensors"))
        written = yaml.safe_load((ar / "nla_meta.yaml").read_text())
        assert (written["role"], written["kind"], written["d_model"]) == ("ar", "nla_model", 32)
        assert written["extraction"]["mse_scale"] == pytest.approx(32**0.5)
        assert written["critic"]["extraction_layer_index"] == written["extraction_layer_index"] == 1
        assert (av / "LICENSE").read_text() == "do what you like"
        assert {file.stat().st_mode & 0o777 for file in [*av.iterdir(), *ar.iterdir()]} == {0o644}

    def test_an_av_alone_is_written_alone(self, write_nla: WriteNLA, tmp_path: Path) -> None:
        source = write_nla("llama", tmp_path / "source")
        assert export_checkpoint(str(source / "av"), tmp_path / "out") == [tmp_path / "out/av"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["av"]

    def test_the_command_says_where_it_wrote(self, write_nla: WriteNLA, tmp_path: Path) -> None:
        source, out = write_nla("llama", tmp_path / "source"), tmp_path / "out"
        done = CliRunner().invoke(app, ["export-checkpoint", f"nla:{source}", "--out", str(out), "--dtype", "bfloat16"])
        assert done.exit_code == 0, done.output
        assert f"{out / 'av'}: written" in done.output.replace("\n", "")
        assert config_of(out / "av")["dtype"] == config_of(out / "av")["torch_dtype"] == "bfloat16"

    def test_nothing_is_written_over(self, write_nla: WriteNLA, tmp_path: Path) -> None:
        source = write_nla("llama", tmp_path / "source")
        (tmp_path / "out/ar").mkdir(parents=True)
        with pytest.raises(BadInput, match=r"out/ar exists.*--out"):
            export_checkpoint(str(source), tmp_path / "out")
        assert not (tmp_path / "out/av").exists()

    def test_a_bos_that_the_tokenizer_does_not_write_is_not_named_in_the_ar(
        self, write_nla: WriteNLA, nla_tokenizer: Callable[[], Any], tmp_path: Path
    ) -> None:
        source = write_nla("llama", tmp_path / "source")
        for half in ("av", "ar"):
            tokenizer = nla_tokenizer()
            tokenizer.backend_tokenizer.post_processor = hf.tokenization_utils_fast.processors.TemplateProcessing("$A")
            tokenizer.save_pretrained(source / half)
        av, ar = export_checkpoint(str(source), tmp_path / "out")
        assert hf.AutoTokenizer.from_pretrained(ar).bos_token is None
        assert hf.AutoTokenizer.from_pretrained(av).bos_token == "<s>"  # its chat template writes it
        ids = [hf.AutoTokenizer.from_pretrained(folder / "ar")("the cat").input_ids for folder in (source, ar.parent)]
        assert ids[0] == ids[1]


class TestOlderNames:
    def test_the_rotary_base_stands_where_both_versions_look(self) -> None:
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "dtype": "float32"}
        assert add_older_names(plain) == {**plain, "rope_theta": 1e5, "torch_dtype": "float32"}

    def test_a_scaled_rotary_embedding_keeps_its_scaling(self) -> None:
        scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
        both = add_older_names({"rope_parameters": scaled})
        assert both["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}
        assert both["rope_theta"] == 1e6

    def test_a_base_for_each_kind_of_attention_becomes_two_numbers(self) -> None:
        by_kind = {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
        both = add_older_names({"text_config": {"rope_parameters": by_kind}})["text_config"]
        assert (both["rope_theta"], both["rope_local_base_freq"]) == (1e6, 1e4)
        assert both["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}

    def test_version_5_reads_the_same_configuration_with_and_without_them(self, tmp_path: Path) -> None:
        rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope |= {"original_max_position_embeddings": 32, "rope_theta": 5e5}
        config = hf.LlamaConfig(hidden_size=8, num_attention_heads=2, rope_parameters=rope)
        config.save_pretrained(tmp_path)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(add_older_names(json.loads(file.read_text()))))
        assert hf.AutoConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters

    def test_added_special_tokens_survive(self, tiny: Any, word_tokenizer: Callable[[], Any], tmp_path: Path) -> None:
        tokenizer = word_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
        write_portable(tiny("llama").model, tokenizer, tmp_path)
        written = json.loads((tmp_path / "tokenizer_config.json").read_text())
        assert written["additional_special_tokens"] == ["<|mark|>"]
        assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
        again = hf.AutoTokenizer.from_pretrained(tmp_path)
        assert again("the cat<|mark|>").input_ids == tokenizer("the cat<|mark|>").input_ids


@pytest.fixture(scope="module")
def transformers_4(request: pytest.FixtureRequest) -> Path:
    """A folder that, first on the path, puts transformers 4 in the place of 5; from the registry, once."""
    assert request.config.cache is not None
    home = Path(request.config.cache.mkdir("transformers4"))
    if not (home / "complete").exists():
        # Without what they depend on: torch and the rest are this environment's, so only the version differs.
        options = ["--quiet", "--no-deps", "--no-compile", "--upgrade", "--target", str(home)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *TRANSFORMERS_4], check=True)
        (home / "complete").touch()
    return home


@pytest.mark.slow
def test_transformers_4_and_5_load_the_same_nla(write_nla: WriteNLA, tmp_path: Path, transformers_4: Path) -> None:
    folders = []
    for family in ("llama", "qwen3", "gemma3"):
        folders.append(str(tmp_path / family))
        export_checkpoint(str(write_nla(family, tmp_path / "source" / family)), tmp_path / family)
    out = str(tmp_path / "four.safetensors")
    environment = {**os.environ, "PYTHONPATH": str(transformers_4), "TRANSFORMERS_VERBOSITY": "error"}
    subprocess.run([sys.executable, str(READER), out, *folders], check=True, env=environment)
    spec = importlib.util.spec_from_file_location("read_export", READER)
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    reader.main(str(tmp_path / "five.safetensors"), *folders)
    four, five = load_file(out), load_file(tmp_path / "five.safetensors")
    assert (int(four.pop("version")), int(five.pop("version"))) == (4, 5)
    assert four.keys() == five.keys()
    for name in five:
        torch.testing.assert_close(four[name], five[name], rtol=1e-4, atol=1e-4, msg=name)
