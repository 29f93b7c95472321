"""An AV's prompt as the rows that enter block 0, with a slot for a vector: what a client of a served AV sends.

It takes the AV's sidecar, its tokenizer and a few rows of its embedding table, and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer

from ..assets import ASSETS, fetch_asset
from ..errors import BadInput
from ..injection import VectorInjection, inject_vectors
from .checkpoint import base_of_adapter, find_autoencoder
from .embedding import read_embeddings
from .sidecar import Sidecar, mark_prompt, read_sidecar

_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.yaml", _ADAPTER_WEIGHTS]


@dataclass(frozen=True)
class EmbeddedPrompt:
    """rows: [n_tokens, d_model], float32, with the marker's own row in the slot."""

    sidecar: Sidecar
    rows: Tensor
    slot: int
    injection: VectorInjection

    def make_row(self, vector: Tensor) -> Tensor:
        """The row that stands for a vector [d_model]: the vector at the sidecar's norm, as the AV in process has it.

        Raises:
            BadInput: the vector is zero or not finite.
        """
        (edit,) = inject_vectors(self.injection, vector[None], [self.slot]).values()
        return edit(self.rows[None], torch.tensor([0]), True)[0, self.slot]


def embed_prompt(spec: str) -> EmbeddedPrompt:
    """Embed the prompt of an AV: `reference`, a folder with an AV (or with `av/` in it), or the hub id of an AV.

    Raises:
        BadInput: no AV there, a sidecar or tokenizer that does not fit, vectors that do not enter as embeddings, or an
            embedding table that cannot be read.
    """
    folder, source = _locate(spec.removeprefix("nla:"))
    sidecar = read_sidecar(folder)
    injection = sidecar.vector_injection()
    if injection.mode != "replace_embedding":
        raise BadInput(
            f"The vectors of the AV {spec!r} enter by {injection.mode} after block {injection.block}; embeddings can "
            "carry `replace_embedding` only. Serve it with `nlabench serve` and ask its /describe."
        )
    base = _find_base(folder, source)
    table, _, revision = (base, "", "") if Path(base).is_dir() else base.partition("@")
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder) if own else table, revision=revision or None)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"The tokenizer of the AV {spec!r} cannot be loaded: {str(error).splitlines()[0][:300]}. Its files belong "
            "beside the sidecar, or in the base of an adapter."
        ) from error
    prompt = mark_prompt(sidecar, tokenizer)
    return EmbeddedPrompt(sidecar, read_embeddings(table, prompt.ids, revision or None), prompt.slot, injection)


def _locate(spec: str) -> tuple[Path, str]:
    """The folder with an AV's small files, and where its weights are: the same folder, or the hub id."""
    if spec == "reference" or Path(spec).expanduser().is_dir():
        folder = find_autoencoder(spec).av.folder
        return folder, str(folder)
    name, _, revision = spec.partition("@")
    try:
        # Without the weights: of those, the one file with the embedding table is fetched later.
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_SMALL_FILES)), spec
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise BadInput(
            f"There is no folder {spec!r}, and no checkpoint of that name could be had from the model hub: "
            f"{str(error).splitlines()[0][:300]}. Give the folder or the hub id of the AV that is served."
        ) from error


def _find_base(folder: Path, source: str) -> str:
    """Where the embedding table is: with the AV, or with the base that it is an adapter of."""
    if not (folder / _ADAPTER).is_file():
        return source
    with safe_open(folder / _ADAPTER_WEIGHTS, framework="pt") as file:
        names: list[str] = list(file.keys())
        if any("embed" in name or "wte" in name for name in names):
            raise BadInput(
                f"The adapter in {folder} changes the embedding table, which is read from its base here. Write it as a "
                "full directory (`nlabench export-checkpoint`), and give that."
            )
    named = base_of_adapter(folder)
    return str(fetch_asset(named)) if named in ASSETS else named
