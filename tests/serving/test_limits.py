"""Requests that are wrong: what the real server answers, and that it goes on answering."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from tests.serving.server import KEY, MODEL, Server, shared_server

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER: list[Any] = [{"role": "user", "content": "Hi"}]
CHAT_REQUEST = {"model": MODEL, "messages": USER, "max_tokens": 2, "temperature": 0}
COMPLETION = {"model": MODEL, "prompt": "Hi", "max_tokens": 2, "temperature": 0}
LIMIT = 2**20


@dataclass
class Case:
    """A request, the status of its answer, and a part of its message; where it is given, its field."""

    status: int
    message: str
    path: str = CHAT
    param: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        whole = CHAT_REQUEST if self.path == CHAT else COMPLETION
        return json.dumps(whole | self.fields).encode()


def deep(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


CASES = [
    # Paths and methods
    Case(404, "/v1/nothing is not a path", path="/v1/nothing"),
    Case(404, "/v1/embeddings is not a path", path="/v1/embeddings"),
    Case(404, "/v1/responses is not a path", path="/v1/responses"),
    Case(404, "/max_internal/eplb_stats is not", path="/max_internal/eplb_stats", method="GET"),
    Case(404, "/openapi.json is not a path", path="/openapi.json", method="GET"),
    Case(404, "is not a path of this server", path="/v1/../../etc/passwd", method="GET"),
    Case(404, "The model `other` does not exist.", path="/v1/models/other", method="GET"),
    Case(405, "GET is not a method of /v1/chat/completions.", method="GET"),
    Case(405, "DELETE is not a method of /v1/completions.", path=COMPLETIONS, method="DELETE"),
    Case(405, "PUT is not a method of /v1/models.", path="/v1/models", method="PUT"),
    Case(405, "POST is not a method of /ready.", path="/ready"),
    # Keys
    Case(401, "Send your API key", headers={"Authorization": ""}),
    Case(401, "not one of this server's", headers={"Authorization": "Bearer wrong"}),
    Case(401, "Send your API key", path="/nothing", headers={"Authorization": "Basic eDp5"}),
    # Bodies
    Case(400, "it is empty", body=b""),
    Case(400, "must be JSON", body=b"{"),
    Case(400, "must be JSON", body=b"model=x&messages=y"),
    Case(400, "must be a JSON object, not a list", body=b"[]"),
    Case(400, "must be UTF-8; byte 10 is not", body=b'{"model":"\xff\xfe"}'),
    Case(400, "must be UTF-8", body=json.dumps(CHAT_REQUEST).encode("utf-16")),
    Case(400, "half a surrogate pair", fields={"messages": [{"role": "user", "content": "\ud800"}]}),
    Case(400, "nest deeper than 100", body=deep(101)),
    Case(400, "nest deeper than 100", body=deep(100_000)),
    Case(400, "which has no NaN", body=b'{"temperature": NaN}'),
    Case(400, "thousands of digits", body=b'{"max_tokens": ' + b"9" * 5000 + b"}"),
    Case(413, f"must not be larger than {LIMIT} bytes", body=b" " * (LIMIT + 1)),
    Case(413, f"must not be larger than {LIMIT} bytes", body=b"x" * 10_000_000),
    # The model
    Case(404, "The model `gpt-5` does not exist", fields={"model": "gpt-5"}),
    Case(404, "The model `gpt-5` does not exist", path=COMPLETIONS, fields={"model": "gpt-5"}),
    Case(400, "`model` must be the model's name", fields={"model": None}),
    Case(400, "`model` must be the model's name", fields={"model": {"a": 1}}),
    # Messages
    Case(400, "`messages` must be a list", body=json.dumps({"model": MODEL}).encode()),
    Case(400, "`messages` must hold at least one", fields={"messages": []}),
    Case(400, "`messages` must be a list", fields={"messages": "Hi"}),
    Case(400, "`messages[0]` must be an object", fields={"messages": ["Hi"]}),
    Case(400, "`messages[0].role` must be one of", fields={"messages": [{"content": "Hi"}]}),
    Case(400, "got `king`", fields={"messages": [{"role": "king", "content": "Hi"}]}),
    Case(400, "must be a string or a list", fields={"messages": [{"role": "user", "content": 1}]}),
    Case(
        400,
        "got `image_url`",
        fields={
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}
            ]
        },
    ),
    Case(
        400,
        "does not match",
        fields={
            "messages": [
                *USER,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "b", "content": "5"},
            ]
        },
    ),
    # Fields
    Case(400, "`temperature` must be between 0 and 2", fields={"temperature": 3}),
    Case(400, "`temperature` must be a number", fields={"temperature": "hot"}),
    Case(400, "`temperature` must be between", body=b'{"model":"' + MODEL.encode() + b'","temperature":1e999}'),
    Case(400, "`top_p` must be between 0 and 1", fields={"top_p": -1}),
    Case(400, "`max_tokens` must be between 1 and", fields={"max_tokens": -5}),
    Case(400, "`max_tokens` must be between 1 and", fields={"max_tokens": 10**30}),
    Case(400, "`max_completion_tokens` must be a whole", fields={"max_completion_tokens": 0.5}),
    Case(400, "n: must be 1", fields={"n": 2}, param="n"),
    Case(400, "n: must be 1", path=COMPLETIONS, fields={"n": 100_000}, param="n"),
    Case(400, "`n`: Input should be a valid integer", fields={"n": "two"}, param="n"),
    Case(400, "best_of: must be 1", path=COMPLETIONS, fields={"best_of": 3}, param="best_of"),
    Case(400, "frequency_penalty: must be 0", fields={"frequency_penalty": 1}, param="frequency_penalty"),
    Case(400, "presence_penalty: must be 0", fields={"presence_penalty": -1}, param="presence_penalty"),
    Case(400, "repetition_penalty: must be 1", fields={"repetition_penalty": 2}, param="repetition_penalty"),
    Case(400, "min_tokens: must be 0", fields={"min_tokens": 2}, param="min_tokens"),
    Case(400, "min_p: must be 0", fields={"min_p": 0.5}, param="min_p"),
    Case(400, "presence_penalty: must", path=COMPLETIONS, fields={"presence_penalty": 1}, param="presence_penalty"),
    Case(400, "min_p: must be 0", path=COMPLETIONS, fields={"min_p": 0.5}, param="min_p"),
    Case(400, "`seed` must be between", fields={"seed": 2**64}),
    Case(400, "`stream` must be true or false", fields={"stream": 1}),
    Case(400, "`stop` must be", fields={"stop": [""]}),
    Case(400, "stop: must hold at most 16 strings", fields={"stop": ["x"] * 17}, param="stop"),
    Case(400, "`stop_token_ids` must hold token ids", fields={"stop_token_ids": [10**9]}),
    Case(400, "logit_bias: must be left out", fields={"logit_bias": {"1": -100}}, param="logit_bias"),
    Case(400, "functions: must be left out", fields={"functions": []}, param="functions"),
    Case(400, "suffix: must be left out", path=COMPLETIONS, fields={"suffix": "x"}, param="suffix"),
    Case(400, "`target_endpoint` is not supported", fields={"target_endpoint": "x"}, param="target_endpoint"),
    Case(400, "`top_logprobs` must be between 0 and 7", fields={"logprobs": True, "top_logprobs": 20}),
    Case(400, "`colour`", fields={"colour": "red"}),
    Case(400, "`colour`", path=COMPLETIONS, fields={"colour": "red"}),
    Case(400, "`stream_options`", fields={"stream_options": "all"}),
    Case(400, "`reasoning_effort`", fields={"reasoning_effort": "enormous"}, param="reasoning_effort"),
    Case(400, "`tool_choice` must", fields={"tool_choice": "bogus"}, param="tool_choice"),
    Case(400, "tool_choice: must be left", fields={"tool_choice": "required"}, param="tool_choice"),
    Case(400, "top_logprobs: must be left", fields={"top_logprobs": 2}, param="top_logprobs"),
    Case(400, "verbosity: must be medium", fields={"verbosity": "low"}, param="verbosity"),
    Case(400, "must be of type `text`", fields={"response_format": {"type": "json_object"}}, param="response_format"),
    Case(400, "`tools[0]` must be", fields={"tools": ["f"]}),
    Case(400, "`tools[0].function` must be", fields={"tools": [{"type": "function"}]}),
    Case(400, "Invalid tool function name", fields={"tools": [{"type": "function", "function": {"name": "a b"}}]}),
    Case(400, "`response_format", fields={"response_format": {"type": "xml"}}),
    # Prompts
    Case(400, "`prompt` must not be empty", path=COMPLETIONS, fields={"prompt": ""}),
    Case(400, "`prompt` must not be empty", path=COMPLETIONS, fields={"prompt": []}),
    Case(400, "`prompt` must be a string", path=COMPLETIONS, fields={"prompt": {"a": 1}}),
    Case(400, "token ids between 0 and", path=COMPLETIONS, fields={"prompt": [10**6]}),
    Case(400, "`logprobs` must be between 0 and 7", path=COMPLETIONS, fields={"logprobs": 8}),
    Case(400, "must be a single one", path=COMPLETIONS, fields={"prompt": ["a", "b"], "stream": True}),
    Case(400, "tokens; this server takes 1024 for", path=COMPLETIONS, fields={"prompt": "word " * 5000}),
    Case(400, "The prompt has 2000 tokens", path=COMPLETIONS, fields={"prompt": [5] * 2000}),
    Case(
        400,
        "tokens; this server takes 1024 for",
        fields={"messages": [{"role": "user", "content": "word " * 5000}]},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Server:
    return shared_server()


def answers(server: Server) -> bool:
    client = server.client
    answer = client.completions.create(model=MODEL, prompt="Hi", max_tokens=2, temperature=0)
    return bool(answer.choices[0].text) and server.process.poll() is None


def test_every_wrong_request_is_told_what_is_wrong_with_it(server: Server) -> None:
    faults = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for case in CASES:
            headers = {"Authorization": f"Bearer {KEY}"} | case.headers
            sends = case.method in ("POST", "PUT")
            answer = client.request(
                case.method,
                case.path,
                content=case.content if sends else None,
                headers=headers,
            )
            try:
                error = answer.json()["error"]
                told = error["message"]
                whole = error.keys() == {"message", "type", "param", "code"}
            except (ValueError, KeyError, TypeError):
                told, whole = answer.text, False
            whole = whole and case.param in (None, error["param"])
            if answer.status_code != case.status or case.message not in told or not whole:
                faults.append((case, answer.status_code, told[:300]))
    assert not faults, faults
    assert answers(server)
    assert "Traceback" not in server.log
    assert "status=500" not in server.log


def test_the_official_client_raises_the_error_that_fits(server: Server) -> None:
    chat = server.client.chat.completions
    with pytest.raises(openai.NotFoundError) as missing:
        chat.create(model="gpt-5", messages=USER)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        chat.create(model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError, match="`temperature` must be between"):
        chat.create(model=MODEL, messages=USER, temperature=9)


def test_what_is_wrong_is_known_before_a_stream_begins(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="this server takes 1024"):
        server.client.completions.create(model=MODEL, prompt="word " * 5000, stream=True)


def raw(server: Server, *chunks: bytes, shut: bool = False) -> bytes:
    """Sends bytes, one chunk after the other, and returns what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
            time.sleep(0.05)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(10_000)


def head(length: int | str, *, path: str = CHAT, extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


BODY = json.dumps(CHAT_REQUEST).encode()


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),), b"400"),  # TLS
        ((b"GET\r\n\r\n",), b"400"),
        ((b"\x00" * 1000 + b"\r\n\r\n",), b"400"),
        ((b"GET /health HTTP/1.1\r\nHost: x\r\nA: ", *[b"a" * 50_000] * 2), b"400"),
        ((head("5, 6"), b"{}"), b"400"),
        ((head(-1), b"{}"), b"400"),
        ((head(10**40), b"{}"), b"4"),
        ((head(2**40),), b"413"),
        ((head(5), b"{}junk"), b"400"),
        ((head(len(BODY)), *(BODY[i : i + 40] for i in range(0, len(BODY), 40))), b"200"),
        (
            (
                head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
                *(b"10000\r\n" + b" " * 2**16 + b"\r\n" for _ in range(17)),
            ),
            b"413",
        ),
        ((head(len(BODY), extra="Expect: 100-continue\r\n"), BODY), b"100"),
    ],
)  # fmt: skip
def test_odd_bytes_get_an_answer(server: Server, chunks: tuple[bytes, ...], status: bytes) -> None:
    assert raw(server, *chunks).startswith(b"HTTP/1.1 " + status)


def test_requests_that_break_off_leave_nothing_behind(server: Server) -> None:
    for chunks in ((b"POST /v1",), (head(500), b'{"model"'), (head(500),), (b"",)):
        assert b"HTTP/1.1 2" not in raw(server, *chunks, shut=True)
    assert answers(server)
    assert "Traceback" not in server.log


def test_many_slow_requests_do_not_keep_others_waiting(server: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for connection in slow:
        connection.sendall(head(500) + b"{")
    done = threading.Event()

    def answer() -> None:
        if answers(server):
            done.set()

    thread = threading.Thread(target=answer)
    thread.start()
    thread.join(60)
    for connection in slow:
        connection.close()
    assert done.is_set()
