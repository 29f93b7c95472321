"""Posting to a server that is slow, overloaded, broken or away."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from nlabench.benchmark.posting import LONGEST_ANSWER, Patience, is_loopback, post_all
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

QUICK = Patience(in_flight=4, timeout=5, attempts=4, first_wait=0.01)

Answering = Callable[[int, int], Response | float]


class FakeServer:
    """Answers body i at its k-th attempt with `answering(i, k)` (a number: sleeps that long first)."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.attempts: Counter[int] = Counter()
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/ask", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        index = (await request.json())["index"]
        self.attempts[index] += 1
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        found = self.answering(index, self.attempts[index])
        if isinstance(found, float):
            await asyncio.sleep(found)
            found = JSONResponse({"said": index})
        self.in_flight -= 1
        return found


def ask(url: str, n: int, patience: Patience = QUICK, headers: dict[str, str] | None = None) -> list[Any]:
    answers = post_all(f"{url}/ask", n, lambda i: json.dumps({"index": i}).encode(), patience, headers or {})
    return [answer.error or answer.content for answer in answers]


def test_answers_come_in_the_order_of_the_questions_and_few_are_in_flight(running: Any) -> None:
    server = FakeServer(lambda index, _: 0.02 * (5 - index % 5))
    assert ask(running(server.app), 20) == [{"said": i} for i in range(20)]
    assert 1 < server.most_in_flight <= QUICK.in_flight


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_twice_and_then_answers_is_asked_three_times(running: Any, status: int) -> None:
    server = FakeServer(lambda _, attempt: Response("busy", status) if attempt < 3 else 0.0)
    assert ask(running(server.app), 3) == [{"said": i} for i in range(3)]
    assert set(server.attempts.values()) == {3}


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_refused_request_is_not_asked_again_and_the_reason_is_kept(running: Any, status: int) -> None:
    server = FakeServer(lambda index, _: Response("rows of 7 numbers", status) if index == 1 else 0.0)
    first, second = ask(running(server.app), 2)
    assert first == {"said": 0}
    assert second == f"the server refused the request (status {status}: rows of 7 numbers)"
    assert server.attempts[1] == 1


def test_an_item_that_always_fails_costs_its_own_answer_only(running: Any) -> None:
    server = FakeServer(lambda index, _: Response("no memory", 500) if index == 2 else 0.0)
    answers = ask(running(server.app), 5)
    assert "no answer in 4 attempts (the last one: status 500: no memory)" in answers[2]
    assert [a for i, a in enumerate(answers) if i != 2] == [{"said": i} for i in (0, 1, 3, 4)]


def test_a_server_that_names_its_wait_is_given_it(running: Any) -> None:
    server = FakeServer(lambda _, k: Response("later", 429, {"Retry-After": "0.4"}) if k == 1 else 0.0)
    url, start = running(server.app), time.monotonic()
    assert ask(url, 1) == [{"said": 0}]
    assert time.monotonic() - start >= 0.4


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(running: Any) -> None:
    server = FakeServer(lambda _, attempt: 3.0 if attempt == 1 else 0.0)
    assert ask(running(server.app), 1, Patience(timeout=0.3, attempts=2, first_wait=0.01)) == [{"said": 0}]
    server = FakeServer(lambda *_: 3.0)
    (answer,) = ask(running(server.app), 1, Patience(timeout=0.1, attempts=2, first_wait=0.01))
    assert "no answer in 2 attempts (the last one: ReadTimeout" in answer


def test_a_server_that_is_away_is_not_waited_for_once_per_item() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    start = time.monotonic()
    answers = ask(url, 60, Patience(in_flight=4, timeout=5, attempts=3, first_wait=0.3))
    assert all("no answer" in answer and "ConnectError" in answer for answer in answers)
    assert time.monotonic() - start < 6  # fifteen rounds of waits would take nine seconds and more


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"<html>", "is not JSON"), (b"x" * (LONGEST_ANSWER + 10), "is longer than 4,000,000 bytes")],
)
def test_an_answer_that_cannot_be_used_is_an_error_and_not_asked_for_again(
    running: Any, content: bytes, said: str
) -> None:
    server = FakeServer(lambda *_: Response(content))
    (answer,) = ask(running(server.app), 1)
    assert said in answer
    assert server.attempts[0] == 1


def test_headers_are_sent_and_the_environments_proxy_is_not_asked_for_this_machine(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = FakeServer(lambda *_: 0.0)
    assert ask(running(server.app), 1, headers={"X-SECRET-KEY": "open sesame"}) == [{"said": 0}]
    assert server.headers[0]["x-secret-key"] == "open sesame"
    assert server.headers[0]["content-type"] == "application/json"


def test_a_caller_with_a_running_event_loop_is_served(running: Any) -> None:
    url = running(FakeServer(lambda *_: 0.0).app)

    async def notebook() -> list[Any]:
        return ask(url, 2)

    assert asyncio.run(notebook()) == [{"said": 0}, {"said": 1}]


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org")))
