"""A stand-in for the server: speaks the chat part of OpenAI's API, and says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

MODEL = "stand/in"
PATIENCE_SECONDS = 60


@dataclass
class Hold:
    """A step of an answer that lasts until the test releases it."""

    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()


@dataclass(frozen=True)
class Break:
    """A step at which the connection breaks."""


Step = dict[str, Any] | str | Hold | Break
"""A chunk's delta, an error, a chunk as it is sent, or something that befalls the answer."""


def thought(text: str) -> Step:
    return {"reasoning_content": text}


def said(text: str) -> Step:
    return {"content": text}


def called(name: str, arguments: str) -> list[Step]:
    """A tool's call, its arguments cut in two as a server may."""
    half = len(arguments) // 2
    first = {"name": name, "arguments": arguments[:half]}
    second = {"arguments": arguments[half:]}
    return [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": first}]},
        {"tool_calls": [{"index": 0, "function": second}]},
    ]


@dataclass
class Endpoint:
    """What the server says to the next request, and what it was asked."""

    app: FastAPI = field(default_factory=FastAPI)
    url: str = ""
    steps: list[Step] = field(default_factory=list)
    finish: str = "stop"
    refusal: tuple[int, str] | None = None
    key: str | None = None
    models: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": MODEL}]})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    vanished: threading.Event = field(default_factory=threading.Event)
    """Set once a client has gone before its answer was complete."""

    def say(self, *steps: Step, finish: str = "stop") -> None:
        """Sets the next answers, and forgets what was before."""
        self.steps, self.finish, self.refusal, self.key = list(steps), finish, None, None
        self.bodies.clear()
        self.vanished.clear()

    def refuse(self, status: int, message: str) -> None:
        self.say()
        self.refusal = (status, message)

    def add_routes(self) -> None:
        @self.app.get("/v1/models")
        async def models(request: Request) -> Response:
            if not self._admits(request):
                return _refusal(401, "API key is missing or wrong")
            return JSONResponse(self.models)

        @self.app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            if not self._admits(request):
                return _refusal(401, "API key is missing or wrong")
            if self.refusal:
                return _refusal(*self.refusal)
            self.bodies.append(await request.json())
            return StreamingResponse(self._stream(), media_type="text/event-stream")

    def _admits(self, request: Request) -> bool:
        return self.key is None or request.headers.get("authorization") == f"Bearer {self.key}"

    async def _stream(self) -> AsyncIterator[str]:
        complete = False
        try:
            for step in self.steps:
                if isinstance(step, Hold):
                    while not step.released.is_set():
                        await asyncio.sleep(0.01)
                elif isinstance(step, Break):
                    complete = True
                    raise ConnectionAbortedError
                elif isinstance(step, str):
                    yield f"data: {step}\n\n"
                elif "error" in step:
                    yield _event(step)
                else:
                    yield _event({"choices": [{"index": 0, "delta": step}]})
            yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
            usage = {"prompt_tokens": 17, "completion_tokens": 42, "total_tokens": 59}
            yield _event({"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
            complete = True
        finally:
            if not complete:
                self.vanished.set()


def _event(content: dict[str, Any]) -> str:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, **content}
    return f"data: {json.dumps(chunk)}\n\n"


def _refusal(status: int, message: str) -> Response:
    error = {"code": str(status), "message": message, "param": "", "type": "error"}
    return JSONResponse({"error": error}, status_code=status)


@contextlib.contextmanager
def serve(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Serves on a free port, in a thread."""
    endpoint.add_routes()
    server = uvicorn.Server(
        uvicorn.Config(
            endpoint.app, host="127.0.0.1", port=0, log_level=60, timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not server.started:
        assert time.monotonic() < deadline, "the stand-in server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}"
    try:
        yield endpoint
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
