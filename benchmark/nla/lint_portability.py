"""Checks of what other readers make of a full directory: transformers 4, and the single-file client of the releases.

That client needs transformers 4: version 5 makes a mapping of what `apply_chat_template` returned as a list, and the
client then finds the marker 0 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import CONFIG_MAPPING

from ..subject import find_blocks
from .lint_finding import Change, Finding
from .lint_half import CONFIG, TOKENIZER, Half
from .portable import TOKENIZER_CLASS, add_older_names

#: What transformers 4 reads its rotary embeddings from. Where it finds none it takes a default without a word.
_ROTARY = ("rope_theta", "rope_local_base_freq", "rope_scaling", "partial_rotary_factor")

#: What the released client looks for, to take out the final norm of an AR.
_FINAL_NORMS = ("norm", "final_layernorm", "ln_f")

#: The families whose embeddings the released client multiplies by √d_model.
_MULTIPLIED = ("gemma", "gemma2", "gemma3", "gemma3_text", "t5")


def check_portability(half: Half) -> Iterator[Finding]:
    """All checks of this module for one half; an adapter has nothing that they are about."""
    if not half.settings:
        return
    yield from _check_rotary(half.settings)
    yield from _check_remote_code(half)
    yield from _check_tokenizer(half)
    yield from _check_model(half)


def _check_rotary(settings: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Iterator[Finding]:
    for name, section in settings.items():
        if isinstance(section, Mapping) and name.endswith("_config"):
            yield from _check_rotary(section, (*inside, name))
    if not isinstance(settings.get("rope_parameters"), Mapping):
        return
    field = ".".join((*inside, "rope_parameters"))
    try:
        both = add_older_names(dict(settings))
    except (KeyError, TypeError) as error:
        fix = "Write them as the family's configuration has them."
        yield Finding("warning", CONFIG, field, f"no {error} in it", "a rotary base that can be read", fix)
        return
    older = {name: both[name] for name in _ROTARY if name in both}
    missing = {name: value for name, value in older.items() if settings.get(name) is None}
    if missing:
        fix = "Write them beside rope_parameters; both versions then load the same model."
        found = f"{', '.join(missing)} missing: transformers 4 takes a default without a word"
        expected = ", ".join(f"{name} {value}" for name, value in missing.items())
        changes = tuple(Change((*inside, name), value) for name, value in missing.items())
        yield Finding("error", CONFIG, ".".join((*inside, next(iter(missing)))), found, expected, fix, changes)
    for name in older.keys() - missing.keys():
        if settings[name] != older[name]:
            found, expected = f"{settings[name]}", f"{older[name]}, as in rope_parameters"
            fix = "Correct the wrong one: transformers 4 reads this, and version 5 rope_parameters."
            yield Finding("error", CONFIG, ".".join((*inside, name)), found, expected, fix)


def _check_remote_code(half: Half) -> Iterator[Finding]:
    if "auto_map" in half.settings:
        kind = half.settings.get("model_type")
        fix = "Take auto_map out, or convert the checkpoint to a family that transformers has."
        expected = "a family of transformers: code from a checkpoint is not run"
        if kind in CONFIG_MAPPING:
            yield Finding("warning", CONFIG, "auto_map", f"code of its own, for {kind}", expected, fix)
        else:
            yield Finding("error", CONFIG, "auto_map", f"code of its own, for {kind}, is needed", expected, fix)
    if "auto_map" in half.tokenizer_settings:
        expected = "a tokenizer that needs no code from the checkpoint"
        yield Finding("warning", TOKENIZER, "auto_map", "code of its own", expected, "Save it as a fast tokenizer.")


def _check_tokenizer(half: Half) -> Iterator[Finding]:
    if half.tokenizer_settings.get("tokenizer_class") == "TokenizersBackend":
        fix = f"Write {TOKENIZER_CLASS}, or let `nlabench export-checkpoint` write the directory."
        expected = f"{TOKENIZER_CLASS}: transformers 4, which released clients need, does not know the class"
        yield Finding("warning", TOKENIZER, "tokenizer_class", "TokenizersBackend", expected, fix)
    tokenizer = half.tokenizer
    if tokenizer is None or half.sidecar is None or half.sidecar.role != "ar" or tokenizer.bos_token_id is None:
        return
    if tokenizer.encode("x", add_special_tokens=True)[:1] != [tokenizer.bos_token_id]:
        found = f"{tokenizer.bos_token!r}, which the tokenizer does not write"
        fix = "Set it to null, or let `nlabench export-checkpoint` write the directory."
        yield Finding("warning", TOKENIZER, "bos_token", found, "null: the released reader of an AR refuses it", fix)


def _check_model(half: Half) -> Iterator[Finding]:
    """What the class of the model decides; see `Half.shell`."""
    shell, sidecar = half.shell, half.sidecar
    if shell is None or sidecar is None:
        return
    field = "model_type"
    kind = half.text_config.model_type
    if sidecar.role == "ar":
        decoder, _ = find_blocks(shell)
        if getattr(shell, "model", None) is not decoder or not any(hasattr(decoder, name) for name in _FINAL_NORMS):
            found = f"{kind}, whose final norm is not where the released reader of an AR looks for it"
            fix = "None is needed here, where the stream is read before the norm; say so in the model card."
            expected = f"a decoder `model` with one of {', '.join(_FINAL_NORMS)}"
            yield Finding("warning", CONFIG, field, found, expected, fix)
        return
    factor = half.embedding_factor
    if (factor != 1) != (kind in _MULTIPLIED):
        found = f"{kind}, whose embeddings are multiplied by {factor:.4g}"
        expected = f"one of {', '.join(_MULTIPLIED)}, which the released client multiplies too, or a factor of 1"
        fix = "None is needed here, where the vector enters past the factor; say so in the model card."
        yield Finding("warning", CONFIG, field, found, expected, fix)
