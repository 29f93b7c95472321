"""`nla_meta.yaml`: all that is specific to a Natural Language Autoencoder, read and checked against the live tokenizer.

The released contract (schema version 2) and its older key names are both read; keys that are not known here are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import BadInput
from ..injection import Mode, Scale, VectorInjection
from ..store import write_atomically

SIDECAR = "nla_meta.yaml"

#: What the two halves were called before: by role, and by the key of their prompt template.
ROLES = {"av": ("av", "actor", "verbalizer"), "ar": ("ar", "critic", "reconstructor")}

#: An L2 norm: a number, √d_model, or the vector's own.
ScaleInFile = float | Literal["sqrt_d_model", "raw"] | None


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Extraction(_Section):
    """injection_scale: the norm at which vectors enter an AV. mse_scale: at which an AR's output is compared."""

    injection_scale: ScaleInFile = None
    mse_scale: ScaleInFile = None


class Tokens(_Section):
    """The marker that a vector takes the place of, its neighbours in the prompt, and how an AR's prompt ends."""

    injection_char: str | None = None
    injection_token_id: int | None = None
    injection_left_neighbor_id: int | None = None
    injection_right_neighbor_id: int | None = None
    critic_suffix_ids: tuple[int, ...] | None = None


class InjectionSection(_Section):
    """How the vector enters, where not by `replace_embedding`; see `VectorInjection`. An extension of the contract."""

    mode: Mode = "replace_embedding"
    block: int = -1
    coefficient: float = Field(default=1.0, gt=0)
    #: By default `extraction.injection_scale`, and `state` where that is absent too.
    scale: float | Literal["sqrt_d_model", "raw", "state"] | None = None


class PromptTemplates(_Section):
    """`{injection_char}` stands for the marker in `av`, `{explanation}` for the text in `ar`."""

    av: str | None = None
    ar: str | None = None


class Sidecar(_Section):
    """What `nla_meta.yaml` says of one half of an NLA."""

    kind: Literal["nla_model"] = "nla_model"
    schema_version: int = 2
    role: Literal["av", "ar"]
    base_checkpoint: str | None = None
    d_model: int = Field(gt=0)
    #: K: vectors are the stream after block K, which is `hidden_states[K + 1]`.
    extraction_layer_index: int | None = None
    extraction: Extraction = Extraction()
    tokens: Tokens = Tokens()
    prompt_templates: PromptTemplates = PromptTemplates()
    injection: InjectionSection = InjectionSection()
    #: The longest answer that is waited for, in tokens. An extension of the contract, whose own is 200.
    max_new_tokens: int = Field(default=200, ge=1)
    trained_on: Any = None
    license: str = ""

    @model_validator(mode="before")
    @classmethod
    def _modernise(cls, raw: Any) -> Any:
        """Older names of keys, roles and places, as the names of today."""
        found = _without_nulls(raw, "the file")
        found["role"] = next((new for new, old in ROLES.items() if found.get("role") in old), found.get("role"))
        templates = _without_nulls(found.get("prompt_templates", {}), "prompt_templates")
        for new, old in ROLES.items():
            named = [templates.pop(name) for name in old if name in templates]
            templates[new] = named[0] if named else None
        places = [found, *(_without_nulls(found.get(s, {}), s) for s in ("critic", "reconstructor"))]
        layers = {str(place["extraction_layer_index"]) for place in places if "extraction_layer_index" in place}
        if len(layers) > 1:
            raise ValueError(f"extraction_layer_index is given as {' and as '.join(sorted(layers))}")
        return {
            **found,
            "prompt_templates": templates,
            "extraction_layer_index": next(iter(layers), None),
            "license": str(found.get("license", found.get("licence", ""))),
        }

    @property
    def training_data(self) -> str:
        """`trained_on`, which the contract leaves free, in words."""
        named = self.trained_on
        return ", ".join(map(str, named)) if isinstance(named, list) else str(named or "")

    def vector_injection(self) -> VectorInjection:
        """How a vector enters this AV's prompt.

        Raises:
            BadInput: no injection scale where one is needed.
        """
        section = self.injection
        if section.mode == "add_norm_matched":
            scale: float | str | None = section.scale or "state"
        else:
            scale = self.extraction.injection_scale if section.scale is None else section.scale
        if scale is None and section.mode == "replace_embedding":
            raise BadInput(
                f"The sidecar of this {self.role.upper()} has no `extraction.injection_scale`: the L2 norm at which "
                "its vectors enter is not known, and another norm than the one it was trained with gives texts about "
                "nothing. Set it to the number of the training run (`sqrt_d_model` is understood; so is `raw`, for "
                "vectors that were not scaled)."
            )
        norm: Scale = "raw" if scale == "raw" else "state"
        if scale == "sqrt_d_model":
            norm = math.sqrt(self.d_model)
        elif isinstance(scale, float):
            norm = scale
        return VectorInjection(section.mode, section.block, norm, section.coefficient)


def read_sidecar(folder: Path) -> Sidecar:
    """The sidecar of a checkpoint's folder.

    Raises:
        BadInput: there is none, or it is not what the contract says.
    """
    file = folder / SIDECAR
    try:
        return Sidecar.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInput(
            f"There is no {SIDECAR} in {folder}. It says how vectors enter the prompt, and no NLA can be used without "
            "it: ask whoever trained the checkpoint for it."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file} cannot be read: {error}. It is YAML, in UTF-8.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()[:3])
        raise BadInput(
            f"{file} is not a sidecar of the NLA contract (schema version 2): {wrong}. Correct these keys."
        ) from error


def write_sidecar(sidecar: Sidecar, folder: Path) -> None:
    """Write `nla_meta.yaml` with the names of today, and K where either of the released readers looks for it."""
    content = sidecar.model_dump(mode="json")
    content["critic"] = {**content.get("critic", {}), "extraction_layer_index": sidecar.extraction_layer_index}
    if sidecar.injection == InjectionSection():
        del content["injection"]
    if sidecar.max_new_tokens == Sidecar.model_fields["max_new_tokens"].default:
        del content["max_new_tokens"]
    write_atomically(folder / SIDECAR, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


@dataclass(frozen=True)
class MarkedPrompt:
    """An AV's prompt as token ids, and the marker's position: the slot that a vector enters."""

    ids: tuple[int, ...]
    slot: int


def mark_prompt(sidecar: Sidecar, tokenizer: Any) -> MarkedPrompt:
    """The prompt of an AV, tokenized in one step, with its one marker found and its neighbours checked.

    Raises:
        BadInput: says which of these it is: the marker is no single token, has another id, is missing, occurs more than
            once, or has other neighbours; no chat template; a doubled BOS.
    """
    tokens = sidecar.tokens
    marker, wanted = tokens.injection_char, tokens.injection_token_id
    if marker is None or wanted is None or sidecar.prompt_templates.av is None:
        raise BadInput(
            "The sidecar lacks `tokens.injection_char`, `tokens.injection_token_id` or the template of an AV "
            "(`prompt_templates.av`). An AV needs all three; give the sidecar that it was released with."
        )
    live: list[int] = tokenizer.encode(marker, add_special_tokens=False)
    if len(live) != 1:
        raise BadInput(
            f"The marker {marker!r} is {len(live)} tokens {live} for this tokenizer; the sidecar says that it is one, "
            f"{wanted}. The tokenizer is not the one that the AV was trained with: use the checkpoint's own files."
        )
    if live[0] != wanted or live[0] == tokenizer.unk_token_id:
        raise BadInput(
            f"The marker {marker!r} is token {live[0]} for this tokenizer"
            f"{' (its unknown token)' if live[0] == tokenizer.unk_token_id else ''}; the sidecar says {wanted}. The "
            "tokenizer is not the one that the AV was trained with: use the checkpoint's own files."
        )
    if tokenizer.chat_template is None:
        raise BadInput(
            "The AV's tokenizer has no chat template, and its prompt is a user message. Put the chat template that it "
            "was trained with beside the tokenizer (chat_template.jinja)."
        )
    message = {"role": "user", "content": fill_template(sidecar.prompt_templates.av, injection_char=marker)}
    # In one step: a template that writes a BOS, encoded again, would get a second one. Without return_dict=False
    # transformers 5 returns a mapping.
    ids: list[int] = tokenizer.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    _check_start(ids, tokenizer)
    slots = [i for i, token in enumerate(ids) if token == wanted]
    if not slots:
        raise BadInput(
            f"The marker {marker!r} (token {wanted}) is missing from the tokenized prompt. Either the template has no "
            "`{injection_char}`, or the tokenizer merges the marker with what stands beside it; use the template and "
            "the tokenizer that the AV was trained with."
        )
    if len(slots) > 1:
        raise BadInput(
            f"The marker {marker!r} (token {wanted}) occurs {len(slots)} times in the tokenized prompt, at positions "
            f"{', '.join(map(str, slots))}; exactly one is expected. Name it once in `prompt_templates.av`."
        )
    slot = slots[0]
    found = (ids[slot - 1] if slot else None, ids[slot + 1] if slot + 1 < len(ids) else None)
    expected = (tokens.injection_left_neighbor_id, tokens.injection_right_neighbor_id)
    if found != expected:
        raise BadInput(
            f"The neighbours of the marker {marker!r} in the tokenized prompt are {found[0]} and {found[1]}; the "
            f"sidecar says {expected[0]} and {expected[1]}. The template or the tokenizer has changed since the AV was "
            "trained; use those that it was trained with."
        )
    return MarkedPrompt(tuple(ids), slot)


def explanation_ids(sidecar: Sidecar, tokenizer: Any, text: str) -> list[int]:
    """The prompt of an AR for one text, as token ids: no chat template, special tokens as the tokenizer adds them."""
    template = sidecar.prompt_templates.ar or ""
    ids: list[int] = tokenizer.encode(fill_template(template, explanation=text), add_special_tokens=True)
    return ids


def check_explanation_prompt(sidecar: Sidecar, tokenizer: Any) -> None:
    """Check the prompt of an AR on a sample text.

    Raises:
        BadInput: no template, one without a place for the text, a doubled BOS, or another end than the one that the AR
            was trained with.
    """
    template = sidecar.prompt_templates.ar
    if template is None or "{explanation}" not in template:
        raise BadInput(
            f"The template of the AR (`prompt_templates.ar`) is {template!r}; expected a text with `{{explanation}}` "
            "in it. Give the sidecar that the AR was released with."
        )
    ids = explanation_ids(sidecar, tokenizer, "rain")
    _check_start(ids, tokenizer)
    suffix = list(sidecar.tokens.critic_suffix_ids or ())
    if suffix and ids[-len(suffix) :] != suffix:
        raise BadInput(
            f"The AR's prompt ends in the tokens {ids[-len(suffix) :]}; the sidecar says {suffix}, and the vector is "
            "read at the last one. The template or the tokenizer has changed; use those that the AR was trained with."
        )


def fill_template(template: str, **values: str) -> str:
    """A template of the contract with its `{placeholders}` filled.

    Raises:
        BadInput: another placeholder, or a brace that is not doubled.
    """
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise BadInput(
            f"The template {template[:80]!r} cannot be filled: {type(error).__name__}: {error}. It may hold "
            f"{' and '.join(f'{{{name}}}' for name in values)}; double any other brace."
        ) from error


def _without_nulls(section: Any, name: str) -> dict[str, Any]:
    """A section without the keys that are null: absent and null are the same in the contract."""
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} is no mapping")
    return {key: value for key, value in section.items() if value is not None}


def _check_start(ids: list[int], tokenizer: Any) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise BadInput(
            f"The prompt starts with two BOS tokens ({bos}): it is written in the template and added by the tokenizer "
            "as well, which shifts every position by one. Take it out of one of the two."
        )
