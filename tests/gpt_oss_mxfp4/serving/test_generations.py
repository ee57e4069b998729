"""Tokens are counted for the exchange that asked for them, whoever else is served meanwhile, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from max.serve.pipelines.llm import TokenGeneratorPipeline

from gpt_oss_mxfp4.serving.access_log import CURRENT, Exchange
from gpt_oss_mxfp4.serving.generations import follow_generations


class Generation:
    """What gives four chunks for each request, each with the prompt's tokens, as MAX does."""

    def __init__(self) -> None:
        self.parse_reasoning: bool | None = None
        self.open = 0
        self.awaited = asyncio.Event()
        self.cancelled: list[Any] = []

    async def next_token_chunk(
        self, pipeline: Any, request: Any, *, parse_reasoning: bool = True
    ) -> AsyncGenerator[Any, None]:
        self.parse_reasoning = parse_reasoning
        return self._chunks()

    async def _chunks(self) -> AsyncGenerator[Any, None]:
        self.open += 1
        try:
            for _ in range(4):
                yield SimpleNamespace(prompt_token_count=5, token_count=1, reasoning_token_count=2)
                await self.awaited.wait()
        finally:
            self.open -= 1


@pytest.fixture
def generation() -> Generation:
    return Generation()


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, generation: Generation) -> Any:
    """Gives the generation's chunks, followed."""

    async def original(self: Any, request: Any, **options: Any) -> Any:
        return await generation.next_token_chunk(self, request, **options)

    monkeypatch.setattr(TokenGeneratorPipeline, "next_token_chunk", original)
    follow_generations.cache_clear()
    follow_generations()
    pipeline: Any = TokenGeneratorPipeline.__new__(TokenGeneratorPipeline)
    pipeline.model_worker = SimpleNamespace(cancel=generation.cancelled.append)
    yield pipeline
    follow_generations.cache_clear()


def test_all_tokens_are_counted_once(pipeline: Any, generation: Generation) -> None:
    generation.awaited.set()
    exchange = Exchange("POST", "/")

    async def ask() -> None:
        CURRENT.set(exchange)
        for _ in range(2):  # as for two prompts
            async for _chunk in await pipeline.next_token_chunk(None):
                pass

    asyncio.run(ask())
    assert (exchange.prompt_tokens, exchange.tokens) == (10, 24)


def test_a_stream_that_is_left_has_its_tokens_before_it_is_collected(
    pipeline: Any, generation: Generation
) -> None:
    left, other = Exchange("POST", "/left"), Exchange("POST", "/other")

    async def ask() -> None:
        CURRENT.set(left)
        generator = await pipeline.next_token_chunk(None)
        await anext(generator)
        CURRENT.set(other)  # by whose task it is collected
        assert (left.prompt_tokens, left.tokens) == (5, 3)
        assert generation.open == 1
        await generator.aclose()
        assert generation.open == 0, "the model goes on for nobody"

    asyncio.run(ask())
    assert (left.prompt_tokens, left.tokens) == (5, 3)
    assert (other.prompt_tokens, other.tokens) == (None, None)


def test_requests_of_no_exchange_pass_as_they_are(pipeline: Any, generation: Generation) -> None:
    generation.awaited.set()

    async def ask() -> int:
        chunks = await pipeline.next_token_chunk(None, parse_reasoning=False)
        return len([chunk async for chunk in chunks])

    assert asyncio.run(ask()) == 4
    assert generation.parse_reasoning is False


def test_what_is_left_ends_with_the_exchange(pipeline: Any, generation: Generation) -> None:
    """Though somebody holds it still, as a cycle of an error and its frames does."""
    held = []

    async def ask() -> None:
        exchange = Exchange("POST", "/left")
        CURRENT.set(exchange)
        async with exchange.at_end:
            for name in ("a", "b", "never begun"):
                held.append(await pipeline.next_token_chunk(SimpleNamespace(request_id=name)))
            for chunks in held[:2]:
                await anext(chunks)
            assert generation.open == 2
        assert generation.open == 0, "the model goes on for nobody"

    asyncio.run(ask())
    assert sorted(generation.cancelled) == ["a", "b", "never begun"]


def test_what_comes_to_the_model_after_the_exchange_is_cancelled(
    pipeline: Any, generation: Generation
) -> None:
    """A prompt that was still being tokenized when another one was refused."""

    async def ask() -> None:
        exchange = Exchange("POST", "/refused", over=True)
        CURRENT.set(exchange)
        chunks = await pipeline.next_token_chunk(SimpleNamespace(request_id="late"))
        assert await anext(chunks, None) is None

    asyncio.run(ask())
    assert generation.cancelled == ["late"]


def test_a_worker_that_is_gone_is_no_fault_of_the_exchange(
    pipeline: Any, generation: Generation
) -> None:
    def cancel(name: str) -> None:
        raise OSError(name)

    async def ask() -> None:
        pipeline.model_worker.cancel = cancel
        exchange = Exchange("POST", "/left")
        CURRENT.set(exchange)
        async with exchange.at_end:
            await anext(await pipeline.next_token_chunk(SimpleNamespace(request_id="a")))
        assert generation.open == 0

    asyncio.run(ask())


def test_what_waits_for_tokens_is_cancelled_with_the_exchange(
    pipeline: Any, generation: Generation
) -> None:
    request = SimpleNamespace(request_id="one of two prompts")

    async def ask() -> None:
        exchange = Exchange("POST", "/refused")
        CURRENT.set(exchange)
        async with exchange.at_end:
            chunks = await pipeline.next_token_chunk(request)
            await anext(chunks)
            waiting = asyncio.create_task(anext(chunks))
            await asyncio.sleep(0)
        assert generation.cancelled == ["one of two prompts"]
        generation.awaited.set()
        await waiting

    asyncio.run(ask())


def test_what_is_complete_ends_once(pipeline: Any, generation: Generation) -> None:
    generation.awaited.set()

    async def ask() -> None:
        exchange = Exchange("POST", "/")
        CURRENT.set(exchange)
        async with exchange.at_end:
            assert len([chunk async for chunk in await pipeline.next_token_chunk(None)]) == 4

    asyncio.run(ask())
    assert generation.cancelled == []
