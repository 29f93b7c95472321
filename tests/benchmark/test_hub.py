"""Facts about asking the hub: a hub that cannot be reached is asked once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import HfApi
from nlabench.benchmark import hub
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@pytest.fixture
def asked() -> list[str]:
    return []


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(hub, "HfApi", lambda: HfApi(endpoint=address))


def test_a_hub_that_cannot_be_reached_does_not_answer_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:9")  # nothing listens at the discard port
    start = time.monotonic()
    assert not hub.hub_answers("nosuch/model")
    assert time.monotonic() - start < 5


def test_a_hub_that_knows_no_such_repository_answers(
    monkeypatch: pytest.MonkeyPatch, running: Callable[[Any], str], asked: list[str]
) -> None:
    def refuse(request: Request) -> JSONResponse:
        asked.append(request.url.path)
        return JSONResponse({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    use(monkeypatch, running(Starlette(routes=[Route("/{path:path}", refuse)])))
    assert hub.hub_answers("nosuch/model")
    assert len(asked) == 1


def test_a_name_that_cannot_be_one_is_left_to_whoever_fetches_it() -> None:
    assert hub.hub_answers("not/a/hub/name")
