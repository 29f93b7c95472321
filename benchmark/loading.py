"""Loading a subject: from a built-in asset, a folder or a hub, whole, split over devices or in 4 bits.

How it was loaded is a `Recipe`, which another process can follow.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar

from .assets import ASSETS, fetch_asset, file_sha256
from .errors import BadInput
from .footprint import FILLED, check_memory, gpus_needed, measure_footprint
from .hub import hub_answers
from .placement import DeviceMap, check_gpus, gpus_of_map, read_device_map
from .subject import Recipe, Subject, wrap_subject

DEFAULT_SUBJECT = "smollm2-135m-instruct-q4_1"

#: What `quantize` may be, and what then ends a subject's name: its numbers are not those of the whole weights.
QUANTIZED_NAMES = {"4bit": "-bnb-4bit"}


def load_subject(
    spec: str = DEFAULT_SUBJECT,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    device_map: DeviceMap | None = None,
    quantize: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Subject:
    """Load a built-in asset, a local folder or a hub id (`id` or `id@revision`) as a subject.

    dtype "auto" is float32 on a CPU (greedy texts then do not depend on the batch) and the checkpoint's own elsewhere,
    or bfloat16 where it is quantised. device_map: over several GPUs, the CPU and the disk, see `read_device_map`; all
    on one device by default. quantize "4bit": bitsandbytes' nf4, with quantised scales, for the linear maps of the
    blocks; products are in `dtype`.

    Raises:
        BadInput: the subject cannot be found or loaded, does not fit into memory, or bitsandbytes is not installed.
    """
    where, layout = choose_place(device, device_map)
    _check_quantize(quantize)
    precision: Any = dtype if dtype != "auto" else _default_precision(where, quantize)
    source, revision = _find_source(spec, say)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    options["local_files_only"] = _is_cut_off(source, revision)
    # An unreachable hub is retried with a warning each time; our error says it once.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, **options)
        chosen = _find_dtype(config, precision)
        if spec not in ASSETS:  # ours are known to be small
            footprint = measure_footprint(config, trust_remote_code=trust_remote_code)
            check_memory(spec, footprint, chosen, where, quantize=quantize or _stored_bits(config), device_map=layout)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        if layout is not None:
            options["device_map"] = layout
        elif quantize is not None or _is_quantized(config):
            options["device_map"] = {"": where}  # such weights are laid where they stay as they are read
        if quantize is not None:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=chosen,
            )  # fmt: skip
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=precision, **options)
        if "device_map" not in options:
            model.to(where)
    except BadInput:
        raise
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:300].rstrip(".")
        raise BadInput(
            f"The subject {spec!r} could not be loaded: {reason}. Give a built-in asset "
            f"({', '.join(a.name for a in ASSETS.values() if a.role == 'subject')}), a folder with a transformers "
            "checkpoint, or a model id of a hub that this machine can reach."
        ) from error
    _tell_layout(model, say)
    folder, fingerprint = Path(spec).is_dir(), _fingerprint(source, revision, model)
    name = (Path(spec).name if folder else spec) + (QUANTIZED_NAMES[quantize] if quantize else "")
    subject = wrap_subject(model, tokenizer, name, fingerprint)
    subject.recipe = Recipe(
        str(Path(spec).resolve()) if folder else spec, dtype, torch.device(where).type, trust_remote_code, fingerprint,
        layout, quantize,
    )  # fmt: skip
    return subject


def choose_place(device: str, device_map: DeviceMap | None) -> tuple[str, DeviceMap | None]:
    """The device that is computed on (the first of several), and the device map that is read from what was given.

    Raises:
        BadInput: a map that cannot be used, or a device beside it that is another.
    """
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    if device_map is None:
        return (_check_device(device) if device != "auto" else usual), None
    layout = read_device_map(device_map)
    if isinstance(layout, Mapping):
        check_gpus(layout)
        usual = "cuda" if gpus_of_map(layout) else "cpu"
    if device not in ("auto", usual):
        raise BadInput(
            f"--device {device} and --device-map {device_map}: the map says where the subject lies, and computes on "
            f"{usual}. Leave one of them out."
        )
    return usual, layout


def _check_device(device: str) -> str:
    """The device itself, if this machine has it.

    Raises:
        BadInput: it is none that torch knows, or a GPU that is not here.
    """
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise BadInput(f"There is no device {device!r}. Choose auto, cpu, cuda, or a GPU by number: cuda:0.") from error
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if where.type == "cuda" and (where.index or 0) >= here:
        raise BadInput(
            f"--device {device} was asked for; torch sees {here} GPUs here. Pass --device cpu, or install a build of "
            "torch for GPUs."
        )
    return device


def count_gpus(
    spec: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    device_map: DeviceMap | None = None,
    quantize: str | None = None,
    memory: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """How many GPUs one copy of a subject takes, loaded in this way: 0 on a CPU, and 1 unless it is split.

    memory: bytes of a GPU; of this process's first, by default.

    Raises:
        BadInput: the map skips a GPU's number, or no number of such GPUs holds the subject; see `load_subject`.
    """
    where, layout = choose_place(device, device_map)
    if torch.device(where).type != "cuda":
        return 0
    if layout is None:
        return 1
    if isinstance(layout, Mapping):
        return _count_in_order(layout)
    source, revision = _find_source(spec, say)
    try:
        config = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code,
            local_files_only=_is_cut_off(source, revision),
        )  # fmt: skip
    except (OSError, ValueError):
        return 1  # `load_subject` says what is wrong with it
    chosen = _find_dtype(config, dtype if dtype != "auto" else _default_precision(where, quantize))
    has = memory if memory is not None else torch.cuda.get_device_properties(0).total_memory
    pieces = measure_footprint(config, trust_remote_code=trust_remote_code).pieces(
        chosen, quantize or _stored_bits(config)
    )
    needed = gpus_needed(pieces, int(FILLED * has))
    if needed is None:
        raise BadInput(
            f"One part of the subject {spec!r} takes {max(pieces) / 1e9:.1f} GB, and a GPU here has {has / 1e9:.1f} GB"
            ": no number of them holds it. Take larger GPUs, or pass --quantize 4bit."
        )
    return needed


def _count_in_order(layout: Mapping[str, int | str]) -> int:
    numbers = gpus_of_map(layout)
    if numbers != set(range(len(numbers))):
        raise BadInput(
            f"The device map names the GPUs {', '.join(map(str, sorted(numbers)))}; a Ray worker's own are numbered "
            f"from 0 without a gap. Number them 0 to {len(numbers) - 1}."
        )
    return len(numbers)


def _check_quantize(quantize: str | None) -> None:
    if quantize is None:
        return
    if quantize not in QUANTIZED_NAMES:
        raise BadInput(
            f"There is no quantisation {quantize!r}. Choose 4bit, or leave it out; a checkpoint that is quantised "
            "already needs no option."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            f"--quantize {quantize} needs bitsandbytes, which is not installed here. pip install 'nlabench[bnb]', or "
            "give a checkpoint that was quantised beforehand."
        )


def _default_precision(where: str, quantize: str | None) -> str:
    if torch.device(where).type == "cpu":
        return "float32"
    return "bfloat16" if quantize else "auto"


def _find_dtype(config: Any, precision: str) -> torch.dtype:
    """The dtype of a name; "auto" is the checkpoint's own."""
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    named: torch.dtype = stored if precision == "auto" else getattr(torch, precision, torch.float32)
    return named


def _is_quantized(config: Any) -> bool:
    return getattr(config, "quantization_config", None) is not None


def _stored_bits(config: Any) -> str | None:
    """ "4bit" or "8bit" for a checkpoint whose weights are in so few bits already, as its configuration says it."""
    found = getattr(config, "quantization_config", None) or {}
    said = found if isinstance(found, dict) else found.to_dict()
    if said.get("load_in_4bit") or said.get("bits") == 4:
        return "4bit"
    in_8_bits = said.get("load_in_8bit") or said.get("bits") == 8 or "fp8" in str(said.get("quant_method"))
    return "8bit" if in_8_bits else None


def _is_cut_off(source: str, revision: str | None) -> bool:
    """Whether files can only come from the hub's cache: asking a hub that does not answer takes half a minute each."""
    return not Path(source).is_dir() and not hub_answers(source, revision)


def _find_source(spec: str, say: Callable[[str], None]) -> tuple[str, str | None]:
    """The folder or hub id that transformers takes, and a revision."""
    if spec in ASSETS:
        if (role := ASSETS[spec].role) != "subject":
            kinds = {"embedder": "a sentence embedder", "texts": "a collection of texts", "lexicon": "a lexicon"}
            raise BadInput(f"{spec!r} is {kinds[role]}, not a language model. Try --subject {DEFAULT_SUBJECT}.")
        return str(fetch_asset(spec, say)), None
    if Path(spec).is_dir():
        return spec, None
    say(f"{spec}: no built-in asset and no folder of that name; looking for it on the model hub")
    source, _, tag = spec.partition("@")
    return source, tag or None


def _tell_layout(model: Any, say: Callable[[str], None]) -> None:
    places = [str(where) for where in getattr(model, "hf_device_map", {}).values()]
    if len(set(places)) < 2:
        return
    counted = ", ".join(f"{places.count(place)} on {place}" for place in dict.fromkeys(places))
    waiting = " (those on the CPU or the disk are brought in at every pass, which is slow)"
    on_gpu = any(place.isdigit() or place.startswith("cuda") for place in places)
    slow = "disk" in places or (on_gpu and "cpu" in places)
    say(f"the subject's parts: {counted}{waiting if slow else ''}")


def _fingerprint(source: str, revision: str | None, model: Any) -> str:
    """What identifies the model: its weights (the files' sha256, or the hub's commit) and its configuration."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    settings = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:8]
    if Path(source).is_dir():
        files = sorted(p for p in Path(source).iterdir() if p.suffix in (".safetensors", ".bin"))
        weights = "+".join(file_sha256(path)[:16] for path in files)
    else:
        # The hub's cache keeps a snapshot's files in a folder that is named by its commit.
        weights = f"{source}@{Path(cached_file(source, 'config.json', revision=revision) or '').parent.name}"
    return f"{weights}/{settings}"
