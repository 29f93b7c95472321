"""A real HTTP server for the tests of what speaks HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn


@pytest.fixture
def running() -> Iterator[Callable[[Any], str]]:
    """Runs an ASGI app on a loopback port of its own until the test ends; gives its address."""
    with contextlib.ExitStack() as stack:

        def run(app: Any) -> str:
            listening = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(10)

            stack.callback(stop)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield run
