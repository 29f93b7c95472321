"""Serving an NLA over HTTP, on a CPU if need be: SGLang's `/generate` with `input_embeds`, vLLM's `/v1/completions`
with `prompt_embeds`, and `/describe`.

A client that was made for the released NLAs and SGLang talks to this server unchanged.
"""

from __future__ import annotations

import functools
import logging
import secrets
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..activations import ActivationBatch, Site
from ..decoding import Decoded
from ..errors import BadInput
from ..placement import DeviceMap
from ..posting import is_loopback
from ..verbalizers.nla import NLA, Decoding, NLAPair, load_nla
from .reconstructor import NLAReconstructor
from .request import BadRequest, Row, parse_completions, parse_describe, parse_generate
from .writing import MOST_TOGETHER, Writer

if TYPE_CHECKING:  # an extra, which only a server needs
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

#: A prompt of a hundred tokens of a model that is 8,192 wide is 16 MB of JSON.
LARGEST_BODY = 64 * 2**20

#: Seconds that requests in flight are given when the server is stopped.
GRACE = 10

#: The context of a model whose configuration names none.
CONTEXT = 4096


def serve(
    spec: str,
    *,
    host: str = "127.0.0.1",
    port: int = 30000,
    device: str = "auto",
    dtype: str = "auto",
    device_map: DeviceMap | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the NLA that a spec names, until interrupted. port 0: one that is free.

    device, dtype, device_map: as for `load_subject`.

    Raises:
        BadInput: the server's packages are not installed, the port is taken, or there is no such NLA (see `load_nla`).
    """
    try:
        import uvicorn
    except ImportError as error:
        raise BadInput(
            f"`nlabench serve` needs packages that are not installed ({error}). Install them: pip install "
            "'nlabench[serve]'."
        ) from error
    with closing(_listen(host, port)) as listening:  # before the weights: a taken port shows at once
        nla = load_nla(spec.removeprefix("nla:"), device=device, dtype=dtype, device_map=device_map, say=say)
        app = make_app(nla)
        if not is_loopback(host):
            say(
                f"WARNING: bound to {host}: whoever reaches this machine can use the model, for there is no key. Leave "
                "--host out to serve this machine alone."
            )
        shown = f"[{host}]" if ":" in host else host
        say(
            f"{nla.card.name} at http://{shown}:{listening.getsockname()[1]} (POST /generate, POST "
            "/v1/completions, POST /describe, GET /health). Ctrl-C stops it."
        )
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"{host}:{port} cannot be listened at: {error}. Give --host an address of this machine (127.0.0.1: nobody "
            "else reaches it) and --port a number that is free; 0 takes one."
        ) from error


def make_app(nla: NLA | NLAPair) -> Starlette:
    """The routes of an NLA, as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    av, pair = (nla.verbalizer, nla) if isinstance(nla, NLAPair) else (nla, None)
    service = Service(av, pair, Writer(av.model))

    def answering(answer: Callable[[bytes], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                return JSONResponse(await answer(await _read_body(request)))
            except BadRequest as error:
                status, message = error.status, str(error)
            except ClientDisconnect:
                status, message = 400, "The client left before its body was whole. Send it again."
            except Exception as error:
                logging.getLogger(__name__).exception("a request failed")
                status, message = 500, f"The model failed: {type(error).__name__}: {error}. See the server's log."
            return JSONResponse({"error": {"message": message}}, status)

        return respond

    return Starlette(
        routes=[
            Route("/generate", answering(service.generate), methods=["POST"]),
            Route("/v1/completions", answering(service.complete), methods=["POST"]),
            Route("/describe", answering(service.describe), methods=["POST"]),
            Route("/health", answering(service.health), methods=["GET"]),
        ]
    )


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise BadRequest(
                f"The body is larger than the {LARGEST_BODY:,} bytes that are read. Send fewer prompts at a time.", 413
            )
    return bytes(body)


@dataclass(frozen=True)
class Service:
    """What the routes say. pair: the same AV with its AR, where there is one."""

    nla: NLA
    pair: NLAPair | None
    writer: Writer

    @property
    def context(self) -> int:
        """The most tokens that the model takes, prompt and text together."""
        config = self.nla.model.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or CONTEXT)

    async def health(self, _: bytes) -> Any:
        """What is served."""
        card = self.nla.card
        known = {
            "name": card.name,
            "layer": card.layer,
            "d_model": card.d_model,
            "fingerprint": self.nla.model.fingerprint,
        }
        return {"status": "ok", **known, "reconstructor_available": self.pair is not None}

    async def generate(self, body: bytes) -> Any:
        """SGLang's route: one answer for a prompt, a list for a list of prompts."""
        start = time.perf_counter()
        self._check_carries()
        rows, alone = parse_generate(body, self.nla.model.d_model, self.context)
        written = await self.writer.write(rows)
        seconds = time.perf_counter() - start
        answers = [self._show_answer(row, decoded, seconds) for row, decoded in zip(rows, written, strict=True)]
        return answers[0] if alone else answers

    async def complete(self, body: bytes) -> Any:
        """vLLM's route: a choice for each prompt."""
        self._check_carries()
        rows = parse_completions(body, self.nla.model.d_model, self.context)
        written = await self.writer.write(rows)
        choices = []
        for index, (row, decoded) in enumerate(zip(rows, written, strict=True)):
            answer = self._show_answer(row, decoded, 0.0)
            reason = answer["meta_info"]["finish_reason"]
            choice = {"index": index, "text": answer["text"], "logprobs": None, "finish_reason": reason["type"]}
            choices.append({**choice, "stop_reason": reason.get("matched")})
        prompts, new = sum(len(row.embeddings) for row in rows), sum(len(decoded.ids) for decoded in written)
        return {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": self.nla.card.name, "choices": choices,
            "usage": {"prompt_tokens": prompts, "completion_tokens": new, "total_tokens": prompts + new},
        }  # fmt: skip

    def _check_carries(self) -> None:
        injection = self.nla.injection
        if injection.mode != "replace_embedding":
            raise BadRequest(
                f"The vectors of this AV enter by {injection.mode} after block {injection.block}, which embeddings "
                "cannot carry. Send the bare vectors to /describe."
            )

    def _show_answer(self, row: Row, decoded: Decoded, seconds: float) -> dict[str, Any]:
        params = row.params
        text = self.nla.model.tokenizer.decode(decoded.ids, skip_special_tokens=params.skip_special_tokens)
        reason: dict[str, Any] = {"type": "stop"}
        if len(decoded.ids) == params.max_new_tokens:
            reason = {"type": "length", "length": params.max_new_tokens}
        found = [(text.find(stop), stop) for stop in params.stops if stop in text]
        if found:
            end, stop = min(found)
            text, reason = text[:end], {"type": "stop", "matched": stop}
        usage = {
            "id": uuid.uuid4().hex, "finish_reason": reason, "prompt_tokens": len(row.embeddings),
            "completion_tokens": len(decoded.ids), "cached_tokens": 0, "e2e_latency": seconds,
        }  # fmt: skip
        return {"text": text, "meta_info": usage}

    async def describe(self, body: bytes) -> Any:
        """Neuronpedia's route: a text for each bare vector, and how close the AR comes to the vector from the text."""
        n_tokens = len(self.nla.prefix.ids) + len(self.nla.tail)
        vectors, asked = parse_describe(body, self.nla.model.d_model, n_tokens, self.context)
        decoding = Decoding(
            temperature=asked.temperature, new_tokens=asked.max_new_tokens, samples=1, seed=secrets.randbits(62)
        )
        return {"results": await self.writer.take_turn(functools.partial(self._describe, vectors, decoding))}

    def _describe(self, vectors: Tensor, decoding: Decoding) -> list[dict[str, Any]]:
        nla = replace(self.nla, decoding=decoding)
        site = Site(nla.card.subject or nla.card.name, nla.card.layer or 0, nla.model.d_model)
        batches = [ActivationBatch(part, site) for part in torch.split(vectors, MOST_TOGETHER)]
        texts = [found.text for batch in batches for found in nla.verbalize(batch)]
        cosines: list[float | None] = [None] * len(texts)
        if self.pair is not None:
            cosines = _compare(self.pair.reconstructor, texts, vectors)
        return [
            {"description": text, "mse": None if cosine is None else 2 * (1 - cosine), "cosine_similarity": cosine}
            for text, cosine in zip(texts, cosines, strict=True)
        ]


def _compare(reconstructor: NLAReconstructor, texts: list[str], vectors: Tensor) -> list[float | None]:
    """The cosine of each vector with what the AR makes of its text."""
    sidecar = reconstructor.sidecar
    site = Site(sidecar.base_checkpoint or "", sidecar.extraction_layer_index or 0, sidecar.d_model)
    cosines: list[float | None] = torch.cosine_similarity(reconstructor.reconstruct(texts, site), vectors).tolist()
    return cosines
