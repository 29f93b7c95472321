"""Served verbalizers: texts come from a server, by one of the protocols that NLAs are served with.

`http://HOST/generate?checkpoint=AV` asks SGLang's route (SGLang with `--disable-radix-cache`, or `nlabench serve`): the
prompt is embedded here, so the AV's folder or hub id is named as `checkpoint`, of which the sidecar, the tokenizer and
one tensor are read. `http://HOST/v1/completions?checkpoint=AV` asks vLLM's (started with `--enable-prompt-embeds`) in
the same way; `model=` is the name under which the server has it, where that is not AV. `http://HOST/describe` asks a
service like Neuronpedia's, which is sent the bare vectors.

`https://` works too, and so does `http:` before either. More options, joined with `&`: `temperature=0` (greedy),
`new_tokens=` (by default what the checkpoint's sidecar says, else 200), `in_flight=16` (requests at a time),
`timeout=120` (seconds), and `version=1`: name another one when the server has other weights, for texts are kept and
taken from the store under this spec. A server that wants a key gets `$NLABENCH_HTTP_KEY` (as `Authorization: Bearer`
and as `X-SECRET-KEY`).

A request that meets no server, an overloaded or a broken one is made again, a few times. An item whose request fails
even so has no text and the reason in its place; the same run, started again, asks for these items once more.
"""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

import httpx2
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ..activations import ActivationBatch
from ..errors import BadInput
from ..nla.embedded_prompt import EmbeddedPrompt, embed_prompt
from ..nla.explanation import CLOSING, read_explanation
from ..posting import Answer, Patience, post_all
from ..store import array_fingerprint
from ..study import Study
from .base import LONGEST_TEXT, Verbalization, VerbalizerCard, name_of_base, strip_controls
from .nla import MIN_POSITION

#: Bump when the code here changes what is asked or read: old texts in the store are then never used.
CLIENT_VERSION = 1

KEY = "NLABENCH_HTTP_KEY"

#: New tokens that a service of bare vectors is asked for at most: the contract's limit.
LONGEST = 200

USAGE = (
    "Give `http://HOST/generate?checkpoint=AV` for a server with SGLang's route (AV: its folder or hub id), "
    "`http://HOST/v1/completions?checkpoint=AV` for one with vLLM's, or `http://HOST/describe` for one like "
    "Neuronpedia's"
)


#: By the end of a URL's path.
PROTOCOLS = ("generate", "completions", "describe")


class Options(BaseModel):
    """What may follow the question mark of a spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str | None = None
    model: str | None = None
    temperature: float = Field(0.0, ge=0)
    new_tokens: int | None = Field(None, ge=1)
    in_flight: int = Field(16, ge=1)
    timeout: float = Field(120.0, gt=0)
    version: str = "1"


@dataclass(frozen=True)
class Decoding:
    """What a server is asked for: a temperature (0 is greedy), and new tokens at most."""

    temperature: float
    new_tokens: int


class Route(Protocol):
    """One of the protocols: how a vector becomes a body, and an answer a text."""

    def make_body(self, vector: Tensor) -> bytes:
        """The body that asks about a vector [d_model]."""
        ...

    def read_answer(self, content: Any) -> Verbalization:
        """The text of an answer; raises KeyError, IndexError or TypeError where it holds none."""
        ...


@dataclass(frozen=True)
class GenerateRoute:
    """SGLang's `/generate` with `input_embeds`, and never ids beside them: ids would be what it looks at.

    before, after: the prompt's rows on either side of the vector's, as JSON. They are the same for every vector.
    """

    prompt: EmbeddedPrompt
    before: str
    after: str
    params: str

    @classmethod
    def start(cls, prompt: EmbeddedPrompt, decoding: Decoding) -> GenerateRoute:
        """The route with everything but the vector's row written out."""
        rows = [_show_row(row) for row in prompt.rows]
        params = {
            "temperature": decoding.temperature, "max_new_tokens": decoding.new_tokens, "stop": CLOSING,
            "skip_special_tokens": False,
        }  # fmt: skip
        before = "".join(f"{row}," for row in rows[: prompt.slot])
        after = "".join(f",{row}" for row in rows[prompt.slot + 1 :])
        return cls(prompt, before, after, json.dumps(params))

    def make_body(self, vector: Tensor) -> bytes:
        row = _show_row(self.prompt.make_row(vector))
        return f'{{"input_embeds":[{self.before}{row}{self.after}],"sampling_params":{self.params}}}'.encode()

    def read_answer(self, content: Any) -> Verbalization:
        answer = content[0] if isinstance(content, list) else content
        text = answer["text"] + ""
        # The server cuts the text before the tag at which it stops, and says so beside it.
        reason = answer.get("meta_info", {}).get("finish_reason") or {}
        closed = reason.get("matched") == CLOSING and CLOSING not in text
        explanation, flags = read_explanation(text + CLOSING if closed else text)
        return Verbalization(explanation, flags=flags)


@dataclass(frozen=True)
class CompletionsRoute:
    """vLLM's `/v1/completions` with `prompt_embeds`: a tensor as torch.save writes it, in base64.

    params: the rest of the body, as JSON without its opening brace.
    """

    prompt: EmbeddedPrompt
    params: str

    @classmethod
    def start(cls, prompt: EmbeddedPrompt, decoding: Decoding, model: str) -> CompletionsRoute:
        """The route with everything but the embeddings written out."""
        params = {
            "model": model, "temperature": decoding.temperature, "max_tokens": decoding.new_tokens, "stop": CLOSING,
            "skip_special_tokens": False,
        }  # fmt: skip
        return cls(prompt, json.dumps(params)[1:])

    def make_body(self, vector: Tensor) -> bytes:
        rows = self.prompt.rows.clone()
        rows[self.prompt.slot] = self.prompt.make_row(vector)
        file = io.BytesIO()
        torch.save(rows, file)
        return f'{{"prompt_embeds":"{base64.b64encode(file.getvalue()).decode()}",{self.params}'.encode()

    def read_answer(self, content: Any) -> Verbalization:
        choice = content["choices"][0]
        text = choice["text"] + ""
        closed = choice.get("stop_reason") == CLOSING and CLOSING not in text
        explanation, flags = read_explanation(text + CLOSING if closed else text)
        return Verbalization(explanation, flags=flags)


@dataclass(frozen=True)
class DescribeRoute:
    """Neuronpedia's `/describe`. The server's own figures of the reconstruction (mse, cosine) are not taken."""

    decoding: Decoding

    def make_body(self, vector: Tensor) -> bytes:
        return (
            f'{{"activations":[{_show_row(vector)}],"temperature":{self.decoding.temperature},'
            f'"max_new_tokens":{self.decoding.new_tokens}}}'
        ).encode()

    def read_answer(self, content: Any) -> Verbalization:
        return Verbalization(strip_controls(content.get("results", [content])[0]["description"] + ""))


@dataclass(frozen=True)
class Served:
    """A verbalizer on a server."""

    card: VerbalizerCard
    url: str
    route: Route
    patience: Patience

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}", "X-SECRET-KEY": key} if key else {}
        answers = post_all(
            self.url, len(batch), lambda i: self.route.make_body(batch.vectors[i]), self.patience, headers
        )
        return [self._read(answer) for answer in answers]

    def _read(self, answer: Answer) -> Verbalization:
        if answer.error is not None:
            return Verbalization("", error=f"{self.url}: {answer.error}"[:500])
        try:
            found = self.route.read_answer(answer.content)
        except (LookupError, TypeError, AttributeError):
            return Verbalization("", error=f"{self.url}: an answer without a text: {str(answer.content)[:300]}")
        if len(found.text) > LONGEST_TEXT:
            return Verbalization("", error=f"{self.url}: a text of {len(found.text):,} characters; lower new_tokens")
        return found


def build(study: Study, argument: str) -> Served:
    url, options = read_spec(argument)
    prompt = None if options.checkpoint is None else embed_prompt(options.checkpoint)
    longest = LONGEST if prompt is None else prompt.sidecar.max_new_tokens
    decoding = Decoding(temperature=options.temperature, new_tokens=options.new_tokens or longest)
    patience = Patience(options.in_flight, options.timeout)
    # Only what decides the texts: a run that is started again with more patience finds those that it has.
    asked = urlencode(
        options.model_dump(include={"model", "temperature", "new_tokens", "version"}, exclude_defaults=True)
    )
    card = VerbalizerCard(
        name=url + (f"?{asked}" if asked else ""),
        version=options.version,
        description=f"A verbalizer on a server, asked over HTTP ({httpx2.URL(url).path}).",
        settings={"client": CLIENT_VERSION, "url": url, "decoding": asdict(decoding)},
    )
    if prompt is None:
        return Served(card, url, DescribeRoute(decoding), patience)
    sidecar = prompt.sidecar
    known = card.model_copy(
        update={
            "subject": name_of_base(sidecar.base_checkpoint, study.site.subject),
            "layer": sidecar.extraction_layer_index,
            "d_model": sidecar.d_model,
            "min_position": MIN_POSITION,
            "licence": sidecar.license,
            "training_data": sidecar.training_data,
            "settings": {
                **card.settings,
                "prompt": sidecar.prompt_templates.av,
                "rows": array_fingerprint(prompt.rows.numpy()),
                "scale": prompt.injection.scale,
            },
        }
    )
    if _protocol(url) == "generate":
        return Served(known, url, GenerateRoute.start(prompt, decoding), patience)
    model = options.model or str(options.checkpoint)
    return Served(known, url, CompletionsRoute.start(prompt, decoding, model), patience)


def read_spec(argument: str) -> tuple[str, Options]:
    """The server's URL and the options of a spec (what follows `http:` in it).

    Raises:
        BadInput: no URL of a route that is known here, one with a password in it, an unknown option, or a route without
            what it needs.
    """
    # `http://HOST/…` itself is a spec: what follows the first colon is then without its scheme.
    url, _, query = (f"http:{argument}" if argument.startswith("//") else argument).partition("?")
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BadInput(f"{argument!r} is no URL: {error}. {USAGE}.") from error
    protocol = _protocol(url)
    if parts.scheme not in ("http", "https") or not parts.host or protocol not in PROTOCOLS:
        raise BadInput(f"{argument!r} is not the URL of a served verbalizer. {USAGE}.")
    if parts.userinfo:
        raise BadInput(
            f"The URL of {parts.host} holds a name or a password, which would be written into every result. Leave "
            f"it out, and put the server's key into ${KEY}."
        )
    try:
        # A plus is a plus: paths have them, and no option has a space.
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query))
        options = Options.model_validate(dict(pairs))
    except (ValidationError, ValueError) as error:
        raise BadInput(
            f"The options {query!r} cannot be used: {' '.join(str(error).split())[:300]}. Known are "
            f"{', '.join(Options.model_fields)}, as in `?checkpoint=AV&new_tokens=100`; the server's own query cannot "
            "be given."
        ) from error
    if protocol != "describe" and options.checkpoint is None:
        raise BadInput(f"{url} is sent embeddings, and the AV whose prompt to embed was not named. {USAGE}.")
    if protocol == "describe" and options.checkpoint is not None:
        raise BadInput(f"{url} is sent bare vectors and needs no checkpoint. Leave it out, or ask /generate.")
    if protocol != "completions" and options.model is not None:
        raise BadInput(f"{url} has one model and is not told which. Leave `model` out, or ask /v1/completions.")
    return url, options


def _protocol(url: str) -> str:
    return httpx2.URL(url).path.rpartition("/")[2]


def _build_secure(study: Study, argument: str) -> Served:
    return build(study, f"https:{argument}")


def _show_row(row: Tensor) -> str:
    """A row of numbers as JSON, every float32 to its last digit."""
    return json.dumps(row.tolist(), separators=(",", ":"), allow_nan=False)


VERBALIZERS = {"http": build, "https": _build_secure}
CHECKS = {"http": read_spec, "https": lambda argument: read_spec(f"https:{argument}")}
