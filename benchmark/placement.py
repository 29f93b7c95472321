"""Where the parts of a large subject lie: accelerate's device maps, and how many GPUs one copy takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from .errors import BadInput

#: Names that transformers turns into a map: as even as can be, over the GPUs that this process sees.
NAMED_MAPS = ("auto", "balanced")

DeviceMap = str | Mapping[str, int | str]


def read_device_map(given: DeviceMap) -> DeviceMap:
    """A device map as `--device-map` takes it: `auto`, `balanced`, a JSON file, or the map itself.

    A map gives each part of the model, by its name, a GPU's number, "cpu" or "disk": {"model.layers.0": 0, …}.

    Raises:
        BadInput: no such name or file, or something else than such a map in it.
    """
    if given in NAMED_MAPS:
        return given
    if isinstance(given, Mapping):
        return _check(given, "The device map")
    file = Path(given)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--device-map {given} is none of {', '.join(NAMED_MAPS)}, and no readable JSON file ({error}). "
            'Give one of them, or a file such as {"model.embed_tokens": 0, "model.layers.0": 0, …}.'
        ) from error
    return _check(found, f"The device map in {file}")


def _check(found: object, what: str) -> Mapping[str, int | str]:
    ok = isinstance(found, Mapping) and bool(found) and all(isinstance(name, str) for name in found)
    odd = [v for v in found.values() if not _is_device(v)] if isinstance(found, Mapping) else []
    if not ok or odd:
        raise BadInput(
            f"{what} is not one of accelerate's{f' ({odd[0]!r} is no device)' if odd else ''}. It is an object from "
            'names of modules ("" for the whole model) to a GPU\'s number, "cpu" or "disk".'
        )
    assert isinstance(found, Mapping)
    return {name: _number(where) for name, where in found.items()}


def _is_device(where: object) -> bool:
    if isinstance(where, int):
        return not isinstance(where, bool) and where >= 0
    return isinstance(where, str) and re.fullmatch(r"cpu|disk|cuda:\d+", where) is not None


def _number(where: int | str) -> int | str:
    return int(where.removeprefix("cuda:")) if isinstance(where, str) and where.startswith("cuda:") else where


def gpus_of_map(device_map: Mapping[str, int | str]) -> set[int]:
    """The numbers of the GPUs that a map names."""
    return {where for where in device_map.values() if isinstance(where, int)}


def check_gpus(device_map: Mapping[str, int | str]) -> None:
    """Whether this process sees the GPUs that a map names.

    Raises:
        BadInput: not all of them.
    """
    here = torch.cuda.device_count()
    missing = sorted(number for number in gpus_of_map(device_map) if number >= here)
    if missing:
        raise BadInput(
            f"The device map names GPU {missing[0]}; this process sees {here}. Numbers start at 0: give a map for the "
            "GPUs that are here, or pass --device-map auto."
        )
