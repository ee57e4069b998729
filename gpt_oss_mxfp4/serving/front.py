"""The ASGI app that clients meet: it refuses what MAX's app must not see, and logs what became of each request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from typing import Any

from gpt_oss_mxfp4.serving.access_log import CURRENT, Exchange, Tell
from gpt_oss_mxfp4.serving.api_key import ApiKeys
from gpt_oss_mxfp4.serving.body import parse_object
from gpt_oss_mxfp4.serving.checks import CHECKS, check_request
from gpt_oss_mxfp4.serving.errors import Headers, Rejected

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HEALTH_PATHS = ("/health", "/v1/health")
READY_PATH = "/ready"
SERVED_PATHS = frozenset({"/v1/models", "/version", *CHECKS})
"""What of MAX's routes is served: the others are for other kinds of models, or for nobody outside."""

DROPPED_HEADERS = (b"x-target-endpoint",)
"""What only MAX's own routers may send, as ``checks.UNSUPPORTED`` in bodies."""

BODY_SECONDS = 60.0
"""That a body may take to arrive."""


class Phase(Enum):
    """What the server does."""

    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


class Front:
    """Answers health checks, and passes on to MAX's app what it can answer.

    Args:
        inner: MAX's app.
        model: the name of the model.
        vocab_size: number of its tokens.
        keys: what requests must carry.
        max_body_bytes: of a request.
        tell: prints a line of the log.
        open_paths: further paths that ``inner`` serves, which need no key: pages that ask for it themselves.
    """

    def __init__(
        self,
        inner: App,
        *,
        model: str,
        vocab_size: int,
        keys: ApiKeys,
        max_body_bytes: int,
        tell: Tell,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        self.phase = Phase.LOADING
        self.running = 0
        self._inner = inner
        self._model = model
        self._vocab_size = vocab_size
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._tell = tell
        self._open_paths = open_paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request; what is no HTTP is refused by not answering it."""
        if scope["type"] != "http":
            return
        client = scope.get("client")
        exchange = Exchange(scope["method"], scope["path"], client[0] if client else "-")
        CURRENT.set(exchange)
        answer = _Answer(exchange, send)
        self.running += 1
        try:
            async with exchange.at_end:
                try:
                    await self._answer(scope, answer.watched(receive), answer)
                finally:
                    exchange.over = True
        except Rejected as rejected:
            exchange.ended, exchange.why = "refused", rejected.code or rejected.param
            await answer.send_all(rejected.status, rejected.body, rejected.headers)
        except _ClientLeft:
            pass  # which the answer has noted
        except asyncio.CancelledError:
            exchange.ended = "stopped"
            raise
        except BaseException:
            exchange.ended = "error"
            raise
        finally:
            self.running -= 1
            if exchange.ended == "ok" and (answer.left or not answer.complete):
                exchange.ended = "client_left"
            if exchange.path not in (*HEALTH_PATHS, READY_PATH):  # asked every few seconds
                self._tell(exchange.line())

    async def _answer(self, scope: Message, receive: Receive, answer: _Answer) -> None:
        method, path = scope["method"], scope["path"]
        if path in HEALTH_PATHS or path == READY_PATH:
            if method not in ("GET", "HEAD"):
                raise Rejected(405, f"{method} is not a method of {path}.")
            ready = path != READY_PATH or self.phase is Phase.READY
            body = f'{{"status": "{self.phase.value}"}}'.encode()
            await answer.send_all(200 if ready else 503, body)
            return
        if path not in self._open_paths:
            self._keys.check(scope["headers"])
            if path not in SERVED_PATHS and not path.startswith("/v1/models/"):
                raise Rejected(404, f"{path[:60]} is not a path of this server.")
        if self.phase is not Phase.READY:
            raise Rejected(
                503, f"The server is {self.phase.value}.", headers=[(b"retry-after", b"1")]
            )
        if method == "POST" and path in CHECKS:
            body = await self._read_body(scope, receive)
            check_request(path, parse_object(body), self._model, self._vocab_size)
            receive = _replayed(body, receive)
        headers = [header for header in scope["headers"] if header[0] not in DROPPED_HEADERS]
        await self._inner({**scope, "headers": headers}, receive, answer)

    async def _read_body(self, scope: Message, receive: Receive) -> bytes:
        """Reads a body, no further than its limit: what comes after is read and dropped by the HTTP server."""
        if any(
            name == b"content-length" and value.isdigit() and int(value) > self._max_body_bytes
            for name, value in scope["headers"]
        ):
            raise self._too_large()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeft
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Rejected(
                408,
                f"The body did not arrive within {BODY_SECONDS:g} seconds.",
                headers=[(b"connection", b"close")],
            ) from None

    def _too_large(self) -> Rejected:
        return Rejected(413, f"The body must not be larger than {self._max_body_bytes} bytes.")


class _ClientLeft(Exception):
    """The client hung up before its request was whole."""


class _Answer:
    """Sends an answer, and notes how far it came."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self.complete = False
        self.left = False
        self._exchange = exchange
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    def watched(self, receive: Receive) -> Receive:
        """Returns what receives as ever, and notes where the client leaves before its answer is complete."""

        async def watch() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not self.complete:
                self.left = True
            return message

        return watch

    async def send_all(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Sends JSON."""
        lengths = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await self(
            {
                "type": "http.response.start",
                "status": status,
                "headers": lengths + (headers or []),
            }
        )
        await self({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
