"""How much memory a model's weights will take, from its config alone: said before a file of weights is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psutil
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from .errors import BadInput
from .subject import find_blocks

#: What else a run holds beside the weights (states, caches of a batch), as a share of the weights.
ROOM = 0.1

#: Bytes of a weight in 4 bits: half a byte, and the block-wise scales of bitsandbytes, which are quantised too (8 bits
#: for 64 weights, and 32 bits for 256 of those).
BYTES_IN_4_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)

#: Bytes of a quantised weight; in 8 bits the scales are few.
QUANTISED_BYTES = {"4bit": BYTES_IN_4_BITS, "8bit": 1.0}

#: Of a GPU's memory, what transformers fills with weights when it lays a model out itself.
FILLED = 0.9

#: Bytes of the GPUs that are told of where none is here to be measured.
COMMON_GPUS = (80 * 10**9, 141 * 10**9)


@dataclass(frozen=True)
class Footprint:
    """The parameters of a causal language model, by name, tied ones once.

    blocks: the name of the list of blocks. quantisable: weights that `--quantize 4bit` stores in 4 bits, and a
    quantised checkpoint in 4 or 8: those of the linear maps in the blocks.
    """

    sizes: Mapping[str, int]
    blocks: str
    quantisable: frozenset[str]

    @property
    def n_parameters(self) -> int:
        return sum(self.sizes.values())

    def bytes(self, dtype: torch.dtype, quantize: str | None = None) -> int:
        """Of the whole model, with some room for what a run holds beside it."""
        return sum(self.pieces(dtype, quantize))

    def pieces(self, dtype: torch.dtype, quantize: str | None = None) -> list[int]:
        """Bytes, room included, of each part that lies on one device, in order: what is outside the blocks, tensor by
        tensor, and each block."""
        weighed = {name: self._weigh(name, dtype, quantize) for name in self.sizes}
        return [sum(weighed[name] for name in names) for _, names in groupby(weighed, self._piece_of)]

    def bytes_by_device(
        self, device_map: Mapping[str, int | str], dtype: torch.dtype, quantize: str | None = None
    ) -> dict[int | str, int]:
        """Bytes, room included, that an accelerate device map lays on each of its devices."""
        found: dict[int | str, int] = {}
        for name in self.sizes:
            owners = [m for m in device_map if m == "" or name == m or name.startswith(f"{m}.")]
            if owners:
                where = device_map[max(owners, key=len)]
                found[where] = found.get(where, 0) + self._weigh(name, dtype, quantize)
        return found

    def _weigh(self, name: str, dtype: torch.dtype, quantize: str | None) -> int:
        wide = quantize is None or name not in self.quantisable
        each = dtype.itemsize if wide or quantize is None else QUANTISED_BYTES[quantize]
        return int(self.sizes[name] * each * (1 + ROOM))

    def _piece_of(self, name: str) -> str:
        block = re.match(rf"{re.escape(self.blocks)}\.\d+\.", name)
        return block[0] if block else name


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that are free: the machine's, and each GPU's that this process sees."""

    machine: int
    gpus: tuple[int, ...] = ()

    @classmethod
    def measure(cls) -> FreeMemory:
        gpus = tuple(int(torch.cuda.mem_get_info(i)[0]) for i in range(torch.cuda.device_count()))
        return cls(int(psutil.virtual_memory().available), gpus)

    def on(self, device: str) -> int:
        """Of one device, as torch names it."""
        where = torch.device(device)
        if where.type != "cuda":
            return self.machine
        return self.gpus[where.index or 0] if (where.index or 0) < len(self.gpus) else 0


def measure_footprint(config: Any, *, trust_remote_code: bool = False) -> Footprint:
    """The parameters of a causal language model of a configuration. Nothing is allocated.

    Raises:
        BadInput: it has no list of blocks; see `find_blocks`.
    """
    with init_empty_weights(include_buffers=True):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    _, blocks = find_blocks(model)
    (path,) = (name for name, module in model.named_modules() if module is blocks)
    linear = {
        f"{path}.{name}.weight" for name, module in blocks.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return Footprint(sizes, path, frozenset(linear & sizes.keys()))


def count_parameters(config: Any, *, trust_remote_code: bool = False) -> int:
    """The parameters of a causal language model, tied ones once. Nothing is allocated."""
    return measure_footprint(config, trust_remote_code=trust_remote_code).n_parameters


def gpus_needed(pieces: Sequence[int], memory: int) -> int | None:
    """How many GPUs of so many free bytes hold a model's pieces, in their order; None where one piece is too large."""
    if max(pieces) > memory:
        return None
    used, gpus = 0, 1
    for piece in pieces:
        used += piece
        if used > memory:
            used, gpus = piece, gpus + 1
    return gpus


def check_memory(
    name: str,
    footprint: Footprint,
    dtype: torch.dtype,
    device: str,
    *,
    quantize: str | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    free: FreeMemory | None = None,
) -> None:
    """Whether a model's weights, and some room, go into the memory that is free where they are to lie.

    device: where the whole of it lies, if there is no device_map. free: measured, by default.

    Raises:
        BadInput: they do not; says what would make them fit, and how much each choice takes.
    """
    there = free or FreeMemory.measure()
    short = _find_shortage(_lay_out(footprint, dtype, device, quantize, device_map), there)
    if short is None:
        return
    where, needed, has = short
    held = f"{_show(dtype)}{f' and {quantize[0]} bits' if quantize else ''}"
    raise BadInput(
        f"The subject {name!r} has {footprint.n_parameters / 1e9:.1f} billion parameters, which take "
        f"{gigabytes(needed)} in {held}{'' if device_map is None else f' on {where!r}'}; {gigabytes(has)} are free "
        f"{'there' if device_map is not None else f'on {where!r}'}. "
        f"{_find_remedies(footprint, dtype, device, quantize, device_map, there)} Nothing was loaded."
    )


def _lay_out(
    footprint: Footprint,
    dtype: torch.dtype,
    device: str,
    quantize: str | None,
    device_map: str | Mapping[str, int | str] | None,
) -> Mapping[int | str, int]:
    """The bytes that each device is to hold; of a named map the devices together, whoever lays it out."""
    if isinstance(device_map, Mapping):
        return footprint.bytes_by_device(device_map, dtype, quantize)
    return {device if device_map is None else "all devices": footprint.bytes(dtype, quantize)}


def _find_shortage(wanted: Mapping[int | str, int], free: FreeMemory) -> tuple[int | str, int, int] | None:
    """The first device that does not hold what it is to hold: (device, bytes needed, bytes free)."""
    for where, needed in wanted.items():
        if where == "all devices":
            has = sum(free.gpus) + free.machine
        elif where == "disk":
            continue
        else:
            has = free.on(f"cuda:{where}" if isinstance(where, int) else where)
        if needed > has:
            return where, needed, has
    return None


def _find_remedies(
    footprint: Footprint,
    dtype: torch.dtype,
    device: str,
    quantize: str | None,
    device_map: str | Mapping[str, int | str] | None,
    free: FreeMemory,
) -> str:
    half = torch.bfloat16 if dtype.itemsize > 2 else dtype
    bits_of_choice = quantize or "4bit"  # what is quantised already is not quantised again
    choices = []
    for width, bits in dict.fromkeys(
        ((dtype, quantize), (half, quantize), (dtype, bits_of_choice), (half, bits_of_choice))
    ):
        flags = [f"--dtype {_show(width)}"] * (width != dtype) + ["--quantize 4bit"] * (bits != quantize)
        size = footprint.bytes(width, bits)
        if flags:
            fits = _find_shortage(_lay_out(footprint, width, device, bits, device_map), free) is None
            choices.append((" ".join(flags), size, fits))
        if free.gpus and device_map is None:
            choices.append((" ".join([*flags, "--device-map auto"]), size, size <= sum(free.gpus)))
    fitting = [f"{flags} ({gigabytes(size)})" for flags, size, fits in choices if fits]
    if fitting:
        return f"Pass {', or '.join(fitting)}."
    sizes = footprint.pieces(half, quantize)
    numbers = [(gpus_needed(sizes, int(memory * FILLED)), memory) for memory in (*sorted(set(free.gpus)), *COMMON_GPUS)]
    told = " or ".join(f"{n} of {memory / 1e9:.0f} GB" for n, memory in numbers if n)
    tried = "".join(f"; with {flags} it takes {gigabytes(size)}" for flags, size, _ in choices if "map" not in flags)
    return (
        f"No choice of these makes it fit here{tried}. Choose a smaller subject, a machine or a --device with more "
        f"memory, or several GPUs with --device-map auto: in {_show(half)} that is {told} (with --engine ray as many "
        "for each worker)."
    )


def _show(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def gigabytes(size: int) -> str:
    """A number of bytes, for a person."""
    return f"{size / 1e9:,.1f} GB"
