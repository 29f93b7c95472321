"""Checks of weights: how many blocks, the value head, pickles, and, one file after another, the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import BadInput
from .checkpoint import VALUE_HEAD
from .embedding import read_embeddings
from .lint_finding import Finding
from .lint_half import ADAPTER_WEIGHTS, CONFIG, Half

#: Names of files that are read by unpickling.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_TOWERS = ("vision", "visual", "audio", "encoder")

#: Values that are looked at together: what a tensor costs in memory, whatever its size (4 to 32 MB).
_CHUNK = 1 << 22

#: Types of which torch cannot say whether they are finite before they are cast.
_NARROW = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)

#: Embeddings that are looked at for their norm.
_ROWS = 256


def check_structure(half: Half) -> Iterator[Finding]:
    """What the headers of the files show: no value of a weight is read."""
    yield from _check_pickles(half)
    yield from _check_blocks(half)
    if half.sidecar is not None and half.sidecar.role == "ar":
        yield from _check_value_head(half)


def check_values(half: Half, say: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """What only the values show. Files are read one after another, and a tensor a chunk at a time."""
    for file, tensors in half.headers.items():
        say(f"{half.place.label}{file}: reading {len(tensors)} tensors")
        with safe_open(half.place.folder / file, framework="pt") as opened:
            bad = [name for name in tensors if not all(map(_is_finite, _chunks(opened, name, tensors[name].shape)))]
        if bad:
            fix = "Take another step of the training run, or save again: the file is damaged, or training diverged."
            found = f"NaN or infinite values in {len(bad)} of {len(tensors)} tensors"
            yield Finding("error", file, bad[0], found, "finite weights", fix)
    if half.settings:
        yield from _check_embeddings(half)


def _check_pickles(half: Half) -> Iterator[Finding]:
    for file in sorted(half.place.files):
        if PurePath(file).suffix in _PICKLES:
            fix = "Leave it out of the checkpoint; save weights with safe_serialization."
            expected = "safetensors: reading a pickle can run any code"
            yield Finding("warning", file, "", "a pickled file", expected, fix)


def _check_blocks(half: Half) -> Iterator[Finding]:
    n_blocks, sidecar = half.n_blocks, half.sidecar
    names = {name: file for file, tensors in half.headers.items() if file != VALUE_HEAD for name in tensors}
    found = {
        int(match[1])
        for name in names
        if (match := _BLOCK.search(name)) and not any(tower in name for tower in _TOWERS)
    }
    if n_blocks is None or not found:
        return
    if half.is_adapter:
        layer = sidecar.extraction_layer_index if sidecar else None
        limit = layer + 1 if sidecar and sidecar.role == "ar" and layer is not None else n_blocks
        if max(found) >= limit:
            what = f"K + 1 = {limit} blocks of an AR" if limit != n_blocks else f"{limit} blocks of its base"
            fix = "Train the adapter on the base that it names, an AR's on the first K + 1 blocks."
            yield Finding("error", ADAPTER_WEIGHTS, "", f"weights for block {max(found)}", f"the {what}", fix)
    elif found != set(range(n_blocks)):
        odd = sorted(found ^ set(range(n_blocks)))
        words = ", ".join(map(str, odd[:6])) + (", …" if len(odd) > 6 else "")
        has = "no weights for" if min(odd) < n_blocks else "weights past the last for"
        fix = "Save weights and configuration together."
        given = f"{n_blocks}, and {has} block {words}"
        yield Finding("error", CONFIG, "num_hidden_layers", given, "the blocks that there are weights for", fix)


def _check_value_head(half: Half) -> Iterator[Finding]:
    if VALUE_HEAD not in half.place.files:
        fix = "Add it; it cannot be derived from the rest."
        expected = "one tensor, `weight` [d_model, d_model]"
        yield Finding("error", VALUE_HEAD, "", "no such file", expected, fix)
        return
    head, width = half.headers.get(VALUE_HEAD), half.d_model
    if head is None:
        return
    if set(head) != {"weight"}:
        fix = "Save the map alone, as `weight`; a bias is not part of the contract."
        yield Finding("error", VALUE_HEAD, "weight", f"the keys {', '.join(head)}", "the one key `weight`", fix)
    shape = head["weight"].shape if "weight" in head else (width, width)
    if shape != (width, width):
        fix = "Give the head that belongs to this AR: it maps the stream after block K to a vector of the site."
        yield Finding("error", VALUE_HEAD, "weight", f"{list(shape)}", f"[{width}, {width}]", fix)


def _chunks(opened: Any, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """A tensor in pieces along its first dimension."""
    if not shape:
        yield opened.get_tensor(name)
        return
    values = opened.get_slice(name)
    step = max(1, _CHUNK // max(1, torch.Size(shape[1:]).numel()))
    for start in range(0, shape[0], step):
        yield values[start : start + step]


def _is_finite(values: Tensor) -> bool:
    if not values.is_floating_point() or not values.numel():
        return True
    # The extremes are NaN where any value is. `isfinite` says the same, and takes a hundred times as long in bfloat16.
    low, high = torch.aminmax(values.float() if values.dtype in _NARROW else values)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_embeddings(half: Half) -> Iterator[Finding]:
    """Whether a table that the model multiplies by √d_model has been multiplied already.

    Rows of Gemma have norm 1.03 before (270M, its median row). What enters block 0 is compared with √d_model / 2, once
    the factor of the model has been taken out again.
    """
    factor, width = half.embedding_factor, half.d_model
    if factor == 1 or width is None or half.text_config is None:
        return
    size = half.text_config.vocab_size
    try:
        rows = read_embeddings(str(half.place.folder), range(0, size, max(1, size // _ROWS)))
    except (BadInput, IndexError):
        return
    norm = float(rows.norm(dim=-1).median()) / factor
    if norm > width**0.5 / 2:
        found = f"rows of median norm {norm:.3g}, which the model multiplies by {factor:.4g}"
        fix = "Divide the table by the factor: it was saved multiplied, or another family's was taken."
        yield Finding("warning", CONFIG, "the embedding table", found, "rows that were not multiplied yet", fix)
