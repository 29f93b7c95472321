"""One half of a checkpoint as the linter sees it: everything but the values of its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import snapshot_download
from pydantic import ValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..assets import ASSETS, fetch_asset
from ..errors import BadInput
from .checkpoint import VALUE_HEAD, base_of_adapter
from .lint_finding import Change, Finding
from .lint_place import SMALL_FILES, Header, Place
from .sidecar import SIDECAR, Sidecar, read_sidecar

CONFIG, ADAPTER, ADAPTER_WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
TOKENIZER = "tokenizer_config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Half:
    """What was read; a part that could not be is None or empty, and there is a finding about it.

    raw: the sidecar as it is written. settings: config.json as it is written; empty for an adapter.
    base: what an adapter is over, as it names it; empty for a full directory.
    config: the configuration of the model by transformers (of its base, for an adapter), with the names of today.
    shell: the model of a full directory without memory: its structure.
    tokenizer_settings: tokenizer_config.json as it is written; empty where the tokenizer is the base's.
    headers: safetensors file -> tensor -> dtype and shape.
    """

    place: Place
    raw: Mapping[str, Any]
    sidecar: Sidecar | None
    settings: Mapping[str, Any]
    base: str
    config: Any
    shell: Any
    tokenizer: Any
    tokenizer_settings: Mapping[str, Any]
    headers: Mapping[str, Mapping[str, Header]]

    @property
    def is_adapter(self) -> bool:
        return ADAPTER in self.place.files

    @cached_property
    def text_config(self) -> Any:
        """The part of the configuration that describes the language model."""
        return self.config.get_text_config() if self.config is not None else None

    @property
    def embedding_factor(self) -> float:
        """What the model multiplies its embeddings by: √d_model in the Gemma family, 1 in most others."""
        table = self.shell.get_input_embeddings() if self.shell is not None else None
        return float(getattr(table, "scalar_embed_scale", 1.0))

    @property
    def n_blocks(self) -> int | None:
        return getattr(self.text_config, "num_hidden_layers", None)

    @property
    def d_model(self) -> int | None:
        """The model's own width, and where that is not known the sidecar's."""
        own: int | None = getattr(self.text_config, "hidden_size", None)
        return own or (self.sidecar.d_model if self.sidecar else None)


def read_half(place: Place) -> tuple[Half, list[Finding]]:
    """Read the files of a half, and say what cannot be read.

    Raises:
        BadInput: the sidecar is no YAML.
    """
    findings: list[Finding] = []
    settings: dict[str, Any] = {}
    source: Path | None = place.folder
    base = ""
    try:
        if ADAPTER in place.files:
            source = None  # until it is found; without weights it is not asked for
            if ADAPTER_WEIGHTS in place.files:
                base = base_of_adapter(place.folder)
                source = _fetch_base(base)
        elif CONFIG in place.files:
            settings = json.loads((place.folder / CONFIG).read_text(encoding="utf-8"))
        else:
            findings.append(_unusable(CONFIG, "no such file", "the model's configuration, or an adapter's"))
    except BadInput as error:
        findings.append(_unusable(ADAPTER, str(error), "an adapter whose base can be had here"))
    except ValueError as error:
        findings.append(_unusable(CONFIG, str(error), "JSON"))
    config = None
    if source and (base or settings):
        config, wrong = _attempt(lambda: AutoConfig.from_pretrained(str(source), trust_remote_code=False))
        if wrong and "auto_map" not in settings:  # code of its own is a finding by itself
            findings.append(_unusable(CONFIG, wrong, "a configuration that transformers can read"))
    shell = None
    if config is not None and settings:
        shell, wrong = _attempt(lambda: _build_shell(config))
        if wrong:
            findings.append(_unusable(CONFIG, wrong, "a causal language model"))
    own = ADAPTER not in place.files or not place.files.isdisjoint({"tokenizer.json", TOKENIZER})
    home = place.folder if own else source
    tokenizer = None
    if home:
        tokenizer, wrong = _attempt(lambda: AutoTokenizer.from_pretrained(str(home), trust_remote_code=False))
        if wrong and config is not None:  # without a configuration transformers finds no tokenizer either
            findings.append(_unusable(TOKENIZER, wrong, "a tokenizer that transformers can load"))
    written, _ = _attempt(lambda: json.loads((place.folder / TOKENIZER).read_text(encoding="utf-8")))
    headers, unreadable = _read_headers(place)
    raw, sidecar, invalid = _read_sidecar(place.folder, getattr(config, "get_text_config", lambda: None)())
    half = Half(place, raw, sidecar, settings, base, config, shell, tokenizer, written or {}, headers)
    return half, [*invalid, *findings, *unreadable]


def _build_shell(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _attempt(load: Callable[[], Any]) -> tuple[Any, str]:
    """What transformers loads, or None and what it said.

    What it raises on damaged files depends on the family and on the damage; to a linter all of it is a finding.
    """
    try:
        return load(), ""
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {said[0][:300]}"


def _unusable(file: str, found: str, expected: str) -> Finding:
    return Finding("error", file, "", found, expected, "Add the file as the checkpoint was trained with it.")


def _fetch_base(base: str) -> Path:
    """The small files of what an adapter is over.

    Raises:
        BadInput: they cannot be had.
    """
    if base in ASSETS:
        return fetch_asset(base)
    if Path(base).is_dir():
        return Path(base)
    hub_id, _, revision = base.partition("@")
    try:
        return Path(snapshot_download(hub_id, revision=revision or None, allow_patterns=SMALL_FILES))
    except (OSError, ValueError) as error:
        raise BadInput(f"{base!r} is no folder and cannot be had from the hub: {str(error).splitlines()[0]}") from error


def _read_sidecar(folder: Path, text_config: Any) -> tuple[dict[str, Any], Sidecar | None, list[Finding]]:
    try:
        sidecar, wrong = read_sidecar(folder), []
    except BadInput as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        sidecar, wrong = None, error.__cause__.errors()
    content = yaml.safe_load((folder / SIDECAR).read_text(encoding="utf-8"))
    width = getattr(text_config, "hidden_size", None)
    problems = {_field_of(problem["loc"], content): problem for problem in reversed(wrong)}
    findings = []
    for field, problem in problems.items():
        change = (Change(("d_model",), width),) if field == "d_model" and width else ()
        missing = problem["type"] == "missing"
        found = "missing" if missing else repr(problem["input"])[:200] if field else "the file as a whole"
        fix = "Correct it; nothing else of this half's sidecar is checked until it is right."
        findings.append(Finding("error", SIDECAR, field, found, problem["msg"], fix, change))
    return content if isinstance(content, dict) else {}, sidecar, findings


def _field_of(location: tuple[int | str, ...], content: Any) -> str:
    """The key that is wrong. Where it may be one of several types, pydantic adds each of them to the location."""
    keys: list[str] = []
    for part in location:
        if not isinstance(content, dict):
            break
        keys.append(str(part))
        content = content.get(part)
    return ".".join(keys)


def _read_headers(place: Place) -> tuple[dict[str, Mapping[str, Header]], list[Finding]]:
    """The headers of the weights that loaders read, and findings about those that are missing or damaged."""
    findings: list[Finding] = []
    listed: Mapping[str, str] = {}
    if ADAPTER in place.files:
        wanted = {ADAPTER_WEIGHTS}
    elif _INDEX in place.files:
        listed, wrong = _attempt(lambda: json.loads((place.folder / _INDEX).read_text())["weight_map"])
        if wrong:
            return {}, [_unusable(_INDEX, wrong, "the index of the weights")]
        wanted = set(listed.values())
    else:
        wanted = {_WEIGHTS}
    headers: dict[str, Mapping[str, Header]] = {}
    for file in sorted(wanted | ({VALUE_HEAD} & place.files)):
        if file not in place.files:
            fix = "Add the file; weights that are pickled are read and saved again with safe_serialization."
            findings.append(Finding("error", file, "", "no such file", "weights in safetensors", fix))
            continue
        try:
            headers[file] = place.read_header(file)
        except (OSError, SafetensorError) as error:
            fix = "Fetch it again: it is cut short, or the pointer that Git LFS leaves in place of a file."
            findings.append(Finding("error", file, "", f"cannot be read: {error}", "a safetensors file", fix))
    absent = [name for name, file in listed.items() if file in headers and name not in headers[file]]
    if absent:
        found = f"{len(absent)} tensors are not in the files that it names (first: {absent[0]})"
        fix = "Save the model again in one step: index and files are of two versions."
        findings.append(Finding("error", _INDEX, "weight_map", found, "each tensor in its file", fix))
    return headers, findings
