"""A connection that does not say what it wants is closed; one that says it slowly enough to matter is not cut short."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from gpt_oss_mxfp4.serving import protocol
from gpt_oss_mxfp4.serving.protocol import Protocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after the body, and longer after than a header may take."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2 * protocol.HEADER_SECONDS)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def exchange(*chunks: bytes, pause: float = 0) -> bytes:
    """Sends chunks with a pause after each, and returns all that comes until the server closes."""
    server = uvicorn.Server(
        uvicorn.Config(app, http=Protocol, port=0, lifespan="off", log_config=None, ws="none")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        await asyncio.sleep(pause)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    server.should_exit = True
    await serving
    return answer


REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("start", [b"", b"POST / HTT", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_stays_unfinished_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    assert asyncio.run(exchange(start)) == b""


def test_a_slow_body_and_a_slow_answer_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 1)
    answer = asyncio.run(exchange(REQUEST, b"a", b"b", pause=1.5))
    assert answer.startswith(b"HTTP/1.1 204")
