"""Served verbalizers: the protocols against a real server of a small random NLA, and against a fake one."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.nla.embedded_prompt import embed_prompt
from nlabench.benchmark.nla.embedding import read_embeddings
from nlabench.benchmark.nla.serve import make_app
from nlabench.benchmark.nla.sidecar import read_sidecar, write_sidecar
from nlabench.benchmark.posting import Patience
from nlabench.benchmark.store import Store
from nlabench.benchmark.verbalizers.base import LONGEST_TEXT, Verbalization
from nlabench.benchmark.verbalizers.http import KEY, Served, read_spec
from nlabench.benchmark.verbalizers.nla import load_nla
from nlabench.benchmark.verbalizers.registry import load_verbalizer
from nlabench.benchmark.verbalizing import verbalize_items
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

D_MODEL = 32
BATCH = ActivationBatch(
    torch.randn(7, D_MODEL, generator=torch.Generator().manual_seed(3)) * 4, Site("tiny-llama", 1, D_MODEL)
)
QUICK = Patience(in_flight=4, timeout=20, attempts=3, first_wait=0.01)

Running = Callable[[Any], str]
WriteNLA = Callable[..., Path]


class _Study:
    """All that a served verbalizer looks at."""

    site = BATCH.site


def load(spec: str) -> Served:
    found = load_verbalizer(spec, _Study())
    assert isinstance(found, Served)
    return dataclasses.replace(found, patience=QUICK)


def fake(answer: Callable[[dict[str, Any], int], Response], route: str = "/describe") -> Starlette:
    """A server whose n-th request (from 0) is answered by `answer(body, n)`."""
    n = iter(range(10**6))

    async def respond(request: Request) -> Response:
        return answer(await request.json(), next(n))

    return Starlette(routes=[Route(route, respond, methods=["POST"])])


def describe_first(body: dict[str, Any], _: int) -> Response:
    first = body["activations"][0][0]
    return JSONResponse(
        {"results": [{"description": f"starts with {first:.4f}", "mse": 0.2, "cosine_similarity": 0.9}]}
    )


def describing(running: Running, answer: Callable[[dict[str, Any], int], Response]) -> Served:
    return load(f"{running(fake(answer))}/describe")


FIRSTS = [f"starts with {float(vector[0]):.4f}" for vector in BATCH.vectors]


class TestEmbeddedPrompt:
    @pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3-text", "gemma3"])
    @pytest.mark.parametrize("adapters", [False, True])
    def test_what_is_sent_is_what_enters_the_model_but_for_one_row(
        self, write_nla: WriteNLA, tmp_path: Path, family: str, adapters: bool
    ) -> None:
        folder = write_nla(family, tmp_path, adapters=adapters)
        nla = load_nla(str(folder / "av"), device="cpu")
        prompt = embed_prompt(str(folder / "av"))
        ids = [*nla.prefix.ids, *nla.tail]
        captured: list[torch.Tensor] = []

        def look(_: Any, args: Any, kwargs: Any) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])

        handle = nla.model.blocks[0].register_forward_pre_hook(look, with_kwargs=True)
        nla.model.run(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), capture=[0])
        handle.remove()
        assert torch.equal(captured[0][0], prompt.rows)  # Gemma's are √d times its table

        row = prompt.make_row(BATCH.vectors[0])
        assert float(row.norm()) == pytest.approx(20.0, rel=1e-6)  # the sidecar's norm
        assert torch.cosine_similarity(row, BATCH.vectors[0], dim=0) > 1 - 1e-6
        assert torch.equal(prompt.make_row(BATCH.vectors[0] * 8), row)

    def test_only_the_rows_of_the_prompt_are_read_from_shards_too(self, tiny: Any, tmp_path: Path) -> None:
        model = tiny("gemma3-text").model
        model.save_pretrained(tmp_path, max_shard_size="4KB")
        assert (tmp_path / "model.safetensors.index.json").exists()
        assert torch.equal(read_embeddings(str(tmp_path), [3, 5]), model.get_input_embeddings()(torch.tensor([3, 5])))

    def test_an_av_whose_vectors_are_no_embeddings_is_refused(self, write_nla: WriteNLA, tmp_path: Path) -> None:
        folder = write_nla("llama", tmp_path) / "av"
        sidecar = folder / "nla_meta.yaml"
        sidecar.write_text(sidecar.read_text() + "injection: {mode: add_norm_matched, block: 1}\n")
        with pytest.raises(BadInput, match=r"enter by add_norm_matched after block 1.*/describe"):
            embed_prompt(str(folder))

    def test_a_checkpoint_that_is_nowhere_is_named(self) -> None:
        with pytest.raises(BadInput, match=r"no folder '/not/there'.*Give the folder or the hub id"):
            embed_prompt("/not/there")


class TestGenerate:
    @pytest.mark.parametrize(("family", "adapters"), [("llama", False), ("gemma3-text", False), ("qwen3", True)])
    def test_texts_over_http_are_those_in_process(
        self, write_nla: WriteNLA, tmp_path: Path, running: Running, family: str, adapters: bool
    ) -> None:
        folder = write_nla(family, tmp_path, adapters=adapters)
        nla = load_nla(f"{folder}?new_tokens=8", device="cpu")
        batch = ActivationBatch(BATCH.vectors, Site(f"tiny-{family}", 1, D_MODEL))
        expected = [(v.text, v.flags) for v in nla.verbalize(batch)]
        url = running(make_app(nla))

        class Study:
            site = batch.site

        served = load_verbalizer(f"{url}/generate?checkpoint={folder}&new_tokens=8", Study())
        assert isinstance(served, Served)
        assert [(v.text, v.flags) for v in served.verbalize(batch)] == expected
        alone = [served.verbalize(ActivationBatch(vector[None], batch.site))[0] for vector in batch.vectors]
        assert [(v.text, v.flags) for v in alone] == expected
        assert served.card.model_dump(include={"subject", "layer", "d_model", "min_position"}) == {
            "subject": f"tiny-{family}", "layer": 1, "d_model": D_MODEL, "min_position": 50,
        }  # fmt: skip

    def test_a_request_holds_embeddings_and_no_ids_and_is_greedy(
        self, write_nla: WriteNLA, tmp_path: Path, running: Running
    ) -> None:
        folder = write_nla("llama", tmp_path)
        bodies: list[dict[str, Any]] = []

        def answer(body: dict[str, Any], _: int) -> Response:
            bodies.append(body)
            return JSONResponse([{"text": " <explanation>rain</explanation> and more"}])

        url = running(fake(answer, "/generate"))
        (found, *_) = load(f"http:{url}/generate?checkpoint={folder}").verbalize(BATCH)
        assert found == Verbalization("rain")
        prompt = embed_prompt(str(folder))
        sent = torch.tensor(bodies[0]["input_embeds"])
        differing = (sent != prompt.rows).any(-1).nonzero()[:, 0].tolist()
        assert differing == [prompt.slot]
        rows = [prompt.make_row(vector) for vector in BATCH.vectors]
        assert any(torch.equal(sent[prompt.slot], row) for row in rows)
        assert set(bodies[0]) == {"input_embeds", "sampling_params"}
        params = bodies[0]["sampling_params"]
        assert (params["temperature"], params["max_new_tokens"]) == (0.0, 200)  # this sidecar says nothing
        sidecar = read_sidecar(folder / "av")
        write_sidecar(sidecar.model_copy(update={"max_new_tokens": 7}), folder / "av")
        load(f"http:{url}/generate?checkpoint={folder}").verbalize(BATCH)
        load(f"http:{url}/generate?checkpoint={folder}&new_tokens=9").verbalize(BATCH)
        limits = [body["sampling_params"]["max_new_tokens"] for body in bodies]
        assert limits == [200] * len(BATCH) + [7] * len(BATCH) + [9] * len(BATCH)

    def test_a_text_that_stopped_at_its_closing_tag_is_not_cut_off(
        self, write_nla: WriteNLA, tmp_path: Path, running: Running
    ) -> None:
        folder = write_nla("llama", tmp_path)

        def answer(_: dict[str, Any], n: int) -> Response:
            reason = {"type": "stop", "matched": "</explanation>"} if n == 0 else {"type": "length", "length": 200}
            return JSONResponse({"text": "<explanation> rain", "meta_info": {"finish_reason": reason}})

        served = load(f"{running(fake(answer, '/generate'))}/generate?checkpoint={folder}&in_flight=1")
        one, other = served.verbalize(ActivationBatch(BATCH.vectors[:1], BATCH.site)), served.verbalize(BATCH)
        assert one == [Verbalization("rain")]
        assert other[0].text == "rain"
        assert "cut off" in other[0].flags[0]


class TestCompletions:
    @pytest.mark.parametrize("family", ["llama", "gemma3-text"])
    def test_texts_over_http_are_those_in_process(
        self, write_nla: WriteNLA, tmp_path: Path, running: Running, family: str
    ) -> None:
        folder = write_nla(family, tmp_path)
        nla = load_nla(f"{folder}?new_tokens=8", device="cpu")
        batch = ActivationBatch(BATCH.vectors, Site(f"tiny-{family}", 1, D_MODEL))

        class Study:
            site = batch.site

        url = running(make_app(nla))
        served = load_verbalizer(f"{url}/v1/completions?checkpoint={folder}&new_tokens=8", Study())
        texts = [(v.text, v.flags) for v in served.verbalize(batch)]
        assert texts == [(v.text, v.flags) for v in nla.verbalize(batch)]

    def test_a_request_holds_a_tensor_of_embeddings_and_the_models_name(
        self, write_nla: WriteNLA, tmp_path: Path, running: Running
    ) -> None:
        folder = write_nla("llama", tmp_path)
        bodies: list[dict[str, Any]] = []

        def answer(body: dict[str, Any], _: int) -> Response:
            bodies.append(body)
            return JSONResponse({"choices": [{"text": "<explanation>rain", "stop_reason": "</explanation>"}]})

        url = f"{running(fake(answer, '/v1/completions'))}/v1/completions?checkpoint={folder}"
        assert {v.text for v in load(f"{url}&model=my-av&in_flight=1").verbalize(BATCH)} == {"rain"}
        sent = torch.load(io.BytesIO(base64.b64decode(bodies[0]["prompt_embeds"])), weights_only=True)
        prompt = embed_prompt(str(folder))
        assert (sent != prompt.rows).any(-1).nonzero()[:, 0].tolist() == [prompt.slot]
        assert torch.equal(sent[prompt.slot], prompt.make_row(BATCH.vectors[0]))
        assert (bodies[0]["model"], bodies[0]["temperature"], bodies[0]["max_tokens"]) == ("my-av", 0.0, 200)
        assert "prompt" not in bodies[0]
        load(url).verbalize(BATCH)
        assert bodies[-1]["model"] == str(folder)


class TestDescribe:
    def test_texts_come_back_in_order(self, running: Running) -> None:
        served = describing(running, describe_first)
        assert [v.text for v in served.verbalize(BATCH)] == FIRSTS
        assert served.card.d_model is None

    def test_a_bare_answer_and_one_with_control_characters_are_read(self, running: Running) -> None:
        served = describing(running, lambda *_: JSONResponse({"description": " a\x00b "}))
        assert {v.text for v in served.verbalize(BATCH)} == {"ab"}

    def test_it_talks_to_our_own_server(self, write_nla: WriteNLA, tmp_path: Path, running: Running) -> None:
        nla = load_nla(f"{write_nla('llama', tmp_path)}?new_tokens=8", device="cpu")
        served = load(f"{running(make_app(nla))}/describe?new_tokens=8")
        assert [v.text for v in served.verbalize(BATCH)] == [v.text for v in nla.verbalize(BATCH)]

    def test_the_key_of_the_environment_is_sent_and_recorded_nowhere(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def respond(request: Request) -> Response:
            sent = (request.headers.get("X-SECRET-KEY"), request.headers.get("Authorization"))
            return JSONResponse({"description": str(sent == ("hush", "Bearer hush"))})

        monkeypatch.setenv(KEY, "hush")
        served = load(f"{running(Starlette(routes=[Route('/describe', respond, methods=['POST'])]))}/describe")
        assert {v.text for v in served.verbalize(BATCH)} == {"True"}
        assert "hush" not in served.card.model_dump_json()


class TestFailures:
    def test_a_server_that_fails_twice_and_then_answers_gives_every_text(self, running: Running) -> None:
        served = describing(running, lambda body, n: Response("busy", 503) if n < 2 else describe_first(body, n))
        assert [v.text for v in served.verbalize(BATCH)] == FIRSTS

    def test_one_item_that_always_fails_has_an_error_and_the_rest_have_texts(self, running: Running) -> None:
        bad = float(BATCH.vectors[2, 0])

        def answer(body: dict[str, Any], n: int) -> Response:
            if abs(body["activations"][0][0] - bad) < 1e-6:
                return Response("no memory", 500)
            return describe_first(body, n)

        found = describing(running, answer).verbalize(BATCH)
        assert [v.text for v in found] == [*FIRSTS[:2], "", *FIRSTS[3:]]
        assert [i for i, v in enumerate(found) if v.error] == [2]
        assert "/describe: the server gave no answer in 3 attempts (the last one: status 500" in (found[2].error or "")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"results": []}, "an answer without a text"),
            ({"results": [{"text": "x"}]}, "an answer without a text"),
            ({"description": None}, "an answer without a text"),
            ([1, 2], "an answer without a text"),
            ("x", "an answer without a text"),
            ({"description": "x" * (LONGEST_TEXT + 1)}, "a text of 20,001 characters"),
        ],
    )
    def test_an_answer_that_holds_no_text_is_an_error_of_its_item(
        self, running: Running, content: Any, said: str
    ) -> None:
        found = describing(running, lambda *_: JSONResponse(content)).verbalize(BATCH)
        assert all(said in (v.error or "") and v.text == "" for v in found)

    def test_a_vector_that_cannot_be_sent_is_an_error_of_its_item(self, running: Running) -> None:
        vectors = BATCH.vectors.clone()
        vectors[1, 3] = torch.nan
        found = describing(running, describe_first).verbalize(ActivationBatch(vectors, BATCH.site))
        assert [i for i, v in enumerate(found) if v.error] == [1]

    def test_a_refusal_says_why(self, running: Running) -> None:
        served = describing(running, lambda *_: JSONResponse({"detail": "d_model is 3584"}, 422))
        assert 'status 422: {"detail":"d_model is 3584"}' in (served.verbalize(BATCH)[0].error or "")


class TestRun:
    """Through the runner's own feeding, with its store."""

    def run(self, served: Served, store: Path) -> list[str]:
        activations, study = SimpleNamespace(vectors=BATCH.vectors), _Study()
        return [v.text for v in verbalize_items(served, activations, study, LocalEngine(Store(store))).texts]

    def test_a_server_that_is_away_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        with pytest.raises(BadInput, match=rf"failed on all 7 items.*127.0.0.1:{port}/describe.*ConnectError"):
            self.run(load(f"http://127.0.0.1:{port}/describe"), tmp_path)

    def test_a_run_that_was_cut_off_is_completed_and_then_asks_no_more(self, running: Running, tmp_path: Path) -> None:
        broken, asked = [True], []

        def answer(body: dict[str, Any], n: int) -> Response:
            asked.append(n)
            return Response("no memory", 500) if broken[0] and n > 4 else describe_first(body, n)

        served = describing(running, answer)
        assert "" in self.run(served, tmp_path)
        broken[0] = False
        assert self.run(served, tmp_path) == FIRSTS
        n_asked = len(asked)
        assert self.run(served, tmp_path) == FIRSTS
        assert len(asked) == n_asked


class TestSpec:
    def test_the_server_and_the_options_are_told_apart(self) -> None:
        url, options = read_spec("https://host:1/v1/generate?checkpoint=/a+b/c%20d&temperature=1&timeout=9&in_flight=2")
        assert url == "https://host:1/v1/generate"
        assert (options.checkpoint, options.temperature, options.timeout) == ("/a+b/c d", 1.0, 9.0)

    def test_what_does_not_decide_a_text_is_not_in_the_card(self) -> None:
        cards = [
            load(f"http://h/describe?{q}").card for q in ("", "timeout=9&in_flight=1", "version=2", "new_tokens=5")
        ]
        assert cards[0] == cards[1]
        assert len({card.model_dump_json() for card in cards}) == 3
        assert [card.name for card in cards[1:]] == [
            "http://h/describe", "http://h/describe?version=2", "http://h/describe?new_tokens=5",
        ]  # fmt: skip

    @pytest.mark.parametrize("spec", ["http://h/describe", "http:http://h/describe"])
    def test_a_url_is_a_spec_with_and_without_its_prefix(self, spec: str) -> None:
        assert load(spec).url == "http://h/describe"

    def test_a_secure_url_is_a_spec(self) -> None:
        assert load("https://h/describe").url == load("http:https://h/describe").url == "https://h/describe"

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("http", "is not the URL of a served verbalizer. Give `http://HOST/generate"),
            ("http://host", "is not the URL"),
            ("http://host/v1/chat", "is not the URL"),
            ("http:ftp://host/describe", "is not the URL"),
            ("http://host:port/describe", "is no URL"),
            ("http://me:hush@host/describe", "holds a name or a password.*NLABENCH_HTTP_KEY"),
            ("http://host/generate", "the AV whose prompt to embed was not named"),
            ("http://host/describe?checkpoint=x", "needs no checkpoint"),
            ("http://host/generate?checkpoint=AV&model=m", "is not told which. Leave `model` out"),
            ("http://host/v1/completions", "the AV whose prompt to embed was not named"),
            ("http://host/describe?temprature=1", "temprature.*Known are checkpoint, model, temperature, new_tokens"),
            ("http://host/describe?temperature=-1", "cannot be used"),
            ("http://host/describe?timeout", "cannot be used"),
        ],
    )
    def test_a_spec_that_cannot_be_asked_says_what_can(self, spec: str, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            load(spec)


def test_a_body_is_json_to_the_last_digit() -> None:
    served = load("http://h/describe")
    sent = json.loads(served.route.make_body(BATCH.vectors[0]))
    assert torch.equal(torch.tensor(sent["activations"][0]), BATCH.vectors[0])
