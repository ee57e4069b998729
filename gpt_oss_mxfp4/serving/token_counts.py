"""Counts the tokens of each exchange."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from max.serve.pipelines.llm import TokenGeneratorPipeline

from gpt_oss_mxfp4.serving.access_log import CURRENT, Exchange


@functools.cache
def count_tokens() -> None:
    """Begins to count, chunk by chunk; after the endpoint's hooks are installed, which this one goes around.

    Not by what MAX measures at a request's end: where a client left, that is when its generator is collected, in
    whatever exchange's task that happens.
    """
    original: Any = TokenGeneratorPipeline.next_token_chunk

    @functools.wraps(original)
    async def next_token_chunk(
        self: Any, request: Any, *, parse_reasoning: bool = True
    ) -> AsyncGenerator[Any, None]:
        exchange = CURRENT.get()
        chunks = await original(self, request, parse_reasoning=parse_reasoning)
        return chunks if exchange is None else counted(chunks, exchange)

    setattr(TokenGeneratorPipeline, "next_token_chunk", next_token_chunk)  # noqa: B010  mypy


async def counted(
    chunks: AsyncGenerator[Any, None], exchange: Exchange
) -> AsyncGenerator[Any, None]:
    """Passes chunks on, and adds their tokens to the exchange that they are of.

    Args:
        chunks: MAX's TokenGeneratorOutput.
        exchange: to add to.
    """
    prompt: int | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if prompt is None and chunk.prompt_token_count is not None:
                prompt = chunk.prompt_token_count
                exchange.prompt_tokens = (exchange.prompt_tokens or 0) + prompt
            exchange.tokens = (
                (exchange.tokens or 0) + chunk.token_count + chunk.reasoning_token_count
            )
            yield chunk
