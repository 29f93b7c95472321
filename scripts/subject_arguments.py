"""What is wrong with a command's arguments, told before a weight is read: a subject's configuration is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nlabench.benchmark.assets import ASSETS, fetch_asset
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.hub import hub_answers
from transformers import AutoConfig

DTYPES = ("auto", "float32", "bfloat16")


def check_dtype(dtype: str) -> None:
    """
    Raises:
        BadInput: no dtype of that name.
    """
    if dtype not in DTYPES:
        raise BadInput(f"There is no dtype {dtype!r} here; expected {', '.join(DTYPES)}. Pass one of those to --dtype.")


def read_config(spec: str, say: Callable[[str], None] = lambda _: None) -> Any:
    """The text configuration of a built-in asset, a folder or a hub id; None where there is none to be read.

    A subject that cannot be found is told of where it is loaded, in the words of that.
    """
    source, _, revision = (spec, "", "") if spec in ASSETS else spec.partition("@")
    if spec in ASSETS:
        source = str(fetch_asset(spec, say))
    try:
        cached_only = not Path(source).is_dir() and not hub_answers(source, revision or None)
        found = AutoConfig.from_pretrained(source, revision=revision or None, local_files_only=cached_only)
        return found.get_text_config()
    except (OSError, ValueError):
        return None


def check_layer(spec: str, layer: int | None, config: Any, why: str) -> None:
    """A layer from 1 on that the subject has. config: as `read_config` gives it; why: layer 0 is none.

    Raises:
        BadInput: the layer is 0 or less, or past the last block.
    """
    n_blocks = getattr(config, "num_hidden_layers", None)
    if layer is None or n_blocks is None or 1 <= layer < n_blocks:
        return
    because = f": {why}" if layer == 0 else ""
    raise BadInput(
        f"Layer {layer} was asked for{because}. {spec!r} has {n_blocks} blocks, numbered 0 to {n_blocks - 1}; choose a "
        f"layer from 1 to {n_blocks - 1} (half the depth is {n_blocks // 2})."
    )
