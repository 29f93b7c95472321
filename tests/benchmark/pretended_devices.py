"""Two GPUs that are none: tensors lie on the CPU and carry the name of a device, and what mixes two devices raises.

Arithmetic is the CPU's own, so a model that is split between pretended devices computes exactly what the whole does.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from nlabench.benchmark.subject import Subject, find_blocks, wrap_subject
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)

#: What may be given tensors of several devices: it moves them.
MOVES = {"to", "cpu", "copy_", "__setitem__", "type_as"}


class PretendedDevices(TorchFunctionMode):
    """Inside, `tensor.device` is the pretended one, `to` and `device=` change it, and two devices never meet."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return _of(args[0])
        name = func.__name__
        wanted, args = _take_device(name, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # As in torch: a number from the CPU may join any device's tensors, and so may indices.
        devices = {_of(t) for t in tensors if t.ndim or _of(t) != CPU}
        if name in ("__getitem__", "index_select", "__setitem__", "to", "cpu") and tensors:
            devices = {_of(tensors[0]), *(devices - {CPU} if name == "__getitem__" else ())}
        if len(devices) > 1 and name not in MOVES:
            raise RuntimeError(f"{name} was given tensors on {', '.join(sorted(map(str, devices)))}")
        out = func(*args, **kwargs)
        device = wanted or (devices.pop() if devices else CPU)
        if isinstance(out, Tensor) and any(out is t for t in tensors) and _of(out) != device:
            out = out.clone()
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                leaf._pretended = device  # type: ignore[attr-defined]
        return out


def _of(tensor: Tensor) -> torch.device:
    return getattr(tensor, "_pretended", CPU)


def _take_device(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[torch.device | None, Any]:
    """The device that a call names, and the call's arguments with the CPU in its place."""
    if kwargs.get("device") is not None:
        wanted, kwargs["device"] = torch.device(kwargs["device"]), "cpu"
        return wanted, args
    if name == "cpu":
        return CPU, args
    if name != "to":
        return None, args
    for place, argument in enumerate(args[1:], 1):
        if isinstance(argument, Tensor):
            return _of(argument), (*args[:place], argument.dtype, *args[place + 1 :])
        if isinstance(argument, torch.device | str):
            return torch.device(argument), (*args[:place], "cpu", *args[place + 1 :])
    return None, args


class _Placed(AlignDevicesHook):
    """accelerate's hook, for weights that lie where it wants them already."""

    def init_hook(self, module: nn.Module) -> nn.Module:
        return module


def split_in_two(model: Any, tokenizer: Any) -> Subject:
    """A subject whose first blocks are on one pretended GPU and whose others are on a second, as accelerate has them.

    The model is changed.
    """
    owner, blocks = find_blocks(model)
    late = list(blocks[len(blocks) // 2 :])
    children = list(owner.children())
    after = children[children.index(blocks) + 1 :]
    late += [m for m in after if not any("Rotary" in type(part).__name__ for part in m.modules())]
    late.append(model.get_output_embeddings())
    second = {id(part) for module in late for part in module.modules()}
    for module in model.modules():
        device = SECOND if id(module) in second else FIRST
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensor._pretended = device  # type: ignore[union-attr]
        add_hook_to_module(
            module,
            _Placed(
                execution_device=device, io_same_device=module is model, skip_keys=model._skip_keys_device_placement
            ),
        )
    return wrap_subject(model, tokenizer, "split", "split")
