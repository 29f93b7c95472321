"""The embeddings of one prompt, read from a checkpoint's files: a few rows of one tensor, and no model in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.hub import cached_file

from ..errors import BadInput


def read_embeddings(source: str, ids: Sequence[int], revision: str | None = None) -> Tensor:
    """What enters block 0 for these tokens [n_ids, d_model], float32.

    source: a folder with a transformers checkpoint in safetensors, or a hub id (the one file is fetched). Families
    that multiply their embeddings (Gemma: by √d_model) have them multiplied here, in the checkpoint's own precision.

    Raises:
        BadInput: no checkpoint there, none in safetensors, or one without an embedding table.
    """
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        # On the meta device a model has a structure and no weights: its class says what the table is called, and what
        # its embeddings are multiplied by.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        embedding = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is embedding)
        # Prefixes differ between versions of transformers; the last part does not.
        shard, key = _find_table(source, revision, name.rpartition(".")[2] + ".weight")
        with safe_open(shard, framework="pt") as file:
            table = file.get_slice(key)
            rows = torch.cat([table[i : i + 1] for i in ids])
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise BadInput(
            f"The embedding table of {source!r} cannot be read: {str(error).splitlines()[0][:300]}. It is taken from "
            "model.safetensors (or its shards) beside config.json; give a folder or a hub id that has them."
        ) from error
    scale = torch.tensor(getattr(embedding, "scalar_embed_scale", 1.0)).to(rows.dtype)
    return (rows * scale).float()


def _find_table(source: str, revision: str | None, ending: str) -> tuple[str, str]:
    """The safetensors file that holds the one tensor whose name ends like this, and its full name."""
    index = cached_file(
        source, "model.safetensors.index.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if index is None:
        shard = str(cached_file(source, "model.safetensors", revision=revision))
        with safe_open(shard, framework="pt") as file:
            files = dict.fromkeys(file.keys(), shard)
    else:
        files = json.loads(Path(index).read_text())["weight_map"]
    found = [key for key in files if key == ending or key.endswith(f".{ending}")]
    if len(found) != 1:
        raise LookupError(f"{len(found)} tensors end in {ending!r}, where one was expected")
    shard = files[found[0]]
    return (shard if index is None else str(cached_file(source, shard, revision=revision))), found[0]
