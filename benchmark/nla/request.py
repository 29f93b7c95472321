"""What a client may ask of a served NLA: the bodies of its routes, checked."""

from __future__ import annotations

import base64
import binascii
import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from torch import Tensor

#: Vectors or prompts in one request; a client with more sends several.
MOST_ROWS = 256


class BadRequest(ValueError):
    """A request that cannot be answered: its HTTP status, and what was given, expected and to be done."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class SamplingParams(BaseModel):
    """The part of SGLang's sampling parameters that is served; the defaults are SGLang's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=128, ge=1)
    stop: str | tuple[str, ...] | None = None
    skip_special_tokens: bool = True
    sampling_seed: int | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer is cut."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(text for text in self.stop or () if text)


#: Parameters of SGLang that are not served, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,), "top_k": (-1, 1 << 30), "min_p": (0,), "n": (1,), "min_new_tokens": (0,), "frequency_penalty": (0,),
    "presence_penalty": (0,), "repetition_penalty": (1,), "ignore_eos": (False,), "no_stop_trim": (False,),
    "spaces_between_special_tokens": (True,), "stop_token_ids": ([],),
}  # fmt: skip


class DescribeBody(BaseModel):
    """The body of `POST /describe`; the defaults are those of Neuronpedia's service."""

    model_config = ConfigDict(frozen=True)

    activations: Any
    temperature: float = Field(default=0.7, ge=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=200, ge=1)
    stream: bool = False


@dataclass(frozen=True)
class Row:
    """One prompt to continue. embeddings: [n_tokens, d_model], float32: what enters block 0."""

    embeddings: Tensor
    params: SamplingParams


def parse_generate(body: bytes, d_model: int, context: int) -> tuple[list[Row], bool]:
    """The rows of a body of `POST /generate`, and whether there is one that was not put in a list.

    context: the most tokens that the model takes, prompt and text together.

    Raises:
        BadRequest: says what is wrong with it.
    """
    asked = _parse_object(body, '{"input_embeds": [[…]], "sampling_params": {…}}')
    for name in ("text", "input_ids"):
        if asked.get(name) is not None:
            raise BadRequest(
                f"The request holds {name!r}; this route takes embeddings and nothing beside them. Send "
                '"input_embeds": one row of d_model numbers for each token of the prompt.'
            )
    if asked.get("stream"):
        raise BadRequest("The request asks for a stream; this server answers in one piece. Leave out `stream`.")
    embeds: Any = asked.get("input_embeds")
    batched = _is_batch(embeds)
    prompts = embeds if batched else [embeds]
    _check_count(len(prompts), "prompts")
    params = asked.get("sampling_params") or {}
    each = params if isinstance(params, list) else [params] * len(prompts)
    if len(each) != len(prompts):
        raise BadRequest(
            f"The request has {len(each)} sampling_params for {len(prompts)} prompts. Send one object for all, or one "
            "for each."
        )
    rows = [
        Row(_parse_numbers(prompt, d_model, f"input_embeds of prompt {i}", "token"), _parse_params(some))
        for i, (prompt, some) in enumerate(zip(prompts, each, strict=True))
    ]
    for row in rows:
        _check_length(len(row.embeddings), row.params.max_new_tokens, context)
    return rows, not batched


#: Fields of vLLM's completions that are not served, with the values that ask for nothing.
_NEUTRAL_COMPLETIONS: dict[str, tuple[Any, ...]] = {
    **{name: values for name, values in _NEUTRAL.items() if name != "min_new_tokens"},
    "min_tokens": (0,), "best_of": (1,), "echo": (False,), "suffix": ("",), "prompt": ("", [], [""]),
    "stream": (False,), "include_stop_str_in_output": (False,),
}  # fmt: skip


def parse_completions(body: bytes, d_model: int, context: int) -> list[Row]:
    """The rows of a body of `POST /v1/completions` with `prompt_embeds`.

    context: the most tokens that the model takes, prompt and text together.

    Raises:
        BadRequest: says what is wrong with it.
    """
    asked = _parse_object(body, '{"model": …, "prompt_embeds": "…", "max_tokens": …}')
    for name, neutral in _NEUTRAL_COMPLETIONS.items():
        if asked.get(name) is not None and asked[name] not in neutral:
            raise BadRequest(
                f"The request has {name} = {str(asked[name])[:80]!r}; this server continues embeddings, greedily or by "
                f"temperature alone, in one piece. Leave {name} out."
            )
    embeds = asked.get("prompt_embeds")
    given = embeds if isinstance(embeds, list) else [embeds]
    _check_count(len(given), "prompts")
    try:
        params = SamplingParams.model_validate(
            {
                "max_new_tokens": asked.get("max_tokens") or 16,  # vLLM's
                **{ours: asked[theirs] for theirs, ours in _COMPLETION_PARAMS.items() if asked.get(theirs) is not None},
            }
        )
    except ValidationError as error:
        raise BadRequest(_show_invalid(error)) from error
    rows = [Row(_read_tensor(some, d_model, f"prompt_embeds {i}"), params) for i, some in enumerate(given)]
    for row in rows:
        _check_length(len(row.embeddings), params.max_new_tokens, context)
    return rows


_COMPLETION_PARAMS = {
    "temperature": "temperature", "stop": "stop", "skip_special_tokens": "skip_special_tokens", "seed": "sampling_seed",
}  # fmt: skip


def _read_tensor(encoded: Any, d_model: int, name: str) -> Tensor:
    """A tensor [n, d_model], float32, that torch.save wrote and base64 encoded."""
    form = f"Send a dense tensor [n, {d_model}] as torch.save writes it, in base64."
    try:
        found = torch.load(io.BytesIO(base64.b64decode(encoded, validate=True)), map_location="cpu", weights_only=True)
    except (TypeError, ValueError, binascii.Error, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadRequest(f"{name} cannot be read ({type(error).__name__}). {form}") from error
    if not isinstance(found, Tensor) or found.layout != torch.strided or not found.is_floating_point():
        raise BadRequest(f"{name} is no dense tensor of floating-point numbers. {form}")
    if found.ndim != 2 or found.shape[1] != d_model or not len(found):
        raise BadRequest(f"{name} has shape {list(found.shape)}. {form}")
    numbers = found.to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(numbers).all():
        raise BadRequest(f"{name}: there are NaN or infinite numbers. Send finite ones that float32 can hold.")
    return numbers


def parse_describe(body: bytes, d_model: int, n_tokens: int, context: int) -> tuple[Tensor, DescribeBody]:
    """The vectors [n, d_model] of a body of `POST /describe`, and the rest of it.

    n_tokens: of the prompt that the vectors enter; context: the most that the model takes.

    Raises:
        BadRequest: says what is wrong with it.
    """
    asked = _parse_object(body, '{"activations": [[…]]}')
    try:
        described = DescribeBody.model_validate(asked)
    except ValidationError as error:
        raise BadRequest(_show_invalid(error)) from error
    if described.stream:
        raise BadRequest("The request asks for a stream; this server answers in one piece. Leave out `stream`.")
    _check_length(n_tokens, described.max_new_tokens, context)
    vectors = _parse_numbers(described.activations, d_model, "activations", "vector")
    _check_count(len(vectors), "vectors")
    zero = (vectors == 0).all(-1)
    if zero.any():
        number = int(zero.nonzero()[0, 0])
        raise BadRequest(f"Activation {number} is zero; a vector without a direction has no text. Leave it out.")
    return vectors, described


def _parse_object(body: bytes, form: str) -> dict[str, Any]:
    try:
        asked = from_json(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}. Send an object: {form}.") from error
    if not isinstance(asked, dict):
        raise BadRequest(f"The body is a JSON {type(asked).__name__}. Send an object: {form}.")
    return asked


def _parse_params(given: Any) -> SamplingParams:
    if not isinstance(given, dict):
        raise BadRequest(f'sampling_params is a {type(given).__name__}. Send an object, such as {{"temperature": 0}}.')
    for name, neutral in _NEUTRAL.items():
        value = given.get(name)
        if value is not None and value not in neutral:
            raise BadRequest(
                f"sampling_params has {name} = {value!r}; this server chooses greedily or by temperature alone. Leave "
                f"{name} out."
            )
    try:
        return SamplingParams.model_validate({k: v for k, v in given.items() if k not in _NEUTRAL})
    except ValidationError as error:
        raise BadRequest(_show_invalid(error)) from error


def _parse_numbers(given: Any, d_model: int, name: str, one: str) -> Tensor:
    """Rows of numbers [n, d_model], float32."""
    form = f"Send a list with one row of {d_model} numbers for each {one}."
    try:
        found = np.asarray(given)
    except ValueError as error:  # rows of different length
        raise BadRequest(f"{name}: the rows differ in length. {form}") from error
    if found.ndim != 2 or found.shape[1] != d_model or not len(found):
        raise BadRequest(f"{name}: an array of shape {list(found.shape)} was sent; [n, {d_model}] is expected. {form}")
    if found.dtype.kind not in "fiu":
        raise BadRequest(f"{name}: not all entries are numbers (null is what some encoders make of NaN). {form}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        numbers = torch.from_numpy(found.astype(np.float32))
    if not torch.isfinite(numbers).all():
        raise BadRequest(f"{name}: there are NaN or infinite numbers. Send finite ones that float32 can hold.")
    return numbers


def _check_count(n: int, of: str) -> None:
    if not 1 <= n <= MOST_ROWS:
        raise BadRequest(
            f"The request has {n} {of}; 1 to {MOST_ROWS} are taken. Send several requests.", 413 if n else 400
        )


def _check_length(n_tokens: int, max_new_tokens: int, context: int) -> None:
    if n_tokens + max_new_tokens > context:
        raise BadRequest(
            f"A prompt of {n_tokens} tokens and max_new_tokens = {max_new_tokens} were sent; the model takes {context} "
            "in all. Send a shorter prompt, or ask for fewer tokens."
        )


def _is_batch(embeds: Any) -> bool:
    """Whether there is a list of prompts (numbers three lists deep) where one prompt has numbers two lists deep."""
    try:
        return isinstance(embeds[0][0], list)
    except (TypeError, IndexError, KeyError):
        return False


def _show_invalid(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where} = {str(first['input'])[:80]!r} was sent: {first['msg']}. Correct it, or leave it out."
