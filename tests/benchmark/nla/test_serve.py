"""`nlabench serve`: what its routes answer, on a small random NLA and a real server."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
import uvicorn
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.injection import VectorInjection
from nlabench.benchmark.nla import serve as serving
from nlabench.benchmark.nla.embedded_prompt import EmbeddedPrompt, embed_prompt
from nlabench.benchmark.nla.explanation import read_explanation
from nlabench.benchmark.nla.request import Row, SamplingParams
from nlabench.benchmark.nla.serve import make_app, serve
from nlabench.benchmark.nla.writing import continue_rows
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers.nla import NLA, NLAPair, load_nla

N_VECTORS, D_MODEL = 6, 32
TOKENS = 10


@pytest.fixture(scope="module")
def folder(write_nla: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nla("llama", tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def pair(folder: Path) -> NLAPair:
    found = load_nla(f"{folder}?new_tokens={TOKENS}", device="cpu")
    assert isinstance(found, NLAPair)
    return found


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.randn(N_VECTORS, D_MODEL, generator=torch.Generator().manual_seed(5)) * 3


@pytest.fixture(scope="module")
def prompt(folder: Path) -> EmbeddedPrompt:
    return embed_prompt(str(folder))


@pytest.fixture
def client(pair: NLAPair, running: Callable[[Any], str]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=running(make_app(pair)), timeout=60, trust_env=False) as found:
        yield found


def embed(prompt: EmbeddedPrompt, vector: torch.Tensor) -> list[list[float]]:
    rows = prompt.rows.clone()
    rows[prompt.slot] = prompt.make_row(vector)
    embeddings: list[list[float]] = rows.tolist()
    return embeddings


def ask(client: httpx2.Client, embeds: Any, **params: Any) -> Any:
    params = {"temperature": 0, "max_new_tokens": TOKENS, **params}
    response = client.post("/generate", json={"input_embeds": embeds, "sampling_params": params})
    assert response.status_code == 200, response.text
    return response.json()


def in_process(pair: NLAPair, vectors: torch.Tensor) -> list[str]:
    return [v.text for v in pair.verbalize(ActivationBatch(vectors, Site("tiny-llama", 1, D_MODEL)))]


class TestGenerate:
    def test_a_text_is_the_one_in_process(
        self, client: httpx2.Client, pair: NLAPair, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        answers = [ask(client, embed(prompt, vector), skip_special_tokens=False)["text"] for vector in vectors]
        texts = [read_explanation(answer)[0] for answer in answers]
        assert texts == in_process(pair, vectors)
        assert len(set(texts)) > 1

    def test_prompts_of_several_lengths_in_one_request_are_answered_as_one_by_one(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        prompts = [embed(prompt, vector)[skipped:] for skipped, vector in enumerate(vectors)]
        together = [answer["text"] for answer in ask(client, prompts)]
        assert together == [ask(client, one)["text"] for one in prompts]

    def test_requests_that_come_together_are_answered_as_one_by_one(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        asked = [(embed(prompt, vector), tokens) for vector in vectors for tokens in (TOKENS, 3)] * 2
        alone = [ask(client, embeds, max_new_tokens=tokens)["text"] for embeds, tokens in asked]
        with ThreadPoolExecutor(len(asked)) as pool:
            together = pool.map(lambda pair: ask(client, pair[0], max_new_tokens=pair[1])["text"], asked)
            assert list(together) == alone

    def test_a_text_is_cut_before_the_first_stop_and_says_so(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        whole = ask(client, embed(prompt, vectors[0]))
        assert whole["meta_info"]["finish_reason"] == {"type": "length", "length": TOKENS}
        assert whole["meta_info"]["prompt_tokens"] == len(prompt.rows)
        assert whole["meta_info"]["completion_tokens"] == TOKENS
        words = whole["text"].split()
        for stop in (words[3], [words[5], words[3], "never"]):
            cut = ask(client, embed(prompt, vectors[0]), stop=stop)
            assert cut["text"] == whole["text"][: whole["text"].index(words[3])]
            assert cut["meta_info"]["finish_reason"] == {"type": "stop", "matched": words[3]}

    def test_a_sample_hangs_on_its_seed_and_without_one_on_chance(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        embeds = embed(prompt, vectors[0])

        def sample(**seed: int) -> str:
            text: str = ask(client, embeds, temperature=2.0, **seed)["text"]
            return text

        assert sample(sampling_seed=1) == sample(sampling_seed=1) != sample(sampling_seed=2)
        assert sample() != sample()

    def test_each_prompt_of_a_request_may_have_parameters_of_its_own(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        params = [{"temperature": 0, "max_new_tokens": n} for n in (2, 4)]
        body = {"input_embeds": [embed(prompt, v) for v in vectors[:2]], "sampling_params": params}
        answers = client.post("/generate", json=body).json()
        assert [answer["meta_info"]["completion_tokens"] for answer in answers] == [2, 4]

    def test_parameters_that_ask_for_nothing_are_taken(
        self, client: httpx2.Client, prompt: EmbeddedPrompt, vectors: torch.Tensor
    ) -> None:
        embeds = embed(prompt, vectors[0])
        assert (
            ask(client, embeds, top_p=1.0, top_k=-1, repetition_penalty=1.0, n=1)["text"] == ask(client, embeds)["text"]
        )


def test_learned_positions_stay_in_a_family_that_adds_them(tiny: Callable[[str], Subject]) -> None:
    model = tiny("gpt2")
    ids = [4, 9, 30, 22, 7]
    embeddings = model.model.get_input_embeddings()(torch.tensor(ids))
    (found,) = continue_rows(model, [Row(embeddings, SamplingParams(temperature=0, max_new_tokens=8))])
    assert found.ids == decode(model, [ids], max_new_tokens=8)[0].ids


class TestDescribe:
    def test_a_text_is_the_one_in_process_with_the_ars_figures(
        self, client: httpx2.Client, pair: NLAPair, vectors: torch.Tensor
    ) -> None:
        body = {"activations": vectors.tolist(), "temperature": 0, "max_new_tokens": TOKENS}
        results = client.post("/describe", json=body).json()["results"]
        texts = in_process(pair, vectors)
        again = pair.reconstruct(texts, Site("tiny-llama", 1, D_MODEL))
        assert [result["description"] for result in results] == texts
        for result, vector, made in zip(results, vectors, again, strict=True):
            cosine = float(torch.cosine_similarity(vector, made, dim=0))
            assert result["cosine_similarity"] == pytest.approx(cosine, abs=1e-5)
            assert result["mse"] == pytest.approx(2 - 2 * cosine, abs=1e-5)

    def test_without_an_ar_there_are_no_figures(
        self, pair: NLAPair, running: Callable[[Any], str], vectors: torch.Tensor
    ) -> None:
        with httpx2.Client(base_url=running(make_app(pair.verbalizer)), trust_env=False) as client:
            body = {"activations": vectors[:1].tolist(), "max_new_tokens": 4}
            (result,) = client.post("/describe", json=body).json()["results"]
            assert result["mse"] is result["cosine_similarity"] is None
            assert client.get("/health").json()["reconstructor_available"] is False


def encode(tensor: Any) -> str:
    file = io.BytesIO()
    torch.save(tensor, file)
    return base64.b64encode(file.getvalue()).decode()


class TestCompletions:
    def test_prompts_of_one_request_are_answered_as_by_generate(self, client: httpx2.Client, pair: NLAPair) -> None:
        d_model = pair.verbalizer.model.d_model
        prompts = [torch.randn(n, d_model, generator=torch.Generator().manual_seed(n)) for n in (4, 6)]
        asked = {"prompt_embeds": [encode(rows) for rows in prompts], "max_tokens": 6, "temperature": 0}
        choices = client.post("/v1/completions", json=asked).json()["choices"]
        params = {"temperature": 0, "max_new_tokens": 6}
        rows = [rows.tolist() for rows in prompts]
        expected = client.post("/generate", json={"input_embeds": rows, "sampling_params": params}).json()
        assert [choice["text"] for choice in choices] == [answer["text"] for answer in expected]
        assert [choice["index"] for choice in choices] == [0, 1]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({}, "prompt_embeds 0 cannot be read"),
            ({"prompt_embeds": "!!"}, "prompt_embeds 0 cannot be read"),
            ({"prompt_embeds": base64.b64encode(b"no tensor").decode()}, "prompt_embeds 0 cannot be read"),
            ({"prompt_embeds": encode({"a": 1})}, "prompt_embeds 0 is no dense tensor"),
            ({"prompt_embeds": encode(torch.eye(8).to_sparse())}, "prompt_embeds 0 is no dense tensor"),
            ({"prompt_embeds": encode(torch.ones(2, 3))}, "prompt_embeds 0 has shape [2, 3]"),
            ({"prompt_embeds": "", "prompt": "Hello"}, "The request has prompt = 'Hello'"),
            ({"prompt_embeds": encode(torch.ones(2, 32)), "max_tokens": -1}, "max_new_tokens = '-1' was sent"),
            ({"prompt_embeds": encode(torch.full((2, 32), torch.nan))}, "there are NaN or infinite numbers"),
        ],
    )
    def test_a_body_that_cannot_be_continued_is_refused(
        self, client: httpx2.Client, body: dict[str, Any], said: str
    ) -> None:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]


def test_health_says_what_is_served(client: httpx2.Client, pair: NLAPair) -> None:
    found = client.get("/health").json()
    assert (found["status"], found["layer"], found["d_model"], found["reconstructor_available"]) == ("ok", 1, 32, True)
    assert found["fingerprint"] == pair.verbalizer.model.fingerprint


GOOD = [[0.5] * D_MODEL] * 4


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/generate", b"{oops", "is not JSON"),
        ("/generate", b"[1]", "is a JSON list"),
        ("/generate", {}, r"shape \[\] was sent; \[n, 32\] is expected"),
        ("/generate", {"input_embeds": []}, r"shape \[0\]"),
        ("/generate", {"input_embeds": [[0.5] * 31] * 4}, r"shape \[4, 31\] was sent"),
        ("/generate", {"input_embeds": [[0.5] * 32, [0.5] * 31]}, "differ in length"),
        ("/generate", {"input_embeds": [GOOD, [[0.5] * 31]]}, "prompt 1: .*shape"),
        ("/generate", {"input_embeds": [["a"] * 32]}, "not all entries are numbers"),
        ("/generate", {"input_embeds": [[None] * 32]}, "not all entries are numbers"),
        ("/generate", b'{"input_embeds": [[' + b",".join([b"NaN"] * 32) + b"]]}", "NaN or infinite"),
        ("/generate", {"input_embeds": [[1e39] * 32]}, "NaN or infinite"),
        ("/generate", {"input_embeds": GOOD, "text": "hello"}, "holds 'text'"),
        ("/generate", {"input_embeds": GOOD, "input_ids": [1, 2]}, "holds 'input_ids'"),
        ("/generate", {"input_embeds": GOOD, "stream": True}, "asks for a stream"),
        (
            "/generate",
            {"input_embeds": GOOD * 40},
            "160 tokens .* 128 were sent; the model takes 128",
        ),
        (
            "/generate",
            {"input_embeds": GOOD, "sampling_params": {"max_new_tokens": 0}},
            "max_new_tokens = '0' was",
        ),
        ("/generate", {"input_embeds": GOOD, "sampling_params": {"temperature": -1}}, "temperature = '-1' was sent"),
        ("/generate", {"input_embeds": GOOD, "sampling_params": {"top_p": 0.9}}, "top_p = 0.9"),
        ("/generate", {"input_embeds": GOOD, "sampling_params": {"temprature": 0}}, "temprature = '0' was sent"),
        ("/generate", {"input_embeds": GOOD, "sampling_params": 3}, "sampling_params is a int"),
        ("/generate", {"input_embeds": [GOOD], "sampling_params": [{}, {}]}, "2 sampling_params for 1 prompts"),
        ("/describe", {}, "activations = .* was sent: Field required"),
        ("/describe", {"activations": [[0.5] * 31], "max_new_tokens": 9}, r"shape \[1, 31\]"),
        ("/describe", {"activations": [0.5] * 32, "max_new_tokens": 9}, r"shape \[32\]"),
        ("/describe", {"activations": [[0.0] * 32], "max_new_tokens": 9}, "is zero"),
        ("/describe", {"activations": [[0.5] * 32], "max_new_tokens": 4000}, "the model takes 128"),
        ("/describe", {"activations": [[0.5] * 32], "stream": True}, "asks for a stream"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_what_to_do(
    client: httpx2.Client, route: str, body: Any, said: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(route, content=content)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert re.search(said, message), message
    assert message.count(". ") >= 1
    assert message.endswith(".")


def test_too_much_in_one_request_is_refused_and_the_server_goes_on(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, prompt: EmbeddedPrompt, vectors: torch.Tensor
) -> None:
    assert client.post("/generate", json={"input_embeds": [[GOOD[0]]] * 257}).status_code == 413
    monkeypatch.setattr(serving, "LARGEST_BODY", 1000)
    response = client.post("/generate", json={"input_embeds": [[0.25] * D_MODEL] * 100})
    assert response.status_code == 413
    assert "larger than the 1,000 bytes" in response.json()["error"]["message"]
    monkeypatch.undo()
    assert ask(client, embed(prompt, vectors[0]))["text"]


def test_an_error_of_the_model_is_told_to_all_who_waited_for_it(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, pair: NLAPair
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pair.verbalizer.model.model, "forward", fail)
    with ThreadPoolExecutor(3) as pool:
        body = {"input_embeds": GOOD, "sampling_params": {"max_new_tokens": TOKENS}}
        responses = list(pool.map(lambda _: client.post("/generate", json=body), range(3)))
    assert [response.status_code for response in responses] == [500] * 3
    assert all("out of memory" in response.json()["error"]["message"] for response in responses)


def test_vectors_that_do_not_enter_as_embeddings_are_asked_about_by_describe_alone(
    pair: NLAPair, running: Callable[[Any], str], vectors: torch.Tensor
) -> None:
    added: NLA = dataclasses.replace(pair.verbalizer, injection=VectorInjection("add_norm_matched", 1))
    with httpx2.Client(base_url=running(make_app(added)), trust_env=False) as client:
        response = client.post("/generate", json={"input_embeds": GOOD})
        assert response.status_code == 400
        assert "add_norm_matched after block 1" in response.json()["error"]["message"]
        body = {"activations": vectors[:1].tolist(), "max_new_tokens": 4}
        assert client.post("/describe", json=body).status_code == 200


class TestStarting:
    def test_a_missing_extra_is_named_with_the_command_that_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        with pytest.raises(BadInput, match=r"pip install 'nlabench\[serve\]'"):
            serve("reference")

    def test_a_taken_port_shows_before_anything_is_loaded(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(BadInput, match=r"cannot be listened at.*--port"),
        ):
            serve("no such checkpoint", port=taken.getsockname()[1])

    @pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
    def test_who_can_reach_it_is_said(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, host: str, warned: bool
    ) -> None:
        monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
        said: list[str] = []
        serve(str(folder), host=host, port=0, device="cpu", say=said.append)
        assert any("WARNING" in line for line in said) is warned
        assert re.search(rf"http://{host}:\d+ ", said[-1])

    @pytest.mark.slow
    def test_an_interrupt_ends_it_in_order(self, folder: Path) -> None:
        command = [sys.executable, "-m", "nlabench", "serve", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = next(line for line in process.stdout if "http://" in line)
                url = line.split(" at ")[1].split(" ")[0]
                assert httpx2.get(f"{url}/health", trust_env=False).status_code == 200
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0
                assert process.stderr is not None
                assert "Traceback" not in process.stderr.read()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
