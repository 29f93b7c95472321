"""Checks of what a sidecar says: names of keys, the site, scales and widths, and what it says of a model's base."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig

from ..assets import ASSETS, fetch_asset
from ..errors import BadInput
from .lint_finding import Change, Finding, Severity
from .lint_half import ADAPTER, CONFIG, Half
from .sidecar import ROLES, SIDECAR, Sidecar

#: How far `mse_scale` may be from √d_model, relatively: releases round it to two decimals.
_ROUNDED = 1e-3

#: The denominator of an FVE is at most 1; a mean from other vectors than the scored ones may exceed that a little.
_LARGEST_SPREAD = 1.05


def check_sidecar(half: Half) -> Iterator[Finding]:
    """All checks of this module for one half."""
    yield from _check_names(half)
    if half.sidecar is None:
        return
    yield from _check_site(half, half.sidecar)
    yield from _check_width(half, half.sidecar)
    if half.sidecar.role == "av":
        yield from _check_injection(half, half.sidecar)
    yield from _check_mse_scale(half, half.sidecar)
    yield from _check_fve(half.raw)
    yield from _check_base(half, half.sidecar)


def _check_names(half: Half) -> Iterator[Finding]:
    role = half.raw.get("role")
    modern = next((new for new, old in ROLES.items() if role in old), None)
    if modern and role != modern:
        fix = "Write the name of today."
        yield Finding("warning", SIDECAR, "role", repr(role), repr(modern), fix, (Change(("role",), modern),))
    if half.place.role and modern and half.place.role != modern:
        fix = "Exchange the two folders, or give each half its own sidecar."
        yield Finding("error", SIDECAR, "role", repr(role), f"the {half.place.role.upper()} of the pair", fix)
    templates = half.raw.get("prompt_templates")
    if not isinstance(templates, Mapping):
        return
    for new, old in ROLES.items():
        named = [name for name in old if templates.get(name) is not None]
        texts = {repr(templates[name]) for name in named}
        if len(texts) > 1:
            found = f"different texts as {' and as '.join(named)}"
            fix = "Keep the one that the checkpoint was trained with."
            yield Finding("error", SIDECAR, f"prompt_templates.{new}", found, "one template", fix)
            continue
        for name in named:
            if name == new:
                continue
            changes = (
                Change(("prompt_templates", new), templates[name]), Change(("prompt_templates", name), remove=True),
            )  # fmt: skip
            fix = "Write the name of today."
            yield Finding("warning", SIDECAR, f"prompt_templates.{name}", "an older name", repr(new), fix, changes)


def _check_site(half: Half, sidecar: Sidecar) -> Iterator[Finding]:
    field, layer, n_blocks = "extraction_layer_index", sidecar.extraction_layer_index, half.n_blocks
    if layer is None:
        severity: Severity = "error" if sidecar.role == "ar" else "warning"
        fix = "Write K, the block whose output the vectors are: K + 1 is their index in hidden_states."
        yield Finding(severity, SIDECAR, field, "missing", "the block K that the vectors are read at", fix)
        return
    if half.raw.get(field) is None:
        fix = "Write it at the top level too, as releases do."
        yield Finding("warning", SIDECAR, field, "only in a section", str(layer), fix, (Change((field,), layer),))
    named = re.search(r"(?<![A-Za-z0-9])L(\d+)(?![A-Za-z0-9])", half.place.name)
    if named and int(named[1]) != layer:
        fix = "Make sure that it is K, where hidden_states[K + 1] was read, and not K + 1."
        yield Finding("warning", SIDECAR, field, str(layer), f"{named[1]}, from the name {half.place.name!r}", fix)
    if layer < 0 or (n_blocks is not None and layer >= n_blocks and (sidecar.role == "av" or half.is_adapter)):
        off = ": off by one, as an index of hidden_states would be" if layer == n_blocks else ""
        fix = "Write K, the block whose output the vectors are (hidden_states[K + 1])."
        yield Finding("error", SIDECAR, field, f"{layer}{off}", f"a block from 0 to {(n_blocks or 1) - 1}", fix)
    elif sidecar.role == "ar" and not half.is_adapter and n_blocks not in (None, layer + 1):
        off = ": off by one, the index of hidden_states taken for the block" if n_blocks == layer else ""
        fix = "Cut the model after block K and train its value head there, or correct `extraction_layer_index`."
        found, expected = f"{n_blocks}{off}", f"K + 1 = {layer + 1} blocks for vectors of block {layer}"
        yield Finding("error", CONFIG, "num_hidden_layers", found, expected, fix)


def _check_width(half: Half, sidecar: Sidecar) -> Iterator[Finding]:
    width = getattr(half.text_config, "hidden_size", None)
    if width is not None and width != sidecar.d_model:
        fix = "Write the model's own width; if it surprises you, the sidecar is another checkpoint's."
        found, expected = str(sidecar.d_model), f"{width}, the model's hidden_size"
        yield Finding("error", SIDECAR, "d_model", found, expected, fix, (Change(("d_model",), width),))


def _check_injection(half: Half, sidecar: Sidecar) -> Iterator[Finding]:
    section, scale = sidecar.injection, sidecar.extraction.injection_scale
    own_scale = section.mode != "replace_embedding" or section.scale is not None
    field = "extraction.injection_scale"
    expected = "the L2 norm that vectors had in training, a number above 0"
    fix = "Write the number of the training run; it cannot be derived, and another gives texts about nothing."
    if scale is None and not own_scale:
        yield Finding("error", SIDECAR, field, "missing or null", expected, fix)
        return
    if isinstance(scale, float) and scale <= 0:
        yield Finding("error", SIDECAR, field, f"{scale:g}", expected, fix)
        return
    if isinstance(scale, str) and not own_scale:
        number = f", {math.sqrt(sidecar.d_model):.6g}" if scale == "sqrt_d_model" else ""
        fix = "Write the number; `nlabench export-checkpoint` does."
        yield Finding("warning", SIDECAR, field, repr(scale), f"a number{number}: released readers know no word", fix)
    try:
        block = sidecar.vector_injection().block
    except BadInput as error:
        given = f"mode {section.mode}, block {section.block}, scale {section.scale}"
        yield Finding("error", SIDECAR, "injection", given, str(error), "Correct the section.")
        return
    if half.n_blocks is not None and block >= half.n_blocks:
        expected = f"a block from 0 to {half.n_blocks - 1}"
        fix = "Write the block after which vectors entered in training."
        yield Finding("error", SIDECAR, "injection.block", str(block), expected, fix)


def _check_mse_scale(half: Half, sidecar: Sidecar) -> Iterator[Finding]:
    scale, width = sidecar.extraction.mse_scale, half.d_model or sidecar.d_model
    field, root = "extraction.mse_scale", math.sqrt(width)
    change = (Change(("extraction", "mse_scale"), root),)
    if isinstance(scale, float):
        if not math.isclose(scale, root, rel_tol=_ROUNDED):
            expected = f"√d_model = {root:.6g}: mse_nrm and fve_nrm are defined at that norm"
            fix = "Write √d_model; numbers that were computed at another norm are not fve_nrm."
            yield Finding("error", SIDECAR, field, f"{scale:g}", expected, fix, change)
    elif sidecar.role == "ar":
        found = "missing or null" if scale is None else repr(scale)
        fix = "Write √d_model."
        expected = f"a number, {root:.6g}: the released reader of an AR takes nothing else"
        yield Finding("warning", SIDECAR, field, found, expected, fix, change)


def _check_fve(raw: Mapping[Any, Any], path: str = "") -> Iterator[Finding]:
    """A stated FVE beside its error gives the denominator away: mse_nrm / (1 - fve_nrm).

    Around the un-normalised mean μ of golds at norm √d it is 1 - ‖μ‖² / d, never above 1; around the mean scaled to √d
    it is 2 (1 - ‖μ‖ / √d).
    """
    numbers = {str(name): value for name, value in raw.items() if isinstance(value, int | float)}
    for name, fve in numbers.items():
        if "fve" not in name:
            continue
        mse = numbers.get(name.replace("fve", "mse"))
        denominator = mse / (1 - fve) if mse is not None and fve < 1 else 0.0
        if fve > 1 or denominator > _LARGEST_SPREAD:
            found = f"{fve:g}" + (f", beside an error of {mse:g}: a denominator of {denominator:.3g}" if mse else "")
            expected = "at most 1, and a denominator of at most 1"
            fix = "Compute it as 1 - mse_nrm / mean((g - mean(g))²), and do not normalise the mean of the golds g."
            yield Finding("warning", SIDECAR, path + name, found, expected, fix)
    for name, section in raw.items():
        if isinstance(section, Mapping):
            yield from _check_fve(section, f"{path}{name}.")


def _check_base(half: Half, sidecar: Sidecar) -> Iterator[Finding]:
    field, base = "base_checkpoint", sidecar.base_checkpoint
    if base is None:
        fix = "Name it, so that vectors of other models are refused."
        yield Finding("warning", SIDECAR, field, "missing", "the model whose activations these are", fix)
        return
    if half.base and not Path(half.base).is_dir() and short_name(half.base) != short_name(base):
        fix = "Name the same model in both."
        yield Finding("warning", ADAPTER, "base_model_name_or_path", half.base, f"{base}, from the sidecar", fix)
    theirs, ours = base_config(base), half.text_config
    if theirs is None or ours is None:
        return
    kinds = {"model_type": "model_type", "hidden_size": "width", "num_hidden_layers": "number of blocks"}
    for name, words in kinds.items():
        own, others = getattr(ours, name, None), getattr(theirs, name, None)
        # An AR has the first blocks of its base only; `_check_site` counts them.
        if own == others or (name == "num_hidden_layers" and sidecar.role == "ar"):
            continue
        fix = "Name the model that this checkpoint was trained from, or give the sidecar that belongs to it."
        yield Finding("error", SIDECAR, field, f"{base}, whose {words} is {others}", f"{own}, as the weights'", fix)


def short_name(model: str) -> str:
    """A model's name without its owner, its revision and the case of letters."""
    return model.partition("@")[0].rstrip("/").split("/")[-1].lower()


def base_config(base: str) -> Any:
    """The text configuration of a base if it is on this machine (an asset, a folder, the hub's cache), else None."""
    cached = None if base in ASSETS or Path(base).is_dir() else _look_up(base)
    try:
        source = fetch_asset(base) if base in ASSETS else Path(cached).parent if cached else Path(base)
        return AutoConfig.from_pretrained(str(source)).get_text_config() if source.is_dir() else None
    except (BadInput, OSError, ValueError):
        return None


def _look_up(base: str) -> str | None:
    hub_id, _, revision = base.partition("@")
    try:
        found = try_to_load_from_cache(hub_id, CONFIG, revision=revision or None)
    except ValueError:  # a name that no hub could have
        return None
    return found if isinstance(found, str) else None
