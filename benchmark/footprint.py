"""How much memory a model's weights will take, from its config alone: said before a file of weights is read."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM

from .errors import BadInput

#: What else a run holds beside the weights (states, caches of a batch), as a share of the weights.
ROOM = 0.1


def count_parameters(config: Any, *, trust_remote_code: bool = False) -> int:
    """The parameters of a causal language model, tied ones once. Nothing is allocated."""
    with init_empty_weights(include_buffers=True):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def check_memory(name: str, n_parameters: int, dtype: torch.dtype, device: str, free: int | None = None) -> None:
    """Whether a model's weights, and some room, go into the memory that is free on a device.

    free: bytes, where they are known; measured otherwise.

    Raises:
        BadInput: they do not; says what would fit.
    """
    there = _measure_free(device) if free is None else free
    needed = _bytes_needed(n_parameters, dtype)
    if needed <= there:
        return
    narrower = [d for d in (torch.bfloat16, torch.float16) if d.itemsize < dtype.itemsize]
    fits = next((d for d in narrower if _bytes_needed(n_parameters, d) <= there), None)
    if fits is not None:
        remedy = f"Pass --dtype {_show(fits)} ({_gigabytes(_bytes_needed(n_parameters, fits))})"
    else:
        half, quarter = (_gigabytes(int(n_parameters * size * (1 + ROOM))) for size in (2, 0.5))
        remedy = (
            f"No dtype makes it fit ({half} in bfloat16). Choose a machine or a --device with more memory, a smaller "
            f"subject, or a checkpoint that was quantised to 4 bits (about {quarter})"
        )
    raise BadInput(
        f"The subject {name!r} has {n_parameters / 1e9:.1f} billion parameters, which take {_gigabytes(needed)} in "
        f"{_show(dtype)}; {_gigabytes(there)} are free on {device!r}. {remedy}. Nothing was loaded."
    )


def _bytes_needed(n_parameters: int, dtype: torch.dtype) -> int:
    return int(n_parameters * dtype.itemsize * (1 + ROOM))


def _measure_free(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)


def _show(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
