"""What the clients of scripts/soak.py do: right requests and wrong ones, by chance."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

MODEL = "gpt-oss-mxfp4-demo"
PROMPTS = [f"What is {a} + {b}?" for a in (17, 968, 4587) for b in (5, 333, 2048)]


@dataclass
class Load:
    """What is asked, and what came of it.

    Args:
        client: talks to the server.
        turns: taken, by kind.
        faults: what was not as expected, one text each.
        answers: first answer by request.
    """

    client: httpx.AsyncClient
    turns: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)

    async def take_turns(self, seed: int, until: float) -> None:
        """Is one client."""
        chance = random.Random(seed)
        kinds: list[Callable[[random.Random], Awaitable[None]]] = [
            *(self.chat, self.chat, self.streamed_chat, self.streamed_chat),
            *(self.completion, self.leave, self.wrong_request, self.wrong_bytes),
        ]
        while time.monotonic() < until:
            kind = chance.choice(kinds)
            try:
                await kind(chance)
            except (httpx.ConnectError, ConnectionRefusedError) as error:
                self.faults.append(f"{kind.__name__}: {type(error).__name__} {error}")
                return  # nobody listens any more
            except (httpx.HTTPError, KeyError, ValueError, AssertionError) as error:
                self.faults.append(f"{kind.__name__}: {type(error).__name__} {error}")
            self.turns[kind.__name__] += 1

    async def chat(self, chance: random.Random) -> None:
        """Asks, and gets the answer whole."""
        request = _chat(chance)
        answer = await self.client.post("/v1/chat/completions", json=request)
        assert answer.status_code == 200, answer.text
        self._compare(request, _text(answer.json()["choices"][0]["message"]))

    async def streamed_chat(self, chance: random.Random) -> None:
        """Asks, and gets the same answer in pieces."""
        request, text = _chat(chance), ""
        async with self._stream(request) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    text += _text(json.loads(line.removeprefix("data: "))["choices"][0]["delta"])
        self._compare(request, text)

    async def completion(self, chance: random.Random) -> None:
        """Continues a prompt, by chance."""
        request = {
            "model": MODEL,
            "prompt": chance.choice(PROMPTS),
            "max_tokens": chance.randint(1, 40),
            "temperature": 1,
        }
        answer = await self.client.post("/v1/completions", json=request)
        assert answer.status_code == 200, answer.text

    async def leave(self, chance: random.Random) -> None:
        """Hangs up in midst of an answer, or before it."""
        async with self._stream(_chat(chance) | {"max_tokens": 200}) as answer:
            pieces = chance.randint(0, 5)
            async for _ in answer.aiter_lines():
                pieces -= 1
                if pieces < 0:
                    return

    async def wrong_request(self, chance: random.Random) -> None:
        """Asks for what is refused."""
        cases: list[tuple[dict[str, Any], int]] = [
            ({"model": "none"}, 404),
            ({"temperature": 9}, 400),
            ({"messages": []}, 400),
            ({"n": 3}, 400),
            ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400),
            ({"user": "x" * 5_000_000}, 413),
        ]
        fields, status = chance.choice(cases)
        answer = await self.client.post("/v1/chat/completions", json=_chat(chance) | fields)
        assert answer.status_code == status, answer.text[:300]
        assert answer.json()["error"]["message"]

    async def wrong_bytes(self, chance: random.Random) -> None:
        """Sends what is no request, or breaks off."""
        junk = chance.choice(
            [b"\x16\x03\x01", b"GET\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\n", b""]
        )
        url = self.client.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(junk + chance.randbytes(100))
        writer.close()

    def _stream(self, request: dict[str, Any]) -> Any:
        return self.client.stream("POST", "/v1/chat/completions", json=request | {"stream": True})

    def _compare(self, request: dict[str, Any], text: str) -> None:
        first = self.answers.setdefault(json.dumps(request), text)
        assert text == first, f"{request['messages']}: {text!r} is not {first!r}"


def _chat(chance: random.Random) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": chance.choice(PROMPTS)}],
        "max_tokens": chance.choice([5, 60, 200]),
        "temperature": 0,
    }


def _text(message: dict[str, Any]) -> str:
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return reasoning + (message.get("content") or "")
