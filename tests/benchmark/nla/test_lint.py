"""Facts about the linter: a good checkpoint is clean, each trap is found and nothing else with it, and what `--fix` may
mend is mended without a change of anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.nla import checkpoint, lint_place, lint_weights
from nlabench.benchmark.nla.export import export_checkpoint
from nlabench.benchmark.nla.lint import LintReport, lint_checkpoint
from nlabench.benchmark.nla.lint_half import Half, read_half
from nlabench.benchmark.nla.lint_place import find_places
from nlabench.benchmark.nla.lint_prompts import check_prompts
from nlabench.benchmark.nla.sidecar import SIDECAR, check_explanation_prompt, mark_prompt
from nlabench.cli import app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

Write = Callable[..., Path]
Break = Callable[[Path], None]
WIDTH, HEAD, CONFIG, TOKENIZER = 32, "value_head.safetensors", "config.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def exported(write_nla: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small NLA as `export-checkpoint` writes it, for transformers 4 and 5."""
    home = tmp_path_factory.mktemp("lint")
    export_checkpoint(str(write_nla("llama", home / "raw")), home / "out")
    return home / "out"


@pytest.fixture
def good(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "nla"))


@pytest.fixture
def adapters(write_nla: Write, tmp_path: Path) -> Path:
    return write_nla("llama", tmp_path / "adapters", adapters=True)


# -- ways to break a half -------------------------------------------------------------------------------------------


def write(file: str, *keys: str, value: Any = None, remove: bool = False) -> Break:
    """Sets or removes a key of a YAML or JSON file."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file == SIDECAR else json.loads(text)
        section = content
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        if remove:
            del section[keys[-1]]
        else:
            section[keys[-1]] = value
        text = yaml.safe_dump(content, allow_unicode=True) if file == SIDECAR else json.dumps(content)
        (folder / file).write_text(text, encoding="utf-8")

    return change


def say(*keys: str, value: Any = None) -> Break:
    """Sets a key of the sidecar."""
    return write(SIDECAR, *keys, value=value)


def site(layer: int | None) -> Break:
    """Sets the layer where either of the released readers looks for it."""
    return both(say(LAYER, value=layer), say("critic", value={LAYER: layer}))


def both(*breaks: Break) -> Break:
    def change(folder: Path) -> None:
        for one in breaks:
            one(folder)

    return change


def weights(file: str, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    """Changes the tensors of a file in place."""

    def change(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / file)
        edit(tensors)
        safetensors.torch.save_file(tensors, folder / file, {"format": "pt"})

    return change


def fill(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[-1] = value

    return edit


def drop(*files: str) -> Break:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


def text(file: str, content: str) -> Break:
    return lambda folder: (folder / file).write_text(content, encoding="utf-8") and None


def chat_template(content: str | None) -> Break:
    """The chat template in both places where readers look for it."""

    def change(folder: Path) -> None:
        write(TOKENIZER, "chat_template", value=content)(folder)
        (folder / "chat_template.jinja").unlink()
        if content is not None:
            (folder / "chat_template.jinja").write_text(content, encoding="utf-8")

    return change


def add_eos(folder: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    raw["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    (folder / "tokenizer.json").write_text(json.dumps(raw))


def without_bos(folder: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(raw))


def rename_block(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name.replace(".layers.1.", ".layers.2.")] = tensors.pop(name)


CALL = "ids = tokenizer.apply_chat_template([{'role': 'user', 'content': prompt(x)}], {})"
AV, AR = "prompt_templates.av", "prompt_templates.ar"
SCALE, MSE, LAYER = "extraction.injection_scale", "extraction.mse_scale", "extraction_layer_index"
MARKER, SUFFIX = "tokens.injection_char", "tokens.critic_suffix_ids"
LEFT, RIGHT = "tokens.injection_left_neighbor_id", "tokens.injection_right_neighbor_id"

#: half, what is done to it, severity, file and field of the one finding, a part of its text.
UNMENDABLE: dict[str, tuple[str, Break, str, str, str, str]] = {
    "layer past the last block": ("av", site(4), "error", SIDECAR, LAYER, "4: off by one"),
    "layer below 0": ("av", site(-1), "error", SIDECAR, LAYER, "a block from 0 to 3"),
    "no layer on an AV": (
        "av", site(None), "warning", SIDECAR, LAYER, "missing",
    ),
    "no layer on an AR": ("ar", site(None), "error", SIDECAR, LAYER, "missing"),
    "AR with K blocks": (
        "ar", site(2), "error", CONFIG, "num_hidden_layers", "2: off by one",
    ),
    "AR with other blocks": (
        "ar", site(0), "error", CONFIG, "num_hidden_layers", "K + 1 = 1",
    ),
    "two layers": (
        "av", say("critic", LAYER, value=3), "error", SIDECAR, "", "extraction_layer_index is given as",
    ),
    "card off by one": ("av", text("README.md", "h = out.hidden_states[1][0]"), "warning", "README.md",
        "hidden_states[1]", "hidden_states[2]"),
    "BOS twice in the chat template": (
        "av", chat_template("{{ bos_token }}{{ bos_token }}<|user|>{{ messages[0]['content'] }}<|assistant|>"),
        "error", TOKENIZER, "bos_token", "starts with two (1)",
    ),
    "BOS in the template of the AR": (
        "ar", say("prompt_templates", "ar", value="<s><text>{explanation}</text><summary>"), "error", TOKENIZER,
        "bos_token", "starts with two (1)",
    ),
    "BOS twice by two steps": (
        "av", text("README.md", CALL.replace("{}", "tokenize=False") + "\nids = tokenizer(ids)"), "warning",
        "README.md", "tokenize=False", "doubled",
    ),
    "a mapping from the chat template": (
        "av", text("README.md", CALL.replace("{}", "tokenize=True")), "warning", "README.md", "apply_chat_template",
        "return_dict=False",
    ),
    "a tokenizer for transformers 5 alone": (
        "av", write(TOKENIZER, "tokenizer_class", value="TokenizersBackend"), "warning", TOKENIZER,
        "tokenizer_class", "transformers 4",
    ),
    "marker of two tokens": (
        "av", say("tokens", "injection_char", value="the cat"), "error", SIDECAR, MARKER, "2 tokens [3, 8]",
    ),
    "marker that is unknown": (
        "av", say("tokens", "injection_char", value="㊗"), "error", SIDECAR, MARKER, "the unknown token 0",
    ),
    "no marker": ("av", say("tokens", "injection_char"), "error", SIDECAR, MARKER, "missing"),
    "marker not in the prompt": (
        "av", say("prompt_templates", "av", value="the cat"), "error", SIDECAR, AV, "0 times",
    ),
    "marker twice in the prompt": (
        "av", say("prompt_templates", "av", value="<concept>{injection_char}</concept>{injection_char}"), "error",
        SIDECAR, AV, "2 times",
    ),
    "no template of an AV": ("av", say("prompt_templates", "av"), "error", SIDECAR, AV, "missing"),
    "a template that cannot be filled": (
        "av", say("prompt_templates", "av", value="{injection_char} {"), "error", SIDECAR, AV, "cannot be filled",
    ),
    "no chat template": ("av", chat_template(None), "error", TOKENIZER, "chat_template", "missing"),
    "a chat template that fails": (
        "av", chat_template("{{ raise_exception('no users') }}"), "error", TOKENIZER, "chat_template", "no users",
    ),
    "no template of an AR": ("ar", say("prompt_templates", "ar"), "error", SIDECAR, AR, "missing"),
    "no place for a text": ("ar", say("prompt_templates", "ar", value="the"), "error", SIDECAR, AR, "'the'"),
    "null scale": ("av", say("extraction", "injection_scale"), "error", SIDECAR, SCALE, "missing or null"),
    "no scale": (
        "av", write(SIDECAR, "extraction", "injection_scale", remove=True), "error", SIDECAR, SCALE, "missing or null",
    ),
    "scale of 0": ("av", say("extraction", "injection_scale", value=0), "error", SIDECAR, SCALE, "found 0"),
    "scale below 0": ("av", say("extraction", "injection_scale", value=-3.0), "error", SIDECAR, SCALE, "found -3"),
    "infinite scale": (
        "av", say("extraction", "injection_scale", value=float("inf")), "error", SIDECAR, SCALE, "inf",
    ),
    "scale in words": (
        "av", say("extraction", "injection_scale", value="sqrt_d_model"), "warning", SIDECAR, SCALE, "5.65685",
    ),
    "a way in without a block": (
        "av", say("injection", value={"mode": "replace_embedding", "block": 3}), "error", SIDECAR, "injection",
        "block 3",
    ),
    "a way in past the last block": (
        "av", say("injection", value={"mode": "add_norm_matched", "block": 4}), "error", SIDECAR, "injection.block",
        "from 0 to 3",
    ),
    "FVE around a normalised mean": (
        "av", say("metrics", value={"held_out_fve_nrm": 0.938, "held_out_mse_nrm": 0.133}), "warning", SIDECAR,
        "metrics.held_out_fve_nrm", "a denominator of 2.15",
    ),
    "NaN in the weights": (
        "av", weights("model.safetensors", fill("model.layers.3.mlp.up_proj.weight", torch.nan)), "error",
        "model.safetensors", "model.layers.3.mlp.up_proj.weight", "NaN or infinite",
    ),
    "infinity in the value head": (
        "ar", weights(HEAD, fill("weight", -torch.inf)), "error", HEAD, "weight", "NaN or infinite",
    ),
    "EOS after the prompt of an AR": ("ar", add_eos, "error", SIDECAR, SUFFIX, "adds an EOS (2)"),
    "a BOS that is not written": ("ar", without_bos, "warning", TOKENIZER, "bos_token", "does not write"),
    "blocks without weights": (
        "ar", weights("model.safetensors", rename_block), "error", CONFIG, "num_hidden_layers",
        "no weights for block 1, 2",
    ),
    "no value head": ("ar", drop(HEAD), "error", HEAD, "", "no such file"),
    "value head by another name": (
        "ar", weights(HEAD, lambda t: t.update(kernel=t.pop("weight"))), "error", HEAD, "weight", "the keys kernel",
    ),
    "value head with a bias": (
        "ar", weights(HEAD, lambda t: t.update(bias=torch.zeros(WIDTH))), "error", HEAD, "weight", "bias, weight",
    ),
    "value head of another width": (
        "ar", weights(HEAD, lambda t: t.update(weight=torch.zeros(WIDTH, 16))), "error", HEAD, "weight", "[32, 32]",
    ),
    "no base": ("av", say("base_checkpoint"), "warning", SIDECAR, "base_checkpoint", "missing"),
    "two rotary bases": (
        "av", write(CONFIG, "rope_theta", value=5.0), "error", CONFIG, "rope_theta", "as in rope_parameters",
    ),
    "a pickle beside the weights": (
        "av", text("training_args.bin", "x"), "warning", "training_args.bin", "", "any code",
    ),
    "code of its own": (
        "av", write(CONFIG, "auto_map", value={"AutoConfig": "a.B"}), "warning", CONFIG, "auto_map", "for llama",
    ),
    "code of its own that is needed": (
        "av", both(write(CONFIG, "auto_map", value={"AutoConfig": "a.B"}), write(CONFIG, "model_type", value="mine")),
        "error", CONFIG, "auto_map", "for mine, is needed",
    ),
    "a tokenizer with code of its own": (
        "av", write(TOKENIZER, "auto_map", value={"AutoTokenizer": ["a.B", None]}), "warning", TOKENIZER, "auto_map",
        "code",
    ),
    "two templates under two names": (
        "av", say("prompt_templates", "actor", value="another"), "error", SIDECAR, AV, "av and as actor",
    ),
    "a role that is none": ("av", say("role", value="judge"), "error", SIDECAR, "role", "'judge'"),
    "no configuration": ("av", drop(CONFIG), "error", CONFIG, "", "no such file"),
    "a configuration that is no JSON": ("av", text(CONFIG, "{"), "error", CONFIG, "", "JSON"),
    "no tokenizer": (
        "av", drop("tokenizer.json", TOKENIZER, "chat_template.jinja"), "error", TOKENIZER, "", "can load",
    ),
    "a pointer of Git LFS": (
        "av", text("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "error", "model.safetensors",
        "", "Git LFS",
    ),
}  # fmt: skip

MENDABLE: dict[str, tuple[str, Break, str, str, str, str]] = {
    "layer in a section only": (
        "av", write(SIDECAR, LAYER, remove=True), "warning", SIDECAR, LAYER, "only in a section",
    ),
    "marker of another id": (
        "av", say("tokens", "injection_token_id", value=51), "error", SIDECAR, "tokens.injection_token_id",
        "found 51 expected 50",
    ),
    "marker without an id": (
        "av", say("tokens", "injection_token_id"), "error", SIDECAR, "tokens.injection_token_id", "found missing",
    ),
    "another left neighbour": (
        "av", say("tokens", "injection_left_neighbor_id", value=3), "error", SIDECAR, LEFT, "found 3 expected 48",
    ),
    "no right neighbour": (
        "av", say("tokens", "injection_right_neighbor_id"), "error", SIDECAR, RIGHT, "found missing expected 49",
    ),
    "mse_scale of 1": ("ar", say("extraction", "mse_scale", value=1.0), "error", SIDECAR, MSE, "5.65685"),
    "mse_scale of an AV": ("av", say("extraction", "mse_scale", value=32), "error", SIDECAR, MSE, "found 32"),
    "mse_scale in words": (
        "ar", say("extraction", "mse_scale", value="sqrt_d_model"), "warning", SIDECAR, MSE, "5.65685",
    ),
    "no mse_scale": ("ar", say("extraction", "mse_scale"), "warning", SIDECAR, MSE, "missing or null"),
    "another suffix": (
        "ar", say("tokens", "critic_suffix_ids", value=[1, 2]), "error", SIDECAR, SUFFIX, "found [1, 2]",
    ),
    "another suffix on the AV": (
        "av", say("tokens", "critic_suffix_ids", value=[1, 2]), "warning", SIDECAR, SUFFIX, "found [1, 2]",
    ),
    "a suffix that holds for some texts": (
        "ar", say("tokens", "critic_suffix_ids", value=[11, 52, 53]), "warning", SIDECAR, SUFFIX, "for some texts only",
    ),
    "no suffix": ("ar", say("tokens", "critic_suffix_ids"), "warning", SIDECAR, SUFFIX, "found missing"),
    "another width": ("av", say("d_model", value=64), "error", SIDECAR, "d_model", "found 64 expected 32"),
    "no width": ("ar", write(SIDECAR, "d_model", remove=True), "error", SIDECAR, "d_model", "found missing"),
    "no rope_theta": (
        "av", write(CONFIG, "rope_theta", remove=True), "error", CONFIG, "rope_theta", "transformers 4 takes",
    ),
    "an older role": ("ar", say("role", value="critic"), "warning", SIDECAR, "role", "found 'critic' expected 'ar'"),
}  # fmt: skip


def keys(report: LintReport) -> list[tuple[str, str, str]]:
    return [(f.severity, f.file, f.field) for f in report.findings]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class TestGoodCheckpoints:
    @pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
    def test_what_export_checkpoint_writes_is_clean(self, write_nla: Write, tmp_path: Path, family: str) -> None:
        raw = write_nla(family, tmp_path / "raw")
        export_checkpoint(str(raw), tmp_path / "out")
        before = hashes(tmp_path / "out")
        report = lint_checkpoint(str(tmp_path / "out"))
        assert report.findings == ()
        assert len(report.halves) == 2
        assert all(f"tiny-{family}" in note for note in report.notes)  # the base, which is a name only
        assert lint_checkpoint(str(tmp_path / "out"), fix=True).changed == ()
        assert hashes(tmp_path / "out") == before

    def test_what_transformers_5_saves_is_wrong_for_version_4_alone(self, write_nla: Write, tmp_path: Path) -> None:
        folder = write_nla("llama", tmp_path)
        found = [("error", f"{role}/config.json", "rope_theta") for role in ("av", "ar")]
        found += [("warning", f"{role}/tokenizer_config.json", "tokenizer_class") for role in ("av", "ar")]
        assert keys(lint_checkpoint(str(folder))) == found
        assert keys(lint_checkpoint(str(folder), fix=True)) == found[2:]

    def test_adapters_are_clean(self, adapters: Path) -> None:
        report = lint_checkpoint(str(adapters))
        assert report.findings == ()
        assert "adapter over" in report.halves[0]

    def test_the_nla_that_ships_is_clean(self) -> None:
        report = lint_checkpoint("nla:reference")
        assert report.findings == report.notes == ()

    def test_the_nla_that_ships_is_missed_with_a_word_on_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (checkpoint, lint_place):
            monkeypatch.setattr(module, "REFERENCE_FOLDER", tmp_path / "none")
        with pytest.raises(BadInput, match=r"not in this installation.*train_reference_nla\.py"):
            lint_checkpoint("reference")

    def test_halves_are_named_alone_or_as_a_pair(self, good: Path) -> None:
        assert [h.partition(":")[0] for h in lint_checkpoint(str(good / "ar")).halves] == ["nla/ar"]
        assert [h.partition(":")[0] for h in lint_checkpoint(f"{good}/av,{good}/ar").halves] == ["av/", "ar/"]

    def test_the_model_is_not_asked_for_values_when_weights_are_left_out(self, good: Path) -> None:
        weights("model.safetensors", fill("model.norm.weight", torch.nan))(good / "av")
        report = lint_checkpoint(str(good / "av"), weights=False)
        assert report.findings == ()
        assert "nla/av: the values of the weights were not read" in report.notes


class TestTraps:
    @pytest.mark.parametrize("trap", UNMENDABLE)
    def test_a_trap_is_found_alone_and_left_as_it_is(self, good: Path, trap: str) -> None:
        half, damage, severity, file, field, said = UNMENDABLE[trap]
        damage(good / half)
        before = hashes(good)
        report = lint_checkpoint(str(good / half), fix=True)
        assert keys(report) == [(severity, file, field)]
        (finding,) = report.findings
        assert said in f"found {finding.found} expected {finding.expected} fix {finding.fix}"
        assert "\n" not in finding.fix
        assert report.changed == ()
        assert hashes(good) == before

    @pytest.mark.parametrize("trap", MENDABLE)
    def test_a_trap_is_found_alone_and_mended_with_a_copy(self, good: Path, trap: str) -> None:
        half, damage, severity, file, field, said = MENDABLE[trap]
        damage(good / half)
        broken = hashes(good / half)
        report = lint_checkpoint(str(good / half))
        assert keys(report) == [(severity, file, field)]
        (finding,) = report.findings
        assert said in f"found {finding.found} expected {finding.expected}"
        assert hashes(good / half) == broken
        mended = lint_checkpoint(str(good / half), fix=True)
        assert mended.findings == ()
        assert any(field.rpartition(".")[2] in line for line in mended.changed)
        after = hashes(good / half)
        assert after.pop(f"{file}.bak") == broken[file]
        assert {name for name in broken if broken[name] != after[name]} == {file}
        assert lint_checkpoint(str(good / half), fix=True).changed == ()

    def test_older_names_are_found_one_by_one_and_mended_together(self, good: Path) -> None:
        content = yaml.safe_load((good / "av" / SIDECAR).read_text(encoding="utf-8"))
        templates = content["prompt_templates"]
        content["prompt_templates"] = {"actor": templates["av"], "critic": templates["ar"]}
        text(SIDECAR, yaml.safe_dump({**content, "role": "actor"}, allow_unicode=True))(good / "av")
        older = ["role", "prompt_templates.actor", "prompt_templates.critic"]
        assert keys(lint_checkpoint(str(good / "av"))) == [("warning", SIDECAR, field) for field in older]
        assert lint_checkpoint(str(good / "av"), fix=True).findings == ()
        assert yaml.safe_load((good / "av" / SIDECAR).read_text(encoding="utf-8"))["prompt_templates"] == templates

    def test_all_that_can_be_mended_is_mended_in_one_go(self, good: Path) -> None:
        # Without a width the sidecar is not valid, and its other mistakes show once it is.
        say("tokens", "injection_token_id", value=51)(good / "av")
        write(SIDECAR, "d_model", remove=True)(good / "av")
        report = lint_checkpoint(str(good), fix=True)
        assert report.findings == ()
        assert [line for line in report.changed if "->" in line] == [
            "av/nla_meta.yaml: d_model: null -> 32", "av/nla_meta.yaml: tokens.injection_token_id: 51 -> 50",
        ]  # fmt: skip
        assert {path.name for path in (good / "av").glob("*.bak*")} == {f"{SIDECAR}.bak", f"{SIDECAR}.bak2"}

    def test_another_model_type_than_the_bases_is_found(self, good: Path, write_nla: Write, tmp_path: Path) -> None:
        base = str(write_nla("qwen2", tmp_path / "other") / "av")
        say("base_checkpoint", value=base)(good / "av")
        assert keys(lint_checkpoint(str(good / "av"))) == [("error", SIDECAR, "base_checkpoint")]
        say("base_checkpoint", value=str(good / "av"))(good / "ar")  # the AR has fewer blocks than its base
        assert lint_checkpoint(str(good / "ar")).findings == ()

    def test_the_layer_in_a_name_is_compared(self, good: Path) -> None:
        for name, found in (("tiny-L1-av", []), ("tiny-L2-av", [("warning", SIDECAR, LAYER)])):
            shutil.copytree(good / "av", good / name)
            assert keys(lint_checkpoint(str(good / name))) == found

    def test_weights_in_a_pickle_only_are_found(self, good: Path) -> None:
        (good / "av" / "model.safetensors").rename(good / "av" / "pytorch_model.bin")
        found = [("error", "model.safetensors", ""), ("warning", "pytorch_model.bin", "")]
        assert keys(lint_checkpoint(str(good / "av"))) == found

    def test_embeddings_that_were_multiplied_already_are_found(self, write_nla: Write, tmp_path: Path) -> None:
        export_checkpoint(str(write_nla("gemma3", tmp_path / "raw")), tmp_path / "out")
        av = tmp_path / "out" / "av"
        weights("model.safetensors", lambda t: t["model.embed_tokens.weight"].mul_(WIDTH**0.5))(av)
        report = lint_checkpoint(str(av))
        assert keys(report) == [("warning", CONFIG, "the embedding table")]
        assert "embeddings multiplied by 5.657 before the vector enters" in report.halves[0]

    def test_a_family_that_multiplies_unknown_to_the_released_client_is_found(
        self, write_nla: Write, tmp_path: Path
    ) -> None:
        export_checkpoint(str(write_nla("gemma2", tmp_path / "raw")), tmp_path / "out")
        av = tmp_path / "out" / "av"
        assert lint_checkpoint(str(av)).findings == ()
        write(CONFIG, "model_type", value="vaultgemma")(av)
        assert keys(lint_checkpoint(str(av))) == [("warning", CONFIG, "model_type")]

    def test_a_final_norm_that_the_released_client_cannot_take_out_is_found(
        self, write_nla: Write, tmp_path: Path
    ) -> None:
        export_checkpoint(str(write_nla("gpt2", tmp_path / "raw")), tmp_path / "out")
        report = lint_checkpoint(str(tmp_path / "out" / "ar"))
        assert keys(report) == [("warning", CONFIG, "model_type")]
        assert "final norm" in report.findings[0].found


class TestShards:
    @pytest.fixture
    def sharded(self, good: Path) -> Path:
        tensors = safetensors.torch.load_file(good / "av" / "model.safetensors")
        names = sorted(tensors)
        (good / "av" / "model.safetensors").unlink()
        index = {}
        for number, some in enumerate((names[:20], names[20:]), 1):
            file = f"model-{number}.safetensors"
            safetensors.torch.save_file({name: tensors[name] for name in some}, good / "av" / file)
            index |= dict.fromkeys(some, file)
        (good / "av" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return good / "av"

    def test_every_shard_is_read(self, sharded: Path) -> None:
        assert lint_checkpoint(str(sharded)).findings == ()
        weights("model-2.safetensors", fill("model.norm.weight", torch.inf))(sharded)
        assert keys(lint_checkpoint(str(sharded))) == [("error", "model-2.safetensors", "model.norm.weight")]

    def test_a_shard_or_a_tensor_that_is_missing_is_found(self, sharded: Path) -> None:
        weights("model-2.safetensors", lambda t: t.pop("model.norm.weight"))(sharded)
        report = lint_checkpoint(str(sharded))
        assert keys(report) == [("error", "model.safetensors.index.json", "weight_map")]
        assert "1 tensors" in report.findings[0].found
        (sharded / "model-2.safetensors").unlink()
        assert ("error", "model-2.safetensors", "") in keys(lint_checkpoint(str(sharded)))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8])
    def test_a_bad_value_is_found_wherever_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Path, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr(lint_weights, "_CHUNK", 10)
        half, _ = read_half(find_places(str(good / "av"), weights=True)[0])
        file = good / "av" / "x.safetensors"
        for position in (0, 17, 34) if dtype != torch.int8 else ():
            values = torch.ones(7, 5)
            values.view(-1)[position] = torch.nan
            safetensors.torch.save_file({"x": values.to(dtype), "empty": torch.ones(0, 3)}, file)
            read = replace(half, headers={"x.safetensors": half.place.read_header("x.safetensors")}, settings={})
            assert [f.field for f in lint_weights.check_values(read)] == ["x"]
        safetensors.torch.save_file({"x": torch.ones(7, 5).to(dtype), "scalar": torch.tensor(1.0)}, file)
        read = replace(half, headers={"x.safetensors": half.place.read_header("x.safetensors")}, settings={})
        assert list(lint_weights.check_values(read)) == []


class TestPairs:
    @pytest.mark.parametrize(
        ("half", "damage", "found"),
        [
            ("av", say(LAYER, value=0), ("error", "av/nla_meta.yaml", "")),
            (
                "av", site(0),
                ("error", "ar/nla_meta.yaml", LAYER),
            ),
            ("ar", say("base_checkpoint", value="org/other"), ("error", "ar/nla_meta.yaml", "base_checkpoint")),
            ("ar", say("base_checkpoint", value="org/Tiny-Llama@main"), None),
        ],
    )  # fmt: skip
    def test_halves_that_disagree_are_found(
        self, good: Path, half: str, damage: Break, found: tuple[str, str, str] | None
    ) -> None:
        damage(good / half)
        assert keys(lint_checkpoint(str(good))) == ([found] if found else [])

    def test_two_widths_are_found(self, good: Path) -> None:
        say("d_model", value=64)(good / "av")
        found = [("error", "av/nla_meta.yaml", "d_model"), ("error", "ar/nla_meta.yaml", "d_model")]
        assert keys(lint_checkpoint(str(good))) == found
        assert lint_checkpoint(str(good), fix=True).findings == ()

    def test_two_tokenizers_are_found(self, good: Path) -> None:
        raw = json.loads((good / "ar" / "tokenizer.json").read_text())
        raw["model"]["vocab"] = {token.replace("t20", "u20"): i for token, i in raw["model"]["vocab"].items()}
        (good / "ar" / "tokenizer.json").write_text(json.dumps(raw))
        assert keys(lint_checkpoint(str(good))) == [("warning", "ar/tokenizer.json", "")]

    def test_two_halves_in_the_wrong_order_are_found(self, good: Path) -> None:
        report = lint_checkpoint(f"{good}/ar,{good}/av")
        assert keys(report) == [("error", "av/nla_meta.yaml", "role"), ("error", "ar/nla_meta.yaml", "role")]


class TestAdapters:
    def test_an_ar_has_weights_for_its_own_blocks_only(self, adapters: Path) -> None:
        shutil.copy(adapters / "av" / "adapter_model.safetensors", adapters / "ar")
        report = lint_checkpoint(str(adapters / "ar"))
        assert keys(report) == [("error", "adapter_model.safetensors", "")]
        assert "block 3" in report.findings[0].found

    def test_values_of_an_adapter_are_read(self, adapters: Path) -> None:
        name = min(safetensors.torch.load_file(adapters / "av" / "adapter_model.safetensors"))
        weights("adapter_model.safetensors", fill(name, torch.nan))(adapters / "av")
        assert keys(lint_checkpoint(str(adapters / "av"))) == [("error", "adapter_model.safetensors", name)]

    def test_its_site_is_a_block_of_its_base(self, adapters: Path) -> None:
        for half in ("av", "ar"):
            site(4)(adapters / half)
            assert keys(lint_checkpoint(str(adapters / half))) == [("error", SIDECAR, LAYER)]

    @pytest.mark.parametrize(
        ("damage", "found"),
        [
            (write("adapter_config.json", "base_model_name_or_path"), "has no `base_model_name_or_path`"),
            (write("adapter_config.json", "base_model_name_or_path", value="a/b/c"), "cannot be had from the hub"),
        ],
    )
    def test_one_without_its_base_is_found(self, adapters: Path, damage: Break, found: str) -> None:
        damage(adapters / "av")
        say("base_checkpoint", value="c")(adapters / "av")
        report = lint_checkpoint(str(adapters / "av"))
        assert keys(report) == [("error", "adapter_config.json", "")]
        assert found in report.findings[0].found
        assert "no prompt was checked" in report.notes[0]

    def test_one_that_is_pickled_is_found(self, adapters: Path) -> None:
        (adapters / "av" / "adapter_model.safetensors").rename(adapters / "av" / "adapter_model.bin")
        found = [("error", "adapter_model.safetensors", ""), ("warning", "adapter_model.bin", "")]
        assert keys(lint_checkpoint(str(adapters / "av"))) == found

    def test_another_base_than_the_sidecars_is_found(self, adapters: Path) -> None:
        config = adapters / "av" / "adapter_config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "smollm2-135m-instruct-q4_1"})
        )
        report = lint_checkpoint(str(adapters / "av"))
        assert ("warning", "adapter_config.json", "base_model_name_or_path") in keys(report)


@pytest.fixture(scope="module")
def halves(exported: Path) -> dict[str, Half]:
    return {role: read_half(find_places(str(exported / role), weights=False)[0])[0] for role in ("av", "ar")}


class TestAgreement:
    """The linter and the loader judge a prompt alike."""

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        marker=st.sampled_from(["㈎", "㈎", "㈎", "the cat", "㊗", "", "mat", None]),
        ids=st.tuples(
            st.sampled_from([50, 50, 51, None]), st.sampled_from([48, 48, 49, None]), st.sampled_from([49, 49, 3, None])
        ),
        template=st.sampled_from([
            "the <concept>{injection_char}</concept>", "{injection_char}", "<concept>{injection_char}{injection_char}",
            "{vector}", "{injection_char} {", "<concept>㈎</concept>", "the mat", None,
        ]),
        chat=st.sampled_from([
            "{{ messages[0]['content'] }}<|assistant|>", "{{ bos_token }}{{ bos_token }}{{ messages[0]['content'] }}",
            "{{ bos_token }}<|user|>{{ messages[0]['content'] }}", None,
        ]),
    )  # fmt: skip
    def test_an_av(
        self, halves: dict[str, Half], marker: str | None, ids: tuple[int | None, ...], template: str | None,
        chat: str | None,
    ) -> None:  # fmt: skip
        half = halves["av"]
        assert half.sidecar is not None
        names = ("injection_token_id", "injection_left_neighbor_id", "injection_right_neighbor_id")
        tokens = half.sidecar.tokens.model_copy(update={"injection_char": marker, **dict(zip(names, ids, strict=True))})
        templates = half.sidecar.prompt_templates.model_copy(update={"av": template})
        sidecar = half.sidecar.model_copy(update={"tokens": tokens, "prompt_templates": templates})
        half.tokenizer.chat_template = chat
        found = [f for f in check_prompts(replace(half, sidecar=sidecar)) if f.severity == "error"]
        assert bool(found) == _is_refused(lambda: mark_prompt(sidecar, half.tokenizer))

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        suffix=st.one_of(st.none(), st.lists(st.sampled_from([47, 52, 53, 54, 2]), max_size=3)),
        template=st.sampled_from([
            "of <text>{explanation}</text><summary>", "{explanation}</text><summary>", "<s>{explanation}</text>",
            "{explanation}", "the rain", "{explanation} {text}", None,
        ]),
    )  # fmt: skip
    def test_an_ar(self, halves: dict[str, Half], suffix: list[int] | None, template: str | None) -> None:
        half = halves["ar"]
        assert half.sidecar is not None
        tokens = half.sidecar.tokens.model_copy(update={"critic_suffix_ids": suffix})
        templates = half.sidecar.prompt_templates.model_copy(update={"ar": template})
        sidecar = half.sidecar.model_copy(update={"tokens": tokens, "prompt_templates": templates})
        found = [f for f in check_prompts(replace(half, sidecar=sidecar)) if f.severity == "error"]
        assert bool(found) == _is_refused(lambda: check_explanation_prompt(sidecar, half.tokenizer))

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        content=st.dictionaries(
            st.sampled_from(["kind", "role", "d_model", "extraction", "tokens", "prompt_templates", LAYER, "critic"]),
            st.recursive(
                st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4)
                | st.sampled_from(["av", "ar", "actor", "nla_model"]),
                lambda inner: st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["av", "actor", "ar", "injection_scale", "mse_scale", "injection_char", LAYER]),
                    inner, max_size=3,
                ),
                max_leaves=4,
            ),
        )
    )  # fmt: skip
    def test_no_sidecar_breaks_the_linter(self, exported: Path, tmp_path: Path, content: dict[str, Any]) -> None:
        folder = tmp_path / "half"
        if not folder.exists():
            shutil.copytree(exported / "av", folder)
        good = yaml.safe_load((exported / "av" / SIDECAR).read_text(encoding="utf-8"))
        text(SIDECAR, yaml.safe_dump({**good, **content}, allow_unicode=True))(folder)
        report = lint_checkpoint(str(folder), weights=False)
        mended = lint_checkpoint(str(folder), weights=False, fix=True)
        assert {(f.file, f.field) for f in mended.findings if f.changes} == set()
        assert mended.n_errors <= report.n_errors or any("d_model" in line for line in mended.changed)
        assert lint_checkpoint(str(folder), weights=False, fix=True).changed == ()


def _is_refused(work: Callable[[], Any]) -> bool:
    try:
        work()
    except BadInput:
        return True
    return False


class Hub:
    """A model hub with one repository, and the files that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sha, self.got = folder, "0" * 40, list[tuple[str, str | None]]()
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        self.info = {"id": "org/nla", "modelId": "org/nla", "sha": self.sha, "tags": [], "downloads": 0, "likes": 0}
        self.info["siblings"] = [{"rfilename": name} for name in files]
        self.tree = [
            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "1" * 40} for name in files
        ]
        self.app = Starlette(
            routes=[
                Route("/api/models/org/nla", lambda _: JSONResponse(self.info)),
                Route("/api/models/org/nla/revision/{revision}", lambda _: JSONResponse(self.info)),
                Route("/api/models/org/nla/tree/{revision}", lambda _: JSONResponse(self.tree)),
                Route("/org/nla/resolve/{revision}/{file:path}", self.send, methods=["GET", "HEAD"]),
            ]
        )

    async def send(self, request: Request) -> Response:
        file = request.path_params["file"]
        if request.method == "GET":
            self.got.append((file, request.headers.get("range")))
        if not (self.folder / file).is_file():
            return Response(status_code=404, headers={"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256((self.folder / file).read_bytes()).hexdigest()
        return FileResponse(self.folder / file, headers={"ETag": f'"{etag}"', "X-Repo-Commit": self.sha})


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nlabench", "lint-checkpoint", *arguments], capture_output=True, text=True,
            cwd=tmp_path, check=False, env={**os.environ, "HF_HOME": str(tmp_path / "cache"), **environment},
        )  # fmt: skip

    return run


class TestTheCommand:
    def test_exit_codes_and_output(self, good: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        clean = command(str(good))
        assert (clean.returncode, clean.stdout.splitlines()[-1]) == (0, "0 errors, 0 warnings")
        say("tokens", "injection_token_id", value=51)(good / "av")
        text("training_args.bin", "x")(good / "av")
        broken = CliRunner().invoke(app, ["lint-checkpoint", str(good)])
        assert broken.exit_code == 1
        assert "error    av/nla_meta.yaml: tokens.injection_token_id\n  found    51\n" in broken.stdout
        assert broken.stdout.endswith("1 errors, 1 warnings; --fix mends 1\n")
        mended = CliRunner().invoke(app, ["lint-checkpoint", str(good), "--fix", "--json"])
        assert mended.exit_code == 0  # what is left is a warning
        report = json.loads(mended.stdout)
        assert [finding["file"] for finding in report["findings"]] == ["av/training_args.bin"]
        assert report["changed"][0] == "av/nla_meta.yaml: tokens.injection_token_id: 51 -> 50"

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("nowhere/at/all", "There is no folder 'nowhere/at/all'"),
            ("{0}", "is no checkpoint of an NLA"),
            ("{0}/a,{0}/b,{0}/c", "names 3 checkpoints"),
            ("{0}/broken", "cannot be read"),
        ],
    )
    def test_what_is_no_checkpoint_is_bad_input(self, tmp_path: Path, spec: str, said: str) -> None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / SIDECAR).write_text("a: [")
        with pytest.raises(BadInput, match=said):
            lint_checkpoint(spec.format(tmp_path))

    def test_of_a_hubs_checkpoint_no_more_is_fetched_than_is_read(
        self, good: Path, running: Callable[[Any], str], command: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        weights(HEAD, lambda t: t.update(weight=torch.full((WIDTH, 16), torch.nan)))(good / "ar")
        text("training_args.bin", "x")(good / "ar")
        hub = Hub(good)
        address = running(hub.app)
        found = ["ar/training_args.bin", "ar/value_head.safetensors"]
        static = command("org/nla", "--no-weights", "--json", HF_ENDPOINT=address)
        assert static.returncode == 1, static.stderr
        assert sorted(f["file"] for f in json.loads(static.stdout)["findings"]) == found  # its shape
        ranges = {file: part for file, part in hub.got if file.endswith((".safetensors", ".bin"))}
        weight_files = ["av/model.safetensors", "ar/model.safetensors", "ar/value_head.safetensors"]
        assert ranges == dict.fromkeys(weight_files, "bytes=0-100000")
        whole = command("org/nla", "--json", HF_ENDPOINT=address)
        assert sorted(f["file"] for f in json.loads(whole.stdout)["findings"]) == [*found, found[1]]  # and its values
        assert ("ar/training_args.bin", None) not in hub.got
        refused = command("org/nla", "--fix", HF_ENDPOINT=address)
        assert refused.returncode == 2
        assert "hf download ID --local-dir" in refused.stderr
