"""From what the user wrote to the halves of an NLA: folders and hub ids, full directories and PEFT adapters."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from ..assets import ASSETS, file_sha256
from ..errors import BadInput
from ..loading import load_subject
from ..placement import DeviceMap
from ..subject import Subject, find_blocks, wrap_subject
from .sidecar import SIDECAR, Sidecar, read_sidecar

VALUE_HEAD = "value_head.safetensors"
_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"

#: Weights that some releases carry a second time in another format.
_NOT_NEEDED = ["original/*", "consolidated.*", "*.pth", "*.gguf"]

REFERENCE = "reference"
REFERENCE_FOLDER = Path(__file__).parent / "reference"


@dataclass(frozen=True)
class Checkpoint:
    """One half of an NLA, found and its sidecar read; its weights are not loaded yet."""

    folder: Path
    sidecar: Sidecar


@dataclass(frozen=True)
class Autoencoder:
    """An AV, and the AR that belongs to it where there is one. name: for tables."""

    name: str
    av: Checkpoint
    ar: Checkpoint | None


def find_autoencoder(spec: str) -> Autoencoder:
    """The checkpoints that a spec names.

    `reference` is the NLA that ships. Else a folder or hub id (`id`, `id@revision`) of an AV, a folder that holds `av/`
    and `ar/`, or `AV,AR`.

    Raises:
        BadInput: nothing is there, a sidecar is missing or wrong, an AR stands in the AV's place, or the two halves do
            not belong together.
    """
    if spec == REFERENCE and not (REFERENCE_FOLDER / "av" / SIDECAR).is_file():
        raise BadInput(
            f"The reference NLA's weights are not in this installation (looked for {REFERENCE_FOLDER / 'av'}). Install "
            "nlabench from a release or a whole checkout, or train them: `python scripts/train_reference_nla.py`."
        )
    where = str(REFERENCE_FOLDER) if spec == REFERENCE else spec
    parts = [where] if Path(where).is_dir() else [part.strip() for part in where.split(",")]
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise BadInput(f"'nla:{spec}' does not name one or two checkpoints. Give `nla:AV` or `nla:AV,AR`.")
    wanted = f"a folder with {SIDECAR} in it, one with `av` and `ar` in it, or `nla:reference`"
    folders = [fetch_checkpoint(part, wanted) for part in parts]
    if len(folders) == 1 and (folders[0] / "av").is_dir():
        pair = folders[0]
        folders = [pair / "av"] + ([pair / "ar"] if (pair / "ar").is_dir() else [])
    # A folder goes by its name, one that is called `av` by that of the folder around it, and a hub id by itself.
    home = Path(parts[0]).expanduser().resolve()
    name = (home.parent.name if home.name in ("av", "actor") else home.name) if home.is_dir() else parts[0]
    av, *rest = (Checkpoint(folder, read_sidecar(folder)) for folder in folders)
    ar = rest[0] if rest else None
    _check_pair(spec, av, ar)
    return Autoencoder(REFERENCE if spec == REFERENCE else name, av, ar)


def load_half(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: DeviceMap | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Subject:
    """The model of an AV or an AR, with its tokenizer; an adapter is merged into its base.

    device, dtype, device_map: as for `load_subject`.

    An AR comes with blocks 0 to K only, whatever its base has. Its final norm is not replaced: `Subject.run` gives the
    stream after block K as it is before any norm.

    Raises:
        BadInput: it cannot be loaded, has weights that are not finite, another width than its sidecar says, or (an AR)
            another number of blocks than K + 1.
    """
    folder, sidecar = checkpoint.folder, checkpoint.sidecar
    n_blocks = _last_block(checkpoint) + 1 if sidecar.role == "ar" else None
    if (folder / _ADAPTER).is_file():
        model = load_adapter(folder, device=device, dtype=dtype, device_map=device_map, n_blocks=n_blocks, say=say)
    else:
        with _without_load_report() if sidecar.role == "ar" else nullcontext():
            model = load_subject(str(folder), device=device, dtype=dtype, device_map=device_map, say=say)
        model = replace(model, fingerprint=f"{model.fingerprint}+{hash_checkpoint(folder, weights=False)}")
    if model.d_model != sidecar.d_model:
        raise BadInput(
            f"The model in {folder} has width {model.d_model}; its sidecar says d_model {sidecar.d_model}. Give the "
            "sidecar that belongs to these weights."
        )
    if n_blocks is not None and model.n_blocks != n_blocks:
        raise BadInput(
            f"The AR in {folder} has {model.n_blocks} blocks; for vectors of block K = {n_blocks - 1} it has K + 1 = "
            f"{n_blocks}. Cut the model, or correct `extraction_layer_index`."
        )
    weights = model.model.named_parameters()
    bad = [name for name, weight in weights if not weight.is_meta and not torch.isfinite(weight).all()]  # meta: on disk
    if bad:
        raise BadInput(
            f"{len(bad)} weights of {folder} are NaN or infinite (first: {bad[0]}). The file is damaged or training "
            "diverged; a dtype of less range than the checkpoint's does it too (float16: try --dtype float32)."
        )
    return model


def place_beside(subject: Subject) -> dict[str, Any]:
    """How a model is loaded that is to lie where a subject does: arguments of `load_half` and `load_adapter`.

    A subject that transformers laid out itself lies over all devices, and so does the other model. A map that names
    parts is the subject's own: the other model then lies on its first device.
    """
    dtype = str(subject.dtype).removeprefix("torch.")
    layout = subject.recipe.device_map if subject.recipe else None
    if isinstance(layout, str):
        return {"dtype": dtype, "device_map": layout}
    return {"dtype": dtype, "device": str(subject.device)}


def _last_block(checkpoint: Checkpoint) -> int:
    layer = checkpoint.sidecar.extraction_layer_index
    if layer is None:
        raise BadInput(
            f"The sidecar in {checkpoint.folder} does not say which block the vectors are read at. Set "
            "`extraction_layer_index` to K (`hidden_states[K + 1]`)."
        )
    return layer


def load_adapter(
    folder: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: DeviceMap | None = None,
    n_blocks: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Subject:
    """A model that is a PEFT adapter over its base (`base_model_name_or_path`), merged into it.

    n_blocks: how many of the base's blocks there are (all, by default).

    Raises:
        BadInput: the base cannot be loaded, or the adapter does not fit it.
    """
    from peft import PeftModel, get_peft_model_state_dict  # slow to import, and only adapters need it

    named = base_of_adapter(folder)
    base = load_subject(named, device=device, dtype=dtype, device_map=device_map)
    if n_blocks is not None:
        _cut_blocks(base.model, n_blocks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that find no place it only warns; they are an error below
            adapted = PeftModel.from_pretrained(base.model, str(folder), torch_device=str(base.device))
        with safe_open(folder / _ADAPTER_WEIGHTS, framework="pt") as file:
            given = set(file.keys())
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(
            f"The adapter in {folder} does not fit its base {named!r}: {str(error).splitlines()[0][:300]}. Give the "
            "base that it was trained on."
        ) from error
    odd = given ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if odd:
        raise BadInput(
            f"{len(odd)} weights of the adapter in {folder} and of its base {named!r} do not match (first: "
            f"{min(odd)}). Give the base that it was trained on."
        )
    own_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = AutoTokenizer.from_pretrained(str(folder)) if own_tokenizer else base.tokenizer
    fingerprint = f"{base.fingerprint}+{hash_checkpoint(folder)}"
    say(f"{folder.name}: adapter merged into {named}")
    return wrap_subject(adapted.merge_and_unload(), tokenizer, f"{base.name}+{folder.name}", fingerprint)


def base_of_adapter(folder: Path) -> str:
    """What a PEFT adapter is over, as `load_subject` takes it: a built-in asset, a folder or a hub id.

    Raises:
        BadInput: the folder holds no adapter with safetensors weights, or it does not name its base.
    """
    config = json.loads((folder / _ADAPTER).read_text(encoding="utf-8")) if (folder / _ADAPTER).is_file() else {}
    named: str | None = config.get("base_model_name_or_path")
    if not named or not (folder / _ADAPTER_WEIGHTS).is_file():
        raise BadInput(
            f"The adapter in {folder} has no `base_model_name_or_path` in {_ADAPTER}, or no {_ADAPTER_WEIGHTS}. It "
            "needs both: the name of its base (a built-in asset, a folder or a hub id) and safetensors weights."
        )
    beside = (folder / named).resolve()
    return str(beside) if named not in ASSETS and beside.is_dir() else named


def hash_checkpoint(folder: Path, *, weights: bool = True) -> str:
    """A hash of all in a folder that decides an output: weights (or not), configuration, tokenizer, sidecar."""
    kinds = (".json", ".jinja", ".model", ".yaml", *((".safetensors", ".bin") if weights else ()))
    files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
    return hashlib.sha256("".join(f"{p.name}:{file_sha256(p)}" for p in files).encode()).hexdigest()[:32]


def _cut_blocks(model: Any, n_blocks: int) -> None:
    """Leave the first blocks of a model only (in place)."""
    owner, blocks = find_blocks(model)
    name = next(name for name, child in owner.named_children() if child is blocks)
    setattr(owner, name, blocks[:n_blocks])
    text_config = model.config.get_text_config()
    text_config.num_hidden_layers = n_blocks
    if getattr(text_config, "layer_types", None):
        text_config.layer_types = text_config.layer_types[:n_blocks]


def fetch_checkpoint(part: str, wanted: str) -> Path:
    """The local folder of a checkpoint: itself, or the hub's snapshot. wanted: what an error asks for.

    Raises:
        BadInput: there is no such folder, and the hub has no such checkpoint.
    """
    if Path(part).expanduser().is_dir():
        return Path(part).expanduser()
    name, _, revision = part.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, ignore_patterns=_NOT_NEEDED))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise BadInput(
            f"There is no folder {part!r}, and no checkpoint of that name could be had from the model hub: "
            f"{str(error).splitlines()[0][:300]}. Give {wanted}, or a hub id that this machine can reach."
        ) from error


def _check_pair(spec: str, av: Checkpoint, ar: Checkpoint | None) -> None:
    halves = [(av, "av")] + ([(ar, "ar")] if ar else [])
    for half, role in halves:
        if half.sidecar.role != role:
            raise BadInput(
                f"{half.folder} holds an {half.sidecar.role.upper()} (its sidecar's role), where {spec!r} needs an "
                f"{role.upper()}. Give `nla:AV` or `nla:AV,AR`, in this order."
            )
    if ar is None:
        return
    reads, writes = ((half.sidecar.extraction_layer_index, half.sidecar.d_model) for half, _ in halves)
    if reads[1] != writes[1] or reads[0] not in (None, writes[0]):
        raise BadInput(
            f"The AV of {spec!r} reads vectors of block {reads[0]} (d_model {reads[1]}), its AR writes those of block "
            f"{writes[0]} ({writes[1]}). Give the two halves of one NLA."
        )


@contextmanager
def _without_load_report() -> Iterator[None]:
    """An AR has no final norm and no unembedding, which transformers reports as missing weights."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
