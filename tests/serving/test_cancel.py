"""Clients that leave: what was computed for them is not computed any further, and their place is free."""

from __future__ import annotations

import json
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.server import BATCH, KEY, MODEL, Server, shared_server

pytestmark = pytest.mark.slow

LONG = 900
"""Tokens: seconds of work."""

STEPS = 'maxserve_batch_size_count{batch_type="TG"}'
"""MAX's number of steps that generated tokens."""


@pytest.fixture(scope="module")
def server() -> Server:
    return shared_server()


def long_request(stream: bool) -> dict[str, object]:
    return {
        "model": MODEL,
        "prompt": "1 2 3 4 5 6",
        "temperature": 0,
        "max_tokens": LONG,
        "ignore_eos": True,
        "stream": stream,
    }


def raw_request(request: dict[str, object]) -> bytes:
    body = json.dumps(request).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def steps(server: Server) -> float:
    """How many steps generated tokens so far; MAX names the number once there was one."""
    return server.metrics().get(STEPS, 0.0)


def wait_idle(server: Server) -> None:
    """Waits until the model computes nothing more: MAX's number of requests lags behind, by what Python collects."""
    deadline = time.monotonic() + 60
    before, now = -1.0, steps(server)
    while now != before:
        assert time.monotonic() < deadline, "requests of clients that left are still running"
        time.sleep(1)
        before, now = now, steps(server)


def logged(server: Server, since: int) -> list[str]:
    """Lines of requests for text since a length of the log."""
    return [line for line in server.log[since:].splitlines() if "path=/v1/completions" in line]


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_vanish_free_their_places(server: Server, stream: bool) -> None:
    """More than fit the batch vanish, so some while they wait; they would have kept it busy for long."""
    since = len(server.log)
    clients = []
    for _ in range(2 * BATCH):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(raw_request(long_request(stream)))
        clients.append(connection)
    if stream:  # some are being answered; those that wait, whichever they are, get nothing yet
        answered, _, _ = select.select(clients, [], [], 60)
        assert answered
        assert all(client.recv(1000).startswith(b"HTTP/1.1 200") for client in answered)
    else:
        time.sleep(0.5)
    for connection in clients:
        connection.close()
    wait_idle(server)
    lines = logged(server, since)
    deadline = time.monotonic() + 30
    while len(lines) < 2 * BATCH and time.monotonic() < deadline:
        time.sleep(0.1)
        lines = logged(server, since)
    assert len(lines) == 2 * BATCH
    for line in lines:
        assert " ended=client_left " in line
        tokens = int(line.partition(" tokens=")[2].partition(" ")[0] or 0)
        assert tokens < LONG
    if stream:  # counted by then, not when MAX's generator is collected, in whatever request
        assert any(" prompt_tokens=" in line and " tokens=" in line for line in lines)
    assert "Traceback" not in server.log


def test_others_are_answered_while_clients_come_and_go(server: Server) -> None:
    request = long_request(stream=False) | {"max_tokens": 40}
    alone = httpx.post(
        f"{server.url}/v1/completions",
        json=request,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=300,
    ).json()["choices"][0]["text"]

    def vanish(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(raw_request(long_request(stream=True)))
            connection.recv(100)

    def stay(_: int) -> str:
        answer = httpx.post(
            f"{server.url}/v1/completions",
            json=request,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=300,
        )
        return str(answer.json()["choices"][0]["text"])

    before = steps(server)
    with ThreadPoolExecutor(16) as pool:
        gone = pool.map(vanish, range(24))
        answers = list(pool.map(stay, range(8)))
        list(gone)
    assert answers == [alone] * 8
    wait_idle(server)
    assert steps(server) - before < LONG, "the model went on for a client that left"
