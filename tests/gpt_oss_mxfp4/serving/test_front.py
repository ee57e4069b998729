"""What the front lets through to MAX's app, what it answers itself, and what it logs of either."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from gpt_oss_mxfp4.serving import front as front_module
from gpt_oss_mxfp4.serving.access_log import CURRENT
from gpt_oss_mxfp4.serving.api_key import ApiKeys
from gpt_oss_mxfp4.serving.front import App, Front, Phase

CHAT = b'{"model": "demo", "messages": [{"role": "user", "content": "secret words"}]}'
LIMIT = 1000


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body it got, as MAX's app would with tokens."""
    body, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    exchange = CURRENT.get()
    assert exchange is not None
    exchange.prompt_tokens, exchange.tokens = 7, 3
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Client:
    """Calls a front as uvicorn would."""

    def __init__(self, app: App = inner, keys: tuple[str, ...] = ()) -> None:
        self.lines: list[str] = []
        self.read = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.front = Front(
            app,
            model="demo",
            vocab_size=1000,
            keys=ApiKeys(keys),
            max_body_bytes=LIMIT,
            tell=self.lines.append,
            open_paths=frozenset({"/"}),
        )
        assert self.front.phase is Phase.LOADING
        self.front.phase = Phase.READY

    def __call__(
        self,
        method: str,
        path: str,
        *chunks: bytes,
        headers: dict[str, str] | None = None,
        left: bool = False,
    ) -> tuple[int, bytes]:
        """Returns status and body; ``left``: the client hangs up instead of sending the last chunk."""
        messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        if messages and not left:
            messages[-1]["more_body"] = False
        sent: list[Any] = []

        async def receive() -> Any:
            if self.read < len(messages):
                self.read += 1
                return messages[self.read - 1]
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        self.read = 0
        pairs = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": pairs,
            "client": ("::1", 5),
        }
        asyncio.run(self.front(scope, receive, send))
        if not sent:
            return 0, b""
        self.headers = sent[0]["headers"]
        return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])


def message(body: bytes) -> str:
    return str(json.loads(body)["error"]["message"])


def test_a_good_request_gets_through_byte_for_byte_and_is_logged_without_its_text() -> None:
    client = Client()
    assert client("POST", "/v1/chat/completions", CHAT[:20], CHAT[20:]) == (200, CHAT)
    (line,) = client.lines
    assert " method=POST path=/v1/chat/completions status=200 seconds=0." in line
    assert line.endswith(" prompt_tokens=7 tokens=3 ended=ok client=::1")
    assert "secret" not in line


@pytest.mark.parametrize("fault", [None, OSError])
def test_what_an_exchange_has_begun_ends_before_it_is_logged(fault: type[OSError] | None) -> None:
    async def begins(scope: Any, receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None

        async def end() -> None:
            assert client.lines == []
            assert exchange.over
            ended.append(True)

        exchange.at_end.push_async_callback(end)
        if fault is not None:
            raise fault
        await inner(scope, receive, send)

    ended: list[bool] = []
    client = Client(begins)
    with contextlib.suppress(OSError):
        client("GET", "/v1/models")
    assert ended == [True]
    assert f" ended={'ok' if fault is None else 'error'} " in client.lines[0]


def test_what_routers_alone_may_send_does_not_get_through() -> None:
    async def header_names(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        names = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.body", "body": names})

    headers = {"x-other": "1", "x-target-endpoint": "a"}
    assert Client(header_names)("GET", "/v1/models", headers=headers) == (200, b"x-other")


def test_a_refusal_is_logged_with_the_fields_name_alone() -> None:
    client = Client()
    status, body = client("POST", "/v1/chat/completions", CHAT[:-1] + b', "stop": {"secret": 1}}')
    assert (status, message(body)[:6]) == (400, "`stop`")
    assert (b"content-type", b"application/json") in client.headers
    assert " status=400 " in client.lines[0]
    assert client.lines[0].endswith(" ended=refused why=stop client=::1")
    assert "secret" not in client.lines[0]


def test_a_path_cannot_write_lines_of_its_own_into_the_log() -> None:
    client = Client()
    status, body = client("GET", "/x\nstatus=200 \x1b[2J" + "y" * 10_000)
    assert status == 404
    assert len(message(body)) < 100
    assert "\n" not in client.lines[0]
    assert "\x1b" not in client.lines[0]
    assert len(client.lines[0]) < 500


@pytest.mark.parametrize(
    "path",
    ["/max_internal/eplb_stats", "/reset_prefix_cache", "/docs", "/openapi.json", "/v1/embeddings",
     "/v1/load_lora_adapter", "/v1/chat/completions/", "/V1/models", "//v1/models", "/v1"],
)  # fmt: skip
def test_what_of_max_is_not_for_clients_is_not_there(path: str) -> None:
    client = Client()
    status, body = client("POST", path, b"{}")
    assert (status, message(body)) == (404, f"{path} is not a path of this server.")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/completions"), ("POST", "/v1/models"), ("GET", "/v1/models/a")],
)
def test_what_generates_nothing_is_not_checked(method: str, path: str) -> None:
    assert Client()(method, path, b"no JSON")[0] == 200


def test_what_is_no_http_is_not_answered() -> None:
    client = Client()
    scope = {"type": "websocket", "path": "/v1/models", "headers": []}
    nobody: Any = None
    asyncio.run(client.front(scope, nobody, nobody))
    assert client.lines == []


def test_health_is_answered_in_every_phase_and_ready_in_one() -> None:
    client = Client()
    for phase, status in ((Phase.LOADING, 503), (Phase.READY, 200), (Phase.STOPPING, 503)):
        client.front.phase = phase
        assert client("GET", "/health")[0] == 200
        assert client("HEAD", "/v1/health")[0] == 200
        assert client("GET", "/ready") == (status, b'{"status": "%s"}' % phase.value.encode())
    assert client("POST", "/ready")[0] == 405
    assert not client.lines


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.STOPPING])
def test_requests_wait_for_the_model_by_trying_again(phase: Phase) -> None:
    client = Client()
    client.front.phase = phase
    status, body = client("POST", "/v1/chat/completions", CHAT)
    assert (status, message(body)) == (503, f"The server is {phase.value}.")
    assert (b"retry-after", b"1") in client.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "bearer other"}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer righ"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"authorization": "right"}, 401),
        ({"x-api-key": "Bearer right"}, 401),
    ],
)
def test_a_request_must_carry_one_of_the_keys(headers: dict[str, str], status: int) -> None:
    client = Client(keys=("right", "other"))
    got, body = client("POST", "/v1/chat/completions", CHAT, headers=headers)
    assert got == status
    if status == 401:
        error = json.loads(body)["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert client.read == 0
        assert (b"www-authenticate", b"Bearer") in client.headers
        assert " ended=refused why=invalid_api_key " in client.lines[0]
        assert "right" not in client.lines[0]


def test_health_and_open_pages_need_no_key_and_paths_without_one_are_not_told_apart() -> None:
    client = Client(keys=("right",))
    assert client("GET", "/health")[0] == 200
    assert client("GET", "/ready")[0] == 200
    assert client("GET", "/")[0] == 200
    assert client("GET", "/v1/models")[0] == 401
    assert client("GET", "/nothing")[0] == 401


def test_a_body_said_to_be_too_large_is_refused_before_it_is_read() -> None:
    client = Client()
    headers = {"content-length": str(LIMIT + 1)}
    status, body = client("POST", "/v1/chat/completions", CHAT, headers=headers)
    assert (status, message(body)) == (413, "The body must not be larger than 1000 bytes.")
    assert client.read == 0


def test_a_body_may_be_as_large_as_it_is_let() -> None:
    headers = {"content-length": str(LIMIT), "x-other": str(LIMIT + 1)}
    status, _ = Client()("POST", "/v1/chat/completions", CHAT.ljust(LIMIT), headers=headers)
    assert status == 200


@pytest.mark.parametrize("headers", [{}, *({"content-length": text} for text in ("5", "-1", "x"))])
def test_a_body_that_turns_out_too_large_is_read_no_further(headers: dict[str, str]) -> None:
    client = Client()
    chunks = [b"x" * 100, *[b"x" * 450] * 50]
    status, _ = client("POST", "/v1/chat/completions", *chunks, headers=headers)
    assert (status, client.read) == (413, 4)


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "BODY_SECONDS", 0.05)
    client = Client()
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(item: Any) -> None:
        sent.append(item)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(client.front(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_client_that_leaves_before_its_request_is_whole_is_logged_as_such() -> None:
    client = Client()
    assert client("POST", "/v1/chat/completions", CHAT[:20], left=True) == (0, b"")
    assert " status=- " in client.lines[0]
    assert " ended=client_left " in client.lines[0]
    assert client.front.running == 0


def test_an_answer_that_stays_unfinished_is_logged_as_such() -> None:
    async def unfinished(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    client = Client(unfinished)
    client("POST", "/v1/chat/completions", CHAT)
    assert " status=200 " in client.lines[0]
    assert " ended=client_left " in client.lines[0]


def test_a_client_that_leaves_in_midst_of_an_answer_is_logged_as_such() -> None:
    """MAX ends the answer in due form then, to nobody, or with the status that its own log has for it."""

    async def hurried(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 499, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = Client(hurried)
    client("POST", "/v1/chat/completions", CHAT)
    assert " status=499 " in client.lines[0]
    assert " ended=client_left " in client.lines[0]


def test_a_client_that_leaves_after_its_answer_has_it() -> None:
    async def listening(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    client = Client(listening)
    client("POST", "/v1/chat/completions", CHAT)
    assert " ended=ok " in client.lines[0]


@pytest.mark.parametrize(
    ("error", "ended"), [(ValueError, "error"), (asyncio.CancelledError, "stopped")]
)
def test_an_error_goes_on_and_is_logged(error: Callable[[], BaseException], ended: str) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise error()

    client = Client(broken)
    with pytest.raises((ValueError, asyncio.CancelledError)):
        client("POST", "/v1/chat/completions", CHAT)
    assert f" ended={ended} " in client.lines[0]
    assert client.front.running == 0
