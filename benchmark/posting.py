"""Posting many JSON bodies to one server: a bounded number in flight, retried with back-off, answered in order."""

from __future__ import annotations

import ipaddress
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

#: An answer longer than this is not read on: a text for one vector has a few hundred bytes.
LONGEST_ANSWER = 4_000_000

#: A server that says how long to wait (Retry-After) is believed up to this many seconds.
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """How hard a server is pressed, and how long it is waited for.

    timeout: seconds without a byte of an answer (a whole text is generated before the first one). A failed attempt
    is followed by another after about first_wait · 2^n seconds, half of it chance, so that many clients do not come
    back together.
    """

    in_flight: int = 16
    timeout: float = 120.0
    attempts: int = 5
    first_wait: float = 0.5


@dataclass(frozen=True)
class Answer:
    """What a server said to one body: JSON, or why there is none."""

    content: Any = None
    error: str | None = None


def post_all(
    url: str, n: int, make_body: Callable[[int], bytes], patience: Patience, headers: Mapping[str, str]
) -> list[Answer]:
    """Post bodies 0..n-1 to `url`, and return their answers in that order. Never raises for what a server does.

    A body that cannot be made (ValueError) is an error of its own answer.

    Tried again: no connection, no answer in time, a broken answer, status 429 and 5xx. Not tried again: every other
    status. Once one body has met no server in all its attempts, the others of this call are tried once.
    """
    # A loop in a thread of its own: it works where the caller has a running one (a notebook), and an interrupt of the
    # caller cancels what is in flight.
    with start_blocking_portal() as portal:
        return portal.call(_post_all, url, n, make_body, patience, headers)


async def _post_all(
    url: str, n: int, make_body: Callable[[int], bytes], patience: Patience, headers: Mapping[str, str]
) -> list[Answer]:
    answers = [Answer()] * n
    outage = anyio.Event()
    places = anyio.Semaphore(patience.in_flight)

    async def post(index: int) -> None:
        async with places:
            try:
                body = make_body(index)  # in here, for all of them together could fill the memory
            except ValueError as error:
                answers[index] = Answer(error=str(error))
            else:
                answers[index] = await _post(client, url, body, patience, outage)

    client = httpx2.AsyncClient(
        headers={"Content-Type": "application/json", **headers},
        timeout=patience.timeout,
        limits=httpx2.Limits(max_connections=patience.in_flight),
        trust_env=not is_loopback(httpx2.URL(url).host),  # a proxy of the environment does not reach this machine
    )
    async with client, anyio.create_task_group() as group:
        for index in range(n):
            group.start_soon(post, index)
    return answers


async def _post(client: httpx2.AsyncClient, url: str, body: bytes, patience: Patience, outage: anyio.Event) -> Answer:
    attempts = 0
    while True:
        attempts += 1
        wait = patience.first_wait * 2 ** (attempts - 1) * random.uniform(0.5, 1.0)
        answered = False
        try:
            async with client.stream("POST", url, content=body) as response:
                answered = True
                content = await _read(response)
        except httpx2.RequestError as error:
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
        else:
            status = response.status_code
            if status == 200:
                return _parse(content)
            problem = f"status {status}: {content[:300].decode(errors='replace')}"
            if status != 429 and status < 500:
                return Answer(error=f"the server refused the request ({problem})")
            wait = max(wait, _read_retry_after(response))
        if attempts >= patience.attempts or (outage.is_set() and not answered):
            if not answered:
                outage.set()
            tried = f"the server gave no answer in {attempts} attempts (the last one: {problem})"
            return Answer(error=f"{tried}; check that it runs, and start the same run again")
        await anyio.sleep(wait)


async def _read(response: httpx2.Response) -> bytes:
    content = b""
    async for part in response.aiter_bytes():
        content += part
        if len(content) > LONGEST_ANSWER:
            break
    return content


def _parse(content: bytes) -> Answer:
    if len(content) > LONGEST_ANSWER:
        return Answer(error=f"the server's answer is longer than {LONGEST_ANSWER:,} bytes")
    try:
        return Answer(json.loads(content))
    except ValueError as error:
        return Answer(error=f"the server's answer is not JSON ({error}): {content[:100].decode(errors='replace')}")


def _read_retry_after(response: httpx2.Response) -> float:
    try:
        return min(float(response.headers.get("Retry-After", "0")), LONGEST_WAIT)
    except ValueError:  # a date: the back-off will do
        return 0.0


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and no other can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
