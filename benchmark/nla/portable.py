"""Writing a model so that transformers 4 and 5 load the same one.

A directory that version 5 saves is read wrongly by version 4, some of it without a word: the rotary base moved from
`rope_theta` into `rope_parameters` (version 4 then takes 10,000), `torch_dtype` became `dtype`, and the tokenizer has a
class that version 4 does not know. Version 5 still reads the older names, so both are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

#: The tokenizer class that both versions know: it does what tokenizer.json says, and nothing of its own.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"

#: What version 5 notes in tokenizer_config.json about how it was loaded.
_NOTES = ("backend", "is_local", "local_files_only", "extra_special_tokens")


def write_portable(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    without_bos: bool = False,
) -> None:
    """Save a model and its tokenizer to a folder that transformers 4 and 5 load identically.

    Compared for Llama, Mistral, Qwen 2 and 3, Gemma 3 and GPT-2.

    weights: in place of the model's own. without_bos: the folder's tokenizer has no `bos_token`.
    """
    model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    tokenizer.save_pretrained(folder)
    _rewrite(folder / "config.json", add_older_names)
    _rewrite(folder / "tokenizer_config.json", lambda found: _portable_tokenizer(found, tokenizer, without_bos))
    for file in folder.iterdir():  # safetensors are written for their owner alone
        file.chmod(0o644)


def add_older_names(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what version 4 reads beside what version 5 does; those inside it (text, vision) too."""
    both = {name: add_older_names(value) if isinstance(value, dict) else value for name, value in config.items()}
    if "dtype" in config:
        both["torch_dtype"] = config["dtype"]
    rotary = config.get("rope_parameters")
    if not rotary:
        return both
    both["rope_parameters"] = rotary
    by_kind = "rope_theta" not in rotary  # one for each kind of attention, as Gemma 3 has it
    everywhere = rotary["full_attention"] if by_kind else rotary
    both["rope_theta"] = everywhere["rope_theta"]
    if "partial_rotary_factor" in everywhere:
        both["partial_rotary_factor"] = everywhere["partial_rotary_factor"]
    if by_kind:
        both["rope_local_base_freq"] = rotary["sliding_attention"]["rope_theta"]
    if everywhere.get("rope_type", "default") != "default":
        both["rope_scaling"] = {name: value for name, value in everywhere.items() if name != "rope_theta"}
    return both


def _portable_tokenizer(found: dict[str, Any], tokenizer: Any, without_bos: bool) -> dict[str, Any]:
    kept = {name: value for name, value in found.items() if name not in _NOTES}
    kept["tokenizer_class"] = TOKENIZER_CLASS
    more = found.get("extra_special_tokens")
    if more:  # a list in version 5, a mapping in version 4; the older name is a list in both
        kept["additional_special_tokens"] = list(more.values()) if isinstance(more, dict) else more
    if without_bos:
        kept["bos_token"] = None
    if tokenizer.chat_template is not None:  # version 4 before 4.43 does not look for chat_template.jinja
        kept["chat_template"] = tokenizer.chat_template
    return kept


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text())), indent=2, ensure_ascii=False) + "\n")
